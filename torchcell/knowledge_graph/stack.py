"""``Stack``: log-odds that rank, linear in out-of-fold columns of pairs; a baseline of every table of links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from torchcell.core.linear_prior import LinearPrior, ListColumns, fit_lists
from torchcell.core.predictor import Folds
from torchcell.core.prior import FOLDS, InnerPart
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.baselines import Choice, LinkBaseline, Steps
from torchcell.knowledge_graph.experts import LinkExperts, blocks
from torchcell.knowledge_graph.lists import drawn
from torchcell.knowledge_graph.metapath_features import MetapathFeatures
from torchcell.knowledge_graph.record import Links
from torchcell.knowledge_graph.splits import SPLITS


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One edge type: its metapaths, the units of the columns, and their weights."""

    paths: list[tuple[str, ...]]
    unit: np.ndarray
    prior: LinearPrior


class Stack(LinkBaseline):
    """Log-odds that are linear in the columns of ``torchcell.knowledge_graph.experts``.

    The training edges are split again by the method of the split. The columns of a training edge are made on a graph
    without any edge of its fold; on the same graph those of non-edges, drawn from all pairs of the two node types, and
    of the other pairs that each edge is ranked among, at either end. Columns of other pairs are made on the whole
    training graph. The weights are fitted to labels and lists alike, see ``fit_lists``. Log-odds are for as many edges
    as non-edges.

    Args:
        penalties: Of the weights, in samples, chosen on val by ``Choice``.
        damping: Exponent of the degrees in degree-weighted paths.
        most_paths: Metapaths kept of those of at most three steps.
        most_edges: Training edges looked at.
        most_lists: Of them, those with lists.
        negatives: Other pairs a training edge.
        seed: Of what is drawn.
    """

    name = "stack"
    fitted: dict[str, _Fitted]

    def __init__(
        self,
        penalties: Sequence[float] = (3.0, 10.0, 30.0, 100.0),
        damping: float = 0.5,
        most_paths: int = 24,
        most_edges: int = 2000,
        most_lists: int = 800,
        negatives: int = 50,
        seed: int = 0,
    ) -> None:
        self.penalties, self.damping, self.most_paths = tuple(penalties), damping, most_paths
        self.most_edges, self.most_lists, self.negatives, self.seed = most_edges, most_lists, negatives, seed
        self.folds: Folds = _random_folds

    def with_folds(self, folds: Folds) -> Self:
        """See ``Predictor``; without them the training edges are split at random."""
        self.folds = folds
        return self

    def train_on(self, train: Links, val: Links) -> None:
        """The graphs without the edges of each inner fold."""
        self.inner = [(Steps.of(train.hiding(held_out)), held_out) for _, held_out in self.folds(train)]
        self.train = train

    def prepare(self) -> None:
        """Experts are made when they are needed."""
        self.experts: dict[str, LinkExperts] = {}

    def fit_one(self, edge_type: str, train: Links, val: Links) -> _Fitted:
        """Columns of training edges and of other pairs on the graphs of their folds; the penalty on val."""
        rng, steps = np.random.default_rng(self.seed), self.steps
        edges = np.flatnonzero((self.train.edge_type == edge_type) & self.train.positive)
        if len(edges) > self.most_edges:
            edges = np.sort(rng.choice(edges, self.most_edges, replace=False))
        source, target = steps.local[self.train.source_index[edges]], steps.local[self.train.target_index[edges]]
        features = MetapathFeatures(steps, self.damping)
        others = features.other_pairs(edge_type, self.negatives * len(edges), rng)
        paths = features.best_paths(edge_type, source, target, others, self.most_paths)
        fold_of_others = rng.permutation(others.shape[1]) % max(len(self.inner), 1)
        listed = np.isin(np.arange(len(edges)), rng.permutation(len(edges))[: self.most_lists])
        columns, labels, lists = [], [], []
        for number, (inner, held_out) in enumerate(self.inner):
            held, drawn = held_out[edges], others[:, fold_of_others == number]
            if held.any() and not held.all():
                experts = LinkExperts(inner, edge_type, paths, self.damping)
                ends = np.concatenate([np.stack([source[held], target[held]]), drawn], axis=1)
                columns.append(_in_blocks(experts, *ends))
                labels.append(np.arange(ends.shape[1]) < held.sum())
                if (held & listed).any():
                    lists.append(self._lists(experts, source[held & listed], target[held & listed], rng))
        if not columns:
            raise InputError(
                f"{self.name}: no inner fold has edges of {edge_type} both to leave in the graph and to predict; take "
                "more edges, or leave it out (baselines.stack=null)"
            )
        experts = self.experts[edge_type] = LinkExperts(steps, edge_type, paths, self.damping)
        choice = Choice(steps, edge_type, val)
        label = np.concatenate(labels)
        prior = fit_lists(
            experts.names,
            np.concatenate(columns),
            label,
            lists,
            (_in_blocks(experts, choice.source, choice.target), lambda score: -choice(score)),
            self.penalties,
        )
        even = float(np.log((~label).sum() / label.sum()))
        return _Fitted(paths, experts.unit, replace(prior, intercept=prior.intercept + even))

    def _lists(
        self, experts: LinkExperts, source: np.ndarray, target: np.ndarray, rng: np.random.Generator
    ) -> ListColumns:
        """Edges among other targets of their sources, then among other sources of their targets.

        Known edges and loops take no part.
        """
        edge_type, n = experts.edge_type, len(source)
        first, last = self.steps.ends[edge_type]
        tails, heads = (drawn(np.arange(self.steps.size[end]), n, rng) for end in (last, first))
        pairs = [
            np.stack(np.broadcast_arrays(source[:, None], tails)),
            np.stack(np.broadcast_arrays(heads, target[:, None])),
        ]
        width, edges = max(one.shape[2] for one in pairs), np.stack([source, target])[:, :, None]
        pads = [((0, 0), (0, 0), (0, width - one.shape[2])) for one in pairs]
        ends = np.concatenate([np.pad(one, pad, mode="edge") for one, pad in zip(pairs, pads, strict=True)], 1)
        ends = np.concatenate([np.concatenate([edges, edges], 1), ends], 2)  # [2, L, 1 + K]
        known = np.asarray(self.steps.into[edge_type][ends[1].ravel(), ends[0].ravel()]).reshape(ends[0].shape) > 0
        padded = np.arange(1 + width) > np.repeat([one.shape[2] for one in pairs], n)[:, None]
        out = known | padded | ((ends[0] == ends[1]) & (first == last))
        out[:, 0] = False
        columns = _in_blocks(experts, ends[0].ravel(), ends[1].ravel())
        return ListColumns(columns.reshape(*out.shape, -1), out)

    def score(self, edge_type: str, fitted: _Fitted, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``; log-odds."""
        experts, found = self._experts_of(edge_type), np.empty(len(source))
        for at in blocks(source, target):
            found[at] = fitted.prior.predict(experts.columns(source[at], target[at]))
        return found

    def columns(self, record: Links) -> np.ndarray:
        """See ``Predictor``; those of each edge type side by side, NaN for candidates of other types."""
        return self._columns(record, self.steps, {name: self._experts_of(name) for name in self.supervised})

    def columns_out_of_fold(self, parts: Sequence[InnerPart], val: Links, graph: Any) -> Iterator[np.ndarray]:
        """See ``Predictor``; the same metapaths on the graph of each fold."""
        for part in parts:
            steps = Steps.of(part.train)
            experts = {
                name: LinkExperts(steps, name, self.fitted[name].paths, self.damping) for name in self.supervised
            }
            yield self._columns(part.held_out, steps, experts)

    def _columns(self, record: Links, steps: Steps, experts: Mapping[str, LinkExperts]) -> np.ndarray:
        source, target = steps.places(record)
        widths = [len(self.fitted[name].prior.names) for name in self.supervised]
        found = np.full((len(record), sum(widths)), np.nan, dtype=np.float32)
        for name, width, stop in zip(self.supervised, widths, np.cumsum(widths), strict=True):
            at = np.flatnonzero(record.edge_type == name)
            columns = _in_blocks(experts[name], source[at], target[at])
            found[at, stop - width : stop] = self.fitted[name].prior.standardized(columns)
        return found

    def _experts_of(self, edge_type: str) -> LinkExperts:
        """Experts on the whole training graph."""
        if edge_type not in self.experts:
            fitted = self.fitted[edge_type]
            self.experts[edge_type] = LinkExperts(self.steps, edge_type, fitted.paths, self.damping, fitted.unit)
        return self.experts[edge_type]

    def contributions(self) -> list[dict[str, float]]:
        """See ``Predictor``; on the logistic scale, the same for both outputs of an edge type."""
        found = []
        for edge_type in self.supervised:
            prior = self.fitted[edge_type].prior
            found += 2 * [dict(zip(prior.sources, prior.spread_S.tolist(), strict=True))]
        return found


def _in_blocks(experts: LinkExperts, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    found = np.empty((len(source), len(experts.names)), dtype=np.float32)
    for at in blocks(source, target):
        found[at] = experts.columns(source[at], target[at])
    return found


def _random_folds(train: Links) -> Any:
    for fold in range(FOLDS):
        part = SPLITS.make(train, "edges", FOLDS, fold, seed=1).part
        yield part != "test", part == "test"
