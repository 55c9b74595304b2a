"""A prepared folder holds the cells of its file; what was stopped goes on, what is damaged says so."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from torchcell.cells import prepare as module
from torchcell.cells.prepare import PROGRESS, prepare
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.table import MatrixOptions, cells_file
from torchcell.data import main
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = simulate_cells().cells.to_anndata()
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards, several chunks a shard and several windows of a small file."""
    monkeypatch.setattr(module, "CHUNK", 512)
    monkeypatch.setattr(module, "SHARD", 2048)
    monkeypatch.setattr(module, "WINDOW", 8 * 3000)


def same_cells(folder: Path, file: Path) -> None:
    found, given = anndata.read_zarr(folder), anndata.read_h5ad(file)
    assert set(found.obs_names) == set(given.obs_names)
    np.testing.assert_array_equal(found.X.toarray(), given[found.obs_names].X.toarray())
    assert found.obs["cell_line"].tolist() == given[found.obs_names].obs["cell_line"].tolist()
    label = found.obs["perturbation"].to_numpy().astype(str)
    assert (label[1:] != label[:-1]).sum() == len(set(label)) - 1, "cells of a condition lie together"
    for one in set(label):
        own = given.obs_names[given.obs["perturbation"] == one]
        assert found.obs_names[label == one].tolist() == own.tolist(), "in the order of the file"


@pytest.mark.usefixtures("small_shards")
def test_a_folder_has_all_cells_of_the_file_grouped_and_small(file: Path, tmp_path: Path, capsys) -> None:
    before = file.read_bytes()
    assert main(["prepare", str(file), str(tmp_path / "cells.zarr")]) == 0
    assert "880 cells x" in capsys.readouterr().out
    assert file.read_bytes() == before
    assert not (tmp_path / "cells.zarr.part").exists()
    same_cells(tmp_path / "cells.zarr", file)
    assert anndata.read_zarr(tmp_path / "cells.zarr").X.dtype == np.uint8
    with pytest.raises(InputError, match="cells.zarr exists; remove it first"):
        prepare(file, tmp_path / "cells.zarr", ["perturbation"])


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("kind", ["gzip", "dense", "float", "large"])
def test_every_kind_of_file_can_be_prepared(file: Path, tmp_path: Path, kind: str) -> None:
    adata = anndata.read_h5ad(file)
    if kind == "dense":
        adata.X = adata.X.toarray()
    if kind == "float":
        adata.X = adata.X * np.float32(0.3)
    if kind == "large":
        adata.X[3, 3] = 70_000
    adata.write_h5ad(tmp_path / "given.h5ad", compression="gzip" if kind == "gzip" else None)
    prepare(tmp_path / "given.h5ad", tmp_path / "out.zarr", ["perturbation"])
    adata.X = sparse.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "again.h5ad")
    same_cells(tmp_path / "out.zarr", tmp_path / "again.h5ad")


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("writes", [1, 4, 9])
def test_a_full_disk_and_a_killed_process_cost_what_is_not_written_yet(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    calls, write = [], module.write_json

    def full(path: Path, content: object) -> None:
        calls.append(path)
        if len(calls) > writes:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(InputError, match="part can't be written .*No space left.*make room and give the same command"):
        prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    monkeypatch.setattr(module, "write_json", write)
    done = json.loads((tmp_path / "cells.zarr.part" / PROGRESS).read_text())["values"]
    assert done == 2048 * (writes - 1)
    with pytest.raises(InputError, match=r"cells.zarr.part is no AnnData file|lacks .* chunk"):
        cells_file(tmp_path / "cells.zarr.part", "counts", "control", matrix=MatrixOptions(backed=True))
    seen = []
    stored = module.BackedMatrix.stored
    monkeypatch.setattr(module.BackedMatrix, "stored", lambda self, at: seen.append(len(at)) or stored(self, at))
    prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    same_cells(tmp_path / "cells.zarr", file)
    assert sum(seen) < 2 * 880 or done == 0, "what was written is not written again"


@pytest.mark.usefixtures("small_shards")
def test_a_folder_that_another_command_began_is_begun_anew(file: Path, tmp_path: Path) -> None:
    part = tmp_path / "cells.zarr.part"
    part.mkdir()
    (part / PROGRESS).write_text(json.dumps({"plan": "of another file", "values": 512}))
    prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    same_cells(tmp_path / "cells.zarr", file)


@pytest.mark.usefixtures("small_shards")
def test_a_begun_folder_that_leads_elsewhere_is_not_written_to(file: Path, tmp_path: Path, monkeypatch) -> None:
    """Who can write beside the file could make us write over any other."""
    part, other = tmp_path / "cells.zarr.part", tmp_path / "precious"
    other.write_text("precious")
    monkeypatch.setattr(module._Writer, "finish", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(InputError, match="killed"):
        prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    begun = json.loads((part / PROGRESS).read_text())
    (part / PROGRESS).write_text(json.dumps(begun | {"values": 0}))
    (part / "X" / "data" / "c" / "0").unlink()
    (part / "X" / "data" / "c" / "0").symlink_to(other)
    with pytest.raises(InputError, match="links to other files: '0'"):
        prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    assert other.read_text() == "precious"


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "index", "longer"])
def test_a_damaged_shard_is_one_error_that_names_it(file: Path, tmp_path: Path, damage: str) -> None:
    prepare(file, tmp_path / "cells.zarr", ["perturbation"])
    shard = tmp_path / "cells.zarr" / "X" / "data" / "c" / "1"
    whole = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        index = whole[:-20] + b"\x01" + whole[-19:]
        shard.write_bytes({"cut": whole[:100], "empty": b"", "index": index, "longer": whole[:-90]}[damage])
    with pytest.raises(InputError, match=r"lacks 1 of|data/c/1 is (half-written|missing or empty)"):
        cells_file(tmp_path / "cells.zarr", "counts", "control", matrix=MatrixOptions(backed=True))


def test_a_file_that_changes_meanwhile_is_refused_and_nothing_is_left(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.h5ad"
    copy.write_bytes(file.read_bytes())
    states = iter([("before", 0), ("after", 0)])
    monkeypatch.setattr(module, "state_of", lambda path: next(states))
    with pytest.raises(InputError, match="copy.h5ad changed while it was read"):
        prepare(copy, tmp_path / "cells.zarr", ["perturbation"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy.h5ad"]


def test_missing_columns_and_other_endings_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'gene'"):
        prepare(file, tmp_path / "cells.zarr", ["gene"])
    with pytest.raises(InputError, match="must end in .zarr"):
        prepare(file, tmp_path / "cells.h5ad", [])
    assert not list(tmp_path.iterdir())
