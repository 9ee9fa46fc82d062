"""Rules that the key layouts of LTX-Video and LTX-2 share."""

from vaeport.mapping.rules import Drop, Rule, Units

STATISTICS_DROPS = (Drop(r"per_channel_statistics\.(channel|mean-of-stds.*)", "statistics that nothing reads"),)


def block(native: str, foreign: str, norm3: str, shortcut: str) -> tuple[Rule, ...]:
    """A residual block; its modulations are halves of one table."""
    return (
        *(Rule(f"{native}.main.conv{n}.conv.{{rest*}}", f"{foreign}.conv{n}.conv.{{rest}}") for n in (1, 2)),
        *(Rule(f"{native}.main.modulate{n}.table", f"{foreign}.scale_shift_table#{n - 1}/2") for n in (1, 2)),
        *(Rule(f"{native}.main.noise{n}.scale", f"{foreign}.per_channel_scale{n}", Units(trail=2)) for n in (1, 2)),
        Rule(f"{native}.shortcut.norm.{{rest*}}", f"{foreign}.{norm3}.{{rest}}"),
        Rule(f"{native}.shortcut.conv.{{rest*}}", f"{foreign}.{shortcut}.{{rest}}"),
    )


def stage(native: str, foreign: str, resnets: str, *names: str) -> tuple[Rule, ...]:
    """The blocks of a level, and the embedding that they share."""
    return (
        *block(f"{native}.blocks.{{j}}", f"{foreign}.{resnets}.{{j}}", *names),
        Rule(f"{native}.embed.{{rest*}}", f"{foreign}.time_embedder.timestep_embedder.{{rest}}"),
    )


def ways(native: str, foreign: str) -> tuple[Rule, ...]:
    """The convolution of a way: strided, folded or unfolded, alone or beside a shortcut."""
    return (
        Rule(f"{native}.sum.main.conv.{{rest*}}", f"{foreign}.conv.{{rest}}"),
        Rule(f"{native}.sum.conv.{{rest*}}", f"{foreign}.conv.{{rest}}"),
        Rule(f"{native}.{{rest*}}", f"{foreign}.{{rest}}"),
    )


def ends(mean: str, std: str, last: str) -> tuple[Rule, ...]:
    """What stands before, after and beside the levels; `last` precedes the names of the decoder's own modulation."""
    return (
        *(
            Rule(f"{half}.{conv}.{{rest*}}", f"{half}.{conv}.{{rest}}")
            for half in ("encoder", "decoder")
            for conv in ("conv_in", "conv_out")
        ),
        Rule("decoder.out.embed.{rest*}", f"decoder.{last}time_embedder.timestep_embedder.{{rest}}"),
        Rule("decoder.out.modulate.table", f"decoder.{last}scale_shift_table"),
        Rule("decoder.multiplier", "decoder.timestep_scale_multiplier"),
        Rule("normalizer.mean", mean),
        Rule("normalizer.std", std),
    )


_NAMES = ("norm3", "conv_shortcut.conv")
DIFFUSERS_RULES = (
    *stage("encoder.levels.{i}", "encoder.down_blocks.{i}", "resnets", *_NAMES),
    *ways("encoder.levels.{i}.down", "encoder.down_blocks.{i}.downsamplers.0"),
    *block("encoder.levels.{i}.widen", "encoder.down_blocks.{i}.conv_out", *_NAMES),
    *stage("encoder.middle", "encoder.mid_block", "resnets", *_NAMES),
    *stage("decoder.middle", "decoder.mid_block", "resnets", *_NAMES),
    *block("decoder.levels.{i}.narrow", "decoder.up_blocks.{i}.conv_in", *_NAMES),
    *ways("decoder.levels.{i}.up", "decoder.up_blocks.{i}.upsamplers.0"),
    *stage("decoder.levels.{i}", "decoder.up_blocks.{i}", "resnets", *_NAMES),
    *ends("latents_mean", "latents_std", ""),
)

_OFFICIAL_NAMES = ("norm3.norm", "conv_shortcut")
OFFICIAL_ENDS = ends("per_channel_statistics.mean-of-means", "per_channel_statistics.std-of-means", "last_")
"""official, of all"""


def official_stage(native: str, foreign: str) -> tuple[Rule, ...]:
    """As `stage`, under the official names."""
    return stage(native, foreign, "res_blocks", *_OFFICIAL_NAMES)


def official_block(native: str, foreign: str) -> tuple[Rule, ...]:
    """As `block`, under the official names."""
    return block(native, foreign, *_OFFICIAL_NAMES)


FOLDED_ENCODER = (
    *official_stage("encoder.levels.{i}", "encoder.down_blocks.{2*i}"),
    *ways("encoder.levels.{i}.down", "encoder.down_blocks.{2*i+1}"),
    *official_stage("encoder.middle", "encoder.down_blocks.8"),
)
"""official, of four levels that are folded into each other"""

UNFOLDED_DECODER = (
    *official_stage("decoder.middle", "decoder.up_blocks.0"),
    *ways("decoder.levels.{i}.up", "decoder.up_blocks.{2*i+1}"),
    *official_stage("decoder.levels.{i}", "decoder.up_blocks.{2*i+2}"),
)
"""official, every level behind a way"""
