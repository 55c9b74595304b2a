"""GCTX: any wells in any order equal those of the whole matrix, in chunks too."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.io.gct import ABOUT_GENES, ABOUT_WELLS, MATRIX, Gctx
from torchcell.io.sources import fetch

N, G = 50, 7


def written(folder: Path, **changes: object) -> Path:
    values = np.random.default_rng(0).normal(0, 3, (N, G)).astype(np.float32)
    values[3, 2] = values[20, 0] = -666
    given: dict[str, object] = {
        MATRIX: values,
        f"{ABOUT_WELLS}/id": np.array([f"W{i}" for i in range(N)], dtype="S"),
        f"{ABOUT_WELLS}/pert_idose": np.array(["10 µM".encode("latin-1"), b"-666"] * (N // 2)),
        f"{ABOUT_WELLS}/pert_dose": np.array([10.0, -666.0] * (N // 2), dtype=np.float32),
        f"{ABOUT_GENES}/id": np.arange(G),
    }
    with h5py.File(folder / "wells.gctx", "w") as file:
        for name, data in (given | changes).items():
            if data is not None:
                file[name] = data
    return folder / "wells.gctx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.mark.parametrize("chunk", [1, 8, 4096])
@pytest.mark.parametrize(
    "samples",
    [
        None, slice(4, 30), slice(None, None, 3), np.arange(10, 20), np.array([3, 20, 21, 49]), np.array([20, 3, 3, 49, 0]),
        np.array([-1, 3]), np.array([], dtype=int),
    ],
    ids=["all", "span", "steps", "run", "scattered", "shuffled", "from the end", "none"],
)  # fmt: skip
def test_chosen_rows_are_those_of_the_whole_matrix(path: Path, samples: object, chunk: int) -> None:
    with h5py.File(path) as raw:
        whole = raw[MATRIX][:]
    whole[whole == -666] = np.nan
    with Gctx(path) as file:
        read = file.read(samples, chunk)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read, whole[samples if samples is not None else slice(None)])  # type: ignore[index]


def test_chunks_cover_each_sample_once(path: Path) -> None:
    with Gctx(path) as file:
        parts = list(file.chunks(8))
        np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), file.read())
    assert [len(block) for _, block in parts] == [8] * 6 + [2]
    assert sum(where.stop - where.start for where, _ in parts) == N


def test_annotations_mark_what_is_missing_and_read_either_micro_sign(path: Path) -> None:
    with Gctx(path) as file:
        table = file.annotated(np.array([1, 0]))
    assert table.wells.index.tolist() == ["W1", "W0"]
    assert table.wells["pert_idose"].tolist() == ["", "10 µM"]
    np.testing.assert_array_equal(table.wells["pert_dose"], [np.nan, 10.0])
    assert table.genes.index.tolist() == [str(i) for i in range(G)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({MATRIX: None}, "is no GCTX file: it has no 0/DATA/0/matrix"),
        ({f"{ABOUT_GENES}/id": None}, "it has no 0/META/ROW/id"),
        ({f"{ABOUT_WELLS}/id": np.arange(9)}, r"the matrix is \(50, 7\), but there are ids of 9 samples and 7 genes"),
    ],
)
def test_a_file_without_the_parts_of_a_gctx_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gctx(written(tmp_path, **changes))


def test_repeated_ids_and_other_files_are_refused(tmp_path: Path) -> None:
    twice = np.array(["W0", *[f"W{i}" for i in range(N - 1)]], dtype="S")
    with (
        Gctx(written(tmp_path, **{f"{ABOUT_WELLS}/id": twice})) as file,
        pytest.raises(InputError, match="ids of samples used twice: 'W0'"),
    ):
        file.wells()
    (tmp_path / "text.gctx").write_text("#1.3")
    with pytest.raises(InputError, match="can't be read as HDF5"):
        Gctx(tmp_path / "text.gctx")
    with pytest.raises(InputError, match="no such file"):
        Gctx(tmp_path / "nowhere.gctx")


@pytest.mark.mirror
def test_the_real_signatures_read_like_h5py_reads_them(mirror: Path) -> None:
    (path,) = fetch("l1000_gctx").values()
    with Gctx(path) as file, h5py.File(path) as raw:
        table = file.annotated()
        np.testing.assert_array_equal(table.values, raw[MATRIX][:])
    assert table.values.shape == (272, 978)
    assert table.genes["pr_gene_symbol"].iloc[0] == "PSME1"
    assert set(table.wells["pert_idose"]) == {"10 µM", "3 µM", "1 µM", "500 nM", "100 nM"}
