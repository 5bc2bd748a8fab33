"""`python -m head3d_core COMMAND ...`."""

from __future__ import annotations

import signal
import sys

from head3d_core.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception removes what is half written
    sys.exit(main())
