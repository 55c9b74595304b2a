"""Data files that somebody sent take nothing from other files, and no more memory than goes with their size.

The twin of each: with the check patched off, what stands in the secret file is read, or the sizes are asked for.
"""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numcodecs
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attacks import Touch, edited_checkpoint
from numcodecs.abc import Codec
from test_configs_of_others import nothing

from torchcell import data
from torchcell.cells.backed import matrix_at
from torchcell.io import ceiling, hdf5, plain_config
from torchcell.io.cache import read_arrays
from torchcell.io.ceiling import GB
from torchcell.io.embeddings import read_embeddings, read_npz
from torchcell.io.errors import InputError
from torchcell.io.gct import Gctx
from torchcell.io.h5ad import read_h5ad
from torchcell.io.hetero_data import read_hetero_data
from torchcell.io.tables import read_table
from torchcell.knowledge_graph.embed import main as validate
from torchcell.training import checkpoint

SECRET = np.float64(1234.5)
SHAPE = (4, 3)


def secret(folder: Path) -> Path:
    """A file of the user that nobody gave away: HDF5, whose last bytes are the secret too."""
    path = folder / "secret.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("X", data=np.full(SHAPE, SECRET))
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    (folder / "secret.bin").write_bytes(np.full(SHAPE, SECRET).tobytes())
    return path


def external_link(file: h5py.File, key: str, folder: Path) -> None:
    file[key] = h5py.ExternalLink(str(secret(folder)), "X")


def external_storage(file: h5py.File, key: str, folder: Path) -> None:
    secret(folder)
    size = int(np.prod(SHAPE)) * 8
    file.create_dataset(key, SHAPE, "f8", external=[(str(folder / "secret.bin"), 0, size)])


