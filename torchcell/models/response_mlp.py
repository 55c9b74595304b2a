"""The mixture's yardstick: the same inputs, and one MLP on the sample and a gene that costs as much as k experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.datamodules.response_samples import ResponseBatch
from torchcell.datamodules.spec import Spec
from torchcell.models.base import LossWeights
from torchcell.models.response_inputs import ResponseInputs
from torchcell.models.response_model import ResponseModel
from torchcell.nn.gene_expert import GeneExpert


class ResponseMLP(ResponseModel):
    """y_bg = f([h_b, gamma_g]), or <f(h_b), gamma_g> with ``read_by=product``.

    Args:
        spec: Of the task ``response``.
        inputs: Partial of ``ResponseInputs``.
        head: See ``ResponseModel``.
        read_by: ``pairs``: an MLP on each pair of sample and gene, as CheMoE's experts; ``product``: a product of
            rank D, hundreds of times cheaper.
        hidden: Widths of the hidden layers; (362, 181) cost as much a pair as two of CheMoE's experts.
        dropout: Share of the first layer's units dropped in training.
        gene_width: Width D of gamma.
        gene_gain: gamma is this times the table's row; none: sqrt(D).
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        inputs: Callable[..., ResponseInputs] | None = None,
        head: str = "change",
        read_by: str = "pairs",
        hidden: Sequence[int] = (362, 181),
        dropout: float | int = 0.0,
        gene_width: int = 128,
        gene_gain: float | int | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, inputs, head, optimizer, scheduler, loss_weights)
        if read_by not in ("pairs", "product") or len(hidden) != 2:
            raise InputError(
                f"model.read_by={read_by!r} is pairs or product, and model.hidden={list(hidden)} two widths"
            )
        self.gain = gene_width**0.5 if gene_gain is None else gene_gain
        self.gene_embedding = nn.Embedding(len(spec.genes), gene_width)
        nn.init.normal_(self.gene_embedding.weight, std=gene_width**-0.5)
        self.pairs: GeneExpert | None = None
        self.layers: nn.Sequential | None = None
        if read_by == "pairs":
            self.pairs = GeneExpert(self.inputs.features, gene_width, (hidden[0], hidden[1]), dropout)
        else:
            self.layers = nn.Sequential(
                nn.Linear(self.inputs.features, hidden[0]), nn.LayerNorm(hidden[0]), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden[0], gene_width),
            )  # fmt: skip

    def genes(self) -> Float[Tensor, "G D"]:
        """gamma of all genes [G, D]."""
        return self.gain * self.gene_embedding.weight

    def read(self, h_BH: Float[Tensor, "B H"], batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """One number for each sample and gene."""
        if self.pairs is not None:
            return self.pairs(h_BH, self.genes())
        assert self.layers is not None
        gamma_GD = self.genes()
        return self.layers(h_BH) @ gamma_GD.T / gamma_GD.shape[1] ** 0.5

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: gamma [G, D]."""
        return {"genes": self.genes()}
