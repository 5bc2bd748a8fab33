"""Work in several rendering processes: tasks go out, results come back in whatever order they are done.

Processes are spawned, not forked: an OpenGL context or a CUDA runtime in the parent does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar
from unittest import mock

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress

State = TypeVar("State")
Result = TypeVar("Result")
Task = Sequence[tuple[int, int]]
"""(slot, index) pairs: what is rendered, and where it belongs in the whole."""


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    start: Callable[[], State],
    run: Callable[[State, Task], Result],
    tasks: Sequence[Task],
    workers: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Yields every task with its result, as they are done.

    Args:
        start: makes what every task needs (a renderer), once per process. It travels by pickle, as `run` does.
        run: does one task.
        workers: 1 works in this process, 0 means one process per core.
        progress: called with (done, total) slots, whenever a task is done.

    An error in a worker stops everything and is raised here; so does the end of the iteration.
    """
    total, done = sum(map(len, tasks)), 0
    workers = min(workers if workers > 0 else cores(), len(tasks))
    if workers > 1:
        results = _together(start, run, tasks, workers)
    else:
        state = cache(start)  # only made if there is a task
        results = ((task, run(state(), task)) for task in tasks)
    for task, result in results:
        done += len(task)
        if progress:
            progress(done, total)
        yield task, result


_state: Callable[[], Any]
"""Gives what every task of a worker needs."""


def _prepare(start: Callable[[], Any]) -> None:
    """Made at the first task, not at the start of the process: so that an error travels back with its sentence."""
    global _state
    _state = cache(start)


def _run(run: Callable[[Any, Task], Result], task: Task) -> tuple[Task, Result]:
    return task, run(_state(), task)


def _together(
    start: Callable[[], State], run: Callable[[State, Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result]]:
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    # Children inherit one thread per numerical library: the processes already fill the cores.
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
    with (
        mock.patch.dict(os.environ, dict.fromkeys(threads, "1")),
        ProcessPoolExecutor(workers, context, _prepare, (start,)) as pool,
    ):
        try:
            for finished in as_completed([pool.submit(_run, run, task) for task in tasks]):
                yield finished.result()
        except BrokenProcessPool as error:
            raise Head3DError(
                "A rendering process was ended from outside, most likely for lack of memory: "
                f"try fewer than {workers} workers."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