def virtual(file: h5py.File, key: str, folder: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f8")
    layout[:] = h5py.VirtualSource(str(secret(folder)), "X", SHAPE)
    file.create_virtual_dataset(key, layout)


WAYS = (external_link, external_storage, virtual)


def h5ad_of(folder: Path, way: Callable[..., None] | None) -> Path:
    path = folder / "sent.h5ad"
    names = [f"n{i}" for i in range(SHAPE[0])]
    table = anndata.AnnData(np.arange(12.0).reshape(SHAPE) + 1, obs=pd.DataFrame(index=names))
    table.write_h5ad(path)
    if way is not None:
        with h5py.File(path, "a") as file:
            about = dict(file["X"].attrs)
            del file["X"]
            way(file, "X", folder)
            if way is not external_link:
                file["X"].attrs.update(about)
    return path


def gctx_of(folder: Path, way: Callable[..., None] | None) -> Path:
    path = folder / "sent.gctx"
    with h5py.File(path, "w") as file:
        if way is None:
            file["0/DATA/0/matrix"] = np.arange(12.0).reshape(SHAPE)
        else:
            way(file, "0/DATA/0/matrix", folder)
        for group, n in (("COL", SHAPE[0]), ("ROW", SHAPE[1])):
            file[f"0/META/{group}/id"] = np.array([f"{group}{i}" for i in range(n)], dtype="S8")
    return path


READERS: dict[str, Callable[[Path], Any]] = {
    "read_h5ad": lambda path: read_h5ad(path).X,
    "read_embeddings": lambda path: read_embeddings(path).values,
    "matrix_at": lambda path: matrix_at(path, "X")[:],
    "Gctx": lambda path: Gctx(path).read(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_hdf5_of_others_takes_nothing_from_other_files(reader, way, tmp_path, monkeypatch):
    make = gctx_of if reader == "Gctx" else h5ad_of
    path = make(tmp_path, way)
    with pytest.raises(InputError, match=r"takes data from other files: .*(external link|storage|virtual data set)"):
        READERS[reader](path)
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "_refuse_foreign", lambda *_: None)
        path = path.rename(path.with_name(f"other{path.suffix}"))  # handles are held by file
        assert (np.asarray(READERS[reader](path)) == SECRET).all(), "the payload is stale"
    assert not (np.asarray(READERS[reader](make(tmp_path, None))) == SECRET).any()


@pytest.mark.parametrize("way", WAYS)
def test_the_verbs_that_look_into_files_refuse_them_too(way, tmp_path, capsys, monkeypatch):
    path = h5ad_of(tmp_path, way)
    assert validate(["validate", str(path)][1:]) == 1
    assert "takes data from other files" in capsys.readouterr().err
    assert data.main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "takes data from other files" in said
    assert "1234" not in said
    assert data.main(["import-gct", str(gctx_of(tmp_path, way)), str(tmp_path / "out.h5ad")]) == 1
    assert not (tmp_path / "out.h5ad").exists()
    capsys.readouterr()
    monkeypatch.setattr(hdf5, "_refuse_foreign", lambda *_: None)
    (tmp_path / "again").mkdir()
    path = h5ad_of(tmp_path / "again", way)  # handles are held by file
    data.main(["check", str(path)])
    assert "takes data from other files" not in capsys.readouterr().out
    validate([str(path)])
    assert "takes data from other files" not in capsys.readouterr().err, "the payload is stale"


def zarr_of(folder: Path, codec: str, place: str, marker: Path) -> Path:
    path = folder / f"{codec}-{place}.zarr"
    (path / "X").mkdir(parents=True)
    about = {"zarr_format": 2, "shape": [2, 2], "chunks": [2, 2], "dtype": "<f4", "fill_value": 0, "order": "C"}
    about |= {"compressor": None, "filters": None, place: [{"id": codec}] if place == "filters" else {"id": codec}}
    (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (path / "X" / ".zarray").write_text(json.dumps(about))
    (path / "X" / "0.0").write_bytes(pickle.dumps(Touch(marker)))
    return path


@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "made_up"])
def test_zarr_codecs_are_on_a_list_of_ours(codec, place, tmp_path):
    """Whatever the installed numcodecs would still admit."""
    path = zarr_of(tmp_path, codec, place, tmp_path / "marker")
    with pytest.raises(InputError, match=rf"asks for the codec\(s\) '{codec}'"):
        matrix_at(path, "X")[:]
    assert not (tmp_path / "marker").exists()


def test_a_zarr_codec_that_is_not_on_the_list_would_run(tmp_path, monkeypatch):
    """A numcodecs that admits it, as those before 0.16.6 did of pickles, stands for all of them."""

    class Evil(Codec):
        codec_id = "evil"

        def encode(self, buf: Any) -> Any:
            return buf

        def decode(self, buf: Any, out: Any = None) -> Any:
            pickle.loads(bytes(buf))
            return np.zeros(4, "<f4").tobytes()

    monkeypatch.setitem(numcodecs.registry.codec_registry, "evil", Evil)
    path = zarr_of(tmp_path, "evil", "compressor", tmp_path / "marker")
    with pytest.raises(InputError, match="asks for the codec"):
        matrix_at(path, "X")[:]
    assert not (tmp_path / "marker").exists()
    monkeypatch.setattr(hdf5, "CODECS", hdf5.CODECS | {"evil"})
    matrix_at(path, "X")[:]
    assert (tmp_path / "marker").exists(), "the payload is stale"


def test_a_zarr_folder_as_anndata_writes_it_is_read_and_one_with_links_is_not(tmp_path, monkeypatch):
    table = anndata.AnnData(np.arange(12.0).reshape(SHAPE), obs=pd.DataFrame({"a": list("xyzx")}, index=list("abcd")))
    for version in (2, 3):
        with anndata.settings.override(zarr_write_format=version):
            table.strings_to_categoricals()
            table.write_zarr(tmp_path / f"plain{version}.zarr")
        assert np.asarray(matrix_at(tmp_path / f"plain{version}.zarr", "X")[:]).sum() == 66
    (chunk,) = (tmp_path / "plain2.zarr" / "X").glob("0*0")
    chunk.rename(tmp_path / "bytes")
    chunk.symlink_to(tmp_path / "bytes")
    with pytest.raises(InputError, match=f"links to other files: '{chunk.name}'"):
        hdf5.open_zarr(tmp_path / "plain2.zarr")
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    assert np.asarray(matrix_at(tmp_path / "plain2.zarr", "X")[:]).sum() == 66, "the payload is stale"


# Bombs: each is refused before its bytes are there -----------------------------------------------------


def bomb_of_hdf5(folder: Path) -> Path:
    path = h5ad_of(folder, None)
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/big", (2**11, 2**11), "f8", chunks=(64, 64), fillvalue=1.0)
    return path


def bomb_of_gzip(folder: Path) -> Path:
    with gzip.open(folder / "sent.csv.gz", "wb") as file:
        file.write(b"a,b\n" + b"0,1\n" * 2**20)
    return folder / "sent.csv.gz"


def bomb_of_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "sent.npz", ids=np.zeros(2**21), vectors=np.zeros(2))
    return folder / "sent.npz"


