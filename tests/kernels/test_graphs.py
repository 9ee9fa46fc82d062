"""Graphs, recorded by a stand-in that runs again what was recorded: what is replayed when, and on which state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.layers.laws import normal
from tests.models.test_streaming import AXIS, PIXELS, VIDEO, inputs
from tests.narrow import half, media, native
from vaeport.kernels.graphs import Graphs, Replay
from vaeport.layers import Chain, Conv, Identity, Layer, SiLU, stream


class Again(Graphs):
    """On a CPU: `recorded` is not run, a replay runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.recordings = self.replays = 0

    def _serves(self, x: Tensor) -> bool:
        return True

    def _recorded(self, run: Callable[[], Tensor], device: torch.device) -> Replay:
        self.recordings += 1

        def replay() -> Tensor:
            self.replays += 1
            with torch.no_grad():
                return run()

        return replay


def whole(layer: Layer, x: Tensor, axis: int, size: int, streamed: Callable[..., Iterator[Tensor]]) -> Tensor:
    return torch.cat([y.clone() for y in streamed(layer, x.split(size, axis), axis)], axis)


@pytest.mark.parametrize("of", ["encoder", "decoder"])
@pytest.mark.parametrize("name", sorted(AXIS.keys() - {"ltx1", "oobleck"}))  # noise; too long
def test_streams_of_all_models_are_the_same(name: str, of: str) -> None:
    """Pieces of a length that the state does not depend on, then a rest; and all of it again."""
    layer, axis, graphs = half(name, of), AXIS[name], Again()
    size = {"encoder": 8 if name in VIDEO else 64, "decoder": 2}[of]
    x = inputs(name, of, 5 * size + 1)
    expected = whole(layer, x, axis, size, stream)
    for _ in range(2):
        assert torch.equal(whole(layer, x, axis, size, graphs.stream), expected)
    if name in ("wan", "wan2_2"):
        # six pieces, of which one is the beginning and one the rest; the first that could be replayed is only met
        assert (graphs.recordings, graphs.replays) == ((1, 3 + 4) if of == "encoder" else (2, 3 + 4 + 1))


@pytest.mark.parametrize("name", ["wan", "kl"])
def test_a_vae_runs_by_them(name: str) -> None:
    plain, ours = native(name), copy.deepcopy(native(name))
    ours._graphs = graphs = Again()
    x = media(name, (1, 3, 25, *PIXELS["wan"]) if name == "wan" else None)
    for _ in range(3):
        z = ours.encode(x).latent_dist.mode()
        assert torch.equal(z, plain.encode(x).latent_dist.mode())
        assert torch.equal(ours.decode(z).sample, plain.decode(z).sample)
    assert graphs.recordings == 2
    assert graphs.replays > 2
    if name == "wan":
        before = graphs.replays
        pieces = [x[:, :, :1], *x[:, :, 1:].split(4, 2)]
        parts = [d.mode() for d in ours.stream_encode(pieces)]
        assert torch.equal(torch.cat(parts, 2), z)
        assert torch.equal(torch.cat(list(ours.stream_decode(z.split(1, 2))), 2), plain.decode(z).sample)
        assert graphs.replays > before + 2


def test_what_is_bound_to_noise_is_not_recorded() -> None:
    vae = copy.copy(native("ltx1"))
    vae._graphs = graphs = Again()
    z = normal(1, 4, 9, 2, 2)
    for seed in (1, 2):
        vae.decode(z, generator=torch.Generator().manual_seed(seed))
    assert not graphs._known


def test_streams_that_take_turns() -> None:
    """The graph has room for the state of one of them."""
    layer, graphs = half("wan", "encoder"), Again()
    clips = [normal(1, 3, 33, 8, 16, seed=n) for n in range(3)]
    expected = [whole(layer, x, -3, 4, stream) for x in clips]
    whole(layer, clips[0], -3, 4, graphs.stream)
    running = [graphs.stream(layer, x.split(4, -3), -3) for x in clips]
    parts: list[list[Tensor]] = [[], [], []]
    for order in ([0, 1, 2], [2, 1, 0], [0, 0, 1], [1, 2, 2], [0, 1, 2]):
        for n in order:
            parts[n] += [y.clone() for y in [next(running[n], None)] if y is not None]
    for n, rest in enumerate(running):
        parts[n] += [y.clone() for y in rest]
        assert torch.equal(torch.cat(parts[n], -3), expected[n])
    assert graphs.replays > 8


def test_a_stream_that_nobody_goes_on_with_leaves_the_graph() -> None:
    layer, graphs, x = half("wan", "encoder"), Again(), normal(1, 3, 33, 8, 16)
    left = graphs.stream(layer, x.split(4, -3), -3)
    for _ in range(5):
        next(left)
    assert [graph.user is not None for graph in graphs._known.values()] == [True]
    left.close()
    assert [graph.user is not None for graph in graphs._known.values()] == [False]
    assert torch.equal(whole(layer, x, -3, 4, graphs.stream), whole(layer, x, -3, 4, stream))


