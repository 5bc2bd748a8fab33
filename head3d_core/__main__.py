"""`python -m head3d_core COMMAND ...`."""

from __future__ import annotations

import sys

from head3d_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
