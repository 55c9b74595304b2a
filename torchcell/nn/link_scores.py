"""Log-odds of links on one encoding: what the decoder reads off vectors, and what walks tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from torchcell.nn.dist_mult import DistMult


class WalkTable(NamedTuple):
    """Log-odds of one metaedge from walks.

    Attributes:
        score_AB: Of each source with each target [A, B].
        first_source: Node number of the first source.
        first_target: Node number of the first target.
    """

    score_AB: Tensor
    first_source: int
    first_target: int


class LinkScores:
    """The sum of both, for a list of links or for a grid of them; calls are those of ``DistMult``.

    Args:
        decoder: Reads vectors; none: walks alone are told.
        walks: Code of a metaedge -> its table; others have none.
        weight: Any parameter: of its place and type is the 0 of a metaedge without a table.
    """

    def __init__(self, decoder: DistMult | None, walks: Mapping[int, WalkTable], weight: Tensor) -> None:
        self.decoder, self.walks, self.weight = decoder, walks, weight

    def __call__(
        self,
        source_PD: Float[Tensor, "P D"],
        target_PD: Float[Tensor, "P D"],
        metaedge_P: Int[Tensor, " P"],
        source_P: Int[Tensor, " P"],
        target_P: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Log-odds of P links [P]; see ``DistMult.forward``."""
        score_P = self.weight.new_zeros(len(source_P))
        if self.decoder is not None:
            score_P = self.decoder(source_PD, target_PD, metaedge_P, source_P, target_P)
        for code, (score_AB, first_source, first_target) in self.walks.items():
            at = (metaedge_P == code).nonzero()[:, 0]
            walk_p = score_AB[source_P[at] - first_source, target_P[at] - first_target]
            score_P = score_P.index_add(0, at, walk_p.to(score_P.dtype))
        return score_P

    def grid(
        self,
        source_PD: Float[Tensor, "P D"],
        target_KD: Float[Tensor, "K D"],
        code: int,
        source_P: Int[Tensor, " P"],
        target_K: Int[Tensor, " K"],
    ) -> Float[Tensor, "P K"]:
        """Log-odds of one metaedge between each of P sources and each of K targets [P, K]."""
        score_PK = self.weight.new_zeros(len(source_P), len(target_K))
        if self.decoder is not None:
            score_PK = self.decoder.grid(source_PD, target_KD, code, source_P, target_K)
        if code not in self.walks:
            return score_PK
        score_AB, first_source, first_target = self.walks[code]
        return score_PK + score_AB.index_select(0, source_P - first_source).index_select(1, target_K - first_target)
