"""Frozen dataclasses as plain values and back: what ``torch.load`` reads with ``weights_only=True``, checked."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from torchcell.io.errors import InputError, some


def to_plain(value: Any) -> Any:
    """Strings, numbers, tensors on the CPU, lists and dicts of them only.

    A dataclass becomes its fields by name; a class with a method ``to_plain`` says itself what it becomes.
    """
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if is_dataclass(value):
        return fields_to_plain(value)
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} has no plain form")


def fields_to_plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, each in plain form."""
    return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}


def from_plain(hint: Any, plain: Any, name: str) -> Any:
    """The inverse of ``to_plain``, checked against a type.

    Args:
        hint: What the value must be: a dataclass, a class with ``from_plain``, a tensor (also of jaxtyping, which
            holds its numbers' type and its number of dimensions), str, bool, int, float, and tuples, mappings and
            unions with None of them. ``Any`` stands for whatever is plain.
        plain: What was read.
        name: Of the value, for messages, e.g. ``spec.molecules.id``.

    Raises:
        InputError: A value of another type, a field that is missing, or one that is unknown; named.
    """
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not type(None))
        return None if plain is None else from_plain(inner, plain, name)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), plain, name)
    if get_origin(hint) is collections.abc.Mapping:
        _require(isinstance(plain, dict) and all(isinstance(key, str) for key in plain), hint, plain, name)
        return {key: from_plain(get_args(hint)[1], each, f"{name}.{key}") for key, each in plain.items()}
    if get_origin(hint) is Literal:
        _require(plain in get_args(hint), hint, plain, name)
        return plain
    if hint is Any:
        return plain
    if hasattr(hint, "from_plain"):
        _require(isinstance(plain, dict), hint, plain, name)
        return _refused_by_name(hint.from_plain, plain, name)
    if is_dataclass(hint):
        return fields_from_plain(hint, plain, name)
    if hint is float and isinstance(plain, int) and not isinstance(plain, bool):
        return plain
    _require(isinstance(plain, hint) and (hint is bool or not isinstance(plain, bool)), hint, plain, name)
    return plain


def fields_from_plain(kind: Any, plain: Any, name: str) -> Any:
    """A dataclass of its fields' plain forms by name.

    Raises:
        InputError: See ``from_plain``; also what the class itself refuses.
    """
    _require(isinstance(plain, dict), kind, plain, name)
    known = {one.name: one for one in fields(kind)}
    needed = [key for key, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    missing = [key for key in needed if key not in plain]
    unknown = [str(key) for key in plain if key not in known]
    if missing or unknown:
        raise InputError(
            f"{name} is no {kind.__name__}: missing {some(missing) or 'none'}, unknown {some(unknown) or 'none'}"
        )
    hints = get_type_hints(kind)
    return kind(**{key: from_plain(hints[key], each, f"{name}.{key}") for key, each in plain.items()})


def _tuple(parts: tuple[Any, ...], plain: Any, name: str) -> tuple[Any, ...]:
    _require(isinstance(plain, list), tuple[parts], plain, name)
    if len(parts) == 2 and parts[1] is Ellipsis:
        if parts[0] in (str, int) and all(type(each) is parts[0] for each in plain):  # thousands of names
            return tuple(plain)
        return tuple(from_plain(parts[0], each, f"{name}[{i}]") for i, each in enumerate(plain))
    _require(len(plain) == len(parts), tuple[parts], plain, name)
    return tuple(
        from_plain(hint, each, f"{name}[{i}]") for i, (hint, each) in enumerate(zip(parts, plain, strict=True))
    )


def _refused_by_name(read: Any, plain: Any, name: str) -> Any:
    try:
        return read(plain)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{name} can't be read ({type(error).__name__}: {error})") from error


def _require(holds: bool, hint: Any, plain: Any, name: str) -> None:
    if holds:
        return
    wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    found = (
        f"a tensor of {plain.dtype} {list(plain.shape)}" if isinstance(plain, torch.Tensor) else type(plain).__name__
    )
    raise InputError(f"{name} must be {wanted}, not {found}")
