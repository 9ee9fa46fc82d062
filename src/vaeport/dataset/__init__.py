"""Data sets to latents: `encode_dataset`.

A source is listed once, sorted by id, and cut into shards of so many items. A shard is the unit of everything: what is
in it, in which order and in which batches is decided by its items alone, so its bytes depend neither on who encodes it
nor on what was done before. A shard is committed by one line in a log, once its files are whole.
"""

from vaeport.dataset.engine import encode_dataset
from vaeport.dataset.job import Job
from vaeport.dataset.settings import Settings
from vaeport.dataset.summary import Summary, status
from vaeport.dataset.verify import verify

__all__ = ["Job", "Settings", "Summary", "encode_dataset", "status", "verify"]
