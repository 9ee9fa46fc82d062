"""Checks on added model files: ours pass, every rule has a file that breaks it and no other, and nothing is run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from vaeport.errors import ConfigError
from vaeport.port.model_checks import MODEL_RULES, check_model
from vaeport.port.model_constants import constants_outside
from vaeport.port.model_file import snake_case
from vaeport.port.model_words import named_after

MODELS = Path(__file__).resolve().parents[2] / "src" / "vaeport" / "models"
OWN = sorted(path for path in MODELS.glob("*.py") if "\nEntryClass = " in path.read_text("utf-8"))
"""those that register a model; tables that several share lie beside them"""
WAN = (MODELS / "wan.py").read_text("utf-8")
END = "EntryClass = Wan\n"
VARIANTS = 'Wan.variants = {"wan2.1": WanArchConfig()}\n'
BUCKET = "config_class = VideoVAEConfig"
IMPORT = "from vaeport.vae import VAE\n"

# Rule, what stands in the Wan file, what breaks it, what the line that is told holds ("" for the whole file).
BREAKS = [
    ("entry-class", END, "", ""),
    ("entry-class", END, "EntryClas = Wan\n", ""),
    ("entry-class-last", END, END + "\nLATER = None\n", "EntryClass"),
    ("entry-class-last", END, "EntryClass = Wan; LATER = None\n", "EntryClass"),
    ("entry-class-last", END, f"if True:\n    {END}", "EntryClass"),
    ("entry-class-last", VARIANTS, VARIANTS + END, "EntryClass"),
    ("entry-class-here", END, "EntryClass = VAE\n", "EntryClass"),
    ("entry-class-here", END, "EntryClass = causal\n", "EntryClass"),
    ("model-unreadable", END, "EntryClass = [Wan]\n", "EntryClass"),
    ("model-unreadable", '("WanVAE", "WanVAE_")', "names()", "aliases"),
    ("model-unreadable", "def causal(", "def causal((", "def causal"),
    ("model-unreadable", '"""Wan 2.1', '\0"""Wan 2.1', ""),
    ("wrong-bucket", BUCKET, "config_class = configs.ImageVAEConfig", "config_class"),
    ("wrong-bucket", 'modality="video"', 'modality="audio"', "config_class"),
    ("wrong-bucket", 'modality="video"', 'modality="film"', "modality"),
    (
        "wrong-bucket",
        f"{BUCKET}\n",
        "config_class = WanConfig\n",
        "config_class",
    ),
    ("reference-import", IMPORT, "import diffusers\n" + IMPORT, "import diffusers"),
    ("reference-import", IMPORT, "from diffusers.models.vae import VAE\n", "diffusers"),
    ("reference-import", "    half =", "    from transformers import AutoModel as A\n    half =", "transformers"),
    ("reference-import", "    half =", '    importlib.import_module("diffusers.models")\n    half =', "diffusers"),
    ("reference-import", "    half =", '    importlib.import_module(name="diffusers")\n    half =', "diffusers"),
    ("reference-import", IMPORT, IMPORT + "from importlib import import_module as get\nget('diffusers')\n", "get('d"),
    ("reference-import", "    half =", '    __import__("diff" + "users")\n    half =', "__import__"),
    ("reference-import", "    half =", '    pkgutil.resolve_name("diffusers:VAE")\n    half =', "diffusers"),
    ("tiling-or-device", "    encode_pieces", "    use_tiling = False\n    encode_pieces", "use_tiling"),
    ("tiling-or-device", "def image_conv(channels: int", "def image_conv(tiles: int, channels: int", "tiles: int"),
    ("tiling-or-device", "    half =", "    x = torch.zeros(1).cuda()\n    half =", "cuda"),
    ("tiling-or-device", "    half =", '    x = torch.zeros(1).to("cuda:0")\n    half =', "cuda:0"),
    ("tiling-or-device", "    half =", "    x = torch.zeros(1, device=y)\n    half =", "device"),
    ("tiling-or-device", IMPORT, IMPORT + "from vaeport.runtime.tiling import blend\n", "tiling"),
    ("constant-outside", "widths = [arch.base_dim * m", "widths = [96 * m", "96"),
    ("constant-outside", "ChannelRMSNorm(widths[-1])", "ChannelRMSNorm(widths[-1], eps=1e-6)", "1e-6"),
    ("constant-outside", "latent_channels=arch.z_dim", "latent_channels=4", "latent_channels"),
    ("constant-outside", "for m in arch.dim_mult]", "for m in (1, 2, 4, 4)]", "(1, 2, 4, 4)"),
    ("constant-outside", "for m in arch.dim_mult]", "for m in [1, 1, True]]", "[1, 1, True]"),
    ("constant-outside", "shift=arch.latents_mean", "shift=(-0.75, -0.7)", "(-0.75, -0.7)"),
    ("constant-outside", "shift=arch.latents_mean", "shift=-0.75", "-0.75"),
    ("constant-outside", "multiple=time", "multiple=4", "multiple=4"),
    ("constant-outside", "blocks: int, resample: Layer | None", "resample: Layer, blocks: int = 2", "blocks: int = 2"),
    ("constant-outside", BUCKET, f"{BUCKET}\n    sample_rate = 8", "sample_rate = 8"),
    ("constant-outside", VARIANTS, VARIANTS + "_STD = (2.8, 1.4)\n", "_STD"),
]


def write(folder: Path, source: str, name: str = "wan.py") -> Path:
    file = folder / name
    file.write_text(source, "utf-8")
    return file


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_our_models_are_right(path: Path) -> None:
    assert check_model(path) == []
    assert check_model(path, importing=True) == []


def test_the_numbers_of_our_arch_configs_are_seen_where_they_stand() -> None:
    """What keeps our files clean is where their constants are, not that none is seen."""
    sources = [path.read_text("utf-8") for path in sorted(MODELS.glob("*.py"))]
    with_arch = [source for source in sources if "(VAEArchConfig):" in source]
    assert len(with_arch) >= 7
    for source in with_arch:
        assert len(list(constants_outside(ast.parse(source), set()))) >= 5


@pytest.mark.parametrize(("rule", "before", "after", "line"), BREAKS)
def test_a_file_that_breaks_one_rule(tmp_path: Path, rule: str, before: str, after: str, line: str) -> None:
    assert before in WAN
    source = WAN.replace(before, after, 1)
    if "WanConfig" in after:
        source = source.replace("class Wan(VAE)", "class WanConfig(ImageVAEConfig):\n    pass\n\n\nclass Wan(VAE)")
    path = write(tmp_path, source)
    found = check_model(path)
    assert {one.rule for one in found} == {rule}, found
    for one in found:
        assert (one.what, bool(one.expected), bool(one.found), bool(one.fix)) == (MODEL_RULES[rule], True, True, True)
        place, _, number = one.where.rpartition(":") if line else (one.where, "", "")
        assert place == str(path)
        assert line in source.splitlines()[int(number or 1) - 1]


def test_every_rule_is_broken_by_a_file() -> None:
    assert {row[0] for row in BREAKS} | {"file-name", "not-importable"} == set(MODEL_RULES)


# What a builder may hold.


@pytest.mark.parametrize(
    "free",
    [
        "Conv(c, c, (3, 1, 1), stride=(2, 1, 1), pad=((2, 0), (0, 0), (0, 0)))",
        "F.pad(x, (0, 1, 0, 1, 2, 0))",
        "x.permute(0, 2, 3, 4, 1)",
        "x.clamp(-30.0, 20.0)",
        "LatentContract(clamp=(-1.0, 1.0), value_range=(0.0, 255.0), shift=0.0, scale=1.0)",
        "[f(i) for i in range(24)]",
        "F.interpolate(x, scale_factor=2.0)",
        "torch.cat(xs, dim=2).softmax(dim=-1).flatten(start_dim=2)",
        "x * 0.5 + 2 ** len(xs)",
        "conv(c, c, 7, groups=1, bias=False)",
        "'the widths are 128, 256 and 512'",
    ],
)
def test_what_is_no_constant_of_an_architecture(free: str) -> None:
    assert [ast.unparse(node) for node in constants_outside(ast.parse(f"def f(x, c):\n    return {free}"), set())] == []


def test_constants_that_only_the_arch_config_reads(tmp_path: Path) -> None:
    """They may stand above it; what a builder reads too may not."""
    named = WAN.replace("base_dim: int = 96", "base_dim: int = _WIDTH").replace(
        "@dataclass", "_WIDTH = 96\n\n\n@dataclass"
    )
    assert check_model(write(tmp_path, named)) == []
    read = named.replace("[arch.base_dim * m", "[_WIDTH * m")
    assert [one.found for one in check_model(write(tmp_path, read))] == ["96"]


def test_variants_hold_constants() -> None:
    source = "_A = AArchConfig(widths=(1, 2, 4, 8))\n_B = _A.replace(z_dim=16)\n"
    assert (
        list(constants_outside(ast.parse(source + "A.variants = {'a': _A.replace(eps=1e-6)}"), {"AArchConfig"})) == []
    )
    inside = "def f():\n    return AArchConfig(z_dim=16)"
    assert len(list(constants_outside(ast.parse(inside), {"AArchConfig"}))) == 1


# Names.


@pytest.mark.parametrize(
    ("name", "family", "right"),
    [
        ("wan", None, True),
        ("autoencoder_kl_wan", None, True),
        ("kl_wan", None, True),
        ("autoencoder", None, False),
        ("vae", None, False),
        ("new", None, False),
        ("wa", None, False),
        ("wanvae", None, False),
        ("wanvae", "wan", True),
        ("skyreels", "skyreels", True),
        ("skyreels_v2", "skyreels", True),
        ("hunyuan", "skyreels", False),
    ],
)
def test_file_names(tmp_path: Path, name: str, family: str | None, right: bool) -> None:
    source = WAN.replace('aliases = ("WanVAE", "WanVAE_")', "aliases = ()")
    path = write(tmp_path, source, f"{name}.py")
    found = check_model(path, family=family)
    assert [(one.rule, one.where, one.found) for one in found] == ([] if right else [("file-name", str(path), name)])


def test_words_of_names() -> None:
    names = ("AutoencoderKLWan", "WanVAE_", "SAAudioVAEModel", "LTX2VideoVAE", "AutoencoderKLLTX2Video", "GameCraftVAE")
    assert [snake_case(name) for name in names] == [
        *("autoencoder_kl_wan", "wan_vae", "sa_audio_vae_model"),
        *("ltx2_video_vae", "autoencoder_kl_ltx2_video", "game_craft_vae"),
    ]
    assert named_after("gamecraft", ["game_craft_vae"], None)
    assert named_after("ltx2", ["autoencoder_kl_ltx2_video"], None)
    assert not named_after("craftv", ["game_craft_vae"], None)


# Importing.


def test_nothing_is_run_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path, WAN.replace(VARIANTS, VARIANTS + "raise SystemExit('run')\n"))
    assert check_model(path) == []
    (found,) = check_model(path, importing=True)
    assert (found.rule, found.where) == ("not-importable", str(path))


@pytest.mark.parametrize(
    ("rule", "before", "after", "says"),
    [
        ("not-importable", IMPORT, IMPORT + "from vaeport.layers import Nothing\n", "Nothing"),
        ("not-importable", IMPORT, IMPORT + "import vaeport_has_no_such_library\n", "vaeport_has_no_such_library"),
        ("wrong-bucket", "class Wan(VAE)", "class Wan", "not a subclass of vaeport.VAE"),
        ("wrong-bucket", f"    {BUCKET}\n", "", "Wan is not complete"),
        ("wrong-bucket", BUCKET, f"{BUCKET}.__mro__[1]", "Wan is in the wrong bucket"),
        ("wrong-bucket", 'modality="video"', "modality=arch.modality", "AttributeError"),
    ],
)
def test_what_only_an_import_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, before: str, after: str, says: str
) -> None:
    assert before in WAN
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    path = write(tmp_path, WAN.replace(before, after, 1))
    assert check_model(path) == []
    (found,) = check_model(path, importing=True)
    assert found.rule == rule
    assert says in found.found


# Bad input.


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "wann.py"):
        with pytest.raises(ConfigError, match="no model file here"):
            check_model(path)


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"(" * 5000, b"x = " + b"-" * 100_000 + b"1", b"#" * 1_000_001, b"\x80\x04K\x01."]
)
def test_what_is_no_python(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "wan.py"
    path.write_bytes(raw)
    (found,) = check_model(path)
    assert found.rule == "model-unreadable"


def test_long_expressions_are_read(tmp_path: Path) -> None:
    """Deeper than Python's own recursion."""
    path = write(tmp_path, WAN.replace(END, "TOTAL = 0" + " + x" * 2000 + "\n\n" + END))
    assert check_model(path) == []
