"""What the link baselines share: one fit a metaedge, and the choice of knobs on the validation edges."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.base import Baseline, validation_score
from torchcell.baselines.typed_counts import Steps
from torchcell.data.links import Links
from torchcell.graph.cell_graph import CellGraph

MOST_QUERIES, MOST_OTHERS, MOST_LABELLED = 100, 1000, 1500
"""For a choice of knobs at most so many validation edges are ranked, each among so many other nodes a side, and at most
so many labelled candidates are told apart. More took a minute for each of Hetionet's large metaedges."""


class LinkBaseline(Baseline):
    """A score for (source, metaedge, target), fitted for each supervised metaedge on the graph of train."""

    def fit(self, train: Links, val: Links, graph: CellGraph | None = None) -> Self:
        """See ``Baseline``; the graph is the one that ``train`` holds."""
        self.steps = Steps.of(train)
        self.prepare(train, val)
        self.fitted = {}
        for metaedge in self._each(train.supervised):
            of_train, of_val = (part.subset(part.metaedge == metaedge) for part in (train, val))
            self.fitted[metaedge] = self.fit_one(metaedge, of_train, of_val)
        return self

    def predict(self, record: Links) -> np.ndarray:
        """See ``Baseline``: one score a candidate, the same in all outputs (a read-only view, float32 [n, T])."""
        self.steps.require_same_nodes(record)
        score = np.full(len(record), np.nan, dtype=np.float32)
        for metaedge in np.unique(record.metaedge).tolist():
            at = np.flatnonzero(record.metaedge == metaedge)
            local = (self.steps.local[index[at]] for index in (record.source_index, record.target_index))
            score[at] = self.score(metaedge, self.fitted[metaedge], *local)
        return np.broadcast_to(score[:, None], (len(record), len(record.outputs)))

    def _each(self, metaedges: Collection[str]) -> Iterator[str]:
        """The metaedges, under a bar where there are several: Hetionet's larger ones take some seconds each."""
        from tqdm import tqdm

        yield from tqdm(metaedges, desc=f"{self.name}, fit", leave=False, disable=len(metaedges) < 2)

    def prepare(self, train: Links, val: Links) -> None:
        """What all metaedges share; nothing by default."""

    @abstractmethod
    def fit_one(self, metaedge: str, train: Links, val: Links) -> Any:
        """What is fitted for one metaedge, from its candidates."""

    @abstractmethod
    def score(self, metaedge: str, fitted: Any, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Scores of pairs [P], float; the ends are places within the two kinds, int64 [P]."""


class Choice:
    """What knobs are chosen by: MRR of tails and of heads among other nodes, and AUROC with both kinds of negatives.

    Edges of the training graph and of val leave the lists. The four numbers are averaged, those that are undefined
    left out.

    Args:
        steps: The training graph.
        metaedge: The metaedge of all candidates.
        val: Validation candidates of this metaedge, with labels.
        seed: Of the draw, where there are more edges or nodes than serve.

    Attributes:
        source: Of the pairs that are to be scored, places within the kind, int64 [P].
        target: Likewise.
    """

    def __init__(self, steps: Steps, metaedge: str, val: Links, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        source, target = steps.local[val.source_index], steps.local[val.target_index]
        labelled = rng.permutation(len(val))[:MOST_LABELLED]
        edges = np.flatnonzero(val.positive)
        known = _known(steps, metaedge, source[edges], target[edges])
        if len(edges) > MOST_QUERIES:
            edges = rng.choice(edges, MOST_QUERIES, replace=False)
        self.label, self.out = val.label[labelled], []
        pairs = [np.stack([source[labelled], target[labelled]])]
        for end, kind in enumerate(steps.ends[metaedge]):
            others = np.arange(steps.size[kind])
            if len(others) > MOST_OTHERS:
                others = rng.choice(others, MOST_OTHERS, replace=False)
            queries = np.repeat(np.stack([source[edges], target[edges]])[:, :, None], 1 + len(others), axis=2)
            queries[end, :, 1:] = others
            out = np.zeros(queries.shape[1:], dtype=bool)
            if len(edges):
                out = np.asarray(known[queries[0].ravel(), queries[1].ravel()]).reshape(out.shape) > 0
            out[:, :1] = False  # the edge that is asked for heads its list
            self.out.append(out)
            pairs.append(queries.reshape(2, -1))
        self.source, self.target = np.concatenate(pairs, axis=1)

    def __call__(self, score: np.ndarray) -> float:
        """The mean of the four numbers for the scores of the pairs [P]; minus infinity if all are undefined."""
        own, *lists = np.split(score, np.cumsum([len(self.label), self.out[0].size]))
        values = [validation_score(column, own, "binary") for column in self.label.T]
        for ranked, out in zip(lists, self.out, strict=True):
            if len(out):
                table = np.where(out, -np.inf, ranked.reshape(out.shape))
                ties = (table == table[:, :1]).sum(1) - 1
                values.append(float(np.mean(1 / (1 + (table > table[:, :1]).sum(1) + ties / 2))))
        defined = [value for value in values if np.isfinite(value)]
        return float(np.mean(defined)) if defined else -np.inf


def _known(steps: Steps, metaedge: str, source: np.ndarray, target: np.ndarray) -> sp.csr_matrix:
    """Edges of the training graph and those given [nodes of the source kind, nodes of the target kind]."""
    known = steps.into[metaedge].T.tocsr()
    if steps.back(metaedge) == metaedge:
        source, target = np.concatenate([source, target]), np.concatenate([target, source])
    return known + sp.csr_matrix((np.ones(len(source)), (source, target)), shape=known.shape)
