"""Several rendering processes: tasks out, counts back, pictures through shared memory or files.

Processes are spawned, not forked: an OpenGL context or a CUDA runtime in the parent does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

Task = list[tuple[int, int]]
"""(slot, index) pairs."""


class Job(Protocol):
    """Work that a process can be given by pickling."""

    def start(self) -> Any:
        """Makes what every task needs (a renderer), once per process."""

    def run(self, state: Any, task: Task) -> int:
        """Does one task; returns how many pictures it made."""


def shared_array(name: str | None, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], SharedMemory]:
    """A uint8 array in new (name None) or existing shared memory; keep the second value as long as the first."""
    size = max(int(np.prod(shape)), 1)
    memory = SharedMemory(create=True, size=size) if name is None else SharedMemory(name=name)
    return np.ndarray(shape, np.uint8, memory.buf), memory


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

    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job,)) as pool:
            try:
                for finished in as_completed([pool.submit(_run, task) for task in tasks]):
                    done += finished.result()
                    if progress:
                        progress(done, total)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
