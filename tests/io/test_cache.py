from __future__ import annotations

import errno
import threading
import time
from dataclasses import fields, replace

import numpy as np
import pytest

from torchcell.graph.network import Network
from torchcell.io import cache
from torchcell.io.cache import atomic_write, cached_record, load_record, save_record
from torchcell.io.errors import InputError
from torchcell.screen.record import Screen


@pytest.fixture
def screen() -> Screen:
    return Screen(
        name="small",
        genes=np.array(["A", "B", "C"]),
        gene=np.array([0, 1, 2]),
        ptr=np.array([0, 2, 3]),
        kind=np.array([0, 0, 3], dtype=np.int8),
        phenotype=np.array([[1.0, np.nan], [0.25, -2.0]], dtype=np.float32),
        phenotype_names=("growth", "µ"),
        sample_id=np.array(["s1", "s2"]),
        level=np.array([np.nan, np.nan, 0.5], dtype=np.float32),
        columns={"query": np.array(["A", "C"], dtype=object), "unlabeled": np.array([True, False])},
        replicates=np.zeros((2, 3, 2), dtype=np.float32),
        dropped={"rows": np.int64(3)},  # type: ignore[dict-item]
    )


def test_a_screen_comes_back_field_by_field(screen, tmp_path):
    save_record(screen, tmp_path / "screen.npz")
    again = load_record(Screen, tmp_path / "screen.npz").validate()
    for field in fields(Screen):
        before, after = getattr(screen, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after, err_msg=field.name)
            assert before.dtype == after.dtype, field.name
        elif field.name == "columns":
            assert {k: v.tolist() for k, v in before.items()} == {k: v.tolist() for k, v in after.items()}
        else:
            assert before == after, field.name


def test_a_network_comes_back(tmp_path):
    network = Network("x", np.array(["A"]), np.array(["B"]), np.ones(1, np.float32), True, dropped={"loops": 2})
    save_record(network, tmp_path / "network.npz")
    again = load_record(Network, tmp_path / "network.npz")
    assert (again.name, again.directed, again.dropped) == ("x", True, {"loops": 2})
    assert again.source.tolist() == ["A"]


def test_files_hold_no_pickle_and_refuse_one(screen, tmp_path):
    save_record(screen, tmp_path / "screen.npz")
    with np.load(tmp_path / "screen.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)
    np.savez(tmp_path / "evil.npz", plain=np.array([{"record": "Screen"}], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz is damaged"):
        load_record(Screen, tmp_path / "evil.npz")


def test_a_column_of_mixed_types_is_refused_by_name(screen, tmp_path):
    mixed = replace(screen, columns={"note": np.array(["a", 1], dtype=object)})
    with pytest.raises(InputError, match="column 'note' mixes types"):
        save_record(mixed, tmp_path / "screen.npz")


@pytest.mark.parametrize("damage", ["truncated", "other record", "text", "missing"])
def test_a_damaged_file_is_named_with_the_remedy(screen, tmp_path, damage):
    path = tmp_path / "screen.npz"
    save_record(screen, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "other record":
        save_record(Network("x", np.array(["A"]), np.array(["B"]), np.ones(1, np.float32), False), path)
    elif damage == "text":
        path.write_text("not an archive")
    else:
        path.unlink()
    with pytest.raises(InputError, match=rf"no such file: {path}" if damage == "missing" else rf"{path}.*delete it"):
        load_record(Screen, path)


def test_a_full_disk_leaves_the_old_file_whole_and_no_half_file(screen, tmp_path, monkeypatch):
    path = tmp_path / "screen.npz"
    save_record(screen, path)
    before = path.read_bytes()

    def full_disk(target, **_):
        target.write_bytes(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        save_record(replace(screen, name="other"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert "unchanged" in caught.value.__notes__[0]


def test_a_crash_while_writing_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "new" / "table.csv") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []


def test_the_temporary_file_lies_beside_and_keeps_the_ending(tmp_path):
    with atomic_write(tmp_path / "table.parquet") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        assert not (tmp_path / "table.parquet").exists()
        temporary.write_text("whole")
    assert (tmp_path / "table.parquet").read_text() == "whole"


def test_the_cache_is_keyed_by_sources_and_recipe(screen, data_folder):
    built: list[int] = []

    def build(marker: int) -> Screen:
        built.append(marker)
        return replace(screen, dropped={"marker": marker})

    def ask(marker: int, source: str = "kuzmin2018", recipe: int = 1) -> int:
        return cached_record(Screen, "small", [source], {"recipe": recipe}, lambda: build(marker)).dropped["marker"]

    assert ask(1) == 1
    assert ask(2) == 1  # parsed before
    assert ask(3, recipe=2) == 3
    assert ask(4, source="yeast_go") == 4
    assert built == [1, 3, 4]


def test_a_changed_checksum_of_a_source_is_another_key(screen, data_folder, monkeypatch):
    ask = lambda marker: cached_record(Screen, "small", ["kuzmin2018"], {}, lambda: replace(screen, name=marker)).name  # noqa: E731
    assert ask("one") == "one"
    entry = cache.registry()["kuzmin2018"]
    changed = replace(entry, files=tuple(replace(file, sha256="0" * 64) for file in entry.files))
    monkeypatch.setattr(cache, "registry", lambda: {"kuzmin2018": changed})
    assert ask("two") == "two"


def test_processes_that_ask_at_a_time_parse_once(screen, data_folder):
    built, got = [], []

    def build() -> Screen:
        built.append(1)
        time.sleep(0.2)
        return screen

    def ask() -> None:  # each thread opens the lock file for itself, as a process does
        got.append(cached_record(Screen, "small", ["kuzmin2018"], {}, build))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert [record.name for record in got] == ["small"] * 4


def test_an_invalid_record_is_not_cached(screen, data_folder):
    invalid = replace(screen, sample_id=np.array(["s1", "s1"]))
    with pytest.raises(InputError, match="used twice"):
        cached_record(Screen, "small", ["kuzmin2018"], {}, lambda: invalid)
    assert not list(data_folder.rglob("*.npz"))
