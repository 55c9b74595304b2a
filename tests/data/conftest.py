"""An empty data folder for the tests of downloads and caches."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TORCHCELL_DATA and no mirror."""
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TORCHCELL_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"
