"""Flows of modules whose flow is known, and of the real models."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.mapping.flows import Run, edges, flow_of, foreign, native, operands
from vaeport.mapping.flow import Flow, Operand, Source
from vaeport.mapping.trace import trace

CHAIN = {("media", None, "", "a.weight"), ("a.weight", None, "", "b.weight"), ("b.weight", None, "", "encoded")}


def test_a_chain() -> None:
    flow = flow_of(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.SiLU(), nn.Conv2d(4, 5, 1, bias=False)), 1, 3, 9, 8)
    assert operands(flow) == [
        [("linear", ("0.weight",), (4, 3, 3, 3)), ("shift", ("0.bias",), (4,))],
        [("linear", ("2.weight",), (5, 4))],
    ]
    assert edges(flow) == {
        ("media", None, "", "0.weight"),
        ("0.weight", None, "", "2.weight"),
        ("2.weight", None, "", "encoded"),
    }
    assert flow.uses[0].attributes["stride"] == [2, 2]
    assert (flow.uses[0].trail, flow.uses[1].trail) == ([], ["silu"])
    assert (flow.uses[0].lengths, flow.uses[1].lengths) == ([9], [4])
    assert flow.shapes == {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "2.weight": (5, 4, 1, 1)}


def pointwise(form: str) -> Run:
    """One linear map of three channels to four, in each of the ways in which it is written."""
    runs: dict[str, tuple[Any, tuple[int, ...]]] = {
        "conv1d": (lambda m, x: F.conv1d(x, m.w, m.b), (4, 3, 1)),
        "conv2d": (lambda m, x: F.conv2d(x[..., None], m.w, m.b)[..., 0], (4, 3, 1, 1)),
        "linear": (lambda m, x: F.linear(x.mT, m.w, m.b).mT, (4, 3)),
        "first factor": (lambda m, x: m.w @ x + m.b[:, None], (4, 3)),
        "einsum": (lambda m, x: torch.einsum("oc,bcn->bon", m.w, x) + m.b[:, None], (4, 3)),
        "in first": (lambda m, x: (x.mT @ m.w + m.b).mT, (3, 4)),
        "einsum, in first": (lambda m, x: torch.einsum("bcn,co->bon", x, m.w) + m.b[:, None], (3, 4)),
    }
    run, shape = runs[form]
    return Run(run, w=shape, b=(4,))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "form", ["conv1d", "conv2d", "linear", "first factor", "einsum", "in first", "einsum, in first"]
)
def test_all_forms_of_a_linear_map_are_one(form: str, batch: int) -> None:
    flow = flow_of(pointwise(form), batch, 3, 5)
    found = [o for use in flow.uses for o in use.operands]
    assert found == [
        Operand("linear", ("w",), (4, 3), transposed=form.endswith("in first")),
        Operand("shift", ("b",), (4,)),
    ]


def test_a_bias_apart_is_a_use_of_its_own() -> None:
    flow = flow_of(Run(lambda m, x: F.conv1d(x, m.w) + m.b, w=(4, 3, 1), b=(1, 4, 1)), 1, 3, 5)
    assert operands(flow) == [[("linear", ("w",), (4, 3))], [("shift", ("b",), (4,))]]
    assert edges(flow) >= {("w", None, "", "b"), ("b", None, "", "encoded")}


@pytest.mark.parametrize(
    ("norm", "attributes"),
    [(nn.GroupNorm(2, 4, eps=1e-3), {"groups": 2, "eps": 1e-3}), (nn.LayerNorm(4, eps=1e-4), {"eps": 1e-4})],
)
def test_norms_have_their_numbers(norm: nn.Module, attributes: dict[str, Any]) -> None:
    flow = flow_of(norm, 3, 4, 4)
    assert operands(flow) == [[("scale", ("weight",), (4,)), ("shift", ("bias",), (4,))]]
    assert flow.uses[0].attributes == attributes


def test_a_norm_written_out_has_the_same_roles() -> None:
    flow = flow_of(Run(lambda m, x: F.normalize(x, dim=1) * m.g + m.b, g=(4, 1), b=(4, 1)), 2, 4, 5)
    assert operands(flow) == [[("scale", ("g",), (4,))], [("shift", ("b",), (4,))]]


def test_weight_norm_is_one_operand_of_two_keys() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3))
    flow = flow_of(conv, 1, 3, 9)
    g, v = "parametrizations.weight.original0", "parametrizations.weight.original1"
    assert operands(flow) == [[("linear", (v, g), ()), ("shift", ("bias",), (4,))]]
    assert flow.unused() == []


def test_a_transposed_convolution_is_a_kind() -> None:
    flow = flow_of(nn.ConvTranspose1d(3, 4, 4, stride=2), 1, 3, 9)
    assert [o.kind for o in flow.uses[0].operands] == ["transposed", "shift"]


def test_what_is_computed_from_a_weight_keeps_its_key_alone() -> None:
    """Snake: x + sin(x exp a)^2 / exp b"""
    flow = flow_of(
        Run(lambda m, x: x + (x * m.a.exp()).sin().square() / (m.b.exp() + 1e-9), a=(1, 4, 1), b=(1, 4, 1)), 2, 4, 5
    )
    assert operands(flow) == [[("scale", ("a",), ())], [("scale", ("b",), ())]]
    assert edges(flow) == {
        ("media", None, "", "a"),
        ("a", None, "", "b"),
        ("media", None, "", "encoded"),
        ("b", None, "", "encoded"),
    }


def attend(q: Tensor, k: Tensor, v: Tensor, products: bool) -> Tensor:
    """Attention over the positions of [B, N, C]."""
    if products:
        return torch.bmm(torch.bmm(q, k.mT).mul(0.5).softmax(-1), v)
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def fused(products: bool, order: tuple[int, int, int] = (0, 1, 2)) -> Run:
    def run(m: Any, x: Tensor) -> Tensor:
        parts = m.qkv(x).chunk(3, -1)
        return m.out(attend(*(parts[i] for i in order), products))  # type: ignore[call-arg, misc]

    return Run(run, qkv=nn.Linear(4, 12), out=nn.Linear(4, 4))


def split(products: bool) -> Run:
    return Run(
        lambda m, x: m.out(attend(m.q(x), m.k(x), m.v(x), products)),
        **{name: nn.Linear(4, 4) for name in ("q", "k", "v", "out")},
    )


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("products", [False, True])
def test_fused_attention_gives_blocks_of_channels(products: bool, device: str) -> None:
    read = edges(flow_of(fused(products), 2, 5, 4, device=device)) - {("media", None, "", "qkv.weight")}
    assert read == {
        ("qkv.weight", (0, 4), "softmax", "out.weight"),
        ("qkv.weight", (4, 8), "softmax", "out.weight"),
        ("qkv.weight", (8, 12), "", "out.weight"),
        ("out.weight", None, "", "encoded"),
    }
    turned = edges(flow_of(fused(products, (1, 2, 0)), 2, 5, 4, device=device))
    assert ("qkv.weight", (0, 4), "", "out.weight") in turned


@pytest.mark.parametrize("products", [False, True])
def test_split_attention(products: bool) -> None:
    read = {row for row in edges(flow_of(split(products), 2, 5, 4)) if row[3] == "out.weight"}
    assert read == {
        ("q.weight", None, "softmax", "out.weight"),
        ("k.weight", None, "softmax", "out.weight"),
        ("v.weight", None, "", "out.weight"),
    }


@pytest.mark.parametrize("first", [False, True])
def test_a_fused_matrix_that_is_cut_has_blocks_of_its_own(first: bool) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        rows = m.w.chunk(3)
        return attend(*((w @ x).mT if first else F.linear(x.mT, w) for w in rows), True)  # type: ignore[call-arg, misc]

    flow = flow_of(Run(run, w=(12, 4)), 2, 4, 5)
    assert operands(flow) == [[("linear", (f"w#{i}/3",), (4, 4))] for i in range(3)]
    assert flow.unused() == []


def test_heads_that_join_the_batch() -> None:
    """[B, 3C, N] -> [B heads, 3C / heads, N]: no view of the channels alone."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).chunk(3, 1)
        q, k, v = (t.contiguous().view(2 * 2, 4, -1).mT for t in (q, k, v))
        return m.out(attend(q, k, v, True).mT.reshape(2, 8, -1))

    flow = flow_of(Run(run, qkv=nn.Conv1d(8, 24, 1), out=nn.Conv1d(8, 8, 1)), 2, 8, 5)
    assert {row[1:3] for row in edges(flow) if row[3] == "out.weight"} == {
        ((0, 8), "softmax"),
        ((8, 16), "softmax"),
        ((16, 24), ""),
    }


