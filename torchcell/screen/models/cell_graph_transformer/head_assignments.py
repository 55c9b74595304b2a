"""Which head follows which network, all regularization losses together, and their part of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, near
from torchcell.report.plots import BLUE, GREY, canvas
from torchcell.report.sections import Section
from torchcell.screen.models.cell_graph_transformer.attention import HeadScores
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss


class HeadAssignment(NamedTuple):
    """One relation on one head of one layer, with the weight lambda of its loss in the objective."""

    relation: str
    layer: int
    head: int
    weight: float


def assign_heads(
    graph: CellGraph,
    assignments: Mapping[str, Sequence[Any]] | None,
    weight: float | int | Mapping[str, float | int],
    layers: int,
    heads: int,
) -> list[HeadAssignment]:
    """Check a config of assignments against the graph and the network.

    Args:
        graph: The cell; relations between genes can be assigned.
        assignments: Relation -> pairs [layer, head], both from 0; a relation may have several heads. None assigns each
            relation among genes to one head, filling the first layers first; else a relation not named has no head.
        weight: Lambda of all relations, or relation -> lambda.
        layers: Attention layers.
        heads: Heads of each.

    Returns:
        One assignment a head, in the order of layers and heads.

    Raises:
        InputError: An unknown relation or one that leaves the genes, a head that does not exist or has two relations,
            more relations than heads, a negative or missing lambda, assignments that are no pairs.
    """
    among = [name for name in graph.relations if graph.ends(name) == ("gene", "gene")]
    if assignments is None and layers == 0:
        assignments = {}
    if assignments is None:
        if len(among) > layers * heads:
            raise InputError(
                f"{len(among)} relations and {layers * heads} heads ({layers} layers of {heads}): name fewer relations "
                "in model.graph_loss.head_assignments, or give the model more layers or heads"
            )
        assignments = {name: [divmod(number, heads)] for number, name in enumerate(among)}
    for given, key in ((assignments, "head_assignments"), (weight if isinstance(weight, Mapping) else {}, "weight")):
        for name in given:
            if name not in among:
                raise InputError(f"model.graph_loss.{key} names {name!r}, no relation among genes; the nearest are "
                                 f"{near(name, among) or among}")  # fmt: skip
    found: dict[tuple[int, int], HeadAssignment] = {}
    for name, places in assignments.items():
        for layer, head in _pairs(name, places):
            if not (0 <= layer < layers and 0 <= head < heads):
                raise InputError(f"model.graph_loss.head_assignments puts {name} on layer {layer}, head {head}; there "
                                 f"are {layers} layers and {heads} heads, counted from 0")  # fmt: skip
            if (layer, head) in found:
                other = found[layer, head].relation
                both = f"{name} twice" if other == name else f"both {other} and {name}"
                raise InputError(
                    f"model.graph_loss.head_assignments puts {both} on layer {layer}, head {head}; a head has one "
                    "relation"
                )
            found[layer, head] = HeadAssignment(name, layer, head, _lambda(name, weight))
    return [found[place] for place in sorted(found)]


def _pairs(name: str, places: Sequence[Any]) -> list[tuple[int, int]]:
    try:
        return [(index(layer), index(head)) for layer, head in places]
    except (TypeError, ValueError):
        raise InputError(
            f"model.graph_loss.head_assignments gives {name} {places}; write pairs of layer and head, "
            "e.g. [[0, 1], [1, 0]]"
        ) from None


def _lambda(name: str, weight: float | int | Mapping[str, float | int]) -> float:
    if isinstance(weight, Mapping) and name not in weight:
        raise InputError(f"model.graph_loss.weight gives no lambda for {name}; 0 leaves its loss out")
    value = weight[name] if isinstance(weight, Mapping) else weight
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"model.graph_loss.weight of {name} is {value}; lambda must be a number, 0 or more")
    return float(value)


class GraphLosses(nn.Module):
    r"""One ``GraphLoss`` a relation, on all heads that are assigned to it.

    .. math::
        L_r = \frac{\lambda_r}{K} \sum_{(l, h) \text{ assigned to } r} \mathrm{KL}_{r}(\alpha^{(l, h)})

    with K assignments in all, so that the sum over relations is a mean over heads and does not grow with them.

    Args:
        graph: The networks that the heads are drawn towards.
        assignments: Which relation is on which head, see ``assign_heads``.
        loss: ``kl`` or ``bce``.
        rows: See ``GraphLoss``.
        negatives: See ``GraphLoss``.
    """

    def __init__(
        self,
        graph: CellGraph,
        assignments: Sequence[HeadAssignment],
        loss: str = "kl",
        rows: int | None = None,
        negatives: int | None = None,
    ) -> None:
        super().__init__()
        self.assignments, self.loss = list(assignments), loss
        # By number: a relation may have any name, a module may not.
        self.relations = list(dict.fromkeys(one.relation for one in assignments))
        self.terms = nn.ModuleList(GraphLoss(graph, name, loss, rows, negatives) for name in self.relations)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(layer, head) of each assignment: whose queries and keys the terms read."""
        return [(one.layer, one.head) for one in self.assignments]

    @property
    def summed(self) -> list[tuple[int, int]]:
        """Those of them whose log-sum-exp the objective reads in this mode."""
        return [
            (one.layer, one.head)
            for one in self.assignments
            if self.training and one.weight and self._of(one).needs_lse
        ]

    def losses(self, scores: Sequence[HeadScores]) -> dict[str, Float[Tensor, ""]]:
        """``graph_<relation>`` -> L_r, without relations whose lambda is 0."""
        found: dict[str, Tensor] = {}
        for one, each in zip(self.assignments, scores, strict=True):
            if one.weight:
                term, name = one.weight / len(self.assignments) * self._of(one)(*each), f"graph_{one.relation}"
                found[name] = found[name] + term if name in found else term
        return found

    def diagnostics(self, scores: Sequence[HeadScores]) -> dict[str, Float[Tensor, ""]]:
        """``graph_kl_<relation>`` and ``edge_recall_<relation>``, lambda or not; the mean over a relation's heads."""
        found: dict[str, list[Tensor]] = {}
        for one, value, recall in zip(self.assignments, self.values(scores), self.recalls(scores), strict=True):
            found.setdefault(f"graph_{self.loss}_{one.relation}", []).append(value)
            found.setdefault(f"edge_recall_{one.relation}", []).append(recall)
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def recalls(self, scores: Sequence[HeadScores]) -> list[Float[Tensor, ""]]:
        """Edge recall of each assigned head."""
        return [
            self._of(one).edge_recall(each.q_TD, each.k_TD) for one, each in zip(self.assignments, scores, strict=True)
        ]

    def values(self, scores: Sequence[HeadScores]) -> list[Float[Tensor, ""]]:
        """Divergence of each assigned head, without lambda."""
        return [self._of(one)(*each) for one, each in zip(self.assignments, scores, strict=True)]

    def _of(self, one: HeadAssignment) -> GraphLoss:
        term = self.terms[self.relations.index(one.relation)]
        assert isinstance(term, GraphLoss)
        return term


