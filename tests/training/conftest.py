"""The toy data of `training_toys` in place of folders."""

from __future__ import annotations

import pytest
import training_toys


@pytest.fixture
def toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` reads the toy sets at a scale that is quick."""
    training_toys.use_toy_data(monkeypatch)
