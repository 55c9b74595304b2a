"""``StackingWeights``: how much of a network's output, and of a prior's prediction, goes into a prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST = 1.5
"""Of either, whatever the validation part would have."""


class StackingWeights(nn.Module):
    """a network + b prior, with the a and b of the least squared error on the validation part.

    A network that was trained on few noisy samples says too much of others, in the right direction; and a prior in
    closed form that was fitted beside it knows part of the same. Both weights are fitted after each pass over the
    validation part, as a ridge's penalty is, lie between 0 and ``MOST``, and stand in the checkpoint. Before the first
    pass both are 1.

    What is predicted in a pass, and with it ``val/score`` and the choice of the best epoch, is by the weights of the
    pass before: those that a pass finds are known when it is over. So the checkpoint of an epoch scores a little better
    on the validation part than its ``val/score`` says, as its weights were fitted to it; the first epoch is scored with
    both at 1. The score of an epoch is thus of weights that were not fitted to its own network.

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
        """Add the products that the least squares need.

        Args:
            network_BG: The network's output for B samples.
            prior_BG: The prior's prediction of them.
            target_BG: What their weighted sum should be; NaN counts nothing.
        """
        measured_BG = ~torch.isnan(target_BG)
        n, p, t = (torch.where(measured_BG, each, 0.0) for each in (network_BG, prior_BG, target_BG))
        pairs = [(n, n), (n, p), (p, p), (n, t), (p, t)]
        self.product_M += torch.stack([(one * other).sum() for one, other in pairs])

    def choose(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Set both weights by what was observed since the last choice; ``total`` adds up over the processes.

        Returns:
            ``network`` and ``prior``, for the log.
        """
        product_M = total(self.product_M.clone())
        self.product_M.zero_()
        network, prior = least_squares(*product_M.tolist())
        self.network.fill_(network)
        self.prior.fill_(prior)
        return {"network": self.network, "prior": self.prior}


def least_squares(rr: float, rt: float, tt: float, rl: float, tl: float) -> tuple[float, float]:
    """The a and b between 0 and ``MOST`` with the least |l - a r - b t|^2, from the vectors' products."""

    def between(value: float) -> float:
        return min(max(value, 0.0), MOST)

    def alone(square: float, product: float, other: float, given: float) -> float:
        return between((product - other * given) / square) if square > 0 else 0.0

    area = rr * tt - rt * rt
    if area > 1e-9 * rr * tt:
        a, b = (rl * tt - tl * rt) / area, (tl * rr - rl * rt) / area
        if between(a) == a and between(b) == b:
            return a, b
    # Else the least lies on an edge of the square.
    edges = [(a, alone(tt, tl, rt, a)) for a in (0.0, MOST)] + [(alone(rr, rl, rt, b), b) for b in (0.0, MOST)]
    return min(
        edges, key=lambda s: s[0] ** 2 * rr + 2 * s[0] * s[1] * rt + s[1] ** 2 * tt - 2 * (s[0] * rl + s[1] * tl)
    )
