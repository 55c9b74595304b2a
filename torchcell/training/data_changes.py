"""What tells the data at hand from those that a model was trained on: other names, or other values."""

from __future__ import annotations

from typing import Any

from torchcell.core.spec import Spec

NO_NAMES = ("hash", "gene_features", "singles", "phases", "features")
"""Keys of a spec's extras that name nothing a weight or an index stands for, or that are compared on their own."""


def other_names(trained: Spec, at_hand: Spec, genes: bool = True) -> list[str]:
    """Names that weights stand for and that differ: with these data the model would answer about something else.

    Args:
        trained: Of the model.
        at_hand: Of the data.
        genes: Whether the genes must be the same. A model that knows genes by their features alone may take other
            genes, as those of another organism, with the same features.
    """
    pairs = {
        "genes": (trained.genes, at_hand.genes) if genes else (None, None),
        "gene features": _columns(trained, at_hand, needed=not genes),
        "outputs": (trained.outputs, at_hand.outputs),
        "kinds of perturbation": (trained.kinds, at_hand.kinds),
    }
    return [name for name, (old, new) in pairs.items() if old != new]


def other_indices(trained: Spec, at_hand: Spec) -> list[str]:
    """Further names that a batch refers to by number and that differ: lines, molecules, nodes."""
    old, new = _plain(trained.extras), _plain(at_hand.extras)
    return sorted(str(key) for key in {*old, *new} if old.get(key) != new.get(key))


def other_values(trained: Spec, at_hand: Spec) -> list[str]:
    """What differs although it bears the same names: samples, graph, gene features, split.

    Of a checkpoint without fingerprints only the split, the graph and the features can be compared.
    """
    graphs = [None if one.graph is None else one.graph.hash for one in (trained, at_hand)]
    pairs: dict[str, tuple[Any, Any]] = {"split": (trained.split_hash, at_hand.split_hash)}
    if trained.fingerprints:
        known = dict.fromkeys([*trained.fingerprints, *at_hand.fingerprints])
        pairs |= {name: (trained.fingerprints.get(name), at_hand.fingerprints.get(name)) for name in known}
    else:
        features = [one.gene_features for one in (trained, at_hand)]
        pairs["graph"] = (graphs[0], graphs[1])
        pairs["gene features"] = tuple(None if one is None else one.values.tobytes() for one in features)  # type: ignore[assignment]
    return [name for name, (old, new) in pairs.items() if old != new]


def _columns(trained: Spec, at_hand: Spec, needed: bool) -> tuple[object, object]:
    """Columns of the gene features of both; unlike where neither has any and they are needed."""
    old, new = trained.gene_features, at_hand.gene_features
    if old is None or new is None:
        return (None, "none either") if needed else (old is None, new is None)
    return old.columns, new.columns


def _plain(node: Any) -> Any:
    """The texts and numbers of nested mappings and lists, without tensors."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key not in NO_NAMES}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node if isinstance(node, str | int | float | bool) else None
