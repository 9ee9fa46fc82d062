"""Implementations that nobody here wrote are built, called and read by their convention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaeport.errors import ProofError
from vaeport.proof.adapters import adapter
from vaeport.proof.calling import Caller, Convention, build, owner, read

X = torch.arange(24.0).view(2, 3, 4) / 10


# Building.


@dataclass
class Params:
    width: int
    names: list[str]


class Built:
    def __init__(self, params: Params, path: str = "", dtype: Any = None, plain: Any = None) -> None:
        self.params, self.path, self.dtype, self.plain = params, path, dtype, plain


class FromConfig:
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return SimpleNamespace(**config)


def test_arguments_become_what_they_are_annotated_as() -> None:
    found = build(Built, {"params": {"width": 3, "names": ["a"]}, "dtype": "torch.bfloat16", "plain": {"width": 1}})
    assert found.params == Params(3, ["a"])
    assert found.dtype is torch.bfloat16
    assert found.plain == {"width": 1}


def test_other_strings_stay() -> None:
    found = build(Built, {"params": None, "path": "torch.nothing", "plain": "{weight}"})
    assert (found.path, found.plain) == ("torch.nothing", "{weight}")


def test_the_checkpoint_is_named_by_a_word() -> None:
    assert build(Built, {"params": None, "path": "{weights}"}, "vae.pth").path == "vae.pth"
    with pytest.raises(ProofError, match="the constructor asks for the checkpoint") as refused:
        build(Built, {"params": None, "path": "{weights}"})
    assert refused.value.fix == "--weights"


def test_from_config_comes_first() -> None:
    assert build(FromConfig, {"width": 3}).width == 3


def test_functions_build_too() -> None:
    def make(params: Params) -> Params:
        return params

    assert build(make, {"params": {"width": 1, "names": []}}) == Params(1, [])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"size": 3}, "TypeError"),
        ({"params": {"height": 3}}, "TypeError"),
    ],
)
def test_what_cannot_be_built_says_how_it_is(arguments: dict[str, Any], found: str) -> None:
    with pytest.raises(ProofError, match="the reference cannot be built") as refused:
        build(Built, arguments)
    assert str(refused.value.where).startswith("Built(params")
    assert str(refused.value.found).startswith(found)
    assert "--args" in (refused.value.fix or "")


def test_a_constructor_that_exits() -> None:
    class Exits:
        def __init__(self) -> None:
            raise SystemExit("no licence")

    with pytest.raises(ProofError) as refused:
        build(Exits, {})
    assert refused.value.found == "SystemExit: no licence"


def test_the_owner_of_the_weights() -> None:
    module = nn.Linear(1, 1)
    assert owner(module) is module
    assert owner(SimpleNamespace(model=module, scale=1)) is module
    for other, found in ((SimpleNamespace(), 0), (SimpleNamespace(a=module, b=nn.ReLU()), 2), (3, 0)):
        with pytest.raises(ProofError, match="the reference is not a torch module") as refused:
            owner(other)
        assert f"with {found} modules" in str(refused.value.found)


# Calling.


class Posterior:
    """Moments of which the first half is the mean."""

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, logvar = parameters.chunk(2, 1)
        self.std = torch.exp(0.5 * logvar)

    def mode(self) -> Tensor:
        return self.mean


class Pair(nn.Module):
    """Encodes to (3 x, x / 5) and decodes to z / 3, with weights that say so."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = nn.Conv1d(3, 6, 1, bias=False)
        self.moments.weight.data = torch.cat((3 * torch.eye(3), torch.eye(3) / 5))[..., None]

    def encode(self, x: Tensor) -> Any:
        return SimpleNamespace(latent_dist=Posterior(self.moments(x)))

    def decode(self, z: Tensor) -> Any:
        return SimpleNamespace(sample=z / 3)


class Sampling(Pair):
    """Gives a sample."""

    def encode(self, x: Tensor) -> Any:
        posterior = Posterior(self.moments(x))
        return posterior.mean + posterior.std * torch.randn_like(posterior.mean)

    def decode(self, z: Tensor) -> Any:
        return (z / 3, "more")


class Chunked(Sampling):
    """Runs its module on two positions at a time, and gives the mean alone."""

    def encode(self, x: Tensor) -> Any:
        return torch.cat([self.moments(piece) for piece in x.split(2, 2)], 2).chunk(2, 1)[0], None


