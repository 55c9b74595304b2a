"""Have the embeddings of a kind of node collapsed? Closed forms per kind, and what is wrong in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from torchcell.metrics.embedding_levels import TRAINING, Bounds

VARIANCE = 0.9
"""Share of the variance that components are counted for."""
WHOLE = "all nodes"
"""Name of the row over the nodes of all kinds."""
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
        centered_cosine: The same after the kind's mean is taken away.
        components: Principal components that hold 90 % of the variance; 0 where there is no variance.
        rank: Effective rank (RankMe), 1 to min(n, D).
        least_sd: Least standard deviation over the D dimensions.
        distinct: Vectors that differ from each other.
        zeros: Vectors of zeros, which have no direction.
        links: Skill on the links of this kind, where links are known.
        bounds: What the level goes by.
        whole: Whether this is the row over several kinds.
    """

    kind: str
    n: int
    width: int
    cosine: float
    centered_cosine: float
    components: float
    rank: float
    least_sd: float
    distinct: int
    zeros: int
    links: tuple[LinkSkill, ...] = ()
    bounds: Bounds = TRAINING
    whole: bool = False

    @property
    def room(self) -> int:
        """Dimensions that n nodes can fill, m = min(D, n - 1)."""
        return min(self.width, self.n - 1)

    @property
    def link_faults(self) -> list[str]:
        """Links that are told no better than by the degree product."""
        return [
            f"AUROC of {one.metaedge} {one.auroc:.3f}, the degree product's is {one.degree_auroc:.3f}"
            for one in self.links
            if not one.above
        ]

    @property
    def status(self) -> str:
        """A level of ``embedding_levels.LEVELS``, or ``undefined`` for fewer than 3 nodes."""
        return self.judgement[0]

    @property
    def reasons(self) -> list[str]:
        """Each reason for the level, with its bound."""
        return self.judgement[1]

    @property
    def why(self) -> str:
        """The reasons as one text."""
        return "; ".join(self.reasons)

    @property
    def judgement(self) -> tuple[str, list[str]]:
        """Level and reasons."""
        if self.n < FEWEST:
            return "undefined", [f"{self.n} node(s); {FEWEST} are needed"]
        return self.bounds.judge(self)


def embedding_health(
    x_ND: np.ndarray,
    kind_N: np.ndarray,
    links: Sequence[LinkSkill] = (),
    bounds: Bounds = TRAINING,
    whole: bool = False,
) -> list[KindHealth]:
    """One row a kind, in the order of their names.

    Args:
        x_ND: Finite embeddings [N, D].
        kind_N: Kind of each node [N].
        links: What is known of held-out links; a kind is held to those that it is an end of.
        bounds: Of the levels; by default those of our own training.
        whole: Whether a row over all nodes comes first, where there are several kinds.
    """
    kinds = np.unique(kind_N)
    every = [kind_health(WHOLE, x_ND, (), bounds, whole=True)] if whole and len(kinds) > 1 else []
    return every + [
        kind_health(str(kind), x_ND[kind_N == kind], [one for one in links if kind in one.kinds], bounds)
        for kind in kinds
    ]


def kind_health(
    kind: str,
    x_ND: np.ndarray,
    links: Sequence[LinkSkill] = (),
    bounds: Bounds = TRAINING,
    whole: bool = False,
) -> KindHealth:
    """The health of one kind's embeddings [n, D]; see ``KindHealth``."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    n, width = x_ND.shape
    undefined = n < FEWEST
    components = float("nan") if undefined else components_for(x_ND)
    return KindHealth(
        kind=kind,
        n=n,
        width=width,
        cosine=float("nan") if undefined else mean_cosine(x_ND),
        centered_cosine=mean_cosine(x_ND - x_ND.mean(0)) if components > 0 else float("nan"),
        components=components,
        rank=float("nan") if undefined else rank_me(x_ND),
        least_sd=float("nan") if undefined else float(x_ND.std(0).min()),
        distinct=n_distinct(x_ND),
        zeros=int((~x_ND.any(1)).sum()),
        links=tuple(links),
        bounds=bounds,
        whole=whole,
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
    names = ("cosine", "centered_cosine", "components", "rank", "least_sd")
    known = {name: None if np.isnan(getattr(one, name)) else float(getattr(one, name)) for name in names}
    return {"n": one.n, **known, "status": one.status, "why": one.why, "bounds": asdict(one.bounds)}


def _squared_singular_values(x_ND: np.ndarray) -> np.ndarray:
    """Falling, [min(n, D)]; what rounding leaves of a zero is 0."""
    gram = x_ND.T @ x_ND if x_ND.shape[1] <= len(x_ND) else x_ND @ x_ND.T  # the smaller one: no n x D decomposition
    values = np.linalg.eigvalsh(gram)[::-1].clip(min=0)
    return np.where(values > len(values) * np.finfo(float).eps * values[:1], values, 0.0)
