"""Fitted values as plain values: what was fitted becomes arrays, texts and numbers, and is made of them again.

No file says what is to be built of it: that stands in the annotations of the classes that are restored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import scipy.sparse as sp
import torch

from torchcell.io.cache import read_arrays, write_arrays
from torchcell.io.errors import InputError

PLAIN = (str, bool, int, float, NoneType)
TREE = "tree"
"""Name of the array that holds, as JSON, where each array stands."""


def annotated(kind: type) -> dict[str, Any]:
    """The attributes that a class and its bases annotate, but for class variables, with their types."""
    return {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}


def plain_of(value: Any) -> Any:
    """Arrays, SciPy matrices, texts, numbers and None, and lists and mappings of them.

    Args:
        value: One of these, a dataclass, a named tuple, or what has a method ``state_dict`` and a ``name``.

    Raises:
        TypeError: Anything else.
    """
    if isinstance(value, (*PLAIN, np.ndarray, np.generic)) or sp.issparse(value):
        return value
    if isinstance(value, Mapping):
        return {name: plain_of(one) for name, one in value.items()}
    if hasattr(value, "_asdict"):
        return {name: plain_of(one) for name, one in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain_of(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "state_dict"):
        return {"name": value.name, "state": value.state_dict()}
    raise TypeError(f"no plain form of a {type(value).__name__}")


def restored(hint: Any, plain: Any) -> Any:
    """The inverse of ``plain_of`` for a value of the annotated type ``hint``.

    Raises:
        ValueError: The values are not of that type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _of_union(arguments, plain)
    if origin is list:
        return [restored(arguments[0], one) for one in plain]
    if origin is tuple:
        each = arguments[:1] * len(plain) if arguments[1:] == (...,) else arguments
        return tuple(restored(one, value) for one, value in zip(each, plain, strict=True))
    if origin is dict:
        return {name: restored(arguments[1], one) for name, one in plain.items()}
    if hint is float and isinstance(plain, int | np.number):
        return plain
    if hint is None:
        hint = NoneType
    if hint in (np.ndarray, sp.csr_matrix, *PLAIN):
        if not isinstance(plain, hint):
            raise ValueError(f"found {type(plain).__name__} in place of {hint.__name__}")
        return plain
    if hasattr(hint, "load_state_dict"):
        return hint().load_state_dict(plain["state"])
    return hint(**{name: restored(one, plain[name]) for name, one in annotated(hint).items()})


def _of_union(kinds: tuple[Any, ...], plain: Any) -> Any:
    """Nothing, or the member of the union that ``plain`` names where it could be several."""
    if plain is None:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    if len(kinds) > 1:
        kinds = tuple(kind for kind in kinds if kind.name == plain["name"])
    if len(kinds) != 1:
        raise ValueError(f"found {plain['name']!r}, which is none of the types that are expected")
    return restored(kinds[0], plain)


def flattened(state: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """Plain values as a text and the arrays that it names; an array that stands in several places once."""
    arrays: dict[str, np.ndarray] = {}
    names: dict[int, str] = {}

    def leaf(values: np.ndarray) -> str:
        if id(values) not in names:
            names[id(values)] = f"array{len(arrays)}"
            arrays[names[id(values)]] = values
        return names[id(values)]

    def tree(value: Any) -> Any:
        if isinstance(value, np.generic):
            name = f"array{len(arrays)}"
            arrays[name] = np.asarray(value)
            return {"scalar": name}
        if isinstance(value, np.ndarray):
            return {"array": leaf(value)}
        if sp.issparse(value):
            csr = value.tocsr()
            return {"csr": [leaf(part) for part in (csr.data, csr.indices, csr.indptr)], "shape": list(csr.shape)}
        if isinstance(value, Mapping):
            return {"mapping": {str(name): tree(one) for name, one in value.items()}}
        if isinstance(value, list | tuple):
            return [tree(one) for one in value]
        return value

    return json.dumps(tree(state)), arrays


def unflattened(text: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of ``flattened``."""

    def value(node: Any) -> Any:
        if isinstance(node, list):
            return [value(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "mapping" in node:
            return {name: value(one) for name, one in node["mapping"].items()}
        if "csr" in node:
            parts = tuple(arrays[name] for name in node["csr"])
            return sp.csr_matrix(parts, shape=tuple(node["shape"]))
        return arrays[node["scalar"]][()] if "scalar" in node else arrays[node["array"]]

    return dict(value(json.loads(text)))


def write_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write plain values as an ``.npz`` file, whole or not at all.

    Raises:
        InputError: An array of objects, which could only be stored as a pickle.
    """
    text, arrays = flattened(state)
    write_arrays(path, **{TREE: np.array(text)}, **arrays)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read what ``write_state`` wrote.

    Raises:
        InputError: No such file, or it is damaged, holds objects or is of another kind.
    """
    arrays = read_arrays(path)
    try:
        return unflattened(str(arrays[TREE]), arrays)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} holds no fitted values of torchcell ({error}); delete it, then run again") from error


def as_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as a checkpoint holds them: a text, tensors and lists of texts."""
    text, arrays = flattened(state)
    held = {name: one.tolist() if one.dtype.kind == "U" else torch.from_numpy(one) for name, one in arrays.items()}
    return {TREE: text, "arrays": held}


def from_tensors(held: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``as_tensors``."""
    arrays = {
        name: one.numpy() if isinstance(one, torch.Tensor) else np.array(one, dtype=str)
        for name, one in held["arrays"].items()
    }
    return unflattened(held[TREE], arrays)
