"""Progress of long work: one kind of callback, and a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Item = TypeVar("Item")


def counted(items: Sequence[Item], progress: Progress | None) -> Iterator[Item]:
    """The items, one after another; `progress` is called after each."""
    for done, item in enumerate(items, 1):
        yield item
        if progress:
            progress(done, len(items))


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on stderr as a callback."""
    from tqdm import tqdm

    with tqdm(desc=what, leave=False) as shown:

        def step(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield step