def test_blocks_that_are_joined_again_are_the_whole() -> None:
    """Causal upsampling in time: two halves of the channels become frames."""
    conv = {"a": nn.Conv1d(3, 8, 1), "b": nn.Conv1d(4, 4, 1)}
    stacked = flow_of(Run(lambda m, x: m.b(torch.stack(m.a(x).chunk(2, 1), 3).flatten(2)), **conv), 2, 3, 5)
    joined = flow_of(Run(lambda m, x: m.b(torch.cat(m.a(x).chunk(2, 1), 2)), **conv), 2, 3, 5)
    half = flow_of(Run(lambda m, x: m.b(m.a(x).chunk(2, 1)[1]), **conv), 2, 3, 5)
    assert edges(stacked) == edges(joined) == CHAIN
    assert ("a.weight", (4, 8), "", "b.weight") in edges(half)


def test_a_chunk_loop_is_one_use() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        out, before = [], None
        for piece in x.split((1, 4, 4), 2):
            y = m.a(piece if before is None else torch.cat((before, piece), 2))
            before = piece[:, :, -2:]
            out.append(m.b(y))
        return torch.cat(out, 2)

    flow = flow_of(Run(run, a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(4, 2, 1)), 1, 3, 9)
    assert edges(flow) == CHAIN
    assert flow.uses[0].lengths == [1, 5, 6]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_buffers_that_are_filled_piece_by_piece(device: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        out = torch.empty(x.shape[0], 4, x.shape[2], device=x.device)
        for i in range(0, x.shape[2], 2):
            out[:, :, i : i + 2] = m.a(x[:, :, i : i + 2])
        return m.b(out)

    flow = flow_of(Run(run, a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(4, 2, 1)), 1, 3, 6, device=device)
    assert edges(flow) == CHAIN


def test_operations_in_place() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).mul_(2)
        y += x
        F.silu(y, inplace=True)
        y[:, :1].add_(1)
        return m.b(y)

    flow = flow_of(Run(run, a=nn.Conv1d(3, 3, 1), b=nn.Conv1d(3, 2, 1)), 1, 3, 6)
    assert edges(flow) == CHAIN | {("media", None, "", "b.weight")}


