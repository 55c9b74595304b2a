"""Differences between present data and those that a model was trained on: other names, or other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from torchcell.core.spec import INDICES, WEIGHTS, Spec


def other_names(trained: Spec, at_hand: Spec, genes: bool = True) -> list[str]:
    """Names that weights belong to and that differ: with these data the model would predict something else.

    Args:
        trained: Spec of the model.
        at_hand: Spec of the data.
        genes: Whether the genes must be the same. A model that knows genes only by their features may take other
            genes with the same features, e.g. those of another organism.
    """
    names = [name for name in _differing(trained, at_hand, WEIGHTS) if genes or name != "genes"]
    old, new = _columns(trained, at_hand, needed=not genes)
    return names if old == new else [*names, "gene features"]


def other_indices(trained: Spec, at_hand: Spec) -> list[str]:
    """Further names that a batch refers to by number and that differ: cell lines, molecules, nodes."""
    return sorted(_differing(trained, at_hand, INDICES))


def other_values(trained: Spec, at_hand: Spec) -> list[str]:
    """Data with the same names and other values: samples, graph, gene features, split."""
    pairs: dict[str, tuple[Any, Any]] = {"split": (trained.split_hash, at_hand.split_hash)}
    names = dict.fromkeys([*trained.fingerprints, *at_hand.fingerprints])
    pairs |= {name: (trained.fingerprints.get(name), at_hand.fingerprints.get(name)) for name in names}
    return [name for name, (old, new) in pairs.items() if old != new]


def _columns(trained: Spec, at_hand: Spec, needed: bool) -> tuple[object, object]:
    """Columns of the gene features of both; two different values where both lack them and they are needed."""
    old, new = trained.gene_features, at_hand.gene_features
    if old is None or new is None:
        return (None, "none either") if needed else (old is None, new is None)
    return old.columns, new.columns


def _differing(trained: Spec, at_hand: Spec, declaration: Mapping[str, Any]) -> list[str]:
    """Fields of either spec with this ``declaration`` whose values differ."""
    old, new = (_declared(spec, declaration) for spec in (trained, at_hand))
    return [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]


def _declared(value: Any, declaration: Mapping[str, Any]) -> dict[str, Any]:
    """Label -> value of the fields of a dataclass with this ``declaration``."""
    declared = [f for f in fields(value) if f.metadata.get("names") == declaration["names"]]
    return {f.metadata.get("label", f.name): _compared(getattr(value, f.name), declaration) for f in declared}


def _compared(value: Any, declaration: Mapping[str, Any]) -> Any:
    """A value for comparison; dataclasses in it become their declared fields."""
    if is_dataclass(value):
        return _declared(value, declaration)
    if isinstance(value, tuple):
        return tuple(_compared(item, declaration) for item in value)
    assert not isinstance(value, Tensor), "a tensor is a value and not a name"
    return value
