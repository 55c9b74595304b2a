"""What level the embeddings of a type of node have: by the bounds of our own training, or by those for any file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchcell.data.errors import InputError

if TYPE_CHECKING:
    from torchcell.metrics.embedding_health import KindHealth

LEVELS = ("collapsed", "narrow", "healthy")
"""From worst to best; beside them ``undefined``."""


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
        _refuse_outside({"cosine": self.cosine, "components": self.components, "rank": self.rank})

    @property
    def cosine_bound(self) -> float:
        """Mean cosine up to which embeddings may be healthy."""
        return self.cosine

    @property
    def text(self) -> str:
        """The bounds in a few sentences."""
        return (
            f"With m = min(dimensions, nodes - 1) a kind is healthy when its mean cosine is below {self.cosine}, "
            f"{self.components} m components or more are needed for 90 % of the variance, the effective rank is "
            f"{self.rank} m or more, no vector is zero, more than half of the vectors differ, and held-out links, "
            "where they are known, are told better than by the degree product and by chance. "
            "A kind of one or two nodes is undefined."
        )

    def judge(self, one: KindHealth) -> tuple[str, list[str]]:
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
            f"hold 90 % of the variance after centering, when the mean cosine within one kind is above "
            f"{self.collapsed_within}, when a vector is zero, or when no more than half of the vectors differ. Narrow "
            f"are those with a mean cosine above {self.healthy_cosine} or fewer than min({self.healthy_components:g}, "
            f"{self.share} m) components; all others are healthy. A kind of one or two nodes is undefined."
        ) + centered * self.centered

    def judge(self, one: KindHealth) -> tuple[str, list[str]]:
        """One of ``LEVELS``, and the reasons for it with their bounds."""
        cosine, held = one.centered_cosine if self.centered else one.cosine, _components(one)
        few, enough = (min(n, self.share * one.room) for n in (self.collapsed_components, self.healthy_components))
        said = f"mean cosine {cosine:.2f}{' after centering' * self.centered}"
        collapsed = _repeats(one)
        if cosine > self.collapsed_cosine and one.components < few:
            collapsed.append(f"{said} is above {self.collapsed_cosine} and {held}, fewer than {few:.4g}")
        elif cosine > self.collapsed_within and not one.whole:
            collapsed.append(f"{said} within the kind is above {self.collapsed_within}")
        if collapsed:
            return "collapsed", collapsed
        narrow = [f"{said} is above {self.healthy_cosine}"] * (cosine > self.healthy_cosine)
        narrow += [f"{held}, {enough:.4g} are wanted"] * (one.components < enough)
        if narrow:
            return "narrow", narrow
        return "healthy", [f"{said} is not above {self.healthy_cosine}", f"{held}, {enough:.4g} are wanted"]


def _repeats(one: KindHealth) -> list[str]:
    """Vectors of zeros, and vectors that stand many times."""
    found = []
    if one.zeros:
        found.append(f"{one.zeros:,} of {one.n:,} vectors are zero")
    if 2 * one.distinct <= one.n:
        alike = "all vectors are one" if one.distinct == 1 else f"only {one.distinct:,} vectors differ"
        found.append(f"{alike} among {one.n:,} nodes")
    return found


def _components(one: KindHealth) -> str:
    return f"{one.components:.0f} component(s) hold 90 % of the variance"


def _refuse_outside(bounds: dict[str, float | int]) -> None:
    """Refuse a bound on a cosine or a share that is not between 0 and 1."""
    outside = [f"{name}={value}" for name, value in bounds.items() if not 0 <= value <= 1]
    if outside:
        raise InputError(f"bounds of embeddings that are not between 0 and 1: {', '.join(outside)}")


Bounds = TrainingBounds | FileBounds
TRAINING = TrainingBounds()
