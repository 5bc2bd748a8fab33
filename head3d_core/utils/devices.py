"""Which device a command runs on."""

from __future__ import annotations

import torch

from head3d_core.utils.errors import Head3DError


def usable_device(name: str) -> torch.device:
    """The device of that name, tried out; "auto" is a GPU where torch sees one, else the processor.

    >>> usable_device("cpu")
    device(type='cpu')

    Raises:
        Head3DError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise Head3DError(f"device {name!r} cannot be used ({reason}): give cpu, cuda or cuda:1") from error
    return device
