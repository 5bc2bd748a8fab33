"""The one exception that is meant for the reader of the message."""

from __future__ import annotations


class Head3DError(ValueError):
    """Something the user can mend: the text says what was expected, what came and what to do.

    It derives from `ValueError`, so that callers who do not know this package still catch it sensibly.
    """
