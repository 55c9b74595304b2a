"""Ranks of held-out links among all others, as validation watches them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from torchcell.knowledge_graph.models.hgt_embedder.losses import LinkScorer
from torchcell.knowledge_graph.models.hgt_embedder.sampling import LinkNegatives


@torch.no_grad()
def link_ranks(
    z_ND: Float[Tensor, "N D"],
    scores: LinkScorer,
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
        code: Of the edge type.
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


class StreamingLinks(Metric):
    """Code of the edge type, source and target of each link [n, 3]; ranks need all of them at once."""

    full_state_update = False
    links: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("links", [], dist_reduce_fx="cat")

    def update(self, edge_type_P: Int[Tensor, " P"], source_P: Int[Tensor, " P"], target_P: Int[Tensor, " P"]) -> None:
        """Add the links of a batch."""
        self.links.append(torch.stack([edge_type_P, source_P, target_P], dim=1))

    def compute(self) -> Int[Tensor, "n 3"]:
        """The links since the last ``reset``, sorted: the same whatever the batches and processes."""
        links_n3 = dim_zero_cat(self.links) if len(self.links) else torch.zeros(0, 3, dtype=torch.int64)
        return links_n3.unique(dim=0)
