"""Logistic regression on path counts and degrees, the hardest of the simple link predictors to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from torchcell.baselines.base import one_thread
from torchcell.baselines.link_baseline import Choice, LinkBaseline
from torchcell.baselines.typed_counts import CHUNK, SMOOTHING, OwnEdges, Walks, by_rows
from torchcell.data.errors import InputError, some
from torchcell.data.links import Links

MOST_OTHERS, MOST_SOURCES = 50_000, 1024
"""Other pairs drawn for the regression, and of how many sources; with GiG a chunk of sources takes a second."""


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One metaedge: its metapaths, how its features are scaled, and the regression."""

    paths: list[tuple[str, ...]]
    unit: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    weight: np.ndarray


class PathFeatures(LinkBaseline):
    """Logistic regression on the log of counted and of degree-weighted walks, and on log degrees.

    The metapaths are all those of at most three steps between the two kinds, ``CtD`` itself left out; the degrees
    are those of both ends in every metaedge. A training edge is looked at as if it were not in the graph: its own
    edge takes no part in its features, or they would be unlike those of a held-out edge. Its negatives are drawn
    from all pairs of the two kinds.

    Args:
        penalties: Inverse strengths of the L2 penalty, chosen on val.
        damping: Exponent of the degrees in degree-weighted walks.
        metapaths: Per metaedge the metapaths to use, each a list of steps (``CbG`` and back again ``CbG<``); a
            metaedge that is not named has all.
        most_paths: Metapaths kept, those that tell training edges from other pairs best (by AUROC).
        most_edges: Training edges looked at, drawn at random where there are more.
        negatives: Other pairs a training edge, in all at most 50 thousand.
        seed: Of what is drawn.
    """

    name = "path_features"

    def __init__(
        self,
        penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
        damping: float = 0.5,
        metapaths: Mapping[str, Sequence[Sequence[str]]] | None = None,
        most_paths: int = 24,
        most_edges: int = 2000,
        negatives: int = 50,
        seed: int = 0,
    ) -> None:
        self.penalties, self.damping, self.most_paths = penalties, damping, most_paths
        self.metapaths = metapaths or {}
        self.most_edges, self.negatives, self.seed = most_edges, negatives, seed

    def prepare(self, train: Links, val: Links) -> None:
        """Both ways to weigh a walk."""
        self.walks = (Walks(self.steps, damping=0.0), Walks(self.steps, damping=self.damping))

    def fit_one(self, metaedge: str, train: Links, val: Links) -> _Fitted:
        """Features of training edges without themselves and of other pairs; the penalty on val."""
        rng = np.random.default_rng(self.seed)
        source, target = (self.steps.local[index[train.positive]] for index in (train.source_index, train.target_index))
        if len(source) > self.most_edges:
            kept = rng.choice(len(source), self.most_edges, replace=False)
            source, target = source[kept], target[kept]
        if self.steps.back(metaedge) == metaedge:  # which end is written first must not matter
            turned = rng.random(len(source)) < 0.5
            source, target = np.where(turned, target, source), np.where(turned, source, target)
        others = self._other_pairs(metaedge, len(source), rng)
        paths = self._best_paths(metaedge, source, target, others)
        walked = np.concatenate(
            [self._walked_without(metaedge, paths, source, target), self._walked(paths, others[0], others[1])]
        )
        label = np.arange(len(walked)) < len(source)
        unit = np.maximum(walked.mean(0), 1e-12)
        degrees = [self._degrees(metaedge, source, target, own=1), self._degrees(metaedge, others[0], others[1], own=0)]
        x = np.concatenate([np.log1p(walked / unit), np.concatenate(degrees)], axis=1)
        center, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
        choice = Choice(self.steps, metaedge, val)
        seen = np.log1p(self._walked(paths, choice.source, choice.target) / unit)
        seen = np.concatenate([seen, self._degrees(metaedge, choice.source, choice.target, own=0)], axis=1)
        best, chosen = -np.inf, np.zeros(x.shape[1])
        for penalty in self.penalties:
            with one_thread():
                model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
                weight = model.fit((x - center) / scale, label).coef_[0]
            value = choice(((seen - center) / scale) @ weight)
            if value > best:
                best, chosen = value, weight
        return _Fitted(paths, unit, center, scale, chosen)

    def score(self, metaedge: str, fitted: _Fitted, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``; log-odds but for a constant, of a symmetric metaedge the mean of both directions."""
        score = self._score_one_way(metaedge, fitted, source, target)
        if self.steps.back(metaedge) == metaedge:
            score = (score + self._score_one_way(metaedge, fitted, target, source)) / 2
        return score

    def _score_one_way(self, metaedge: str, fitted: _Fitted, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Feature by feature, so that none is held for all pairs, and each start is walked from once."""
        weight, n_walks = fitted.weight / fitted.scale, 2 * len(fitted.paths)
        score = np.full(len(source), -float(fitted.center @ weight))
        column = n_walks
        for kind, at, _ in self._ends(metaedge, source, target):
            steps = self.steps.leaving(kind)
            logs = np.stack([np.log(self.steps.degree(step) + SMOOTHING) for step in steps], axis=1)
            score += (logs @ weight[column : column + len(steps)])[at]
            column += len(steps)
        for reverse, at, start, number, end in by_rows(source, target):
            ways = self._turned(fitted.paths) if reverse else fitted.paths
            for k, walks in enumerate(self.walks):
                for i, walked in walks.between(ways, start, number, end):
                    column = k * len(fitted.paths) + i
                    score[at] += weight[column] * np.log1p(walked / fitted.unit[column])
        return score

    def _other_pairs(self, metaedge: str, n_edges: int, rng: np.random.Generator) -> np.ndarray:
        """Pairs of the two kinds that are no training edge, int64 [2, P]; of few sources, since each is walked from."""
        first, last = (self.steps.size[kind] for kind in self.steps.ends[metaedge])
        wanted = min(self.negatives * n_edges, MOST_OTHERS)
        sources = np.sort(rng.choice(first, min(first, MOST_SOURCES), replace=False))
        source = np.repeat(sources, -(-wanted // len(sources)))
        pairs = np.unique(np.stack([source, rng.integers(0, last, len(source))]), axis=1)
        edge = np.asarray(self.steps.into[metaedge][pairs[1], pairs[0]]).ravel() > 0
        itself = (pairs[0] == pairs[1]) & (self.steps.ends[metaedge][0] == self.steps.ends[metaedge][1])
        return pairs[:, ~edge & ~itself]

    def _best_paths(
        self, metaedge: str, source: np.ndarray, target: np.ndarray, others: np.ndarray
    ) -> list[tuple[str, ...]]:
        """At most ``most_paths`` metapaths, those whose walks tell some training edges from other pairs best."""
        from sklearn.metrics import roc_auc_score

        paths = sorted(self.steps.metapaths(metaedge, 3))
        if metaedge in self.metapaths:
            asked = sorted(tuple(path) for path in self.metapaths[metaedge])
            if unknown := [path for path in asked if path not in paths]:
                raise InputError(f"{metaedge} has no metapath {some(unknown)}; there are {some(paths, most=30)}")
            return asked
        if len(paths) <= self.most_paths:
            return paths
        few = others[:, np.isin(others[0], np.unique(others[0])[:CHUNK])]
        counts = self.walks[:1]
        walked = [
            self._walked_without(metaedge, paths, source[:CHUNK], target[:CHUNK], counts),
            self._walked(paths, few[0], few[1], counts),
        ]
        label = np.repeat([1, 0], [len(part) for part in walked])
        distance = np.array([abs(roc_auc_score(label, column) - 0.5) for column in np.concatenate(walked).T])
        return [paths[i] for i in np.sort(np.argsort(-distance, kind="stable")[: self.most_paths])]

    def _walked(
        self,
        paths: list[tuple[str, ...]],
        source: np.ndarray,
        target: np.ndarray,
        weighed: Sequence[Walks] | None = None,
    ) -> np.ndarray:
        """Counted, then degree-weighted walks of pairs, float32 [P, 2 x paths]; or only those ``weighed`` so."""
        turned, weighed = self._turned(paths), weighed or self.walks
        out = np.zeros((len(source), len(weighed) * len(paths)), dtype=np.float32)
        for reverse, at, start, number, end in by_rows(source, target):
            ways = turned if reverse else paths
            for k, walks in enumerate(weighed):
                for i, walked in walks.between(ways, start, number, end):
                    out[at, k * len(paths) + i] = walked
        return out

    def _walked_without(
        self,
        metaedge: str,
        paths: list[tuple[str, ...]],
        source: np.ndarray,
        target: np.ndarray,
        weighed: Sequence[Walks] | None = None,
    ) -> np.ndarray:
        """The same for training edges, each looked at as if it were not in the graph."""
        weighed = weighed or self.walks
        out = np.zeros((len(source), len(weighed) * len(paths)), dtype=np.float32)
        for low in range(0, len(source), CHUNK):
            part = slice(low, low + CHUNK)
            own = OwnEdges(metaedge, source[part], target[part])
            for k, walks in enumerate(weighed):
                for i, walked in walks.between(paths, own.source, np.arange(len(own.source)), own.target, own):
                    out[part, k * len(paths) + i] = walked
        return out

    def _degrees(self, metaedge: str, source: np.ndarray, target: np.ndarray, own: int) -> np.ndarray:
        """Logarithms of the degrees of both ends in all their steps [P, D]; ``own`` edges are not counted."""
        columns = [
            np.log(self.steps.degree(step)[at] - own * (step == asked) + SMOOTHING)
            for kind, at, asked in self._ends(metaedge, source, target)
            for step in self.steps.leaving(kind)
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _ends(self, metaedge: str, source: np.ndarray, target: np.ndarray) -> Iterator[tuple[str, np.ndarray, str]]:
        """Kind and places of either end, and the step by which the metaedge leaves it."""
        steps = metaedge, self.steps.back(metaedge)
        return zip(self.steps.ends[metaedge], (source, target), steps, strict=True)

    def _turned(self, paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The same metapaths walked from their other end."""
        return [tuple(self.steps.back(step) for step in path[::-1]) for path in paths]