def header_of_npz(folder: Path) -> Path:
    np.savez(folder / "sent.npz", ids=np.zeros(2), vectors=np.zeros(2))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**40},), }}".encode().ljust(118)
    )
    with zipfile.ZipFile(folder / "sent.npz", "w") as archive:
        archive.writestr("ids.npy", header)
    return folder / "sent.npz"


def bomb_of_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"a": pa.array(np.zeros(2**21))}), folder / "sent.parquet", compression="zstd")
    return folder / "sent.parquet"


def texts_of_parquet(folder: Path) -> Path:
    """One long text that a million cells name, in a file of some kilobytes."""
    once = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**17, np.int32)), ["x" * 400])
    pq.write_table(pa.table({"a": once}), folder / "sent.parquet", compression="zstd")
    return folder / "sent.parquet"


def lists_of_parquet(folder: Path) -> Path:
    """Few rows, of which each is a long list."""
    pq.write_table(pa.table({"a": [["y" * 400] * 2**12] * 32}), folder / "sent.parquet", compression="zstd")
    return folder / "sent.parquet"


BOMBS = {
    "h5ad": (bomb_of_hdf5, read_h5ad),
    "gz": (bomb_of_gzip, read_table),
    "npz": (bomb_of_npz, read_arrays),
    "npz of vectors": (bomb_of_npz, read_npz),
    "parquet": (bomb_of_parquet, read_table),
    "texts of parquet": (texts_of_parquet, read_table),
    "lists of parquet": (lists_of_parquet, read_table),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_fills_no_memory(kind, tmp_path, monkeypatch):
    make, read = BOMBS[kind]
    path = make(tmp_path)
    monkeypatch.setattr(ceiling, "USUAL", 2**20)  # as if the file held a thousand times as much
    monkeypatch.setattr(ceiling, "GB", 2**20)
    with pytest.raises(InputError, match=r"would take .* GB, and the file has .* MB.*set TORCHCELL_MOST_GB=\d+$"):
        read(path)
    monkeypatch.setenv("TORCHCELL_MOST_GB", "10000")
    try:
        assert len(read(path)), "the payload is stale"
    except (InputError, ValueError) as error:  # its shapes fit nothing, which is seen once they are in memory
        assert "would take" not in str(error)  # noqa: PT017


def test_a_header_that_promises_terabytes_is_damage(tmp_path):
    with pytest.raises(InputError, match=r"says that it holds 8,796,093,022,208 bytes"):
        read_arrays(header_of_npz(tmp_path))
    with pytest.raises((MemoryError, ValueError)), np.load(tmp_path / "sent.npz", allow_pickle=False) as archive:
        archive["ids"]  # numpy asks for it: the payload is stale else


def test_the_ceiling_goes_with_the_file_or_is_the_users(monkeypatch):
    assert ceiling.ceiling(0) == GB // 4
    assert ceiling.ceiling(GB) == 100 * GB
    monkeypatch.setenv("TORCHCELL_MOST_GB", "0.5")
    assert ceiling.ceiling(GB) == GB // 2
    monkeypatch.setenv("TORCHCELL_MOST_GB", "much")
    with pytest.raises(InputError, match="must be a number of gigabytes"):
        ceiling.ceiling(1)


def lists_in_lists() -> Any:
    node: Any = [0]
    for _ in range(40):
        node = [node, node]
    return node


def itself() -> Any:
    node: list[Any] = []
    node.append(node)
    return node


@pytest.mark.parametrize(
    "value", [lists_in_lists, itself, lambda: torch.zeros(1).expand(2**36), lambda: torch.eye(2).to_sparse()]
)
def test_a_checkpoint_of_others_fills_no_memory(value, verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "run", nothing, tmp_path / "marker")
    content = torch.load(path, weights_only=True)
    content["torchcell"]["extra"] = value()
    torch.save(content, path)
    with pytest.raises(InputError, match="fill the memory|lists within lists|torchcell never writes"):
        verbs["predict"](path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "refuse_large_values", lambda *_: None)
        patch.setattr(checkpoint, "refuse_torch_bomb", lambda *_: None)
        assert "extra" in checkpoint.read(path)["torchcell"], "the payload is stale"
    content["torchcell"]["extra"] = torch.zeros(3).expand(2, 3)
    torch.save(content, path)
    verbs["predict"](path)


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "run", nothing, tmp_path / "marker")
    shutil.move(path, tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match="compressed members"):
        verbs["predict"](path)
    with pytest.raises(InputError, match="compressed members"):
        read_hetero_data(path)
    monkeypatch.setattr(checkpoint, "refuse_torch_bomb", lambda *_: None)
    verbs["predict"](path)  # torch unpacks it: the payload is stale else


