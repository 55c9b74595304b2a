"""``StackingWeights``: the weights of network and prior in a prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST = 1.5
"""Largest value of either weight."""


class StackingWeights(nn.Module):
    """a network + b prior, with the a and b of the least squared error on the validation part.

    A network that was trained on few noisy samples predicts the right direction and too large a size. A prior that was
    fitted beside it predicts part of the same. Both weights are fitted after each pass over the validation part, lie
    between 0 and ``MOST``, and are saved in the checkpoint. Before the first pass both are 1.

    Weights are known only after a pass. So the predictions of a pass, its ``val/score`` and the choice of the best
    epoch use the weights of the pass before, and the first epoch has both at 1. The checkpoint of an epoch therefore
    scores a little better on the validation part than its ``val/score``, since its weights were fitted there.

    Shapes:
        network, prior [B, G] -> [B, G].
    """

    network: Tensor
    prior: Tensor
    product_M: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("network", torch.ones(()))
        self.register_buffer("prior", torch.ones(()))
        self.register_buffer("product_M", torch.zeros(5), persistent=False)

    def forward(self, network_BG: Tensor, prior_BG: Tensor) -> Tensor:
        """The weighted sum."""
        return self.network * network_BG + self.prior * prior_BG

    @torch.no_grad()
    def observe(self, network_BG: Tensor, prior_BG: Tensor, target_BG: Tensor) -> None:
        """Add the products of a batch for the least squares.

        Args:
            network_BG: Network output for B samples.
            prior_BG: Prediction of the prior for them.
            target_BG: Target of their weighted sum; NaN is left out.
        """
        measured_BG = ~torch.isnan(target_BG)
        n, p, t = (torch.where(measured_BG, x, 0.0) for x in (network_BG, prior_BG, target_BG))
        pairs = [(n, n), (n, p), (p, p), (n, t), (p, t)]
        self.product_M += torch.stack([(a * b).sum() for a, b in pairs])

    def choose(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Fit both weights to the batches since the last call; ``total`` sums over the processes.

        Returns:
            ``network`` and ``prior``, for the log.
        """
        product_M = total(self.product_M.clone())
        self.product_M.zero_()
        rr, *others = product_M.tolist()
        network, prior = least_squares(rr, *others) if rr else (1.0, 1.0)  # a prior alone is as it was fitted
        self.network.fill_(network)
        self.prior.fill_(prior)
        return {"network": self.network, "prior": self.prior}


def least_squares(rr: float, rt: float, tt: float, rl: float, tl: float) -> tuple[float, float]:
    """The a and b between 0 and ``MOST`` with the least |l - a r - b t|^2, from the inner products of r, t and l."""

    def between(value: float) -> float:
        return min(max(value, 0.0), MOST)

    def alone(square: float, product: float, other: float, given: float) -> float:
        return between((product - other * given) / square) if square > 0 else 0.0

    area = rr * tt - rt * rt
    if area > 1e-9 * rr * tt:
        a, b = (rl * tt - tl * rt) / area, (tl * rr - rl * rt) / area
        if between(a) == a and between(b) == b:
            return a, b
    # Otherwise the minimum is on an edge of the square.
    edges = [(a, alone(tt, tl, rt, a)) for a in (0.0, MOST)] + [(alone(rr, rl, rt, b), b) for b in (0.0, MOST)]
    return min(
        edges, key=lambda s: s[0] ** 2 * rr + 2 * s[0] * s[1] * rt + s[1] ** 2 * tt - 2 * (s[0] * rl + s[1] * tl)
    )
