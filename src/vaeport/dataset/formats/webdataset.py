"""WebDataset tars: `<key>.safetensors`, which is a latent file, and `<key>.json`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save

from vaeport.dataset.encoding import Record
from vaeport.dataset.formats.layout import ShardWriter, Written, described, make_folders
from vaeport.dataset.items import file_name
from vaeport.errors import DatasetError
from vaeport.media.atomic import atomic
from vaeport.media.files import writing
from vaeport.media.latents import METADATA_KEY, TENSOR


class WebDatasetWriter(ShardWriter):
    """Tars whose bytes depend on their records alone: no times, no owners."""

    def _write(self, records: list[Record], name: str) -> Iterator[Written]:
        file = Path("data") / f"{name}.tar"
        target = self.folder / file
        make_folders(target)
        with (
            atomic(target, DatasetError) as partial,
            writing(target, DatasetError, tarfile.TarError),
            tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for record in records:
                key, header = file_name(record.item.id), self.header_of(record).to_json()
                latents = {TENSOR: record.latents[None].contiguous()}
                _add(tar, f"{key}.safetensors", save(latents, {METADATA_KEY: header}))
                _add(tar, f"{key}.json", json.dumps(described(record), sort_keys=True).encode())
        yield Written(file.as_posix(), len(records))

    @classmethod
    def ids(cls, folder: Path, name: str) -> Iterator[str]:
        """See `ShardWriter`."""
        path = folder / name
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.name.endswith(".json"):
                        stream = tar.extractfile(member)
                        assert stream is not None
                        yield json.load(stream)["id"]
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DatasetError("a file of the output cannot be read", where=path, found=error) from error


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
