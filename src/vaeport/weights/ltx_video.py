"""Key layouts of LTX-Video: Diffusers, and the official single files, whose blocks lie in one flat list per half."""

from vaeport.mapping.rules import Layout, Rule
from vaeport.weights.ltx_tables import (
    DIFFUSERS_RULES,
    FOLDED_ENCODER,
    OFFICIAL_ENDS,
    STATISTICS_DROPS,
    UNFOLDED_DECODER,
    official_block,
    official_stage,
    ways,
)

DIFFUSERS = Layout(name="diffusers", rules=DIFFUSERS_RULES)

_STRIDED_ENCODER = (
    *official_stage("encoder.levels.3", "encoder.down_blocks.8"),
    *official_stage("encoder.levels.{i}", "encoder.down_blocks.{3*i}"),
    *ways("encoder.levels.{i}.down", "encoder.down_blocks.{3*i+1}"),
    *official_block("encoder.levels.{i}.widen", "encoder.down_blocks.{3*i+2}"),
    *official_stage("encoder.middle", "encoder.down_blocks.9"),
)

_NARROWING_DECODER = (
    *official_stage("decoder.middle", "decoder.up_blocks.0"),
    *official_stage("decoder.levels.0", "decoder.up_blocks.1"),
    *ways("decoder.levels.1.up", "decoder.up_blocks.2"),
    *official_block("decoder.levels.{i}.narrow", "decoder.up_blocks.{3*i-2}"),
    *ways("decoder.levels.{i}.up", "decoder.up_blocks.{3*i-1}"),
    *official_stage("decoder.levels.{i}", "decoder.up_blocks.{3*i}"),
)


def _official(name: str, rules: tuple[Rule, ...]) -> Layout:
    return Layout(
        name=name,
        rules=rules,
        prefixes=("vae.", ""),
        spellings=((r"\.resnets\.", ".res_blocks."),),
        drops=STATISTICS_DROPS,
    )


OFFICIAL_0_9_0 = _official("ltxv-official-0.9.0", (*_STRIDED_ENCODER, *_NARROWING_DECODER, *OFFICIAL_ENDS))
OFFICIAL_0_9_1 = _official("ltxv-official-0.9.1", (*_STRIDED_ENCODER, *UNFOLDED_DECODER, *OFFICIAL_ENDS))
OFFICIAL_0_9_5 = _official("ltxv-official-0.9.5", (*FOLDED_ENCODER, *UNFOLDED_DECODER, *OFFICIAL_ENDS))

LAYOUTS = (DIFFUSERS, OFFICIAL_0_9_0, OFFICIAL_0_9_1, OFFICIAL_0_9_5)
