"""Frozen dataclasses as plain values and back, checked; ``torch.load`` reads them with ``weights_only=True``."""

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

    A dataclass becomes a dict of its fields; a class with a method ``to_plain`` is converted by it.
    """
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if is_dataclass(value):
        return fields_to_plain(value)
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} has no plain form")


def fields_to_plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, each in plain form."""
    return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}


def from_plain(hint: Any, plain: Any, name: str) -> Any:
    """The inverse of ``to_plain``, checked against a type.

    Args:
        hint: Type of the value: a dataclass, a class with ``from_plain``, a tensor (with jaxtyping its dtype and number
            of dimensions are checked), str, bool, int, float, and tuples, mappings and unions with None of them.
            ``Any`` allows every plain value.
        plain: The plain value.
        name: Of the value, for messages, e.g. ``spec.molecules.id``.

    Raises:
        InputError: A value of another type, a field that is missing, or one that is unknown; named.
    """
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (item for item in get_args(hint) if item is not type(None))
        return None if plain is None else from_plain(inner, plain, name)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), plain, name)
    if get_origin(hint) is collections.abc.Mapping:
        _require(isinstance(plain, dict) and all(isinstance(key, str) for key in plain), hint, plain, name)
        return {key: from_plain(get_args(hint)[1], item, f"{name}.{key}") for key, item in plain.items()}
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


def fields_from_plain(cls: Any, plain: Any, name: str) -> Any:
    """A dataclass from the plain values of its fields.

    Raises:
        InputError: See ``from_plain``; also raised by the class itself.
    """
    _require(isinstance(plain, dict), cls, plain, name)
    known = {field.name: field for field in fields(cls)}
    required = [key for key, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [key for key in required if key not in plain]
    unknown = [str(key) for key in plain if key not in known]
    if missing or unknown:
        raise InputError(
            f"{name} is no {cls.__name__}: missing {some(missing) or 'none'}, unknown {some(unknown) or 'none'}"
        )
    hints = get_type_hints(cls)
    return cls(**{key: from_plain(hints[key], item, f"{name}.{key}") for key, item in plain.items()})


def _tuple(parts: tuple[Any, ...], plain: Any, name: str) -> tuple[Any, ...]:
    _require(isinstance(plain, list), tuple[parts], plain, name)
    if len(parts) == 2 and parts[1] is Ellipsis:
        if parts[0] in (str, int) and all(type(item) is parts[0] for item in plain):  # thousands of names
            return tuple(plain)
        return tuple(from_plain(parts[0], item, f"{name}[{i}]") for i, item in enumerate(plain))
    _require(len(plain) == len(parts), tuple[parts], plain, name)
    return tuple(
        from_plain(hint, item, f"{name}[{i}]") for i, (hint, item) in enumerate(zip(parts, plain, strict=True))
    )


def _refused_by_name(read: Any, plain: Any, name: str) -> Any:
    try:
        return read(plain)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{name} can't be read ({type(error).__name__}: {error})") from error


def _require(holds: bool, hint: Any, plain: Any, name: str) -> None:
    if holds:
        return
    expected = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    actual = (
        f"a tensor of {plain.dtype} {list(plain.shape)}" if isinstance(plain, torch.Tensor) else type(plain).__name__
    )
    raise InputError(f"{name} must be {expected}, not {actual}")
