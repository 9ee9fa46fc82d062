"""The words: small building blocks, each with its formula, its shapes, and how it runs in a stream. Torch only."""

from vaeport.layers.activation import SiLU, Snake
from vaeport.layers.attention import SelfAttention
from vaeport.layers.blocks import Norm, attention_block, residual_block
from vaeport.layers.combine import Add, Chain, PerFrame, SplitFirst
from vaeport.layers.conv import Conv, WeightNormConv
from vaeport.layers.conv_transpose import WeightNormConvTranspose1d
from vaeport.layers.layer import (
    HEIGHT,
    SAMPLES,
    TIME,
    WIDTH,
    Barrier,
    Identity,
    Layer,
    run_in_pieces,
    stream,
)
from vaeport.layers.norm import ChannelRMSNorm, GroupNorm
from vaeport.layers.normalizer import LatentNormalizer
from vaeport.layers.pad import ReplicatePad
from vaeport.layers.posterior import DiagonalGaussian, SoftplusGaussian
from vaeport.layers.resample import ChannelsToTime, NearestUpsample, RepeatFrames

__all__ = [
    "HEIGHT",
    "SAMPLES",
    "TIME",
    "WIDTH",
    "Add",
    "Barrier",
    "Chain",
    "ChannelRMSNorm",
    "ChannelsToTime",
    "Conv",
    "DiagonalGaussian",
    "GroupNorm",
    "Identity",
    "LatentNormalizer",
    "Layer",
    "NearestUpsample",
    "Norm",
    "PerFrame",
    "RepeatFrames",
    "ReplicatePad",
    "SelfAttention",
    "SiLU",
    "Snake",
    "SoftplusGaussian",
    "SplitFirst",
    "WeightNormConv",
    "WeightNormConvTranspose1d",
    "attention_block",
    "residual_block",
    "run_in_pieces",
    "stream",
]