COLUMNS = (
    "relation",
    "layer",
    "head",
    "lambda",
    "KL or BCE",
    "edge recall before",
    "edge recall after",
    "share of loss",
)


def graph_loss_section(rows: Sequence[Sequence[Any]], history: pd.DataFrame | None) -> Section:
    """A bar an assigned head, and the table.

    Args:
        rows: In the order of ``COLUMNS`` but the last, one a head; NaN where a value is not known, as the recall before
            training is not where a run goes on.
        history: One row an epoch; the last one has each relation's share of the objective.
    """
    shares = [math.nan if history is None else _last(history, f"train/share/graph_{row[0]}") for row in rows]
    table = pd.DataFrame([(*row, share) for row, share in zip(rows, shares, strict=True)], columns=list(COLUMNS))
    return Section(
        title="How much of each network the assigned heads show",
        text="Edge recall is the share of a gene's true neighbors among its degree highest attention weights.",
        figure=_bars(table),
        table=table,
        name="edge_recall",
        caption="Edge recall of each assigned head before training and after.",
    )


def _last(history: pd.DataFrame, column: str) -> float:
    """A relation whose lambda is 0 has no share."""
    return float(history[column].iloc[-1]) if column in history else 0.0


def _bars(table: pd.DataFrame) -> Figure:
    figure, axes = canvas(6.2, 0.8 + 0.42 * len(table))
    place = np.arange(len(table))
    for shift, column, color in ((-0.18, "edge recall before", GREY), (0.18, "edge recall after", BLUE)):
        values = table[column].to_numpy(dtype=float)
        axes[0, 0].barh(place + shift, values, 0.34, color=color, label=column.removeprefix("edge recall "))
    names = [f"{row.relation}  (layer {row.layer}, head {row.head})" for row in table.itertuples()]
    axes[0, 0].set_yticks(place, names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlim=(0, 1), xlabel="edge recall")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure
