"""Parquet in the schema that FastVideo's trainers read, with what it has no column for as metadata of the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vaeport.dataset.encoding import Record
from vaeport.dataset.formats.layout import ShardWriter, Written, described, duration, make_folders
from vaeport.errors import DatasetError
from vaeport.media.atomic import atomic
from vaeport.media.files import extra, writing

GROUP = 32 << 20
"""bytes of latents in a row group, which readers of single rows read whole"""


class ParquetWriter(ShardWriter):
    """One row per item. Latents are float32, whatever the VAE ran in: the readers take them for that."""

    LARGEST = (1 << 31) - 2  # of one value of type binary, which the readers take

    def _size_of(self, record: Record) -> int:
        return 4 * record.latents.numel()

    def _write(self, records: list[Record], name: str) -> Iterator[Written]:
        with extra("pyarrow", "dataset"):
            import pyarrow
            import pyarrow.parquet
        file = Path("data") / f"{name}.parquet"
        largest = max(map(self._size_of, records))
        target = self.folder / file
        make_folders(target)
        with (
            atomic(target, DatasetError) as partial,
            writing(target, DatasetError, pyarrow.ArrowException),
            partial.open("wb") as stream,
        ):
            table = pyarrow.Table.from_pylist([row(record) for record in records], schema=schema(self.provenance))
            rows = max(1, GROUP // max(1, largest))
            pyarrow.parquet.write_table(table, stream, compression="zstd", row_group_size=rows)
        yield Written(file.as_posix(), len(records))

    @classmethod
    def ids(cls, folder: Path, name: str) -> Iterator[str]:
        """See `ShardWriter`."""
        path = folder / name
        with extra("pyarrow", "dataset"):
            import pyarrow
            import pyarrow.parquet
        try:
            yield from pyarrow.parquet.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError("a file of the output cannot be read", where=path, found=error) from error


def schema(provenance: dict[str, str]) -> Any:
    """The columns: FastVideo's for text to video, in their order, and after them `vaeport`, which it does not read."""
    import pyarrow as pa

    tensors = [
        column
        for name in ("vae_latent", "text_embedding")
        for column in (
            (f"{name}_bytes", pa.binary()),
            (f"{name}_shape", pa.list_(pa.int64())),
            (f"{name}_dtype", pa.string()),
        )
    ]
    texts = [(name, pa.string()) for name in ("file_name", "caption", "media_type")]
    counts = [(name, pa.int64()) for name in ("width", "height", "num_frames")]
    seconds = [("duration_sec", pa.float64()), ("fps", pa.float64())]
    columns = [("id", pa.string()), *tensors, *texts, *counts, *seconds, ("vaeport", pa.string())]
    return pa.schema(columns, metadata=provenance)


def row(record: Record) -> dict[str, Any]:
    """One row; an embedding of no bytes is what FastVideo's reader takes for none."""
    latents = record.latents.to(torch.float32).contiguous()
    source = record.source
    seconds, rate = duration(record)
    return {
        "id": record.item.id,
        "vae_latent_bytes": latents.numpy().tobytes(),
        "vae_latent_shape": list(latents.shape),
        "vae_latent_dtype": "float32",
        "text_embedding_bytes": b"",
        "text_embedding_shape": [],
        "text_embedding_dtype": "",
        "file_name": record.item.name,
        "caption": record.item.caption,
        "media_type": source["modality"],
        "width": source.get("width", 0),
        "height": source.get("height", 0),
        "num_frames": source.get("frames", source.get("samples", 1)),
        "duration_sec": seconds,
        "fps": rate,
        "vaeport": json.dumps(described(record), sort_keys=True),
    }