class Listed:
    """A wrapper that takes and gives lists of samples without batch axis, normalised by numbers of its own."""

    def __init__(self) -> None:
        self.model = Chunked()
        self.scale = [torch.tensor(0.5), (torch.tensor(2.0), "text")]
        self.steps = torch.tensor([1, 2])

    def encode(self, videos: list[Tensor]) -> list[Tensor]:
        assert isinstance(videos, list)
        return [(self.model.encode(x[None])[0][0] - self.scale[0]) * self.scale[1][0] for x in videos]

    def decode(self, latents: list[Tensor]) -> list[Tensor]:
        assert isinstance(latents, list)
        return [self.model.decode(z[None] / self.scale[1][0] + self.scale[0])[0][0] for z in latents]


class Asking(Pair):
    """Needs further arguments."""

    def encode(self, x: Tensor, *, factor: Tensor, steps: list[int]) -> Any:  # type: ignore[override]
        assert (factor.dtype, factor.shape, steps) == (x.dtype, (3, 1), [1, 2])
        return x * factor

    def decode(self, z: Tensor, scale: float = 1.0) -> Any:
        return z * scale


def call(built: Any, convention: Convention = Convention(), **tools: Any) -> Caller:  # noqa: B008
    return Caller(built, convention, tools)


def near(found: Tensor, expected: Tensor) -> None:
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.shape == expected.shape


STD = torch.exp(X / 10)
MOMENTS = torch.cat((3 * X, X / 5), 1)


def test_a_posterior() -> None:
    caller = call(Pair())
    found = caller.encode(X)
    assert found.keys() == {"mean", "std", "moments"}
    near(found["mean"], 3 * X)
    near(found["std"], STD)
    near(found["moments"], MOMENTS)
    near(caller.decode(3 * X), X)
    assert not caller.module.training
    assert not any(p.requires_grad for p in caller.module.parameters())


def test_a_posterior_in_a_tuple() -> None:
    assert read((3, 4)) == 3
    assert read([5]) == 5
    assert read(SimpleNamespace(latent_dist=6)) == 6
    assert read("itself") == "itself"


def test_what_samples_is_read_without_noise_and_with_noise_one() -> None:
    found = call(Sampling()).encode(X)
    assert found.keys() == {"mean", "std"}
    near(found["mean"], 3 * X)
    near(found["std"], STD)


def test_what_does_not_sample_has_no_deviation() -> None:
    found = call(Chunked()).encode(X)
    assert found.keys() == {"mean"}


def test_moments_are_tapped_over_chunks_and_samples() -> None:
    chunked = call(Chunked(), Convention(moments="moments"))
    near(chunked.encode(X)["moments"], MOMENTS)
    listed = call(Listed(), Convention(moments="moments", listed=True))
    near(listed.encode(X)["moments"], MOMENTS)
    near(listed.encode(X[:1])["moments"], MOMENTS[:1])
    sampling = call(Sampling(), Convention(moments="moments"))
    near(sampling.encode(X)["moments"], MOMENTS)
    assert not sampling.module.moments._forward_hooks


def test_lists_of_samples() -> None:
    caller = call(Listed(), Convention(listed=True))
    near(caller.encode(X)["mean"], (3 * X - 0.5) * 2)
    near(caller.decode((3 * X - 0.5) * 2), X)


def test_latents_that_are_normalised_are_not_called_mean() -> None:
    found = call(Listed(), Convention(listed=True, normalized=True)).encode(X)
    assert found.keys() == {"normalized"}


def test_further_arguments() -> None:
    convention = Convention(
        encode_arguments={"factor": {"tensor": [[1], [2], [3]]}, "steps": [1, 2]}, decode_arguments={"scale": 5.0}
    )
    caller = call(Asking(), convention)
    near(caller.encode(X.double())["mean"], X.double() * torch.tensor([1.0, 2, 3]).view(3, 1))
    near(caller.decode(X), 5 * X)


class Timed(Pair):
    """Is told a timestep by `temb`, one per sample."""

    def decode(self, z: Tensor, temb: Tensor | None = None) -> Any:  # type: ignore[override]
        assert temb is not None
        assert (temb.dtype, temb.shape) == (z.dtype, (len(z),))
        return z * temb.view(-1, 1, 1)


def test_a_number_for_every_sample() -> None:
    caller = call(Timed(), Convention(decode_arguments={"temb": {"per_sample": 0.25}}))
    for z in (X, X[:1].double()):
        near(caller.decode(z), 0.25 * z)


def test_attributes_are_set_once_it_is_built() -> None:
    module = Asking()
    module.scale = 1.0  # type: ignore[assignment]
    call(module, Convention(attributes={"scale": 3.0, "training": True}))
    assert module.scale == 3.0


