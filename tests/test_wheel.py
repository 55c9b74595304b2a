"""The wheel holds the config tree and templates, and trains in an empty folder without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel as an installer would unpack it; no build isolation, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_whole_config_tree(unpacked):
    inside = {
        str(path.relative_to(unpacked / "torchcell/conf")) for path in (unpacked / "torchcell/conf").rglob("*.yaml")
    }
    assert inside == {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}


def test_the_wheel_holds_what_new_models_are_made_of(unpacked):
    inside = {str(path.relative_to(unpacked)) for path in (unpacked / "torchcell").rglob("*.txt")}
    assert inside == {str(path.relative_to(ROOT)) for path in (ROOT / "torchcell").rglob("*.txt")}
    assert len(inside) == 5


def test_the_wheel_is_typed_and_brings_the_command(unpacked):
    assert (unpacked / "torchcell" / "py.typed").is_file()
    (entries,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "torchcell = torchcell.__main__:main" in entries.read_text()


@pytest.mark.long
def test_it_trains_in_an_empty_folder(unpacked, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"}
    small = ["+debug=fast", "data.record.n_sets=400", "data.subset=null", "evaluation.n_boot=20", "baselines=none"]
    script = (
        "import sys, runpy, torchcell; print('FROM', torchcell.__file__); "
        "runpy.run_module('torchcell.train', run_name='__main__')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, *small],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert f"FROM {unpacked}" in answer.stdout
    (report,) = tmp_path.glob("runs/*/*/report.html")
    assert report.stat().st_size > 0
