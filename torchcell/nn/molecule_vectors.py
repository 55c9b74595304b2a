"""Molecules by their vectors: one table on the device, of which a batch names rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.nn.dense_encoder import DenseEncoder


class MoleculeVectors(nn.Module):
    """An MLP on rows of a table; one learned vector for molecules without a row.

    Args:
        vector_DF: The table [D, F], a buffer that no checkpoint repeats.
        known_D: Which molecules have a row [D].
        width: Width W of the output.
        hidden: Width of the MLP's hidden layer.
        dropout: Share of hidden units dropped in training.
        input_dropout: Share of the vectors' entries dropped in training.
        drop: Share of the samples whose molecule counts as unknown in a training step, so that the model also learns
            what a drug does on average.
        missing: Whether there is a learned vector; without one an unknown molecule is a vector of zeros.

    Shapes:
        drug_B int64 [B] -> [B, W].
    """

    vector_DF: Tensor
    known_D: Tensor

    def __init__(
        self,
        vector_DF: Float[Tensor, "D F"],
        known_D: Bool[Tensor, " D"],
        width: int = 128,
        hidden: int = 256,
        dropout: float | int = 0.0,
        input_dropout: float | int = 0.0,
        drop: float | int = 0.0,
        missing: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("vector_DF", vector_DF, persistent=False)
        self.register_buffer("known_D", known_D, persistent=False)
        self.drop = drop
        self.encoder = DenseEncoder(vector_DF.shape[1], hidden, width, dropout, input_dropout)
        self.missing_embedding = nn.Parameter(torch.randn(width)) if missing else None

    def forward(self, drug_B: Int[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """One row a sample."""
        return self.stand_in(self.encoder(self.vector_DF.index_select(0, drug_B)), self.known_D[drug_B])

    def stand_in(self, x_BW: Tensor, known_B: Tensor) -> Tensor:
        """The learned vector in place of rows that are unknown, or dropped in training."""
        if self.missing_embedding is None:
            return x_BW
        if self.training and self.drop:
            known_B = known_B & (torch.rand(known_B.shape, device=known_B.device) >= self.drop)
        return torch.where(known_B[:, None], x_BW, self.missing_embedding.to(x_BW.dtype))