def test_a_convention_as_it_is_given_on_the_command_line() -> None:
    given = {"encode": {"a": 1}, "decode": {"temb": {"per_sample": 0.05}}, "attributes": {"use_tiling": False}}
    found = Convention.of_calls(given)
    assert (found.encode_arguments, found.decode_arguments, found.attributes) == tuple(given.values())
    assert Convention.of_calls({}) == Convention()
    with pytest.raises(ProofError, match="call arguments of what") as refused:
        Convention.of_calls({"decoder": {}, "encode": {}})
    assert (refused.value.expected, refused.value.found) == ("encode, decode, attributes", "decoder")


def test_an_attribute_that_the_constructor_forgets_is_set_too() -> None:
    """GameCraft's class reads `use_trt_decoder` in every decode and sets it nowhere."""
    module = Pair()
    assert not hasattr(module, "use_trt_decoder")
    call(module, Convention(attributes={"use_trt_decoder": False}))
    assert module.use_trt_decoder is False


def test_normalisation_by_statistics_in_the_checkpoint() -> None:
    """Buffers of the class itself; those of a layer within it are not meant."""
    module = Pair()
    module.config = SimpleNamespace(scaling_factor=2.0)
    module.moments.register_buffer("latents_mean", torch.full((3,), 100.0))
    plain = call(module).normalize(X)
    assert plain is not None
    near(plain, X * 2.0)
    module.register_buffer("latents_mean", torch.tensor([1.0, 2.0, 3.0]))
    module.register_buffer("latents_std", torch.tensor([2.0, 4.0, 5.0]))
    mean, std = (getattr(module, f"latents_{name}").view(3, 1) for name in ("mean", "std"))
    found = call(module).normalize(X.double())
    assert found is not None
    assert found.dtype == torch.float64
    near(found, (X.double() - mean) / std * 2.0)


def test_decode_that_gives_no_tensor() -> None:
    class Odd(Pair):
        def decode(self, z: Tensor) -> Any:
            return {"sample": z}

    with pytest.raises(ProofError, match="decode gave no tensor") as refused:
        call(Odd()).decode(X)
    assert refused.value.found is dict


def test_tensors_beside_the_module_are_cast_with_it() -> None:
    wrapper = Listed()
    call(wrapper).cast("cpu", torch.float64)
    assert (wrapper.scale[0].dtype, wrapper.scale[1][0].dtype) == (torch.float64, torch.float64)
    assert wrapper.scale[1][1] == "text"
    assert wrapper.steps.dtype == torch.int64
    assert wrapper.model.moments.weight.dtype == torch.float32
    call(wrapper).cast("meta", torch.float32)
    assert wrapper.scale[0].is_meta


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, None),
        ({}, X),
        ({"scaling_factor": 0.5}, X * 0.5),
        ({"scaling_factor": 0.5, "shift_factor": 0.1}, (X - 0.1) * 0.5),
        ({"latents_mean": [1, 2, 3], "latents_std": [2, 4, 5]}, None),
        ({"latents_mean": [1, 2, 3], "latents_std": [2, 4, 5], "scaling_factor": 3.0}, None),
    ],
)
def test_normalisation_as_the_pipelines_do_it(config: dict[str, Any] | None, expected: Tensor | None) -> None:
    module = Pair()
    if config is not None:
        module.config = SimpleNamespace(**config)
    found = call(module).normalize(X)
    if config and "latents_mean" in config:
        mean, std = (torch.tensor(config[f"latents_{name}"]).view(3, 1) for name in ("mean", "std"))
        expected = (X - mean) / std * config.get("scaling_factor", 1.0)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        near(found, expected)


# Adapters.


def test_an_adapter_stands_in(tmp_path: Path) -> None:
    file = tmp_path / "adapter.py"
    file.write_text(
        "from vaeport.proof.adapters import encode as plain\n"
        "def encode(module, x): return {'mean': 2 * plain(module, x)['mean']}\n"
        "def decode(module, z): return module.decode(z).sample + 1\n"
        "def normalize(module, z): return z - 4\n"
        "def other(): pass\n"
    )
    tools = adapter(file)
    assert tools.keys() == {"encode", "decode", "normalize"}
    caller = call(Pair(), **tools)
    near(caller.encode(X)["mean"], 6 * X)
    near(caller.decode(3 * X), X + 1)
    normalized = caller.normalize(X)
    assert normalized is not None
    near(normalized, X - 4)
    assert adapter(None) == {}


def test_adapters_that_do_not_run(tmp_path: Path) -> None:
    file = tmp_path / "adapter.py"
    with pytest.raises(ProofError, match="no such adapter file"):
        adapter(file)
    file.write_text("1 / 0")
    with pytest.raises(ProofError, match="the adapter file does not run") as refused:
        adapter(file)
    assert refused.value.found == "ZeroDivisionError: division by zero"
