"""One mutant in a child: imported, built, loaded, placed, then judged like any fault."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.drift import mutation
from bench.drift.forking import Emit
from bench.drift.mutants import Mutant

HANGS = 60
"""Seconds that building and running a mutant may take."""


def source_files(root: Path, module: str) -> list[Path]:
    """Files of `layers`, and of `models` and `weights` as far as a model uses them."""
    found = list((root / "layers").glob("*.py"))
    for folder in ("models", "weights"):
        found += mutation.closure(root / folder / f"{module}.py", root)
    return sorted(set(found))


def lines_used(name: str, root: Path) -> dict[str, list[int]]:
    """Lines of a VAE's sources that run when it is imported, built, loaded and run. For a child: imports all anew."""
    from bench.drift import vaes

    module = vaes.narrow.narrow(name)[0].__module__.rpartition(".")[2]
    files = {str(file) for file in source_files(root, module)}
    mutation.purge()

    def work() -> None:
        run_clean(name)

    return {file: sorted(lines) for file, lines in mutation.lines_run(files, work).items()}


def run_clean(name: str) -> None:
    """Everything that the proof of a VAE runs natively, once."""
    import tempfile

    from bench.drift import oracle, vaes

    proof = vaes.narrow.proof(name)
    _, arch = vaes.narrow.narrow(name)
    with tempfile.TemporaryDirectory() as folder:
        shapes = proof.reference.describe()["shapes"]
        weights = oracle.write(Path(folder), shapes, arch.to_published(), 0)
        vae = vaes.opened(weights).double()
        for run in oracle.runs(vae.contract, 0)[-2:]:
            oracle.outputs(vae, run)


def trial(prepared: Any, mutant: Mutant, described: dict[str, Any], state: dict[str, Any]) -> Callable[[Emit], None]:
    """The work of a child: all of `vaeport` is imported with the mutated source."""

    def work(emit: Emit) -> None:
        try:
            with_alarm(lambda: mutation.install(mutant.module, mutant.file, mutant.source))
            vaes = with_alarm(_imported)
            opened = with_alarm(lambda: vaes.opened(prepared.weights))
        except TimeoutError:
            emit({"hangs": True, "fault": True, "detected": True})
            return
        except Exception as error:
            emit({"does_not_build": f"{type(error).__name__}: {error}"[:300], "fault": True, "detected": True})
            return
        from bench.drift import oracle, trial

        places = mutation.differing(described, mutation.described(opened))
        places += mutation.values_differing(state, opened.state_dict())
        vae = opened.double()

        def run() -> None:
            try:
                oracle.outputs(vae, prepared.inputs[0])
            except Exception:
                # where the encoder fails, the decoder is to be seen too
                with suppress(Exception):
                    vae.decode(prepared.inputs[0].latent)
                raise

        with suppress(TimeoutError):
            places += with_alarm(lambda: mutation.running_in(vae, mutant.file, mutant.scope, run))
        emit({"places": sorted(set(places))[:40]})
        try:
            change = with_alarm(lambda: trial.ask_oracle(prepared, None))
        except TimeoutError:
            emit({"hangs": True, "fault": True, "detected": True})
            return
        emit({"oracle": vars(change), "fault": change.fault})
        if trial.VERDICTS["wanted"]:
            emit({"verdict": trial.ask_proof(prepared, None)})
        if change.fault:
            emit(trial.judge(prepared, _nothing, places, []))

    return work


def _imported() -> Any:
    from bench.drift import vaes

    return vaes


def _nothing(vae: Any) -> None:
    """The fault lies in the source."""


def with_alarm(work: Callable[[], Any]) -> Any:
    """What `work` gives; TimeoutError when it hangs."""

    def rings(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, rings)
    signal.alarm(HANGS)
    try:
        return work()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
