"""The held-out links that an epoch's validation has shown, of all processes."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class StreamingLinks(Metric):
    """Code of the metaedge, source and target of each link [n, 3]; ranks need all of them at once."""

    full_state_update = False
    links: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("links", [], dist_reduce_fx="cat")

    def update(self, metaedge_P: Int[Tensor, " P"], source_P: Int[Tensor, " P"], target_P: Int[Tensor, " P"]) -> None:
        """Add the links of a batch."""
        self.links.append(torch.stack([metaedge_P, source_P, target_P], dim=1))

    def compute(self) -> Int[Tensor, "n 3"]:
        """The links since the last ``reset``, sorted: the same whatever the batches and processes."""
        links_n3 = dim_zero_cat(self.links) if len(self.links) else torch.zeros(0, 3, dtype=torch.int64)
        return links_n3.unique(dim=0)