@pytest.mark.parametrize("codec", ["aliases", "text"])
def test_the_config_of_a_checkpoint_is_no_bomb(codec, verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "run", nothing, tmp_path / "marker")
    content = torch.load(path, weights_only=True)
    plain = content["torchcell"]["config"]

    def spoil(levels: int) -> None:
        lines = ["b0: &b0 [x, x]", *(f"b{i}: &b{i} [*b{i - 1}, *b{i - 1}]" for i in range(1, levels))]
        more = "\n".join(lines) if codec == "aliases" else "x: '" + "y" * 3 * 10**6 + "'"
        content["torchcell"]["config"] = f"{plain}{more}"
        torch.save(content, path)

    spoil(40)
    with pytest.raises(InputError, match="alias|torchcell writes less"):
        verbs["predict"](path)
    spoil(10)  # forty would fill the memory
    monkeypatch.setattr(plain_config, "LARGEST", 2**30)
    monkeypatch.setattr(plain_config, "_refuse_bombs", lambda *_: None)
    assert len(str(checkpoint.load(path).config)) > 1000 * len(lines_of(content)), "the payload is stale"


def lines_of(content: dict[str, Any]) -> list[str]:
    """The last lines of a checkpoint's config, which were added."""
    return content["torchcell"]["config"].splitlines()[-10:] if "&b0" in content["torchcell"]["config"] else ["x"]


ROOT = Path(__file__).resolve().parents[2]


def test_every_reader_opens_files_by_the_functions_that_look_first():
    """A new reader that calls h5py or zarr itself would be a new way in."""
    calls = {"h5py.File(": "io/hdf5.py", "zarr.open_group(": "io/hdf5.py", "anndata.read_h5ad(": "io/h5ad.py"}
    calls |= {"np.load(": "io/cache.py", "gzip.open(": "io/ceiling.py", "gzip.decompress(": "", "zlib.decompress(": ""}
    calls |= {"anndata.read_zarr(": "", "pq.ParquetFile(": "io/tables.py", "pd.read_parquet(": "", "pd.read_hdf(": ""}
    for path in sorted((ROOT / "torchcell").rglob("*.py")):
        for call, home in calls.items():
            if path.name == "in_memory.py" and call == "h5py.File(":
                continue  # it writes an object of the user's into memory
            if call in path.read_text():
                assert str(path.relative_to(ROOT / "torchcell")) == home, f"{path} calls {call}...)"
