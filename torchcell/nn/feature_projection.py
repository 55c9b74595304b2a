"""Tokens from given gene features, whatever their units."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FeatureProjection(nn.Module):
    r"""A linear map of standardised features.

    .. math::
        x_i = W \, \mathrm{asinh}\Big(\frac{f_i - \mu}{\sigma}\Big) + b

    with mean and standard deviation of each column over the genes the model was built with; asinh bends the heavy
    tails that spectra of networks have. The features are no part of the state, so the weights fit any cell.

    Args:
        values_NF: Features of all genes [N, F].
        n_own: Genes that the model was built with; those after them were added later.
        width: Width D of a token.

    Shapes:
        -> [N, D].
    """

    features: Tensor

    def __init__(self, values_NF: Float[Tensor, "N F"], n_own: int, width: int) -> None:
        super().__init__()
        own_OF = values_NF[:n_own]
        spread_F = own_OF.std(0, correction=0)
        # A column that is the same for all says nothing; divided by its rounding errors it would be loud.
        spread_F = torch.where(spread_F > 1e-6 * own_OF.abs().amax(0), spread_F, torch.inf)
        self.register_buffer("features", ((values_NF - own_OF.mean(0)) / spread_F).asinh(), persistent=False)
        self.linear = nn.Linear(values_NF.shape[1], width)

    def forward(self) -> Float[Tensor, "N D"]:
        """One token a gene."""
        return self.linear(self.features)
