"""Key layouts of Oobleck: Diffusers, and the numbered layers of stable-audio-tools."""

from vaeport.mapping.rules import Layout, Rule, Units

_SPELLINGS = (
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)


def _snake(native: str, foreign: str, units: Units) -> tuple[Rule, ...]:
    return (
        Rule(f"{native}.log_alpha", f"{foreign}.alpha", units),
        Rule(f"{native}.log_beta", f"{foreign}.beta", units),
    )


def _unit(native: str, foreign: str, names: tuple[str, str, str, str], units: Units) -> tuple[Rule, ...]:
    snake1, conv1, snake2, conv2 = (f"{foreign}.{name}" for name in names)
    return (
        *_snake(f"{native}.main.snake1", snake1, units),
        *_snake(f"{native}.main.snake2", snake2, units),
        Rule(f"{native}.main.conv1.{{rest*}}", f"{conv1}.{{rest}}"),
        Rule(f"{native}.main.conv2.{{rest*}}", f"{conv2}.{{rest}}"),
    )


def _rules(
    *,
    ends: tuple[str, str, str],
    level: str,
    down: tuple[str, str, str],
    up: tuple[str, str, str],
    unit: tuple[str, str, str, str],
    units: Units,
) -> tuple[Rule, ...]:
    """ends: first conv, last snake, last conv; down, up: unit j, snake, conv of a level."""
    rules: list[Rule] = []
    for half, (units_at, snake_at, conv_at) in (("encoder", down), ("decoder", up)):
        native, foreign = f"{half}.levels.{{i}}", f"{half}.{level}"
        rules += _unit(f"{native}.units.{{j}}", f"{foreign}.{units_at}", unit, units)
        rules += _snake(f"{native}.snake", f"{foreign}.{snake_at}", units)
        rules.append(Rule(f"{native}.conv.{{rest*}}", f"{foreign}.{conv_at}.{{rest}}"))
        rules.append(Rule(f"{half}.conv_in.{{rest*}}", f"{half}.{ends[0]}.{{rest}}"))
        rules += _snake(f"{half}.snake_out", f"{half}.{ends[1]}", units)
        rules.append(Rule(f"{half}.conv_out.{{rest*}}", f"{half}.{ends[2]}.{{rest}}"))
    return tuple(rules)


DIFFUSERS = Layout(
    name="diffusers",
    rules=_rules(
        ends=("conv1", "snake1", "conv2"),
        level="block.{i}",
        down=("res_unit{j+1}", "snake1", "conv1"),
        up=("res_unit{j+1}", "snake1", "conv_t1"),
        unit=("snake1", "conv1", "snake2", "conv2"),
        units=Units(lead=1, trail=1),
    ),
    spellings=_SPELLINGS,
)

OFFICIAL = Layout(
    name="stable-audio-tools",
    prefixes=("pretransform.model.", "autoencoder.", ""),
    rules=_rules(
        ends=("layers.0", "layers.6", "layers.7"),
        level="layers.{i+1}",
        down=("layers.{j}", "layers.3", "layers.4"),
        up=("layers.{j+2}", "layers.0", "layers.1"),
        unit=("layers.0", "layers.1", "layers.2", "layers.3"),
        units=Units(),
    ),
    spellings=_SPELLINGS,
)

LAYOUTS = (DIFFUSERS, OFFICIAL)
