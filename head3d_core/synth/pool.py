"""Several rendering processes: tasks out, counts back, pictures through shared memory or files.

Processes are spawned, not forked: an OpenGL context or a CUDA runtime in the parent does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from head3d_core.utils.errors import Head3DError

Task = list[tuple[int, int]]
"""(slot, index) pairs."""


class Job(Protocol):
    """Work that a process can be given by pickling."""

    def start(self) -> Any:
        """Makes what every task needs (a renderer), once per process."""

    def run(self, state: Any, task: Task) -> int:
        """Does one task; returns how many pictures it made."""


def reserve_shared(size: int) -> Path:
    """A new file of `size` bytes whose space is really there, in memory (/dev/shm) if it fits, else in the temp folder.

    Containers often have a tiny /dev/shm, and writing past its end kills a process without a word: hence the check.
    """
    reasons = []
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if not folder.is_dir():
            continue
        handle, name = tempfile.mkstemp(prefix="head3d-", dir=folder)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, max(size, 1))
            else:
                os.truncate(handle, max(size, 1))
            return Path(name)
        except OSError as error:
            Path(name).unlink()
            reasons.append(f"{folder}: {error.strerror}")
        finally:
            os.close(handle)
    raise Head3DError(
        f"These pictures need {size / 1e9:.1f} GB of shared space, which is not there ({'; '.join(reasons)})."
    )


def shared_array(path: Path) -> NDArray[np.uint8]:
    """The file's bytes as an array: what one process writes the others see."""
    return np.asarray(np.memmap(path, np.uint8, "r+"))


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Writes `name: done / total, pictures per second` now and then."""

    def __init__(self, name: str, stream: TextIO, every: float = 2.0) -> None:
        self._name, self._stream, self._every = name, stream, every
        self._start = self._last = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._last < self._every and done < total:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        end = "\n" if done == total or not self._stream.isatty() else "\r"
        print(
            f"{self._name}: {done} / {total}, {rate:.1f} pictures/s", end=end, file=self._stream, flush=True
        )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children inherit one thread per numerical library: the processes already fill the cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_job: Job | None = None


def _start(job: Job) -> None:
    global _job
    _job = job


@cache
def _state() -> Any:
    """Made at the first task, not at the start of the process: so that an error travels back with its sentence."""
    assert _job is not None
    return _job.start()


def _run(task: Task) -> int:
    assert _job is not None
    return _job.run(_state(), task)


def run_tasks(
    job: Job, tasks: list[Task], workers: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Runs every task; 1 worker works in this process, 0 means one process per core.

    An error in a worker stops everything and is raised here.
    """
    total, done = sum(map(len, tasks)), 0
    workers = min(workers if workers > 0 else cores(), len(tasks))
    if not tasks:
        return
    if workers <= 1:
        state = job.start()
        for task in tasks:
            done += job.run(state, task)
            if progress:
                progress(done, total)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job,)) as pool:
            try:
                for finished in as_completed([pool.submit(_run, task) for task in tasks]):
                    done += finished.result()
                    if progress:
                        progress(done, total)
            except BrokenProcessPool as error:
                raise Head3DError(
                    "A rendering process was ended from outside, most likely for lack of memory: "
                    f"try fewer than {workers} workers."
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
