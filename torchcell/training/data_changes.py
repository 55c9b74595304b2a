"""What tells the data at hand from those that a model was trained on: other names, or other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from torchcell.core.spec import INDICES, WEIGHTS, Spec


def other_names(trained: Spec, at_hand: Spec, genes: bool = True) -> list[str]:
    """Names that weights stand for and that differ: with these data the model would answer about something else.

    Args:
        trained: Of the model.
        at_hand: Of the data.
        genes: Whether the genes must be the same. A model that knows genes by their features alone may take other
            genes, as those of another organism, with the same features.
    """
    found = [name for name in _differing(trained, at_hand, WEIGHTS) if genes or name != "genes"]
    old, new = _columns(trained, at_hand, needed=not genes)
    return found if old == new else [*found, "gene features"]


def other_indices(trained: Spec, at_hand: Spec) -> list[str]:
    """Further names that a batch refers to by number and that differ: lines, molecules, nodes."""
    return sorted(_differing(trained, at_hand, INDICES))


def other_values(trained: Spec, at_hand: Spec) -> list[str]:
    """What differs although it bears the same names: samples, graph, gene features, split."""
    pairs: dict[str, tuple[Any, Any]] = {"split": (trained.split_hash, at_hand.split_hash)}
    known = dict.fromkeys([*trained.fingerprints, *at_hand.fingerprints])
    pairs |= {name: (trained.fingerprints.get(name), at_hand.fingerprints.get(name)) for name in known}
    return [name for name, (old, new) in pairs.items() if old != new]


def _columns(trained: Spec, at_hand: Spec, needed: bool) -> tuple[object, object]:
    """Columns of the gene features of both; unlike where neither has any and they are needed."""
    old, new = trained.gene_features, at_hand.gene_features
    if old is None or new is None:
        return (None, "none either") if needed else (old is None, new is None)
    return old.columns, new.columns


def _differing(trained: Spec, at_hand: Spec, what: Mapping[str, Any]) -> list[str]:
    """Fields of either spec that are declared as ``what`` and do not hold the same."""
    old, new = (_declared(spec, what) for spec in (trained, at_hand))
    return [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]


def _declared(value: Any, what: Mapping[str, Any]) -> dict[str, Any]:
    """Label -> value of the fields of a dataclass that are declared as ``what``."""
    every = [one for one in fields(value) if one.metadata.get("names") == what["names"]]
    return {one.metadata.get("label", one.name): _compared(getattr(value, one.name), what) for one in every}


def _compared(value: Any, what: Mapping[str, Any]) -> Any:
    """A field's value without what is not declared: of dataclasses within it their declared fields alone."""
    if is_dataclass(value):
        return _declared(value, what)
    if isinstance(value, tuple):
        return tuple(_compared(each, what) for each in value)
    assert not isinstance(value, Tensor), "a tensor is a value, and no name"
    return value
