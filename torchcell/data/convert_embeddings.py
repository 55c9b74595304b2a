"""Vectors of molecules out of a pickled dictionary, without running what else a pickle may hold, into a plain npz."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torchcell.data.cache import atomic_write
from torchcell.data.errors import InputError, some

TORCH_ENDINGS = (".pt", ".pth")
"""Of files that ``torch.save`` wrote; all others are plain pickles."""


def convert_embeddings(source: str | Path, out: str | Path) -> tuple[int, int]:
    """Write the vectors of ``source`` as npz with ``ids`` [N] and ``vectors`` float32 [N, F].

    Args:
        source: A pickle of ``{name: vector}`` or of ``{"ids": names, "vectors": table}``, made of dictionaries, lists,
            texts, numbers, numpy arrays and torch tensors; whatever else it names is refused before it is touched.
        out: The ``.npz`` file.

    Returns:
        N and F.

    Raises:
        InputError: A pickle that names anything else, told by its name; vectors that differ in width, are no numbers or
            not finite.
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".npz":
        raise InputError(f"{out}: the name must end in .npz")
    if not source.is_file():
        raise InputError(f"no such file: {source}")
    ids, vectors = _table(source, _load(source))
    with atomic_write(out) as temporary:
        np.savez(temporary, ids=ids, vectors=vectors)
    return vectors.shape


def _load(source: Path) -> Any:
    try:
        if source.suffix in TORCH_ENDINGS:
            return _load_torch(source)
        with source.open("rb") as file:
            return _Plain(file).load()
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{source} can't be read as a pickle of plain data ({type(error).__name__}: {error}); write it as npz with "
            "ids and vectors where it was made"
        ) from error


class _Plain(pickle.Unpickler):
    """Makes what ``_allowed`` lists and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = _allowed().get(f"{module.replace('numpy.core.', 'numpy._core.')}.{name}")
        if found is None:
            raise InputError(
                f"the pickle asks for {module}.{name}, which is not on the list of plain data and was not loaded; "
                "write the vectors as npz with ids and vectors where they were made"
            )
        return found


def _allowed() -> dict[str, Callable[..., Any]]:
    """What a pickle of plain data names: the makers of arrays and of tensors, by their full names."""
    from numpy._core import multiarray

    def encoded(text: str, encoding: str) -> bytes:  # what pickles of protocol 2 call for every bytes object
        if encoding != "latin1":
            raise InputError(f"the pickle asks for the encoding {encoding!r}")
        return text.encode("latin1")

    def scalar(dtype: np.dtype, value: Any) -> Any:
        if np.dtype(dtype).hasobject:
            raise InputError("the pickle holds a number that is an object")
        return multiarray.scalar(dtype, value)

    def frombuffer(buffer: bytes, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
        return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")

    def tensor(*arguments: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        return _rebuild_tensor_v2(*arguments)

    return {
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        "numpy._core.multiarray._reconstruct": multiarray._reconstruct,
        "numpy._core.multiarray.scalar": scalar,
        "numpy._core.numeric._frombuffer": frombuffer,
        "_codecs.encode": encoded,
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch.storage._load_from_bytes": lambda raw: _load_torch(io.BytesIO(raw)),
    }


def _load_torch(source: Path | io.BytesIO) -> Any:
    import torch

    return torch.load(source, map_location="cpu", weights_only=True)


def _table(source: Path, held: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(held, Mapping) or not held:
        raise InputError(f"{source} holds a {type(held).__name__}, not a dictionary of name -> vector")
    if set(held) == {"ids", "vectors"}:
        ids, table = np.asarray(held["ids"]).tolist(), _numbers(source, held["vectors"], "vectors")
        if len(ids) != len(table):
            raise InputError(f"{source}: {len(ids)} ids and {len(table)} vectors; a row an id is needed")
        rows = dict(zip(ids, table, strict=True))
        if len(rows) < len(ids):
            raise InputError(f"{source}: ids stand twice; keep one row of each molecule")
    else:
        rows = {name: _numbers(source, value, name).ravel() for name, value in held.items()}
    odd = [name for name in rows if not isinstance(name, str) or not name]
    if odd:
        raise InputError(f"{source}: names that are no text: {some(odd)}; name each vector by SMILES, InChIKey or id")
    widths = {len(row) for row in rows.values()}
    if len(widths) > 1:
        first = len(next(iter(rows.values())))
        other = [name for name, row in rows.items() if len(row) != first]
        raise InputError(f"{source}: vectors of {sorted(widths)} numbers; these differ from the first: {some(other)}")
    vectors = np.stack(list(rows.values())).astype(np.float32)
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        raise InputError(f"{source}: vectors that are not finite: {some(np.array(list(rows))[bad])}; leave them out")
    return np.array(list(rows)), vectors


def _numbers(source: Path, value: Any, name: Any) -> np.ndarray:
    """An array, a tensor or a list as numbers."""
    found = np.asarray(value.detach().float() if hasattr(value, "detach") else value)
    if found.dtype.kind not in "fiub" or not found.size:
        raise InputError(f"{source}: {name!r} is a {type(value).__name__} of {found.dtype}, not a vector of numbers")
    return found