def test_zeros_like_data_are_no_data() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(torch.cat((torch.zeros_like(y), y.new_ones(y.shape), m.c(x)), 1))

    parts = {"a": nn.Conv1d(3, 4, 1), "b": nn.Conv1d(12, 4, 1), "c": nn.Conv1d(3, 4, 1)}
    assert {row[0] for row in edges(flow_of(Run(run, **parts), 1, 3, 6)) if row[3] == "b.weight"} == {"c.weight"}


def test_a_constant_in_freed_memory_is_no_data() -> None:
    """What lay at an address before says nothing of a new tensor there."""

    def run(m: Any, x: Tensor) -> Tensor:
        for _ in range(3):
            y = F.silu(m.a(x))
            del y
            constants = [torch.tensor([2.0]) for _ in range(8)]
            factor = sum(constants)
        return m.b(x * factor)

    flow = flow_of(Run(run, a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(3, 4, 1)), 1, 3, 6)
    assert {row[0] for row in edges(flow) if row[3] == "b.weight"} == {"media"}


def test_pieces_without_positions() -> None:
    flow = flow_of(
        Run(lambda m, x: m.b(torch.cat((m.a(x)[:, :, :0], m.a(x)), 2)), a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(4, 2, 1)),
        1,
        3,
        6,
    )
    assert edges(flow) == CHAIN


def test_inputs_and_outputs_by_name() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv1d(3, 4, 1), nn.Conv1d(2, 3, 1)

    module = Both()
    flow = trace(
        module,
        calls={
            "encoded": ("media", torch.zeros(1, 3, 5), lambda x: module.down(x).chunk(2, 1)),
            "decoded": ("latent", torch.zeros(1, 2, 5), lambda z: {"sample": module.up(z).clamp(-1, 1)}),
        },
    )
    assert flow.outputs == {"encoded": {Source(0)}, "decoded": {Source(1)}}
    assert [use.inputs for use in flow.uses] == [{Source("media")}, {Source("latent")}]
    assert flow.trails == {"encoded": [], "decoded": ["clamp(-1, 1)"]}


def test_weights_that_nothing_reads() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.idle = nn.Conv1d(3, 4, 1), nn.Linear(2, 2)
            self.register_buffer("steps", torch.zeros(()))
            self.register_buffer("scratch", torch.zeros(3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x + self.scratch[:, None])

    flow = flow_of(Idle(), 1, 3, 5)
    assert flow.unused() == ["steps", "idle.weight", "idle.bias"]
    assert len(flow.uses) == 1


def test_values_are_sums_over_all_calls() -> None:
    conv = nn.Conv1d(3, 4, 1).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    whole = trace(conv, calls={"encoded": ("media", x, conv)}, values=True).uses[0].values
    pieces = trace(conv, calls={"encoded": ("media", x, lambda t: [conv(p) for p in t.split(2, 2)])}, values=True)
    y = conv(x).detach()
    expected = [48, y.sum(), y.square().sum(), y.abs().pow(3).sum()]
    assert whole == pytest.approx([float(n) for n in expected], rel=1e-12)
    assert pieces.uses[0].values == pytest.approx(whole, rel=1e-12)
    assert trace(conv, calls={"encoded": ("media", x, conv)}).uses[0].values == []


@pytest.mark.parametrize("name", ["kl", "wan", "oobleck8"])
def test_round_trip_of_real_flows(name: str) -> None:
    for flow in (native(name)[1], foreign(name)):
        assert Flow.from_json(json.loads(json.dumps(flow.to_json()))) == flow
        assert flow.unused() == []
        assert len(flow.uses) > 50


@pytest.mark.parametrize("name", ["kl", "wan", "oobleck8"])
def test_without_computing_the_flow_is_the_same(name: str) -> None:
    on_cpu, on_meta = foreign(name, "cpu"), foreign(name, "meta")
    assert edges(on_cpu) == edges(on_meta)
    assert operands(on_cpu) == operands(on_meta)
    assert [u.attributes for u in on_cpu.uses] == [u.attributes for u in on_meta.uses]
    assert (on_cpu.trails, on_cpu.shapes) == (on_meta.trails, on_meta.shapes)
