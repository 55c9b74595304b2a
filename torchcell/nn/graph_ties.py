"""Which relation of the cell is tied to which attention head, and how strongly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

from torchcell.data.errors import InputError, near
from torchcell.graph.cell_graph import CellGraph


class Tie(NamedTuple):
    """One relation on one head of one layer, with the weight lambda of its term in the objective."""

    relation: str
    layer: int
    head: int
    weight: float


def graph_ties(
    graph: CellGraph,
    ties: Mapping[str, Sequence[Any]] | None,
    weight: float | int | Mapping[str, float | int],
    layers: int,
    heads: int,
) -> list[Tie]:
    """Check a config of ties against the graph and the network.

    Args:
        graph: The cell; relations between genes can be tied.
        ties: Relation -> pairs [layer, head], both from 0; a relation may have several heads. None ties each relation
            among genes to one head, filling the first layers first; else a relation not named has no head.
        weight: Lambda of all relations, or relation -> lambda.
        layers: Attention layers.
        heads: Heads of each.

    Returns:
        One tie a head, in the order of layers and heads.

    Raises:
        InputError: An unknown relation or one that leaves the genes, a head that does not exist or has two relations,
            more relations than heads, a negative or missing lambda, ties that are no pairs.
    """
    among = [name for name in graph.relations if graph.ends(name) == ("gene", "gene")]
    if ties is None and layers == 0:
        ties = {}
    if ties is None:
        if len(among) > layers * heads:
            raise InputError(
                f"{len(among)} relations and {layers * heads} heads ({layers} layers of {heads}): name fewer relations "
                "in model.ties, or give the model more layers or heads"
            )
        ties = {name: [divmod(number, heads)] for number, name in enumerate(among)}
    for given, key in ((ties, "ties"), (weight if isinstance(weight, Mapping) else {}, "graph_weight")):
        for name in given:
            if name not in among:
                raise InputError(f"model.{key} names {name!r}, no relation among genes; the nearest are "
                                 f"{near(name, among) or among}")  # fmt: skip
    found: dict[tuple[int, int], Tie] = {}
    for name, places in ties.items():
        for layer, head in _pairs(name, places):
            if not (0 <= layer < layers and 0 <= head < heads):
                raise InputError(f"model.ties puts {name} on layer {layer}, head {head}; there are {layers} layers and "
                                 f"{heads} heads, counted from 0")  # fmt: skip
            if (layer, head) in found:
                other = found[layer, head].relation
                both = f"{name} twice" if other == name else f"both {other} and {name}"
                raise InputError(f"model.ties puts {both} on layer {layer}, head {head}; a head has one relation")
            found[layer, head] = Tie(name, layer, head, _lambda(name, weight))
    return [found[place] for place in sorted(found)]


def _pairs(name: str, places: Sequence[Any]) -> list[tuple[int, int]]:
    try:
        return [(index(layer), index(head)) for layer, head in places]
    except (TypeError, ValueError):
        raise InputError(
            f"model.ties gives {name} {places}; write pairs of layer and head, e.g. [[0, 1], [1, 0]]"
        ) from None


def _lambda(name: str, weight: float | int | Mapping[str, float | int]) -> float:
    if isinstance(weight, Mapping) and name not in weight:
        raise InputError(f"model.graph_weight gives no lambda for {name}; 0 leaves its term out")
    value = weight[name] if isinstance(weight, Mapping) else weight
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"model.graph_weight of {name} is {value}; lambda must be a number, 0 or more")
    return float(value)
