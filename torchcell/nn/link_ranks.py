"""Filtered ranks of some links while a model trains: each end among all nodes of its kind."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.nn.link_negatives import LinkNegatives
from torchcell.nn.link_scores import LinkScores


@torch.no_grad()
def link_ranks(
    z_ND: Float[Tensor, "N D"],
    scores: LinkScores,
    known: LinkNegatives,
    code: int,
    source_P: Int[Tensor, " P"],
    target_P: Int[Tensor, " P"],
) -> Float[Tensor, "P 2"]:
    """Rank of each target given the source, and of each source given the target; 1 is best, ties count half.

    Args:
        z_ND: Vectors of all nodes [N, D].
        scores: Reads them.
        known: Links of the message graph, which leave the lists, as the other given links do.
        code: Of the metaedge.
        source_P: Node numbers [P].
        target_P: Node numbers [P].
    """
    (first, last), (other_first, other_last) = known.ranges[code]
    source_A = torch.arange(first, last, device=source_P.device)
    target_B = torch.arange(other_first, other_last, device=source_P.device)
    tails_PB = scores.grid(z_ND[source_P], z_ND[target_B], code, source_P, target_B)
    heads_PA = scores.grid(z_ND[source_A], z_ND[target_P], code, source_A, target_P).T
    out_PB = known.known(code, *torch.broadcast_tensors(source_P[:, None], target_B))
    out_PA = known.known(code, *torch.broadcast_tensors(source_A, target_P[:, None]))
    for one, other in ((source_P, target_P), (target_P, source_P))[: 2 if code in known.symmetric else 1]:
        out_PB = _mark(out_PB, one, source_P, other, other_first)
        out_PA = _mark(out_PA, other, target_P, one, first)
    ranks = [
        _ranks(tails_PB, target_P - other_first, out_PB),
        _ranks(heads_PA, source_P - first, out_PA),
    ]
    return torch.stack(ranks, dim=1)


def _mark(out_PK: Tensor, given_Q: Tensor, given_P: Tensor, sought_Q: Tensor, first: int) -> Tensor:
    """Take the given links off the lists of those that share their given end."""
    row, link = (given_P[:, None] == given_Q).nonzero(as_tuple=True)
    out_PK = out_PK.clone()
    out_PK[row, sought_Q[link] - first] = True
    return out_PK


def _ranks(score_PK: Tensor, own_P: Tensor, out_PK: Tensor) -> Tensor:
    """1 + the candidates above a link's own score + half of those level with it [P]."""
    own_P1 = score_PK.gather(1, own_P[:, None])
    rest_PK = score_PK.masked_fill(out_PK.scatter(1, own_P[:, None], True), -torch.inf)
    return 1 + (rest_PK > own_P1).sum(1) + (rest_PK == own_P1).sum(1) / 2
