"""Have the embeddings of a kind of node collapsed? Closed forms per kind, and what is wrong in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COSINE_BELOW = 0.5
"""A mean pairwise cosine from here on is that of vectors that point one way."""
COMPONENTS_FROM = 0.25
"""Least share of m = min(D, n - 1) dimensions that must be needed for 90 % of the variance."""
RANK_FROM = 0.4
"""Least effective rank, as a share of m."""
VARIANCE = 0.9
FEWEST = 3
"""Nodes of a kind below which nothing is said."""
SAME = 1e-4
"""Vectors closer than this share of their typical length are one vector but for rounding."""


@dataclass(frozen=True)
class LinkSkill:
    """How well held-out links of one metaedge are told from sampled non-links; ``kinds`` are those at its ends."""

    metaedge: str
    kinds: tuple[str, str]
    auroc: float
    degree_auroc: float

    @property
    def above(self) -> bool:
        """Whether the embeddings say more than the degree product, and more than a coin."""
        return self.auroc > max(self.degree_auroc, 0.5)


@dataclass(frozen=True)
class KindHealth:
    """What is known of the embeddings of one kind of node; NaN is undefined.

    Attributes:
        kind: Name of the kind.
        n: Its nodes.
        width: Numbers a node, D.
        cosine: Mean cosine over all pairs of nodes.
        components: Principal components that hold 90 % of the variance; 0 where there is no variance.
        rank: Effective rank (RankMe), 1 to min(n, D).
        least_sd: Least standard deviation over the D dimensions.
        distinct: Vectors that differ from each other.
        zeros: Vectors of zeros, which have no direction.
        links: Skill on the links of this kind, where links are known.
    """

    kind: str
    n: int
    width: int
    cosine: float
    components: float
    rank: float
    least_sd: float
    distinct: int
    zeros: int
    links: tuple[LinkSkill, ...] = ()

    @property
    def room(self) -> int:
        """Dimensions that n nodes can fill, m = min(D, n - 1)."""
        return min(self.width, self.n - 1)

    @property
    def faults(self) -> list[str]:
        """Every rule that is broken, in words; empty for a kind that is healthy or too small to judge."""
        if self.n < FEWEST:
            return []
        found = []
        if self.zeros:
            found.append(f"{self.zeros:,} of {self.n:,} vectors are zero")
        if 2 * self.distinct <= self.n:
            alike = "all vectors are one" if self.distinct == 1 else f"only {self.distinct:,} vectors differ"
            found.append(f"{alike} among {self.n:,} nodes")
        if self.cosine >= COSINE_BELOW:  # it is undefined only where vectors are zero, which is a fault of its own
            found.append(f"mean cosine {self.cosine:.2f} is not below {COSINE_BELOW}")
        if not self.components >= COMPONENTS_FROM * self.room:
            held = f"{self.components:.0f} component(s) hold 90 % of the variance"
            found.append(f"{held}, {COMPONENTS_FROM * self.room:.1f} are wanted")
        if not self.rank >= RANK_FROM * self.room:
            found.append(f"effective rank {self.rank:.1f}, {RANK_FROM * self.room:.1f} is wanted")
        for one in self.links:
            if not one.above:
                found.append(f"AUROC of {one.metaedge} {one.auroc:.3f}, the degree product's is {one.degree_auroc:.3f}")
        return found

    @property
    def status(self) -> str:
        """``healthy``, ``collapsed``, or ``undefined`` for fewer than 3 nodes."""
        if self.n < FEWEST:
            return "undefined"
        return "collapsed" if self.faults else "healthy"

    @property
    def why(self) -> str:
        """The status in words."""
        if self.n < FEWEST:
            return f"{self.n} node(s); {FEWEST} are needed"
        return "; ".join(self.faults) or "spread over enough directions"


def embedding_health(x_ND: np.ndarray, kind_N: np.ndarray, links: Sequence[LinkSkill] = ()) -> list[KindHealth]:
    """One row a kind, in the order of their names.

    Args:
        x_ND: Finite embeddings [N, D].
        kind_N: Kind of each node [N].
        links: What is known of held-out links; a kind is held to those that it is an end of.
    """
    return [
        kind_health(str(kind), x_ND[kind_N == kind], [one for one in links if kind in one.kinds])
        for kind in np.unique(kind_N)
    ]


def kind_health(kind: str, x_ND: np.ndarray, links: Sequence[LinkSkill] = ()) -> KindHealth:
    """The health of one kind's embeddings [n, D]; see ``KindHealth``."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    n, width = x_ND.shape
    undefined = n < FEWEST
    return KindHealth(
        kind=kind,
        n=n,
        width=width,
        cosine=float("nan") if undefined else mean_cosine(x_ND),
        components=float("nan") if undefined else components_for(x_ND),
        rank=float("nan") if undefined else rank_me(x_ND),
        least_sd=float("nan") if undefined else float(x_ND.std(0).min()),
        distinct=n_distinct(x_ND),
        zeros=int((~x_ND.any(1)).sum()),
        links=tuple(links),
    )


