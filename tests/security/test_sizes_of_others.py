"""What a file points at, packs or repeats is counted before it is there; what takes long by its letters alone does not.

The twin of each: with the check patched off the sizes are asked for, or the secret is read.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from ctypes import CDLL, c_int64
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from attacks import Config, edited_checkpoint
from test_configs_of_others import nothing

from torchcell.cells.backed import matrix_at
from torchcell.core.split import Split
from torchcell.data import main as data
from torchcell.io import ceiling, errors, hdf5, table_text
from torchcell.io.errors import InputError, near
from torchcell.io.gct import read_gct
from torchcell.io.h5ad import read_h5ad
from torchcell.io.hdf5_texts import bytes_of_texts
from torchcell.io.labels import label_texts
from torchcell.io.tables import read_table
from torchcell.knowledge_graph.embed import main as validate
from torchcell.screen.table import read_screen
from torchcell.training import build, build_limits, checkpoint

LEGACY = {"encoding-type": "dataframe", "encoding-version": "0.1.0"}
TEXTS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


def cells(path: Path) -> Path:
    obs = pd.DataFrame({"perturbation": ["ctrl"] * 4 + ["G1"] * 4}, index=[f"c{i}" for i in range(8)])
    table = anndata.AnnData(np.ones((8, 3), np.float32), obs, pd.DataFrame(index=["G0", "G1", "G2"]))
    table.write_h5ad(path)
    return path


def hdf5_library() -> CDLL:
    (path,) = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libhdf5-" in line}
    library = CDLL(path)
    library.H5Oincr_refcount.argtypes = [c_int64]
    return library


def referring(path: Path, secret: Path) -> Path:
    """An old table of AnnData, whose column names its categories by a reference, to what stands under no name."""
    with h5py.File(cells(path), "a") as file:
        del file["obs/perturbation"]
        codes = file["obs"].create_dataset("perturbation", data=np.array([0] * 4 + [1] * 4, "i1"))
        hidden = file.create_dataset(None, (2,), "S6", external=[(str(secret), 0, 12)])
        hidden.attrs.update(TEXTS)
        codes.attrs["categories"] = hidden.ref
        file["obs"].attrs.update(LEGACY)
        hdf5_library().H5Oincr_refcount(hidden.id.id)
    return path


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="finds the library of HDF5 as Linux names it")
def test_a_reference_to_what_has_no_name_takes_nothing_from_other_files(tmp_path, capsys, monkeypatch):
    (tmp_path / "secret").write_bytes(b"hunterpasswd")
    path = referring(tmp_path / "a.h5ad", tmp_path / "secret")
    assert data(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "takes data from other files: '/obs/perturbation@categories (reference" in said
    assert "hunter" not in said
    with h5py.File(cells(tmp_path / "old.h5ad"), "a") as file:  # as AnnData wrote it until 2022: by its name
        codes, named = file["obs/perturbation/codes"][:], file["obs/perturbation/categories"][:]
        del file["obs/perturbation"]
        file["obs/__categories/perturbation"] = named
        file["obs/perturbation"] = codes
        file["obs/perturbation"].attrs["categories"] = file["obs/__categories/perturbation"].ref
        file["obs"].attrs.update(LEGACY)
    assert set(read_h5ad(tmp_path / "old.h5ad").obs["perturbation"]) == {"ctrl", "G1"}
    monkeypatch.setattr(hdf5, "_refuse_foreign", lambda *_: None)
    data(["check", str(path.rename(tmp_path / "b.h5ad"))])
    assert "hunter" in capsys.readouterr().out, "the payload is stale"


def pointing(path: Path, n: int = 2000, long: int = 2**20) -> Path:
    """One long text that many cells of a packed column point at."""
    with h5py.File(cells(path), "a") as file:
        note = file["obs"].create_dataset("note", (n,), h5py.string_dtype(), chunks=(n,), compression="gzip")
        once = file.create_dataset("once", (1,), h5py.string_dtype(), chunks=(1,))
        once[0] = "x" * long
        file.flush()
        note.id.write_direct_chunk((0,), zlib.compress(once.id.read_direct_chunk((0,))[1] * n))
        note.attrs.update(TEXTS)
        file["obs"].attrs["column-order"] = ["perturbation", "note"]
        del file["once"]
    return path


def test_a_text_that_many_cells_point_at_is_counted_for_each(tmp_path, capsys, monkeypatch):
    path = pointing(tmp_path / "a.h5ad")
    for verb in (lambda: data(["check", str(path)]), lambda: validate([str(path)])):
        assert verb() == 1
        assert re.search(r"the texts up to /obs/note would take 7.8 GB", "".join(capsys.readouterr()))
    assert read_h5ad(pointing(tmp_path / "b.h5ad", n=8, long=100)).obs["note"].str.len().tolist() == [100] * 8
    monkeypatch.setattr(hdf5, "bytes_of_texts", lambda *_: 0)
    with hdf5.open_hdf5(pointing(tmp_path / "c.h5ad")) as file:
        assert sum(map(len, file["obs/note"][:4])) == 2**22, "the payload is stale"


WAYS = {
    "in a row": {},
    "chunks": {"chunks": (7,)},
    "gzip": {"chunks": (7,), "compression": "gzip", "shuffle": True},
    "another filter": {"chunks": (7,), "compression": "lzf"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_lengths_of_texts_are_what_the_file_says(way, tmp_path):
    texts = ["x" * (i * 7 % 50) for i in range(40)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.array(texts, object), dtype=h5py.string_dtype(), **WAYS[way])
        file.create_dataset("list", (3,), h5py.vlen_dtype(np.float64))
        file["list"][0] = np.arange(9.0)
    with h5py.File(tmp_path / "a.h5") as file:
        assert bytes_of_texts(file["a"], tmp_path / "a.h5", 10**5) == 40 * 49 * 4
        assert bytes_of_texts(file["a"], tmp_path / "a.h5", 1000) > 1000
        assert bytes_of_texts(file["list"], tmp_path / "a.h5", 10) == 72


def large_chunk(path: Path) -> Path:
    """A column of a few cells in a chunk of many, which is unpacked whole."""
    with h5py.File(cells(path), "a") as file:
        depth = file["obs"].create_dataset("depth", (8,), "i1", maxshape=(None,), chunks=(2**30,), compression="gzip")
        depth.id.write_direct_chunk((0,), zlib.compress(bytes(2**16)))
    return path


def large_zarr_chunk(path: Path) -> Path:
    (path / "X").mkdir(parents=True)
    about = {"zarr_format": 2, "shape": [2, 2], "chunks": [2**15, 2**15], "dtype": "<f4", "fill_value": 0, "order": "C"}
    (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (path / "X" / ".zarray").write_text(json.dumps(about | {"compressor": {"id": "zlib", "level": 1}, "filters": None}))
    return path


@pytest.mark.parametrize(("make", "name"), [(large_chunk, "a.h5ad"), (large_zarr_chunk, "a.zarr")])
def test_a_chunk_counts_whole_where_the_data_are_smaller(make, name, tmp_path, monkeypatch):
    path = make(tmp_path / name)
    with pytest.raises(InputError, match=r"would take [14].0 GB"):
        matrix_at(path, "X")[:]
    monkeypatch.setenv(ceiling.VARIABLE, "5")
    matrix_at(path, "X")


def test_filters_that_write_beyond_their_memory_are_not_run(tmp_path, monkeypatch):
    with h5py.File(cells(tmp_path / "a.h5ad"), "a") as file:
        file.create_dataset("layers/small", data=np.arange(24).reshape(8, 3), scaleoffset=0, chunks=(8, 3))
    with pytest.raises(InputError, match="layers/small is packed by n-bit or scale-offset"):
        read_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(hdf5, "SCALE_OFFSET", -1)
    with hdf5.open_hdf5(tmp_path / "a.h5ad") as file:
        assert file["layers/small"][7, 2] == 23, "the payload is stale"


def test_groups_within_groups_are_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.create_group("/".join("a" * 500))
    with pytest.raises(InputError, match="groups within groups"):
        read_h5ad(tmp_path / "a.h5ad")


def test_a_sparse_matrix_of_nothing_is_not_made_dense(tmp_path, capsys, monkeypatch):
    names = pd.DataFrame(index=[f"n{i}" for i in range(10_000)])
    anndata.AnnData(sp.csr_matrix((10_000, 10_000), dtype=np.float32), names, names).write_h5ad(tmp_path / "a.h5ad")
    assert validate([str(tmp_path / "a.h5ad")]) == 1
    assert "(10000, 10000) as dense would take 0.4 GB" in capsys.readouterr().err
    monkeypatch.setattr("torchcell.io.matrices.refuse_bomb", lambda *_: None)
    validate([str(tmp_path / "a.h5ad")])
    assert "vector of zeros" in capsys.readouterr().err, "the payload is stale"


def test_ids_that_are_numbers_are_counted_as_text(tmp_path, capsys):
    np.savez_compressed(tmp_path / "a.npz", ids=np.zeros(2**23, "i1"), vectors=np.zeros((2**23, 1), "i1"))
    assert validate([str(tmp_path / "a.npz")]) == 1
    assert "its ids as text would take 0.5 GB" in capsys.readouterr().err


def test_no_more_is_unpacked_than_the_machine_has(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"

    def having(free: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": free}))

    having(2**35)
    ceiling.refuse_bomb(path, 2**33, 2**30, at_once=True)
    having(2**33)
    ceiling.refuse_bomb(path, 2**33, 2**30)
    with pytest.raises(InputError, match=r"would take 8.0 GB, and this machine has 8.0 GB free.*TORCHCELL_MOST_GB=9"):
        ceiling.refuse_bomb(path, 2**33, 2**30, at_once=True)


def test_one_long_text_does_not_widen_all(tmp_path, monkeypatch):
    """An array of texts has room for the longest in each place: a table of 2 MB asked for 224 GB."""
    monkeypatch.setattr(ceiling, "USUAL", 2**20)  # as if the texts were hundreds of times as long
    long, short = "X" * 3000, "Y" * 300

    def table(path: Path, one: str, column: str) -> Path:
        rows = {
            "sample_id": [f"s{i}" for i in range(500)],
            "genes": [f"A|B{i}" for i in range(500)],
            "y": np.arange(500) * 0.37,
        }
        rows[column][7] = one if column == "sample_id" else f"A|{one}"
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    def sets(path: Path) -> int:
        return len(read_screen(path))

    for column in ("sample_id", "genes"):
        with pytest.raises(InputError, match=rf"column '{column}': a text of 3,000 letters stands among"):
            sets(table(tmp_path / "a.csv", long, column))
        assert sets(table(tmp_path / "b.csv", short, column)) == 500
    many = pd.DataFrame(
        {"genes": ["|".join(f"G{i}" for i in range(900))] + [f"A|B{i}" for i in range(500)], "y": np.arange(501) * 0.37}
    )
    many.to_csv(tmp_path / "sets.csv", index=False)
    assert sets(tmp_path / "sets.csv") == 501, "a long list of short names is fine"
    assert len(label_texts(np.array(["a"] * 500 + [long], dtype=object)).names) == 2, (
        "labels are codes: each stands once"
    )
    with pytest.raises(InputError, match="the labels: a text of 3,000 letters"):
        label_texts(np.array([*(f"a{i}" for i in range(500)), long], dtype=object))
    with pytest.raises(InputError, match="the texts: a text of 3,000 letters"):
        errors.texts(np.array(["a"] * 500 + [long], dtype=object))
    names = pd.DataFrame(index=[*(f"c{i}" for i in range(500)), long])
    anndata.AnnData(np.ones((501, 1), np.float32), names).write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="the texts up to /obs/_index would take"):
        read_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr("torchcell.io.tables._narrow", lambda cells, _: cells)
    assert sets(tmp_path / "a.csv") == 500, "the payload is stale"


def test_a_split_of_others_is_read_as_other_tables_are(tmp_path):
    """It was read past the ceiling of parquet files, and what it says of itself past all checks."""
    once = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**17, np.int32)), ["x" * 4000])
    pq.write_table(pa.table({"sample_id": once, "part": once}), tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(InputError, match="its texts would take 1.0 GB"):
        Split.load(tmp_path / "a.parquet")
    plain = pa.table({"sample_id": ["a", "b"], "part": ["train", "test"]})
    for about in (b"[" * 10**5, b"[1]", b'{"seed": 0}', bytes([255])):
        pq.write_table(plain.replace_schema_metadata({b"torchcell": about}), tmp_path / "b.parquet")
        with pytest.raises(InputError, match=r"b.parquet (can't be read|was changed)"):
            Split.load(tmp_path / "b.parquet")
    pq.write_table(plain, tmp_path / "c.parquet")
    assert Split.load(tmp_path / "c.parquet").part.tolist() == ["train", "test"]
    wide = pa.table({"sample_id": ["a"] * 300 + ["b" * 10**6], "part": ["train"] * 301})
    pq.write_table(wide, tmp_path / "e.parquet")
    with pytest.raises(InputError, match="a text of 1,000,000 letters"):
        Split.load(tmp_path / "e.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="can't be read as a split"):
        Split.load(tmp_path / "d.parquet")


# Checkpoints -----------------------------------------------------------------------------------------


def sharing(path: Path, times: int, size: int) -> None:
    """Let the last tensors of a checkpoint share the bytes of one."""
    content = torch.load(path, weights_only=True)
    content["more"] = [torch.zeros(size, dtype=torch.uint8) for _ in range(times)]
    torch.save(content, path.with_suffix(".full"))
    entries, shared = [], None
    with zipfile.ZipFile(path.with_suffix(".full")) as old, path.open("wb") as new:
        for one in old.infolist():
            assert old.fp is not None
            old.fp.seek(one.header_offset)
            head = old.fp.read(30)
            rest = sum(struct.unpack("<HH", head[26:]))
            entries.append((one, new.tell() if shared is None or one.file_size != size else shared))
            if one.file_size != size or shared is None:
                shared = new.tell() if one.file_size == size else shared
                new.write(head + old.fp.read(rest + one.file_size))
        start = new.tell()
        for one, offset in entries:
            name = one.filename.encode()
            sizes = (one.CRC, one.file_size, one.file_size, len(name), 0, 0, 0, 0, 0, offset)
            new.write(struct.pack("<I6H3I5H2I", 0x02014B50, *[0] * 6, *sizes) + name)
        length = new.tell() - start
        new.write(struct.pack("<I4H2IH", 0x06054B50, 0, 0, len(entries), len(entries), length, start, 0))
    path.with_suffix(".full").unlink()


def test_members_of_a_checkpoint_do_not_share_their_bytes(verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "run", nothing, tmp_path / "marker")
    sharing(path, times=40, size=2**20)
    assert path.stat().st_size < 2**23
    with pytest.raises(InputError, match="members that share their bytes"):
        verbs["predict"](path)
    monkeypatch.setattr(checkpoint, "refuse_torch_bomb", lambda *_: None)
    assert sum(one.untyped_storage().nbytes() for one in checkpoint.read(path)["more"]) == 40 * 2**20, "it is stale"
    verbs["predict"](path)


def wide(config: Config, _: Path) -> None:
    config["model"]["encoder"]["dim"] = 2**8


def deep(config: Config, _: Path) -> None:
    config["model"]["encoder"]["layers"] = 30


@pytest.mark.parametrize("change", [wide, deep])
def test_a_model_is_not_built_larger_than_its_weights(change, verbs, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(build_limits, "USUAL", 2**16)  # as if the sizes were a thousand times as large
    monkeypatch.setattr(build_limits, "MORE", 10)
    path = edited_checkpoint(finished, tmp_path / "run", change, tmp_path / "marker")
    for verb in ("predict", "embed", "evaluate"):
        with pytest.raises(InputError, match="larger than its weights by far"):
            verbs[verb](path)
    monkeypatch.setattr(build_limits, "TIMES", 10**6)
    with pytest.raises(InputError, match="do not fit the model"):  # it was built first: the payload is stale else
        verbs["predict"](path)


def endless(config: Config, _: Path) -> None:
    config["data"]["record"]["n_genes"] = 2 * 10**9
    config["graph"]["networks"] = [{"_target_": "torchcell.screen.simulate_large.synthetic_networks", "n_edges": 1e12}]


def test_a_simulation_without_an_end_is_not_begun(verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "run", endless, tmp_path / "marker")
    with pytest.raises(InputError, match=r"data.record.n_genes=2e\+09', 'graph.networks.0.n_edges=1e\+12"):
        verbs["evaluate"](path)
    begun: list[int] = []
    monkeypatch.setattr(build, "refuse_endless", lambda *_: None)
    monkeypatch.setattr(build, "datamodule", lambda config: begun.append(config.data.record.n_genes) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verbs["evaluate"](path)
    assert begun == [2 * 10**9], "the payload is stale"


# What takes long by its letters ------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    made: list[int] = []
    own = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given: (made.append(1), own(*given))[1])
    return made


def test_a_long_name_is_not_compared_letter_by_letter(monkeypatch):
    slips = counted(monkeypatch, errors, "_slips")
    assert near("A" * 3000 + "x", ["A" * 3000 + "y"]) == []
    monkeypatch.setattr(errors, "STEPS", 3 * 51**2)
    near("A" * 50 + "x", [f"{i:x}".ljust(51, "A") for i in range(100)])
    assert len(slips) <= 6
    monkeypatch.setattr(errors, "STEPS", 10**9)
    monkeypatch.setattr(errors, "LONGEST", 10**6)
    assert near("A" * 90 + "x", ["A" * 90 + "y"]), "the payload is stale"
    assert slips


def test_a_row_of_tabs_is_looked_through_once(tmp_path):
    """A search from each of its tabs to its end took minutes for a file of 0.3 MB."""
    body = b'"A"\t1\n' + b"\t" * 300_000 + b"\n"
    (tmp_path / "a.tsv").write_bytes(b"genes\tfitness\n" + body)
    table = read_table(tmp_path / "a.tsv")
    assert table["genes"].tolist() == ["A", ""]
    (tmp_path / "b.tsv").write_bytes(b'genes\tfitness\n"A\tB"\t1\nC\t "2"\n')
    assert read_table(tmp_path / "b.tsv")["genes"].tolist() == ["A\tB", "C"]
    assert table_text._fast(b'a\t "b"\n', 0, ["x", "y"], "\t") is None


@pytest.mark.parametrize("count", ["9" * 5000, "²"])
def test_counts_that_are_no_numbers_are_one_line(count, tmp_path):
    (tmp_path / "a.gct").write_text(f"#1.3\n{count}\t1\t0\t0\nid\ta\n")
    with pytest.raises(InputError, match="line 2 must hold four counts"):
        read_gct(tmp_path / "a.gct")