def test_where_gradients_are_wanted_nothing_is_recorded() -> None:
    """Of the weights, of a piece, or of one before it, which the state remembers."""
    layer, graphs, x = half("wan", "encoder"), Again(), normal(1, 3, 33, 8, 16)
    assert torch.equal(whole(layer, x, -3, 4, graphs.stream), whole(layer, x, -3, 4, stream))
    replays = graphs.replays
    pieces = list(x.split(4, -3))
    pieces[2].requires_grad_()
    expected, found = (torch.cat(list(run(layer, pieces, -3)), -3) for run in (stream, graphs.stream))
    assert torch.equal(found, expected)
    wanted, had = (torch.autograd.grad(y.square().sum(), pieces[2])[0] for y in (expected, found))
    assert torch.equal(had, wanted)
    assert wanted.abs().max() > 0
    trained = copy.deepcopy(layer).requires_grad_()
    assert whole(trained, x, -3, 4, graphs.stream).requires_grad
    assert graphs.run(trained, x[:, :, :1]).requires_grad
    assert graphs.replays == replays + 1  # the second of the pieces


def test_what_was_recorded_in_inference_mode_serves_elsewhere() -> None:
    layer, graphs, x = half("wan", "encoder"), Again(), normal(1, 3, 33, 8, 16)
    with torch.inference_mode():
        for _ in range(2):
            whole(layer, x, -3, 4, graphs.stream)
            graphs.run(layer, x)
    before = graphs.replays
    assert torch.equal(whole(layer, x, -3, 4, graphs.stream), whole(layer, x, -3, 4, stream))
    assert torch.equal(graphs.run(layer, x), layer(x))
    assert graphs.replays > before


def test_other_weights_are_another_layer() -> None:
    layer, graphs, x = copy.deepcopy(half("wan", "encoder")), Again(), normal(1, 3, 17, 8, 16)
    whole(layer, x, -3, 4, graphs.stream)
    for parameter in layer.parameters():
        parameter.mul_(1.01)
    assert torch.equal(whole(layer, x, -3, 4, graphs.stream), whole(layer, x, -3, 4, stream))


class Scarce(Again):
    """There is memory for so many recordings."""

    room = 1

    def _recorded(self, run: Callable[[], Tensor], device: torch.device) -> Replay:
        if self.recordings == self.room:
            raise torch.OutOfMemoryError
        return super()._recorded(run, device)


def test_where_memory_does_not_suffice_it_runs_as_ever() -> None:
    """And asks for it once; what others had is free again."""
    layer, graphs = half("wan", "encoder"), Scarce()
    small, large = normal(1, 3, 33, 8, 16), normal(1, 3, 33, 16, 16)
    whole(layer, small, -3, 4, graphs.stream)
    assert [graph.replay is not None for graph in graphs._known.values()] == [True]
    for _ in range(2):
        assert torch.equal(whole(layer, large, -3, 4, graphs.stream), whole(layer, large, -3, 4, stream))
    assert [graph.replay is not None for graph in graphs._known.values()] == [False]
    assert not graphs.drop()
    for _ in range(2):
        assert torch.equal(graphs.run(layer, large), layer(large))


def test_weights_are_not_copied() -> None:
    layer, graphs, x = half("wan", "encoder"), Again(), normal(1, 3, 33, 8, 16)
    whole(layer, x, -3, 4, graphs.stream)
    (graph,) = graphs._known.values()
    weights = sum(parameter.numel() for parameter in layer.parameters())
    assert 0 < sum(tensor.numel() for tensor in graph.state) < weights / 2
    assert graphs.drop()


def test_what_is_watched_runs_as_it_is_written() -> None:
    vae = copy.deepcopy(native("wan"))
    vae._graphs, calls = Again(), list[int]()
    x = media("wan", (1, 3, 25, *PIXELS["wan"]))
    for parameter in vae.parameters():
        parameter.requires_grad_(False)
    vae.encode(x)
    assert vae.drop_graphs()
    vae.encoder.conv_in.register_forward_pre_hook(lambda *_: calls.append(1))
    vae.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    vae.encode(x)
    assert not vae._graphs._known


class Swapped(Identity):
    """Its state is two tensors of one memory, which change places with every piece."""

    def step(self, x: Tensor | None, state: Any, last: bool, axis: int) -> tuple[Tensor | None, Any]:
        if x is None:
            return None, state
        a, b = torch.arange(2.0).split(1) if state is None else state
        return x + a, (b, a)


def test_a_state_that_is_moved_within_its_own_memory() -> None:
    layer, graphs, x = Swapped(), Again(), normal(1, 1, 12)
    expected = whole(layer, x, -1, 1, stream)
    for _ in range(2):
        assert torch.equal(whole(layer, x, -1, 1, graphs.stream), expected)
    assert graphs.replays > 8


class Counting(Identity):
    """Its state is a number, which is another after every piece."""

    def step(self, x: Tensor | None, state: int | None, last: bool, axis: int) -> tuple[Tensor | None, int]:
        return None if x is None else x * (state or 0), (state or 0) + 1


def test_a_state_that_never_comes_again_is_never_recorded() -> None:
    graphs, x = Again(), normal(1, 1, 12)
    assert torch.equal(whole(Counting(), x, -1, 1, graphs.stream), whole(Counting(), x, -1, 1, stream))
    assert not graphs._known


def test_so_many_are_kept() -> None:
    layer, graphs = Chain(act=SiLU(), conv=Conv(2, 2, (3,), pad=((2, 0),))).double().requires_grad_(False), Again()
    for size in range(1, 9):
        whole(layer, normal(1, 2, 6 * size), -1, size, graphs.stream)
    assert len(graphs._known) == 4
