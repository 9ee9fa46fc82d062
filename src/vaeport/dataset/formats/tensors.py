"""One latent file per item, as `vaeport encode` writes it and `vaeport decode` reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vaeport.dataset.encoding import Record
from vaeport.dataset.formats.layout import ShardWriter, Written, make_folders
from vaeport.dataset.items import Item, file_name, id_of
from vaeport.errors import DatasetError
from vaeport.media import read_latents, write_latents
from vaeport.media.files import writing

FOLDER = Path("latents")


class TensorsWriter(ShardWriter):
    """`latents/<id>.safetensors`."""

    def clear(self, items: Sequence[Item]) -> None:
        """See `ShardWriter`."""
        for item in items:
            path = self.folder / _file(item.id)
            with writing(path, DatasetError):
                path.unlink(missing_ok=True)

    def _write(self, records: list[Record], name: str) -> Iterator[Written]:
        for record in records:
            file = _file(record.item.id)
            make_folders(self.folder / file)
            write_latents(self.folder / file, record.latents[None], self.header_of(record))
            yield Written(file.as_posix(), 1)

    @classmethod
    def ids(cls, folder: Path, name: str) -> Iterator[str]:
        """See `ShardWriter`."""
        read_latents(folder / name)
        yield id_of(Path(name).with_suffix("").relative_to(FOLDER).as_posix())


def _file(key: str) -> Path:
    return FOLDER / f"{file_name(key)}.safetensors"
