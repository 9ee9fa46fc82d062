"""The reuse proof: reuse, reuse with other arguments, or port, and which evidence tells a near miss apart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from tests.port import scrambled
from tests.port.compared import CONFIGS, NAMES
from tests.port.driven import Driven, drive
from tests.port.near_misses import NEAR_MISSES
from vaeport.port.reuse import reuse_proof
from vaeport.registry import ModelRegistry

OFFICIAL_LIKE: dict[str, dict[str, Any]] = {
    "kl": {
        "ddconfig": {
            "double_z": True,
            "z_channels": 4,
            "resolution": 64,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 64,
            "ch_mult": [1, 1, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [],
        },
        "embed_dim": 4,
    },
    "wan": {"dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "down": [False, True, True]},
    "oobleck": {
        "encoder": {"channels": 16, "c_mults": [1, 2], "strides": [2, 4], "latent_dim": 16},
        "decoder": {"channels": 8, "c_mults": [1, 2], "strides": [2, 4], "latent_dim": 8},
        "io_channels": 2,
    },
}
"""the narrow configurations as official constructors name and nest them"""

ATTRIBUTE = {
    "kl_eps": "eps of decoder.mid_block.resnets.0.norm1.weight is 1e-05, of decoder.middle.block1.main.norm1.weight "
    "1e-06",
    "kl_attention_eps": "eps of encoder.mid_block.attentions.0.group_norm.weight is 1e-05, "
    "of encoder.middle.attention.main.norm.weight 1e-06",
    "kl_groups": "groups of encoder.down_blocks.2.resnets.0.norm2.weight is 16, "
    "of encoder.levels.2.blocks.0.main.norm2.weight 32",
}
ANOTHER_MAP = {"wan_qkv_order": "decoder.middle.attention.layer.main.attention.qkv"}
"""another order of rows, which a map can say: with it the function is the same"""
GATE_S = NEAR_MISSES.keys() - {*ATTRIBUTE, *ANOTHER_MAP}
"""padding, causality, order of frames, what is written out as arithmetic: outputs that differ"""


def missed(change: str) -> Driven:
    config = CONFIGS[change.partition("_")[0]]
    return drive("tests.port.driven:near_miss", {"change": change, **config}, config)


def but_wan(names: Iterable[str], *but: str) -> list[Any]:
    """Those of Wan, which take minutes together, are for `make test-all`."""
    return [pytest.param(n, marks=[pytest.mark.full] * (n.startswith("wan") and n not in but)) for n in names]


@pytest.mark.full
@pytest.mark.parametrize("name", scrambled.PUBLISHED)
def test_a_published_class_at_published_arguments_is_reused(name: str) -> None:
    model, variant = scrambled.PUBLISHED[name]
    published = model.variants[variant].to_published()
    proof = drive(f"diffusers:{published['_class_name']}", published).proof
    assert (proof.verdict, proof.differences, proof.ambiguous) == ("reuse", [], [])
    assert proof.nearest is not None
    assert proof.nearest.name == f"{ModelRegistry.find_class(model).name} {variant}"


@pytest.mark.parametrize("name", but_wan(NAMES))
def test_arguments_decide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same class with other widths is not reusable as it stands; found by search under other names of arguments."""
    config = CONFIGS[name]
    found = drive(f"diffusers:{config['_class_name']}", config)
    model = ModelRegistry.find(NAMES[name]).model
    arch = model.arch_class.from_published(config)
    assert found.proof.verdict == "reuse_with_arguments"
    assert found.proof.nearest is not None
    assert (found.proof.nearest.arch, found.proof.nearest.variant) == (arch, None)

    # other names: the values are found, what has no shape stays with the caller, and that is said
    searched = reuse_proof(found.flow, found.contract, OFFICIAL_LIKE[name])
    assert searched.verdict == "reuse_with_arguments", searched.differences
    assert searched.nearest is not None
    with torch.device("meta"):
        theirs, mine = (model(a).state_dict() for a in (searched.nearest.arch, arch))
    assert {key: t.shape for key, t in theirs.items()} == {key: t.shape for key, t in mine.items()}
    assert any("leaves the latent statistics to its caller" in line for line in searched.evidence)

    # a published configuration with these widths
    monkeypatch.setattr(model, "variants", {**model.variants, "narrow": arch})
    again = reuse_proof(found.flow, found.contract, config)
    assert again.verdict == "reuse"
    assert again.nearest is not None
    assert again.nearest.variant == "narrow"


def test_constants_without_a_shape_are_taken_from_the_operations() -> None:
    """Groups, which no weight shows and the official arguments call by another name."""
    config = CONFIGS["kl"] | {"norm_num_groups": 16}
    found = drive("diffusers:AutoencoderKL", config)
    proof = reuse_proof(found.flow, found.contract, OFFICIAL_LIKE["kl"])
    assert proof.verdict == "reuse_with_arguments", proof.differences
    assert proof.nearest is not None
    assert proof.nearest.arch.norm_num_groups == 16  # type: ignore[attr-defined]


