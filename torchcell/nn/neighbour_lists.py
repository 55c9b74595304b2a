"""Which tokens each gene looks at: global tokens, itself, and those of its neighbours that are active."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from torchcell.graph.cell_graph import CSR


def seen_tokens(neighbour_GK: Int[Tensor, "G K"], active_A: Int[Tensor, " A"], n_global: int) -> CSR:
    """Tokens that each active gene sees, each once, whatever the lists say twice.

    Args:
        neighbour_GK: Neighbours of every gene, positions among all G genes; -1 pads [G, K].
        active_A: Positions of the active genes [A], each once.
        n_global: Global tokens P, which come first and are seen by all.

    Returns:
        Row i of A: columns of the P + A tokens, in order, with ones as weights.
    """
    place_G = neighbour_GK.new_full((len(neighbour_GK) + 1,), -1)  # the last one is for the pads
    place_G[active_A] = torch.arange(len(active_A), device=active_A.device) + n_global
    rows = place_G[active_A, None]
    seen_AS = torch.cat([place_G[neighbour_GK[active_A]], rows], 1).sort(1).values
    keep_AS = seen_AS >= 0
    keep_AS[:, 1:] &= seen_AS[:, 1:] != seen_AS[:, :-1]
    everywhere = torch.arange(n_global, device=active_A.device).expand(len(active_A), -1)
    seen_AS = torch.cat([everywhere, seen_AS], 1)
    keep_AS = torch.cat([torch.ones_like(everywhere, dtype=torch.bool), keep_AS], 1)
    indices = seen_AS[keep_AS].int()
    indptr = torch.cat([keep_AS.new_zeros(1, dtype=torch.int32), keep_AS.sum(1).cumsum(0).int()])
    return CSR(indptr, indices, torch.ones_like(indices, dtype=torch.float32))
