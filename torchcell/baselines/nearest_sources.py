"""Nearest sources: what is linked to the nodes most like the source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.degree_product import log_degree_product
from torchcell.baselines.link_baseline import Choice, LinkBaseline
from torchcell.baselines.typed_counts import CHUNK, by_rows
from torchcell.data.links import Links


class NearestSources(LinkBaseline):
    """log (sum over other sources c of cos(s, c)^power A[c, t] + prior d_s d_t / E), d smoothed by .1.

    For compound-treats-disease these are the nearest compounds by shared targets. The cosine is that of the nodes'
    neighbours in all metaedges side by side, each neighbour weighed by the log of how rare it is. Where both ends
    are of one kind and the metaedge has no direction, the ends change places and the votes are added.

    Args:
        powers: Exponents of the cosine, chosen on val.
        priors: Weights of the number of edges that the degrees alone let expect, chosen on val.
    """

    name = "nearest_sources"

    def __init__(
        self,
        powers: Sequence[float] = (1.0, 2.0),
        priors: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    ) -> None:
        self.powers, self.priors = powers, priors

    def prepare(self, train: Links, val: Links) -> None:
        """Profiles of the nodes of each kind, rows of length 1."""
        kinds = {self.steps.ends[metaedge][0] for metaedge in train.supervised}
        self.profile = {kind: self._profile(kind) for kind in kinds}

    def _profile(self, kind: str) -> sp.csr_matrix:
        """Neighbours of the nodes of a kind in all steps, by rarity, rows of length 1 or 0."""
        counts = sp.hstack([self.steps.into[step].T for step in self.steps.leaving(kind)], format="csr")
        seen = np.asarray(counts.sum(0)).ravel()
        weighed = counts @ sp.diags(np.log(self.steps.size[kind] / np.maximum(seen, 1)))
        length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
        return (sp.diags(1 / np.maximum(length, 1e-12)) @ weighed).tocsr().astype(np.float32)

    def fit_one(self, metaedge: str, train: Links, val: Links) -> tuple[float, float]:
        """The power and the prior."""
        choice = Choice(self.steps, metaedge, val)
        best, chosen = -np.inf, (self.powers[0], self.priors[0])
        for power in self.powers:
            votes = self._votes(metaedge, power, choice.source, choice.target)
            for prior in self.priors:
                value = choice(self._combined(metaedge, votes, prior, choice.source, choice.target))
                if value > best:
                    best, chosen = value, (power, prior)
        return chosen

    def score(self, metaedge: str, fitted: tuple[float, float], source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        power, prior = fitted
        votes = self._votes(metaedge, power, source, target)
        return self._combined(metaedge, votes, prior, source, target)

    def _votes(self, metaedge: str, power: float, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Votes for pairs [P]; for both directions of a metaedge that has none."""
        votes = self._votes_one_way(metaedge, power, source, target)
        if self.steps.back(metaedge) == metaedge:
            votes += self._votes_one_way(metaedge, power, target, source)
        return votes

    def _votes_one_way(self, metaedge: str, power: float, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        into, kind = self.steps.into[metaedge], self.steps.ends[metaedge][0]
        votes = np.zeros(len(source))
        for turned, at, start, number, end in by_rows(source, target):
            if turned:  # only the nodes that are linked to these targets have a vote
                of_starts = into[start].tocsc()
                voters = np.flatnonzero(np.diff(of_starts.indptr))
                table = np.zeros((self.steps.size[kind], len(start)), dtype=np.float32)
                for low in range(0, len(voters), CHUNK):
                    some = voters[low : low + CHUNK]
                    table += (of_starts[:, some] @ self._nearness(kind, some, power).T).T
            else:
                table = into @ self._nearness(kind, start, power)
            votes[at] = table[end, number]
        return votes

    def _nearness(self, kind: str, nodes: np.ndarray, power: float) -> np.ndarray:
        """Cosine of all nodes of a kind with some of them to a power, float32 [of the kind, some]; 0 with itself."""
        profile = self.profile[kind]
        cosine = profile @ np.ascontiguousarray(profile[nodes].toarray().T)
        cosine[nodes, np.arange(len(nodes))] = 0  # a node has no vote on itself
        return np.maximum(cosine, 0) ** power

    def _combined(
        self, metaedge: str, votes: np.ndarray, prior: float, source: np.ndarray, target: np.ndarray
    ) -> np.ndarray:
        expected = np.exp(log_degree_product(self.steps, metaedge, source, target))
        return np.log(votes + prior * expected / max(self.steps.into[metaedge].nnz, 1))
