"""Progress of long work: one kind of callback, and a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on stderr as a callback."""
    from tqdm import tqdm

    with tqdm(desc=what, leave=False) as shown:

        def step(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield step
