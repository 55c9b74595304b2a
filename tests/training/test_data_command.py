from __future__ import annotations

import subprocess
import sys

import pytest

from torchcell.data import main
from torchcell.io.sources import registry


def test_list_shows_every_source(data_folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in registry())
    row = next(line for line in shown.splitlines() if "papalexi2021" in line)
    assert "mirror only" in row
    assert "missing" in row


@pytest.mark.mirror
def test_fetch_prints_paths(mirror, capsys):
    assert main(["fetch", "kuzmin2018", "yeast_go"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit("/", 1)[1] for line in lines] == [
        "kuzmin2018_significant_triplets_links.txt",
        "GO_annotations-559292-direct-allev.tsv",
        "yeast_go_child_2_parent.txt",
    ]


def test_an_unknown_name_is_one_line_and_status_1(data_folder, capsys):
    assert main(["fetch", "kuzmin"]) == 1
    told = capsys.readouterr()
    assert told.err == "error: no source named 'kuzmin'; the nearest are: kuzmin2018\n"
    assert told.out == ""


def test_a_mirror_only_source_says_so(data_folder, capsys):
    assert main(["fetch", "papalexi2021"]) == 1
    assert "mirror only" in capsys.readouterr().err


def test_the_command_line_starts_without_heavy_packages():
    code = (
        "import sys, torchcell.data as m\n"
        "try: m.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "list" in out
    assert "fetch" in out
    assert out.splitlines()[-1] == "[]"
