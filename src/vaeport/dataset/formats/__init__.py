"""The layouts that latents are written in: each writes the records of a shard as files."""

from __future__ import annotations

from vaeport.dataset.formats.layout import ShardWriter
from vaeport.dataset.formats.parquet import ParquetWriter
from vaeport.dataset.formats.tensors import TensorsWriter
from vaeport.dataset.formats.webdataset import WebDatasetWriter

WRITERS: dict[str, type[ShardWriter]] = {
    "parquet": ParquetWriter,
    "webdataset": WebDatasetWriter,
    "safetensors": TensorsWriter,
}

__all__ = ["WRITERS", "ShardWriter"]
