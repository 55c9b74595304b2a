"""Whether embeddings have collapsed: spread, rank and neighbors of each node type, with bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError

LEVELS = ("collapsed", "narrow", "healthy")
"""From worst to best; beside them ``undefined``."""


@configurable
@dataclass(frozen=True)
class TrainingBounds:
    """Of embeddings that we train: healthy is nearly isotropic, all else is a collapse.

    Attributes:
        cosine: The mean cosine must lie below.
        components: Least share of m = min(D, n - 1) dimensions that hold 90 % of the variance.
        rank: Least effective rank, as a share of m.
    """

    cosine: float | int = 0.5
    components: float | int = 0.25
    rank: float | int = 0.4

    def __post_init__(self) -> None:
        _refuse_outside({f"model.encoder.health.{name}": value for name, value in asdict(self).items()})

    @property
    def cosine_bound(self) -> float:
        """Mean cosine up to which embeddings may be healthy."""
        return self.cosine

    @property
    def text(self) -> str:
        """The bounds in a few sentences."""
        return (
            f"With m = min(dimensions, nodes - 1) a node type is healthy when its mean cosine is below {self.cosine}, "
            f"{self.components} m components or more are needed for 90 % of the variance, the effective rank is "
            f"{self.rank} m or more, no vector is zero, more than half of the vectors differ, and held-out links, "
            "where they are known, are predicted better than by the degree product and by chance. "
            "A node type of one or two nodes is undefined."
        )

    def judge(self, one: TypeHealth) -> tuple[str, list[str]]:
        """``healthy`` or ``collapsed``, and every bound that is broken."""
        components, rank = self.components * one.room, self.rank * one.room
        found = _repeats(one)
        if one.cosine >= self.cosine:  # it is undefined only where vectors are zero, which is a fault of its own
            found.append(f"mean cosine {one.cosine:.2f} is not below {self.cosine}")
        if not one.components >= components:
            found.append(f"{_components(one)}, {components:.1f} are wanted")
        if not one.rank >= rank:
            found.append(f"effective rank {one.rank:.1f}, {rank:.1f} is wanted")
        found += one.link_faults
        if found:
            return "collapsed", found
        return "healthy", [
            f"mean cosine {one.cosine:.2f} is below {self.cosine}",
            f"{_components(one)}, {components:.1f} are wanted",
            f"effective rank {one.rank:.1f}, {rank:.1f} is wanted",
        ]


@dataclass(frozen=True)
class FileBounds:
    """Of embeddings from elsewhere, which are rarely isotropic and good nevertheless.

    Attributes:
        collapsed_cosine: Collapsed is a mean cosine above this, if there are few components too.
        collapsed_components: Few are less than so many, and less than ``share`` of m = min(D, n - 1).
        collapsed_within: Within one type of node a mean cosine above this is a collapse, whatever the components.
        healthy_cosine: Above it embeddings are narrow.
        healthy_components: Narrow are fewer than so many, and fewer than ``share`` of m.
        share: Of m.
        centered: Judge the cosine after centering, of rows that share something by design.
    """

    collapsed_cosine: float | int = 0.9
    collapsed_components: float | int = 10
    collapsed_within: float | int = 0.95
    healthy_cosine: float | int = 0.6
    healthy_components: float | int = 15
    share: float | int = 0.25
    centered: bool = False

    def __post_init__(self) -> None:
        cosines = ("collapsed_cosine", "collapsed_within", "healthy_cosine", "share")
        _refuse_outside({name: getattr(self, name) for name in cosines})
        if not 0 <= self.collapsed_components <= self.healthy_components:
            raise InputError(
                f"collapsed_components={self.collapsed_components} and healthy_components={self.healthy_components}: "
                "neither is below 0, and the first is not above the second"
            )
        if self.healthy_cosine > min(self.collapsed_cosine, self.collapsed_within):
            raise InputError(
                f"healthy_cosine={self.healthy_cosine} is above a bound of collapse, collapsed_cosine="
                f"{self.collapsed_cosine} or collapsed_within={self.collapsed_within}"
            )

    @property
    def cosine_bound(self) -> float:
        """Mean cosine up to which embeddings may be healthy."""
        return self.healthy_cosine

    @property
    def text(self) -> str:
        """The bounds in a few sentences."""
        centered = " The cosine is that after centering, since these rows share something by design."
        return (
            "With m = min(dimensions, nodes - 1) embeddings are collapsed when their mean cosine is above "
            f"{self.collapsed_cosine} and fewer than min({self.collapsed_components:g}, {self.share} m) components "
            f"hold 90 % of the variance after centering, when the mean cosine within one node type is above "
            f"{self.collapsed_within}, when a vector is zero, or when no more than half of the vectors differ. Narrow "
            f"are those with a mean cosine above {self.healthy_cosine} or fewer than min({self.healthy_components:g}, "
            f"{self.share} m) components; all others are healthy. A node type of one or two nodes is undefined."
        ) + centered * self.centered

    def judge(self, one: TypeHealth) -> tuple[str, list[str]]:
        """One of ``LEVELS``, and the reasons for it with their bounds."""
        cosine, components = one.centered_cosine if self.centered else one.cosine, _components(one)
        few, enough = (min(n, self.share * one.room) for n in (self.collapsed_components, self.healthy_components))
        said = f"mean cosine {cosine:.2f}{' after centering' * self.centered}"
        collapsed = _repeats(one)
        if cosine > self.collapsed_cosine and one.components < few:
            collapsed.append(f"{said} is above {self.collapsed_cosine} and {components}, fewer than {few:.4g}")
        elif cosine > self.collapsed_within and not one.whole:
            collapsed.append(f"{said} within the node type is above {self.collapsed_within}")
        if collapsed:
            return "collapsed", collapsed
        narrow = [f"{said} is above {self.healthy_cosine}"] * (cosine > self.healthy_cosine)
        narrow += [f"{components}, {enough:.4g} are wanted"] * (one.components < enough)
        if narrow:
            return "narrow", narrow
        return "healthy", [f"{said} is not above {self.healthy_cosine}", f"{components}, {enough:.4g} are wanted"]


def _repeats(one: TypeHealth) -> list[str]:
    """Vectors of zeros, and vectors that stand many times."""
    found = []
    if one.zeros:
        found.append(f"{one.zeros:,} of {one.n:,} vectors are zero")
    if 2 * one.distinct <= one.n:
        alike = "all vectors are one" if one.distinct == 1 else f"only {one.distinct:,} vectors differ"
        found.append(f"{alike} among {one.n:,} nodes")
    return found


def _components(one: TypeHealth) -> str:
    return f"{one.components:.0f} component(s) hold 90 % of the variance"


def _refuse_outside(bounds: dict[str, float | int]) -> None:
    """Refuse a bound on a cosine or a share that is not between 0 and 1."""
    outside = [f"{name}={value}" for name, value in bounds.items() if not 0 <= value <= 1]
    if outside:
        raise InputError(f"bounds of embeddings that are not between 0 and 1: {', '.join(outside)}")


Bounds = TrainingBounds | FileBounds
TRAINING = TrainingBounds()


VARIANCE = 0.9
"""Share of the variance that components are counted for."""
WHOLE = "all nodes"
"""Name of the row over the nodes of all types."""
FEWEST = 3
"""Nodes of a type below which nothing is said."""
SAME = 1e-4
"""Vectors closer than this share of their typical length are one vector but for rounding."""


@dataclass(frozen=True)
class LinkSkill:
    """Skill on held-out links of one edge type against sampled non-links; ``node_types`` are those at its ends."""

    edge_type: str
    node_types: tuple[str, str]
    auroc: float
    degree_auroc: float

    @property
    def above(self) -> bool:
        """Whether the embeddings say more than the degree product, and more than a coin."""
        return self.auroc > max(self.degree_auroc, 0.5)


@dataclass(frozen=True)
class TypeHealth:
    """What is known of the embeddings of one node type; NaN is undefined.

    Attributes:
        node_type: Name of the node type.
        n: Its nodes.
        width: Numbers a node, D.
        cosine: Mean cosine over all pairs of nodes.
        centered_cosine: The same after the node type's mean is taken away.
        components: Principal components that hold 90 % of the variance; 0 where there is no variance.
        rank: Effective rank (RankMe), 1 to min(n, D).
        least_sd: Least standard deviation over the D dimensions.
        distinct: Vectors that differ from each other.
        zeros: Vectors of zeros, which have no direction.
        links: Skill on the links of this node type, where links are known.
        bounds: What the level goes by.
        whole: Whether this is the row over several node types.
    """

    node_type: str
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
        """Links that are predicted no better than by the degree product."""
        return [
            f"AUROC of {one.edge_type} {one.auroc:.3f}, the degree product's is {one.degree_auroc:.3f}"
            for one in self.links
            if not one.above
        ]

    @property
    def status(self) -> str:
        """A level of ``LEVELS``, or ``undefined`` for fewer than 3 nodes."""
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
    type_N: np.ndarray,
    links: Sequence[LinkSkill] = (),
    bounds: Bounds = TRAINING,
    whole: bool = False,
) -> list[TypeHealth]:
    """One row a node type, in the order of their names.

    Args:
        x_ND: Finite embeddings [N, D].
        type_N: Node type of each node [N].
        links: What is known of held-out links; a node type is judged by those that it is an end of.
        bounds: Of the levels; by default those of our own training.
        whole: Whether a row over all nodes comes first, where there are several node types.
    """
    node_types = np.unique(type_N)
    every = [type_health(WHOLE, x_ND, (), bounds, whole=True)] if whole and len(node_types) > 1 else []
    return every + [
        type_health(
            str(node_type), x_ND[type_N == node_type], [one for one in links if node_type in one.node_types], bounds
        )
        for node_type in node_types
    ]


def type_health(
    node_type: str,
    x_ND: np.ndarray,
    links: Sequence[LinkSkill] = (),
    bounds: Bounds = TRAINING,
    whole: bool = False,
) -> TypeHealth:
    """The health of one node type's embeddings [n, D]; see ``TypeHealth``."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    n, width = x_ND.shape
    undefined = n < FEWEST
    components = float("nan") if undefined else components_for(x_ND)
    return TypeHealth(
        node_type=node_type,
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
    """Rows that differ by more than rounding, compared with their neighbor along one random direction."""
    if len(x_ND) < 2:
        return len(x_ND)
    direction_D = np.random.default_rng(0).normal(size=x_ND.shape[1])
    sorted_ND = x_ND[np.argsort(x_ND @ direction_D, kind="stable")]
    step = np.linalg.norm(np.diff(sorted_ND, axis=0), axis=1)
    return 1 + int((step > SAME * np.sqrt(np.square(x_ND).sum(1).mean())).sum())


def health_guard(found: Sequence[TypeHealth]) -> dict[str, object]:
    """What ``metrics.json`` holds of the embeddings: the verdict, and for each node type its numbers and why."""
    sick = [f"{one.node_type}: {one.why}" for one in found if one.status == "collapsed"]
    return {
        "finding": ". ".join(sick) or "no node type has collapsed",
        "collapsed": any(one.status == "collapsed" for one in found),
        "collapsed_outputs": [one.node_type for one in found if one.status == "collapsed"],
        "types": {one.node_type: _plain(one) for one in found},
    }


def _plain(one: TypeHealth) -> dict[str, object]:
    names = ("cosine", "centered_cosine", "components", "rank", "least_sd")
    known = {name: None if np.isnan(getattr(one, name)) else float(getattr(one, name)) for name in names}
    return {"n": one.n, **known, "status": one.status, "why": one.why, "bounds": asdict(one.bounds)}


def _squared_singular_values(x_ND: np.ndarray) -> np.ndarray:
    """Falling, [min(n, D)]; what rounding leaves of a zero is 0."""
    gram = x_ND.T @ x_ND if x_ND.shape[1] <= len(x_ND) else x_ND @ x_ND.T  # the smaller one: no n x D decomposition
    values = np.linalg.eigvalsh(gram)[::-1].clip(min=0)
    return np.where(values > len(values) * np.finfo(float).eps * values[:1], values, 0.0)
