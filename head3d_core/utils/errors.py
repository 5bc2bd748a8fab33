"""The one exception whose message is written for the user."""

from __future__ import annotations


class Head3DError(ValueError):
    """An error that the user can fix: the text says what was expected, what came and what to do.

    It derives from `ValueError`, so that callers who do not know this package still catch it sensibly.
    """


def printable(text: str) -> str:
    r"""One line for a console: what a file name may hide, such as line breaks and colours, as escapes.

    >>> printable("a\nb \x1b[31m.png")
    'a\\nb \\x1b[31m.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
