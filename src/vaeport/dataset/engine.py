"""`encode_dataset`: a data set into a folder of latents, in this process, several, those of torchrun, or Ray's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from vaeport.dataset.job import Tell
from vaeport.dataset.local import Resources, run
from vaeport.dataset.lock import Lock
from vaeport.dataset.ray_engine import run_ray
from vaeport.dataset.settings import Settings
from vaeport.dataset.share import Share, share_of_torchrun
from vaeport.dataset.summary import Summary, concluded
from vaeport.dataset.workers import Opener, Task, run_workers
from vaeport.errors import DatasetError, InputError
from vaeport.media.files import writing
from vaeport.vae import VAE

Engine = Literal["local", "ray"]


def encode_dataset(
    vae: VAE | Opener,
    source: str | Path,
    folder: str | Path,
    settings: Settings | None = None,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    resources: Resources | None = None,
    retry: bool = False,
    tell: Tell | None = None,
    total: Callable[[int], None] | None = None,
) -> Summary:
    """Encodes all items of a source that `folder` does not hold yet.

    vae         with its encoder, or a picklable function that loads it, which several processes need
    engine      "local": this process, or `workers` of this machine, or under torchrun this rank's share; "ray": actors
    workers     processes, or actors of Ray; None: 1, or as many as Ray has room for
    retry       make shards anew in which items were quarantined
    tell, total are called with items that are done (and how many of them were quarantined), and with how many are left

    The same call goes on where an earlier one was interrupted. Broken items are quarantined, which is no error.

    Raises InputError or MediaError for a source that cannot be listed; DatasetError for a folder that another run owns,
    or works in; BlockedError if the disk is full, a library is missing, or workers die again and again.
    """
    if engine not in get_args(Engine):
        raise InputError("no such engine", expected=", ".join(get_args(Engine)), found=engine)
    if workers is not None and workers < 1:
        raise InputError("nobody would work", expected="workers >= 1", found=workers)
    several = engine == "ray" or (workers or 1) > 1
    if several and isinstance(vae, VAE):
        raise InputError("a VAE cannot be sent to other processes", fix="give a function that loads it")
    share = share_of_torchrun()
    if share is not None and several:
        raise InputError("torchrun starts the processes", fix="leave out --workers and --engine")
    share, folder = share or Share(), Path(folder)
    with writing(folder, DatasetError):
        folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder, share):
        _sweep(folder, share)
        opener = (lambda: vae) if isinstance(vae, VAE) else vae
        task = Task(opener, source, folder, settings or Settings(), resources or Resources(), retry, share)
        if engine == "ray":
            run_ray(task, workers, tell, total)
        elif several:
            run_workers(task, workers or 1, tell, total)
        else:
            job = task.job()
            left, log = task.begun(job)
            if total is not None:
                total(sum(len(job.items_of(shard)) for shard in left))
            if left:
                run(job, left, log.commit, task.resources, tell)
        _sweep(folder, share)
        return concluded(folder)


def _sweep(folder: Path, share: Share) -> None:
    """Remove what processes that were killed had begun to write; among ranks that may still be written."""
    if share.world == 1:
        for partial in folder.rglob(".vaeport-*.partial"):
            partial.unlink(missing_ok=True)
