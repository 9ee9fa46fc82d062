"""The vocabulary of maps: patterns, integer expressions, units, fusing, spellings."""

from __future__ import annotations

import pytest

from vaeport.errors import ConfigError
from vaeport.mapping import Drop, Fuse, Layout, Rule, Units
from vaeport.mapping.rules import Block


@pytest.mark.parametrize(
    ("native", "foreign", "key", "expected"),
    [
        ("conv.weight", "c.weight", "conv.weight", "c.weight"),
        ("a.{i}.b.{j}.{rest*}", "x.{3*i+j}.{rest}", "a.2.b.1.conv.weight", "x.7.conv.weight"),
        ("up.{i}.{rest*}", "up.{3-i}.{rest}", "up.0.bias", "up.3.bias"),
        ("u.{j}.w", "res_unit{j+1}.w", "u.12.w", "res_unit13.w"),
        ("u.{j}.w", "v.{(j+1)*2}.w", "u.3.w", "v.8.w"),
        ("a.{i}.{rest*}", "b.{i}.{rest}", "a.10.0", "b.10.0"),
        ("a{i}.w", "b.{-1+i}.w", "a1.w", None),  # a sign is not one of + - *
    ],
)
def test_keys(native: str, foreign: str, key: str, expected: str | None) -> None:
    rule = Rule(native, foreign)
    if expected is None:
        with pytest.raises(ConfigError):
            rule.foreign_keys(key)
    else:
        assert rule.foreign_keys(key) == (expected,)


@pytest.mark.parametrize("key", ["conv.weigh", "conv.weight.more", "xconv.weight", "convXweight", "conv.a.weight"])
def test_the_whole_key_must_match(key: str) -> None:
    assert Rule("conv.weight", "c").foreign_keys(key) is None


@pytest.mark.parametrize("key", ["a.b.c", "a.-1.c", "a..c", "a.1.2.c"])
def test_numbers_only_match_numbers(key: str) -> None:
    assert Rule("a.{i}.c", "x.{i}").foreign_keys(key) is None


@pytest.mark.parametrize(
    "expression",
    [
        "j",
        "i/2",
        "i**2",
        "i//2",
        "print(i)",
        "__import__('os')",
        "i.real",
        "1.5",
        "'a'",
        "i+'a'",
        "3*",
        "i i",
        "rest+1",
        "",
    ],
)
def test_anything_else_is_refused(expression: str) -> None:
    rule = Rule("a.{i}.{rest*}", f"b.{{{expression or ' '}}}")
    with pytest.raises(ConfigError, match="in a weight map is not a number, a name of its native column") as refused:
        rule.foreign_keys("a.1.weight")
    assert f"`{{{expression or ' '}}}`" in refused.value.what


def test_fused_keys_come_in_native_order() -> None:
    rule = Rule("attn.{i}.qkv.weight", "blocks.{i}.to_{part}.weight", fuse=Fuse(("q", "k", "v")))
    assert rule.foreign_keys("attn.4.qkv.weight") == tuple(f"blocks.4.to_{part}.weight" for part in "qkv")


def test_units() -> None:
    assert Units().foreign_shape((3, 4)) == (3, 4)
    assert Units(lead=1, trail=2).foreign_shape((3,)) == (1, 3, 1, 1)


def test_negative_units_are_axes_that_the_stored_tensor_lacks() -> None:
    assert Units(trail=-2).foreign_shape((3, 4, 1, 1)) == (3, 4)
    assert Units(lead=-1, trail=1).foreign_shape((1, 3)) == (3, 1)
    assert Units(lead=-1, trail=-1).foreign_shape((1, 3, 1)) == (3,)


def test_transposed_units() -> None:
    assert Units(transposed=True).foreign_shape((3, 4)) == (4, 3)
    assert Units(trail=-2, transposed=True).foreign_shape((3, 4, 1, 1)) == (4, 3)
    assert Units(trail=1, transposed=True).foreign_shape((3, 4)) == (1, 4, 3)


def test_parts_may_lie_in_different_ways() -> None:
    fuse = Fuse(("q", "k"), (Units(trail=2), Units(transposed=True)))
    rule = Rule("qkv", "to_{part}", fuse=fuse)
    assert [rule.units_of(i) for i in range(2)] == [*fuse.units]
    alike = Rule("qkv", "to_{part}", Units(trail=1), Fuse(("q", "k")))
    assert [alike.units_of(i) for i in range(2)] == [Units(trail=1)] * 2
    assert Rule("a", "b", Units(lead=1)).units_of(0) == Units(lead=1)


@pytest.mark.parametrize(
    ("text", "block"),
    [("a.b", Block("a.b", 0, 1)), ("a.b#0/3", Block("a.b", 0, 3)), ("a.1.b#11/12", Block("a.1.b", 11, 12))],
)
def test_blocks(text: str, block: Block) -> None:
    assert Block.parse(text) == block


def test_a_rule_names_blocks() -> None:
    assert Rule("a.{i}.k", "b.{i}.qkv#1/3").foreign_keys("a.2.k") == ("b.2.qkv#1/3",)
    fused = Rule("a.{i}.qkv", "b.{i}.kqv#{part}", fuse=Fuse(("1/3", "0/3", "2/3")))
    assert fused.foreign_keys("a.0.qkv") == ("b.0.kqv#1/3", "b.0.kqv#0/3", "b.0.kqv#2/3")


def layout() -> Layout:
    return Layout(
        name="made up",
        rules=(Rule("a.special", "s"), Rule("a.{rest*}", "b.{rest}")),
        spellings=((r"^old\.", "b."), (r"\.gamma$", ".weight")),
        drops=(Drop(r"loss\..*", "training"),),
    )


def test_first_rule_counts() -> None:
    rule, keys = layout().rule_of("a.special")
    assert (rule.foreign, keys) == ("s", ("s",))
    assert layout().rule_of("a.other")[1] == ("b.other",)
    assert layout().rule_of("c") is None


def test_spellings_apply_one_after_the_other() -> None:
    assert layout().canonical("old.x.gamma") == "b.x.weight"
    assert layout().canonical("very.old.x") == "very.old.x"
