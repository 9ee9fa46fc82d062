"""Which tree a half runs as, when it is made anew, and who gets the layers as they are written."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from tests.layers.laws import normal
from tests.narrow import native
from vaeport.kernels import running as module
from vaeport.kernels.graphs import Graphs
from vaeport.kernels.running import running, way_of
from vaeport.layers import Chain, ChannelRMSNorm, Conv, Layer, SiLU
from vaeport.models.wan import Wan, WanArchConfig

CPU = torch.device("cpu")


def small() -> Chain:
    return Chain(
        norm=ChannelRMSNorm(64), act=SiLU(), conv=Conv(64, 64, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1)))
    ).requires_grad_(False)


def run(half: Layer, precision: str = "high") -> Layer:
    return running(half, CPU, torch.float32, precision)  # type: ignore[arg-type]


def test_it_is_kept_until_a_layer_or_a_parameter_is_another() -> None:
    half = small()
    first = run(half)
    assert first is not half
    assert run(half) is first
    half.conv.weight = torch.nn.Parameter(half.conv.weight.clone(), requires_grad=False)
    second = run(half)
    assert second is not first
    half._modules["act"] = SiLU()
    assert run(half) is not second


def test_weights_that_are_loaded_are_what_runs() -> None:
    """In place, as `load_state_dict` does, and by assignment."""
    half, other, x = small(), small(), torch.randn(1, 64, 2, 24, 24)
    run(half)(x)
    for assign in (False, True):
        state = {key: torch.randn_like(value) for key, value in other.state_dict().items()}
        half.load_state_dict(state, assign=assign)
        half.requires_grad_(False)
        torch.testing.assert_close(run(half)(x), half(x), rtol=1e-4, atol=1e-3)


def test_exact_hooked_trained_and_compiled_halves_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    half = small()
    assert run(half, "exact") is half
    handle = half.act.register_forward_hook(lambda *args: None)
    assert run(half) is half
    handle.remove()
    assert run(half) is not half
    half.conv.weight.requires_grad_(True)
    assert run(half) is half
    with torch.no_grad():
        assert run(half) is not half
    half.requires_grad_(False)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert run(half) is half


def test_it_goes_with_its_half() -> None:
    half = small()
    tree = weakref.ref(run(half))
    del half
    gc.collect()
    assert tree() is None


def test_types_and_devices_without_kernels() -> None:
    assert way_of(CPU, torch.float32) == "cpu"
    assert way_of(CPU, torch.bfloat16) == way_of(CPU, torch.float64) == "plain"
    assert way_of(torch.device("meta"), torch.bfloat16) == "plain"


class Capability:
    """A GPU of that kind, as far as `way_of` asks."""

    def __init__(self, *version: int) -> None:
        self.version = version

    def __call__(self, device: torch.device) -> tuple[int, ...]:
        return self.version


def test_older_gpus_and_missing_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(module, "_lacks", lambda name: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", Capability(8, 0))
    assert way_of(cuda, torch.bfloat16) == "plain"
    monkeypatch.setattr(torch.cuda, "get_device_capability", Capability(9, 0))
    assert way_of(cuda, torch.bfloat16) == way_of(cuda, torch.float16) == "hopper"
    assert way_of(cuda, torch.float32) == "plain"
    monkeypatch.setattr(module, "_lacks", lambda name: name == "triton")
    assert way_of(cuda, torch.bfloat16) == "plain"


def test_what_is_missing_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module._lacks.cache_clear()
    with pytest.warns(RuntimeWarning, match="kernels are off without no_such_package: pip install no_such_package"):
        assert module._lacks("no_such_package.part")
    assert module._lacks("no_such_package.part")
    module._lacks.cache_clear()


def test_the_plain_path_compiles_in_one_graph() -> None:
    """With Dynamo alone, which finds breaks; code for them is another's matter."""
    arch = WanArchConfig(base_dim=8, z_dim=4, latents_mean=(0.0,) * 4, latents_std=(1.0,) * 4)
    vae = Wan(arch).eval().requires_grad_(False)
    z = torch.randn(1, 4, 2, 4, 4)
    wanted = vae.decoder(z)
    compiled = torch.compile(vae.decoder, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z), wanted)
    torch._dynamo.reset()


def test_graphs_elsewhere_than_on_cuda_are_plain_calls() -> None:
    graphs, layer, x = Graphs(), SiLU(), normal(2, 3)
    assert torch.equal(graphs.run(layer, x), layer(x))
    assert not graphs._known


def test_the_vae_runs_by_them() -> None:
    """Float32 on a CPU: other sums than the exact ones, no farther from the truth in float64."""
    truth = native("wan")
    z = normal(1, 4, 3, 8, 8)
    exact = truth.decode(z).sample
    errors = []
    for precision in ("exact", "high"):
        vae = Wan(truth.arch, truth.config_class(precision=precision)).eval().requires_grad_(False)  # type: ignore[arg-type]
        vae.load_state_dict(truth.state_dict())
        errors.append(float((vae.decode(z.float()).sample.double() - exact).norm() / exact.norm()))
    assert errors[1] <= 4 * errors[0]