def mean_cosine(x_ND: np.ndarray) -> float:
    """Mean cosine over all pairs of rows, (||sum z^||^2 - n) / (n (n - 1)).

    Rows of zeros have no direction and are left out; NaN where fewer than two rows are left.
    """
    length_N = np.linalg.norm(x_ND, axis=1)
    x_ND, length_N = x_ND[length_N > 0], length_N[length_N > 0]
    n = len(x_ND)
    if n < 2:
        return float("nan")
    whole_D = (x_ND / length_N[:, None]).sum(0)
    return float((whole_D @ whole_D - n) / (n * (n - 1)))


def components_for(x_ND: np.ndarray, share: float = VARIANCE) -> float:
    """How many principal components hold ``share`` of the variance of the rows; 0 where all rows are equal."""
    variance = _squared_singular_values(x_ND - x_ND.mean(0))
    whole = variance.sum()
    if whole <= 1e-12 * np.square(x_ND).sum():  # what rounding leaves of equal float32 rows
        return 0.0
    return float(np.searchsorted(np.cumsum(variance), share * whole * (1 - 1e-12)) + 1)


def rank_me(x_ND: np.ndarray) -> float:
    """Exponential of the entropy of the singular values (Garrido et al., ICML 2023, RankMe): 1 to min(n, D).

    Returns:
        The rank; NaN where all rows are zero.
    """
    values = np.sqrt(_squared_singular_values(x_ND))
    if not values.any():
        return float("nan")
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def n_distinct(x_ND: np.ndarray) -> int:
    """Rows that differ by more than rounding, compared with their neighbour along one random direction."""
    if len(x_ND) < 2:
        return len(x_ND)
    direction_D = np.random.default_rng(0).normal(size=x_ND.shape[1])
    sorted_ND = x_ND[np.argsort(x_ND @ direction_D, kind="stable")]
    step = np.linalg.norm(np.diff(sorted_ND, axis=0), axis=1)
    return 1 + int((step > SAME * np.sqrt(np.square(x_ND).sum(1).mean())).sum())


def health_guard(found: Sequence[KindHealth]) -> dict[str, object]:
    """What ``metrics.json`` holds of the embeddings: the verdict, and for each kind its numbers and why."""
    sick = [f"{one.kind}: {one.why}" for one in found if one.status == "collapsed"]
    return {
        "finding": ". ".join(sick) or "no kind of node has collapsed",
        "collapsed": any(one.status == "collapsed" for one in found),
        "collapsed_outputs": [one.kind for one in found if one.status == "collapsed"],
        "kinds": {one.kind: _plain(one) for one in found},
    }


def _plain(one: KindHealth) -> dict[str, object]:
    numbers = {name: getattr(one, name) for name in ("cosine", "components", "rank", "least_sd")}
    known = {name: None if np.isnan(value) else float(value) for name, value in numbers.items()}
    return {"n": one.n, **known, "status": one.status, "why": one.why}


def _squared_singular_values(x_ND: np.ndarray) -> np.ndarray:
    """Falling, [min(n, D)]; what rounding leaves of a zero is 0."""
    gram = x_ND.T @ x_ND if x_ND.shape[1] <= len(x_ND) else x_ND @ x_ND.T  # the smaller one: no n x D decomposition
    values = np.linalg.eigvalsh(gram)[::-1].clip(min=0)
    return np.where(values > len(values) * np.finfo(float).eps * values[:1], values, 0.0)
