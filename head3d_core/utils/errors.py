"""The one exception whose message is written for the user."""

from __future__ import annotations


class Head3DError(ValueError):
    """An error that the user can fix: the text says what was expected, what came and what to do.

    It derives from `ValueError`, so that callers who do not know this package still catch it sensibly.
    """
