"""Layers that depend on a timestep or on noise: formulas, what binding does and leaves alone, the laws once bound."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding as DiffusersEmbedding
from diffusers.models.embeddings import Timesteps
from hypothesis import given, settings
from torch import Tensor

from tests.layers.laws import (
    Cutting,
    assert_needs,
    assert_streams,
    cuttings,
    difference,
    filled,
    kept_alive,
    normal,
    streamed,
)
from vaeport.layers import (
    HEIGHT,
    TIME,
    WIDTH,
    Chain,
    Conditioned,
    Conditions,
    Conv,
    Identity,
    Layer,
    Modulation,
    SiLU,
    SpatialNoise,
    TimestepEmbedding,
    TimestepScale,
)

TIMESTEP = torch.tensor([0.05, 0.4], dtype=torch.float64)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


# The embedding.


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-5), (torch.bfloat16, 0)])
def test_embedding_is_that_of_diffusers(dtype: torch.dtype, tolerance: float) -> None:
    """Its waves are float32, whatever the weights are; the wider the timestep, the more that shows."""
    ours = filled(TimestepEmbedding(24, 16)).to(dtype)
    theirs = DiffusersEmbedding(256, 16, out_dim=24).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    timestep = torch.tensor([50.0, 17.25, 0.0], dtype=dtype)
    waves = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(timestep).to(dtype)
    found, expected = ours(timestep), theirs(waves)
    assert found.dtype == dtype
    assert found.shape == (3, 24)
    assert difference(found.double(), expected.double()) <= tolerance


def test_embedding_by_formula() -> None:
    layer, timestep = filled(TimestepEmbedding(6, frequencies=4)), TIMESTEP * 1000
    angles = [[float(t) * 10_000 ** (-i / 4) for i in range(4)] for t in timestep]
    rows = torch.tensor(angles, dtype=torch.float64)
    waves = torch.cat((rows.cos(), rows.sin()), 1)
    hidden = F.silu(waves @ layer.linear_1.weight.T + layer.linear_1.bias)
    assert difference(layer(timestep), hidden @ layer.linear_2.weight.T + layer.linear_2.bias) < 1e-12
    assert layer.linear_1.weight.shape == (6, 8), "as wide as the output unless told"


# Modulation.


def modulation(index: int = 0, count: int = 1) -> tuple[Modulation, Conditions]:
    layer = filled(Modulation(3, index, count))
    return layer, Conditions(embedding=normal(2, count * 6, seed=1))


@pytest.mark.parametrize("axes", [(7,), (3, 2), (4, 3, 2)])
@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2), (1, 2)])
def test_modulation_by_formula(index: int, count: int, axes: tuple[int, ...]) -> None:
    layer, given_ = modulation(index, count)
    x = normal(2, 3, *axes)
    assert given_.embedding is not None
    part = given_.embedding[:, 6 * index : 6 * index + 6]
    shift, scale = ((layer.table[i] + part[:, 3 * i : 3 * i + 3]).view(2, 3, *(1,) * len(axes)) for i in (0, 1))
    assert difference(layer.bind(given_)(x), x * (1 + scale) + shift) < 1e-15


def test_one_embedding_serves_all_samples() -> None:
    layer, x = filled(Modulation(3)), normal(2, 3, 4, 2, 2)
    row = normal(1, 6, seed=1)
    assert torch.equal(layer.bind(Conditions(embedding=row))(x), layer.bind(Conditions(embedding=row.expand(2, -1)))(x))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@given(cutting=cuttings(4))
@settings(max_examples=4)
def test_modulation_streams(axis: int, cutting: Cutting) -> None:
    layer, given_ = modulation(1, 2)
    assert_streams(layer.bind(given_), normal(2, 3, 4, 4, 4), axis, cutting)


def test_unbound_it_says_what_is_lacking() -> None:
    layer, _ = modulation()
    x = normal(2, 3, 4, 2, 2)
    for run in (lambda: layer(x), lambda: layer.step(x, None, True, TIME), lambda: Chain(layer, SiLU())(x)):
        with pytest.raises(ValueError, match="depends on a timestep: call `bind` first"):
            run()
    with pytest.raises(ValueError, match="a Modulation stands in a Conditioned chain"):
        layer.bind(Conditions(timestep=TIMESTEP))


# Noise.


def test_noise_by_formula() -> None:
    """One map for all samples, channels and frames; each channel has a strength of its own."""
    layer, x = filled(SpatialNoise(3)), normal(2, 3, 4, 5, 6)
    y = layer.bind(Conditions(generator=generator()))(x)
    assert difference(y, x + noise(5, 6) * layer.scale.view(3, 1, 1, 1)) < 1e-15


def test_noise_follows_the_seed_without_a_generator() -> None:
    layer, x = filled(SpatialNoise(3)), normal(1, 3, 2, 5, 6)
    ys = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ys.append(layer(x))
    assert torch.equal(ys[0], ys[1])
    assert not torch.equal(ys[0], ys[2])


def noisy() -> Chain:
    """Three layers that draw, between layers that look ahead in time."""

    def conv() -> Conv:
        return Conv(2, 2, (3, 3, 3), pad=((1, 1), (1, 1), (1, 1)))

    return filled(Chain(SpatialNoise(2), conv(), Chain(SpatialNoise(2), SiLU()), conv(), SpatialNoise(2)))


def test_each_layer_draws_in_turn() -> None:
    layer, x = filled(Chain(SpatialNoise(2), SpatialNoise(2))), normal(1, 2, 3, 4, 5)
    source = generator()
    first, second = (torch.randn((4, 5), generator=source, dtype=torch.float64) for _ in range(2))
    scales = [module.scale.view(2, 1, 1, 1) for module in layer.layers]
    y = layer.bind(Conditions(generator=generator()))(x)
    assert difference(y, x + first * scales[0] + second * scales[1]) < 1e-15


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@given(cutting=cuttings(6))
@settings(max_examples=6)
def test_the_same_noise_in_a_stream(axis: int, cutting: Cutting) -> None:
    """Each layer draws one map, in the same order, however the input is cut."""
    layer, x = noisy(), normal(2, 2, 6, 6, 6)
    whole = layer.bind(Conditions(generator=generator()))(x)
    found = streamed(layer.bind(Conditions(generator=generator())), x, axis, cutting)
    assert found is not None
    assert difference(found, whole) <= 1e-14


def test_the_state_is_one_map() -> None:
    layer = filled(SpatialNoise(2)).bind(Conditions(generator=generator()))
    state = None
    for _ in range(3):
        _, state = layer.step(normal(1, 2, 20, 3, 4), state, False, TIME)
        assert kept_alive(state) == 3 * 4 * 8
    assert layer.step(None, state, True, TIME)[0] is None


def test_nothing_is_drawn_for_nothing() -> None:
    source = generator()
    layer, before = filled(SpatialNoise(2)).bind(Conditions(generator=source)), source.get_state()
    for axis in (TIME, HEIGHT):
        assert layer.step(None, None, False, axis)[0] is None
        assert layer.step(None, None, True, axis)[0] is None
    assert torch.equal(source.get_state(), before)


def test_noise_needs_all_of_a_frame_to_be_drawn() -> None:
    class Still(SpatialNoise):
        def _noise(self, x: Tensor) -> Tensor:
            return noise(*x.shape[-2:])

    layer = filled(Still(2))
    assert_needs(layer, normal(1, 2, 4, 3, 3), TIME)
    for axis in (HEIGHT, WIDTH):
        assert layer.needs((0, 1), axis) is None
        assert_needs(layer, normal(1, 2, 4, 3, 3), axis, tight=False)


# Binding.


def timed() -> TimestepScale:
    """As a decoder has them: a stage with an embedding for its two modulations, and an end with one of its own."""
    block = Chain(modulate1=Modulation(2, 0, 2), act=SiLU(), modulate2=Modulation(2, 1, 2), noise=SpatialNoise(2))
    stage = Conditioned(TimestepEmbedding(8), blocks=Chain(block))
    end = Conditioned(TimestepEmbedding(4), modulate=Modulation(2), act=SiLU())
    return filled(TimestepScale(first=SiLU(), stage=stage, out=end))


def given_to(layer: Layer, timestep: Tensor = TIMESTEP, seed: int = 5) -> Layer:
    return layer.bind(Conditions(timestep=timestep, generator=generator(seed)))


def test_a_timed_chain_by_its_parts() -> None:
    layer, x = timed(), normal(2, 2, 3, 2, 2)
    stage, end = layer.stage, layer.out
    block = stage.blocks.layers[0]

    def modulated(y: Tensor, modulate: Modulation, embedding: Tensor) -> Tensor:
        shift, scale = (modulate.table + embedding.view(2, 2, 2)).unbind(1)
        return y * (1 + scale[..., None, None, None]) + shift[..., None, None, None]

    rows, last = stage.embed(TIMESTEP * 1000), end.embed(TIMESTEP * 1000)
    y = F.silu(modulated(F.silu(x), block.modulate1, rows[:, :4]))
    y = modulated(y, block.modulate2, rows[:, 4:]) + noise(2, 2) * block.noise.scale.view(2, 1, 1, 1)
    assert difference(given_to(layer)(x), F.silu(modulated(y, end.modulate, last))) < 1e-14


def test_the_multiplier_is_a_weight() -> None:
    layer, x = timed(), normal(2, 2, 3, 2, 2)
    before = given_to(layer)(x)
    assert layer.state_dict()["multiplier"] == 1000
    layer.multiplier.fill_(500.0)
    assert difference(given_to(layer, 2 * TIMESTEP)(x), before) < 1e-12
    assert difference(given_to(layer)(x), before) > 1e-3


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@given(cutting=cuttings(4))
@settings(max_examples=4)
def test_a_timed_chain_streams(axis: int, cutting: Cutting) -> None:
    layer, x = timed(), normal(2, 2, 4, 4, 4)
    found = streamed(given_to(layer), x, axis, cutting)
    assert found is not None
    assert difference(found, given_to(layer)(x)) <= 1e-14


def test_the_layer_itself_is_left_as_it_was() -> None:
    layer = timed()
    modules, state = dict(layer.named_modules()), {k: v.clone() for k, v in layer.state_dict().items()}
    bound = given_to(layer)
    assert bound is not layer
    assert dict(layer.named_modules()) == modules
    assert all(torch.equal(state[key], value) for key, value in layer.state_dict().items())
    assert all(m.bound is None for m in layer.modules() if isinstance(m, Modulation))
    assert all(m.generator is None for m in layer.modules() if isinstance(m, SpatialNoise))
    with pytest.raises(ValueError, match="call `bind` first"):
        layer(normal(2, 2, 3, 2, 2))


def test_a_bound_layer_has_the_same_weights_and_names() -> None:
    layer = timed()
    bound = given_to(layer)
    ours, theirs = dict(layer.named_parameters()), dict(bound.named_parameters())
    assert list(ours) == list(theirs)
    assert all(theirs[name] is weight for name, weight in ours.items())


def test_what_depends_on_nothing_stays_itself() -> None:
    plain = Chain(SiLU(), Chain(Identity()))
    assert plain.bind(Conditions()) is plain
    bound = given_to(timed_ := timed())
    assert bound.first is timed_.first
    assert bound.out.act is timed_.out.act
    assert bound.out.modulate is not timed_.out.modulate


def test_two_bindings_do_not_know_of_each_other() -> None:
    layer, x = timed(), normal(2, 2, 3, 2, 2)
    one, other = given_to(layer), given_to(layer, TIMESTEP * 3, seed=6)
    y = one(x)
    assert difference(y, other(x)) > 1e-3
    assert torch.equal(given_to(layer)(x), y)


def test_hooks_on_the_layer_fire_through_the_bound_one() -> None:
    """What watches a model watches it in use."""
    layer, seen = timed(), []
    for name in ("stage.blocks.0.modulate1", "stage.blocks.0.noise", "stage", "out.act", "stage.embed"):
        layer.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: seen.append(name))
    given_to(layer)(normal(2, 2, 3, 2, 2))
    assert sorted(seen) == ["out.act", "stage", "stage.blocks.0.modulate1", "stage.blocks.0.noise", "stage.embed"]


def test_the_embedding_is_no_layer_of_the_chain() -> None:
    stage = timed().stage
    assert [type(layer) for layer in stage.layers] == [Chain]
    assert stage.length(7, TIME) == 7
    assert stage.needs((2, 3), TIME) == (2, 3)


def test_a_timestep_is_asked_for() -> None:
    with pytest.raises(ValueError, match="this decoder depends on a timestep"):
        timed().bind(Conditions())
