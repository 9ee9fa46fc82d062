"""The words: small building blocks, each with its formula, its shapes, and how it runs in a stream. Torch only."""

from vaeport.layers.activation import SiLU, Snake
from vaeport.layers.attention import FrameCausalAttention, SelfAttention
from vaeport.layers.blocks import Norm, attention_block, residual_block
from vaeport.layers.channels import GroupMean, RepeatChannels, SharedLogvar, TileChannels
from vaeport.layers.combine import Add, Chain, PerFrame
from vaeport.layers.condition import Conditioned, Modulation, SpatialNoise, TimestepEmbedding, TimestepScale
from vaeport.layers.conv import Conv, WeightNormConv
from vaeport.layers.conv_transpose import WeightNormConvTranspose1d
from vaeport.layers.frames import DropFrames
from vaeport.layers.layer import (
    HEIGHT,
    SAMPLES,
    TIME,
    WIDTH,
    Barrier,
    Conditions,
    Identity,
    Layer,
    Settled,
    run_in_pieces,
    stream,
)
from vaeport.layers.norm import ChannelLayerNorm, ChannelRMSNorm, GroupNorm, PixelNorm
from vaeport.layers.normalizer import LatentNormalizer, StoredNormalizer
from vaeport.layers.pad import Pad
from vaeport.layers.posterior import DiagonalGaussian, NormalizedGaussian, SoftplusGaussian
from vaeport.layers.random import standard_normal
from vaeport.layers.resample import ChannelsToTime, NearestUpsample, RepeatFrames
from vaeport.layers.shuffle import Shuffle, Unshuffle
from vaeport.layers.split import SplitFirst

__all__ = [
    "HEIGHT",
    "SAMPLES",
    "TIME",
    "WIDTH",
    "Add",
    "Barrier",
    "Chain",
    "ChannelLayerNorm",
    "ChannelRMSNorm",
    "ChannelsToTime",
    "Conditioned",
    "Conditions",
    "Conv",
    "DiagonalGaussian",
    "DropFrames",
    "FrameCausalAttention",
    "GroupMean",
    "GroupNorm",
    "Identity",
    "LatentNormalizer",
    "Layer",
    "Modulation",
    "NearestUpsample",
    "Norm",
    "NormalizedGaussian",
    "Pad",
    "PerFrame",
    "PixelNorm",
    "RepeatChannels",
    "RepeatFrames",
    "SelfAttention",
    "Settled",
    "SharedLogvar",
    "Shuffle",
    "SiLU",
    "Snake",
    "SoftplusGaussian",
    "SpatialNoise",
    "SplitFirst",
    "StoredNormalizer",
    "TileChannels",
    "TimestepEmbedding",
    "TimestepScale",
    "Unshuffle",
    "WeightNormConv",
    "WeightNormConvTranspose1d",
    "attention_block",
    "residual_block",
    "run_in_pieces",
    "standard_normal",
    "stream",
]