def test_published_configurations_that_differ_in_constants_alone_are_asked_for() -> None:
    """A class that leaves scale and shift to its caller fits more than one; told which, it is that one."""
    model, _ = scrambled.PUBLISHED["kl"]
    config = CONFIGS["kl"]
    found = drive("diffusers:AutoencoderKL", config)
    arch = model.arch_class.from_published(config)
    variants = {"one": arch, "other": arch.replace(scaling_factor=0.5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "variants", variants)
        proof = reuse_proof(found.flow, found.contract, OFFICIAL_LIKE["kl"])
        assert (proof.verdict, proof.ambiguous) == ("reuse", ["one", "other"])
        chosen = reuse_proof(found.flow, found.contract, OFFICIAL_LIKE["kl"], variant="other")
        assert chosen.nearest is not None
        assert (chosen.verdict, chosen.ambiguous, chosen.nearest.variant) == ("reuse", [], "other")


@pytest.mark.parametrize(
    "arguments",
    [
        {"encoder_block_out_channels": [16, 16], "decoder_block_out_channels": [16, 16]},
        {"encoder_block_out_channels": [64, 64, 64, 64], "decoder_block_out_channels": [64, 64, 64, 64]},
    ],
)
def test_another_architecture_is_to_be_ported(arguments: dict[str, Any]) -> None:
    """AutoencoderTiny: no posterior, no norms."""
    blocks = {"num_encoder_blocks": [1] * len(arguments["encoder_block_out_channels"])}
    blocks["num_decoder_blocks"] = blocks["num_encoder_blocks"]
    found = drive("tests.port.test_reuse:tiny", {**arguments, **blocks})
    proof = found.proof
    assert proof.verdict == "port"
    assert proof.nearest is not None
    assert proof.nearest.registration.name == "autoencoder_kl"
    assert any(line.startswith("the graphs differ first at these official weights: ") for line in proof.differences)
    assert json.dumps(proof.differences)


def tiny(**config: Any) -> nn.Module:
    """Diffusers' AutoencoderTiny, whose encode gives the latent itself."""
    from diffusers import AutoencoderTiny

    class Tiny(AutoencoderTiny):  # type: ignore[misc]
        def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
            return super().encode(x).latents

    return Tiny(**config).eval()


@pytest.mark.parametrize("change", ATTRIBUTE)
def test_attributes_tell(change: str) -> None:
    """eps and groups, in the graph: no value is computed."""
    proof = missed(change).proof
    assert proof.verdict == "port"
    assert proof.differences == [ATTRIBUTE[change]]


@pytest.mark.parametrize("change", but_wan(sorted(GATE_S), "wan_eps"))
def test_gate_s_tells(change: str) -> None:
    """Everything else that looks the same: the map is the registered one, and the outputs differ."""
    found = missed(change)
    assert found.proof.verdict == "reuse_with_arguments"
    derived = found.derived()
    assert derived.registered == "diffusers"
    verdict = found.twin(derived)
    assert not verdict
    assert {failure.name for failure in verdict.failures} == {"same function"}
    figures = {row.output: row.figure for row in verdict.rows}
    print(f"\n{change}: {figures}")
    assert max(figures.values()) > 1e-7


@pytest.mark.parametrize("change", but_wan(ANOTHER_MAP))
def test_another_map_tells(change: str) -> None:
    """The registered layout would load these files in the wrong order; the derived one is right."""
    found = missed(change)
    derived = found.derived()
    assert derived.registered is None
    (line,) = [line for line in derived.evidence if "has the same keys in another order" in line]
    assert line.startswith("layout `diffusers`")
    assert ANOTHER_MAP[change] in line
    assert found.twin(derived)


@pytest.mark.parametrize("change", [None, "mean second", "std"])
def test_the_contract_tells(change: str | None) -> None:
    """Order and form of the moments, read from what encode gives."""
    proof = drive("tests.port.test_reuse:posterior", {"change": change, **CONFIGS["kl"]}, CONFIGS["kl"]).proof
    expected = {
        None: [],
        "mean second": ["moments: native mean first, official mean second"],
        "std": ["posterior: native gaussian-logvar, official gaussian-std"],
    }
    assert proof.differences == expected[change]
    assert proof.verdict == ("port" if change else "reuse_with_arguments")


def posterior(change: str | None, **config: Any) -> nn.Module:
    """AutoencoderKL whose posterior reads its moments in another way."""
    module = scrambled.original("kl", 0, **config)

    class Posterior(DiagonalGaussianDistribution):  # type: ignore[misc]
        def __init__(self, parameters: torch.Tensor) -> None:
            super().__init__(parameters)
            if change == "mean second":
                self.logvar, self.mean = parameters.chunk(2, dim=1)
                self.std = torch.exp(0.5 * self.logvar.clamp(-30, 20))
            elif change == "std":
                self.std = parameters.chunk(2, dim=1)[1]

    encode = module.encode
    module.encode = lambda x: (Posterior(encode(x).latent_dist.parameters),)
    return module
