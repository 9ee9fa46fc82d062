"""Ray Data: encode actors over a cluster, each with readers beside it; what they make is committed by the driver.

A row is a shard. Ray gives each actor the next when it has room for it, and starts those that die anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from vaeport.dataset.job import Job, Tell
from vaeport.dataset.local import run
from vaeport.dataset.log import Log, Shard
from vaeport.dataset.reader_process import Failure
from vaeport.dataset.workers import RESTARTS, Task
from vaeport.errors import BlockedError, DatasetError, VaeportError
from vaeport.media.files import extra, writing

Rows = dict[str, Any]
AHEAD = 2
"""shards that wait at an actor"""


class Encoder:
    """An actor: makes the shards that it is given."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._job: Job | None = None

    def __call__(self, rows: Rows) -> Rows:
        """{"shard": [numbers]} -> {"told": [JSON of a shard, or of a failure]}."""
        return {"told": np.array([self._told(int(shard)) for shard in rows["shard"]], dtype=object)}

    def _told(self, shard: int) -> str:
        try:
            with self._attempt(shard):
                self._job = self._job or self._task.job()
                made: list[Shard] = []
                run(self._job, [shard], made.append, self._task.resources)
        except VaeportError as error:
            return json.dumps({"failure": asdict(Failure.of(error))})
        return json.dumps({"shard": made[0].to_json()})

    @contextmanager
    def _attempt(self, shard: int) -> Iterator[None]:
        """BlockedError if actors died at it again and again: Ray Data starts them anew without limit."""
        mark = self._task.folder / f".vaeport-shard-{shard:06d}.partial"
        with writing(mark, DatasetError), mark.open("ab") as stream:
            stream.write(b".")
            attempts = stream.tell()
        if attempts > RESTARTS:
            found, fix = f"{RESTARTS} of them, at shard {shard}", "look for memory that runs out, or use fewer actors"
            raise BlockedError("actors die", where=self._task.folder, found=found, fix=fix)
        yield
        with writing(mark, DatasetError):
            mark.unlink()


def run_ray(task: Task, count: int | None, tell: Tell | None, total: Callable[[int], None] | None = None) -> None:
    """Makes all shards that are left on the Ray cluster that this process is, or is to be, connected to.

    count   actors; None: one for each GPU of the cluster, or one for each `readers + 1` of its CPUs
    The output folder must be one that all machines of the cluster see. BlockedError if Ray is not installed.
    """
    with extra("ray", "ray"):
        import ray
        import ray.data
    job = task.job()
    left, log = task.begun(job)
    if total is not None:
        total(sum(len(job.items_of(shard)) for shard in left))
    if not left:
        return
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cpus = (int(resources.get(name, 0)) for name in ("GPU", "CPU"))
        each = min(task.resources.readers + 1, max(1, cpus))
        actors = min(count or gpus or max(1, cpus // each), len(left))
        ray.data.DataContext.get_current().enable_progress_bars = False
        shards = ray.data.from_items([{"shard": shard} for shard in left], override_num_blocks=len(left))
        results = shards.map_batches(
            Encoder,
            fn_constructor_args=(task,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=AHEAD),
            num_cpus=each if not gpus else min(each, max(1, cpus // actors)),
            num_gpus=1 if gpus else 0,
        )
        for row in results.iter_rows():
            _commit(job, log, json.loads(row["told"]), tell)
    except ray.exceptions.RayError as error:
        raise BlockedError("Ray could not make the shards", where=task.folder, found=error) from error
    finally:
        if ours:
            ray.shutdown()


def _commit(job: Job, log: Log, told: Rows, tell: Tell | None) -> None:
    if "failure" in told:
        raise Failure(**told["failure"]).error()
    shard = Shard.from_json(told["shard"])
    if not all(file.is_there(job.folder) for file in shard.files):
        fix = "write to a folder that all machines of the cluster share"
        raise BlockedError("what an actor wrote is not here", where=job.folder, found=f"shard {shard.shard}", fix=fix)
    log.commit(shard)
    if tell is not None:
        tell(len(job.items_of(shard.shard)), len(shard.quarantined))
