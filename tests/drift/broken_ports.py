"""Ports with a fault in their source, as their authors would have written them, and what mends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import narrow


@dataclass(frozen=True)
class Fault:
    """A module with a port that is wrong: `wrong` in its source has to be `right`."""

    model: str
    source: str
    wrong: str
    right: str
    says: str
    """what the line that the script prints begins with"""

    def write(self, file: Path) -> None:
        model = narrow.MODELS[self.model][0]
        name, stem = model.__name__, model.__module__.rpartition(".")[2]
        head = f"from vaeport.models.{stem} import {name}\nfrom vaeport.weights.{stem} import LAYOUTS\n"
        body = f"\n\nclass Broken({name}):\n    layouts = LAYOUTS\n"
        imports, _, members = self.source.partition("---\n")
        file.write_text(imports + head + body + "".join(f"    {line}\n" for line in members.splitlines()), "utf-8")

    def mend(self, file: Path) -> None:
        text = file.read_text("utf-8")
        assert self.wrong in text
        file.write_text(text.replace(self.wrong, self.right), "utf-8")


EPS = Fault(
    "kl",
    """\
from vaeport.layers import GroupNorm
---
@staticmethod
def decoder_of(arch):
    table = AutoencoderKL.decoder_of(arch)
    table.norm_out = GroupNorm(arch.block_out_channels[0], arch.norm_num_groups, eps=1e-5)
    return table
""",
    "eps=1e-5",
    "eps=1e-6",
    "decoder.norm_out: ",
)
PAD = Fault(
    "wan",
    """\
---
@staticmethod
def decoder_of(arch):
    table = Wan.decoder_of(arch)
    table.conv_out.pad = ((1, 1), (1, 1), (1, 1))
    return table
""",
    "((1, 1), (1, 1), (1, 1))",
    "((2, 0), (1, 1), (1, 1))",
    "decoder.conv_out: ",
)
SCALE = Fault(
    "kl",
    """\
from dataclasses import replace
---
@staticmethod
def contract_of(arch):
    return replace(AutoencoderKL.contract_of(arch), scale=1 / arch.scaling_factor)
""",
    "scale=1 / arch",
    "scale=arch",
    "encode normalized: ",
)
TWO = Fault(
    "hunyuan_video",
    """\
---
@staticmethod
def decoder_of(arch):
    table, wrong = HunyuanVideo.decoder_of(arch), 1
    table.get_submodule("levels.0.blocks.0.main.norm1").eps *= 1 + wrong
    table.norm_out.groups //= 1 + wrong
    return table
""",
    "wrong = HunyuanVideo.decoder_of(arch), 1",
    "wrong = HunyuanVideo.decoder_of(arch), 0",
    "decoder.levels.0.blocks.0.main.norm1: ",
)
STATE = Fault(
    "kl",
    """\
from vaeport.layers import Conv


class Counting(Conv):
    runs = 0

    def forward(self, x):
        self.runs = self.runs + 1
        return super().forward(x) * (1 + 1e-3 * (self.runs - 1))


---
@staticmethod
def decoder_of(arch):
    table, width = AutoencoderKL.decoder_of(arch), arch.block_out_channels[-1]
    table.conv_in = Counting(arch.latent_channels, width, (3, 3), pad=((1, 1), (1, 1)))
    return table
""",
    "self.runs = self.runs + 1",
    "self.runs = 1",
    "decode ",
)
STREAM = Fault(
    "wan",
    """\
from vaeport.layers import Conv


class Forgetful(Conv):
    def step(self, x, state, last, axis):
        return super().step(x, None, last, axis)


---
@staticmethod
def decoder_of(arch):
    table = Wan.decoder_of(arch)
    width = arch.base_dim * arch.dim_mult[-1]
    table.conv_in = Forgetful(arch.z_dim, width, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1)))
    return table
""",
    "super().step(x, None,",
    "super().step(x, state,",
    "decode unclamped: ",
)
SOUND = Fault(
    "oobleck8",
    """\
---
@staticmethod
def decoder_of(arch):
    table = Oobleck.decoder_of(arch)
    table.conv_in.pad = ((6, 0),)
    return table
""",
    "((6, 0),)",
    "((3, 3),)",
    "decoder.conv_in: ",
)
FAULTS = {"eps": EPS, "pad": PAD, "scale": SCALE, "two": TWO, "state": STATE, "stream": STREAM, "sound": SOUND}


LEAN = {
    **{name: narrow.MODELS[name][1] for name in ("wan", "oobleck8")},
    "kl": narrow.KL.replace(layers_per_block=1),
    "hunyuan_video": narrow.HUNYUAN.replace(layers_per_block=1),
}
"""with few layers, for tests whose time goes into the number of operations"""


def options_of(fault: Fault, folder: Path, native: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Both sides of a proof of a port; its source is written to `folder`."""
    _, arch = narrow.MODELS[fault.model]
    file = folder / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(config or arch.to_published()), "utf-8")
    return {"reference": f"diffusers:{arch.class_names[0]}", "native": native, "config": file}
