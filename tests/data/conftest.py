"""Where the data tests find real files, and folders of their own for everything that they write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def mirror_folder() -> Path:
    folder = Path(os.environ.get("TORCHCELL_MIRROR") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "SOURCES.tsv").is_file():
        pytest.skip(f"no real data in {folder}; set TORCHCELL_MIRROR")
    return folder


@pytest.fixture(scope="session")
def real_data(mirror_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The mirror, with a cache for this test session, so that each real file is parsed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHCELL_MIRROR", str(mirror_folder))
        patch.setenv("TORCHCELL_DATA", str(tmp_path_factory.mktemp("torchcell_data")))
        yield mirror_folder


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TORCHCELL_DATA and no mirror."""
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TORCHCELL_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"
