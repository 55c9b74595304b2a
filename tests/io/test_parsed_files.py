"""A large file is parsed once, for all processes and trials, until it or the code changes."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from torchcell.core.split import Split
from torchcell.io import parsed_files
from torchcell.io.errors import InputError
from torchcell.io.file_facts import verifying
from torchcell.screen import table
from torchcell.screen.record import Screen
from torchcell.screen.splits import SPLITS
from torchcell.screen.table import read_screen


@pytest.fixture
def parsed(monkeypatch, data_folder) -> list[Path]:
    """Any file is large; the list holds the files that were parsed."""
    seen, read = [], table._read_screen

    def noted(path, *arguments):
        seen.append(path)
        return read(path, *arguments)

    monkeypatch.setattr(parsed_files, "LARGE", 0)
    monkeypatch.setattr(table, "_read_screen", noted)
    return seen


def write(path: Path, value: float = 0.5, age_s: int = 60) -> Path:
    """A screen whose first column has no name, so that a warning is said."""
    rows = [f"{i},A{i}|B{i % 7},{i * value},A{i}" for i in range(60)]
    path.write_text("\n".join([",genes,y,query", *rows]))
    past = path.stat().st_mtime - age_s
    os.utime(path, (past, past))
    return path


def settled(monkeypatch) -> None:
    """A file's time of change can't be set: nothing is too young."""
    monkeypatch.setattr("torchcell.io.file_facts.SETTLED_NS", -1)


def test_a_file_is_parsed_once_and_its_warnings_are_said_each_time(tmp_path, parsed, monkeypatch):
    settled(monkeypatch)
    path = write(tmp_path / "screen.csv")
    with pytest.warns(UserWarning, match="counts the rows"):
        first = read_screen(path)
    with pytest.warns(UserWarning, match="counts the rows"):
        again = read_screen(path)
    assert len(parsed) == 1
    monkeypatch.setattr(parsed_files, "LARGE", 2**40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = read_screen(path)
    assert plain.fingerprint() == first.fingerprint() == again.fingerprint() == replace(again).fingerprint()
    assert again.sets() == plain.sets()
    assert (plain.known_as, again.known_as) == ("", plain.fingerprint())


@pytest.mark.filterwarnings("ignore:.*counts the rows")
def test_other_arguments_another_file_and_a_full_check_parse_again(tmp_path, parsed, data_folder, monkeypatch):
    settled(monkeypatch)
    path = write(tmp_path / "screen.csv")
    assert read_screen(path).name == "screen"
    assert read_screen(path, name="mine").name == "mine"
    assert len(list(data_folder.rglob("file-*.npz"))) == 2
    write(path, 0.25)
    assert read_screen(path).phenotype[1, 0] == np.float32(0.25)
    assert len(parsed) == 3
    assert len(list(data_folder.rglob("file-*.npz"))) == 3, "another run may still look at what was kept before"
    monkeypatch.setattr(parsed_files, "UNUSED_S", -60.0)
    write(path, 0.125)
    assert read_screen(path).phenotype[1, 0] == np.float32(0.125)
    assert len(list(data_folder.rglob("file-*.npz"))) == 2, "what was kept of the file before is removed"
    with verifying("full"):
        read_screen(path)
    assert len(parsed) == 5


@pytest.mark.filterwarnings("ignore:.*counts the rows")
def test_a_damaged_copy_is_made_again_and_a_young_file_is_not_kept(tmp_path, parsed, data_folder, monkeypatch):
    path = write(tmp_path / "screen.csv", age_s=0)
    read_screen(path)
    assert not list(data_folder.rglob("file-*.npz")), "it may change again within a tick of the clock"
    settled(monkeypatch)
    read_screen(path)
    (copy,) = data_folder.rglob("file-*.npz")
    copy.write_bytes(copy.read_bytes()[:-100])
    assert len(read_screen(path)) == 60
    assert len(parsed) == 3


@pytest.mark.filterwarnings("ignore:.*counts the rows")
def test_a_refused_file_leaves_nothing_behind(tmp_path, parsed, data_folder, monkeypatch):
    settled(monkeypatch)
    path = tmp_path / "screen.csv"
    path.write_text("genes,y\nA,1\nA,2\n")
    for _ in range(2):
        with pytest.raises(InputError, match="a sample id used twice"):
            read_screen(path)
    assert not list(data_folder.rglob("file-*.npz"))


@pytest.mark.filterwarnings("ignore:.*counts the rows")
def test_a_known_record_can_not_be_written_and_no_copy_of_it_is_known(tmp_path, parsed, monkeypatch):
    settled(monkeypatch)
    screen = read_screen(write(tmp_path / "screen.csv"))
    for values in (screen.phenotype, screen.gene, screen.columns["query"]):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = values[1]
    for copy in (screen.subset(np.arange(60)), screen.blind(), replace(screen, name="other")):
        assert copy.known_as == ""
    twice = replace(screen, sample_id=np.resize(screen.sample_id[:30], 60))
    with pytest.raises(InputError, match="used twice"):
        twice.validate()


@pytest.mark.filterwarnings("ignore:.*counts the rows")
@pytest.mark.parametrize("method", ["random", "query_disjoint"])
def test_a_split_of_a_known_record_is_checked_and_hashed_once(tmp_path, parsed, monkeypatch, method):
    settled(monkeypatch)
    screen, checked, validate = read_screen(write(tmp_path / "screen.csv")), [], Split.validate
    monkeypatch.setattr(Split, "validate", lambda *a: checked.append(1) or validate(*a))
    splits = [SPLITS.make(screen, method) for _ in range(2)]
    assert len(checked) == 1
    plain = SPLITS.make(Screen(**vars_of(screen)), method)
    assert splits[0].hash == splits[1].hash == plain.hash
    assert splits[1].part.tolist() == plain.part.tolist()
    assert SPLITS.make(screen, method, fold=1).hash != plain.hash


def vars_of(screen: Screen) -> dict:
    return {name: value for name, value in vars(screen).items() if not name.startswith("_")}
