"""Options of a model in a test: its defaults, with some of their fields replaced."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any


def with_options(model: type, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model; a key ``encoder__dim`` is the field ``dim`` of its default ``encoder``, others stay."""
    given = {key: value for key, value in changes.items() if "__" not in key}
    for group, fields in _grouped({key: value for key, value in changes.items() if "__" in key}).items():
        start = given[group] if group in given else inspect.signature(model).parameters[group].default
        given[group] = _replaced(start, fields)
    return given


def _replaced(options: Any, changes: Mapping[str, Any]) -> Any:
    """All fields at once, since options check themselves whenever they are made."""
    own = {name: value for name, value in changes.items() if "__" not in name}
    nested = _grouped({name: value for name, value in changes.items() if "__" in name})
    own |= {name: _replaced(getattr(options, name), fields) for name, fields in nested.items()}
    return dataclasses.replace(options, **own)


def _grouped(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        group, _, field = key.partition("__")
        found.setdefault(group, {})[field] = value
    return found
