"""``StackingWeights``: the weights of network and prior in a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

MOST = 1.5
"""Largest value of either weight."""


class StackingWeights(nn.Module):
    """a network + b prior, with the a and b of the least squared error on the validation part, for log-odds of the
    least cross-entropy.

    A network that was trained on few noisy samples predicts the right direction and too large a size. A prior that was
    fitted beside it predicts part of the same. Both weights are fitted after each pass over the validation part, lie
    between 0 and ``MOST``, and are saved in the checkpoint. Before the first pass both are 1.

    Weights are known only after a pass. So the predictions of a pass, its ``val/score`` and the choice of the best
    epoch use the weights of the pass before, and the first epoch has both at 1. The checkpoint of an epoch therefore
    scores a little better on the validation part than its ``val/score``, since its weights were fitted there.

    Args:
        labels: Whether the target is 0 or 1, and network and prior are log-odds.

    Shapes:
        network, prior [B, G] -> [B, G].
    """

    network: Tensor
    prior: Tensor
    product_M: Tensor

    def __init__(self, labels: bool = False) -> None:
        super().__init__()
        self.labels = labels
        self._seen: list[Tensor] = []  # of a validation pass with labels: network, prior, target [3, values]
        self._lists: list[tuple[Tensor, Tensor]] = []  # network and prior of lists [2, L, K], and who takes part [L, K]
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
        if self.labels:
            self._seen.append(torch.stack([x[measured_BG].double() for x in (network_BG, prior_BG, target_BG)]))
            return
        n, p, t = (torch.where(measured_BG, x, 0.0) for x in (network_BG, prior_BG, target_BG))
        pairs = [(n, n), (n, p), (p, p), (n, t), (p, t)]
        self.product_M += torch.stack([(a * b).sum() for a, b in pairs])

    @torch.no_grad()
    def observe_lists(self, network_LK: Tensor, prior_LK: Tensor, part_LK: Tensor) -> None:
        """Add lists of a batch, the true one first: its share of exp(weighted sum) counts as a label does.

        Args:
            network_LK: Network output.
            prior_LK: Prediction of the prior.
            part_LK: Which of them are in the list, bool.
        """
        self._lists.append((torch.stack([network_LK, prior_LK]).double(), part_LK))

    def choose(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Fit both weights to the batches since the last call; ``total`` sums over the processes.

        Returns:
            ``network`` and ``prior``, for the log.
        """
        if self.labels:
            network_n, prior_n, target_n = torch.cat([self.product_M.new_zeros(3, 0).double(), *self._seen], dim=1)
            network, prior = least_cross_entropy(network_n, prior_n, target_n, total, self._lists)
        else:
            rr, *others = total(self.product_M.clone()).tolist()
            network, prior = least_squares(rr, *others) if rr else (1.0, 1.0)  # a prior alone is as it was fitted
        self.forget()
        self.network.fill_(network)
        self.prior.fill_(prior)
        return {"network": self.network, "prior": self.prior}

    def forget(self) -> None:
        """Drop what was observed since the last ``choose``."""
        self._seen, self._lists = [], []
        self.product_M.zero_()


STEPS = 12
"""Of Newton's method for two weights in a square; each halves a step that did not help."""


def least_cross_entropy(
    network_n: Tensor,
    prior_n: Tensor,
    target_n: Tensor,
    total: Callable[[Tensor], Tensor],
    lists: Sequence[tuple[Tensor, Tensor]] = (),
) -> tuple[float, float]:
    """The a and b between 0 and ``MOST`` with the least sum of log(1 + exp(l)) - t l, l = a network + b prior, and over
    lists of -log of the first one's share of exp(l).

    Each step is a least squares of the working response, so that processes exchange six sums and no values.

    Args:
        network_n: Log-odds [n] of this process.
        prior_n: Likewise.
        target_n: 0 or 1.
        total: Sums over the processes.
        lists: See ``StackingWeights.observe_lists``: network and prior [2, L, K], and who takes part [L, K].

    Returns:
        1 and 1 where the network says nothing.
    """
    kept, tried, least = (1.0, 1.0), (1.0, 1.0), float("inf")
    for _ in range(STEPS):
        odds_n = tried[0] * network_n + tried[1] * prior_n
        chance_n = odds_n.sigmoid()
        weight_n = chance_n * (1 - chance_n) + 1e-6
        # The curvature around the point that was tried, and what the quadratic there is centered on.
        working_n = weight_n * odds_n + target_n - chance_n
        pairs = [(network_n, weight_n * network_n), (network_n, weight_n * prior_n), (prior_n, weight_n * prior_n)]
        pairs += [(network_n, working_n), (prior_n, working_n)]
        loss = (torch.nn.functional.softplus(odds_n) - target_n * odds_n).sum()
        sums = torch.stack([loss, *((a * b).sum() for a, b in pairs)])
        value, *products = total(sums + sum(_of_lists(*one, *tried) for one in lists)).tolist()
        if not products[0]:
            return 1.0, 1.0
        if value <= least:
            kept, least, step = tried, value, least_squares(*products)
            tried = step
        else:
            tried = ((kept[0] + tried[0]) / 2, (kept[1] + tried[1]) / 2)
    return kept


def _of_lists(parts_2LK: Tensor, part_LK: Tensor, a: float, b: float) -> Tensor:
    """Of lists at a and b: -log of the first ones' shares, its curvature H (three sums), and H (a, b) - its slope."""
    odds_LK = (a * parts_2LK[0] + b * parts_2LK[1]).masked_fill(~part_LK, -torch.inf)
    share_LK = odds_LK.softmax(1)
    apart_2LK = parts_2LK - (share_LK * parts_2LK).sum(2, keepdim=True)
    rr, rt, tt = ((share_LK * apart_2LK[i] * apart_2LK[j]).sum() for i, j in ((0, 0), (0, 1), (1, 1)))
    fall_n, fall_p = apart_2LK[:, :, 0].sum(1)  # minus the slope
    loss = (odds_LK.logsumexp(1) - odds_LK[:, 0]).sum()
    return torch.stack([loss, rr, rt, tt, a * rr + b * rt + fall_n, a * rt + b * tt + fall_p])


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
