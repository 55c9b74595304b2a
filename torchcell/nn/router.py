"""Which experts read a sample: a learned gate, or rules that learn nothing and say what the gate is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.spmm import full_precision

CHOICES = ("top_k", "dense", "uniform", "hash")


class Routing(NamedTuple):
    """The experts of B samples.

    Attributes:
        expert_BK: Numbers of the K experts that read a sample, each once, int64 [B, K].
        weight_BK: How much each counts, rows adding up to 1 unless K = 1 of more [B, K].
        logit_BE: Of all E experts, float32 [B, E]; none where nothing is learned.
        n_experts: E.
    """

    expert_BK: Tensor
    weight_BK: Tensor
    logit_BE: Tensor | None
    n_experts: int

    def weight_BE(self) -> Float[Tensor, "B E"]:
        """The weights of all experts, 0 for those that do not read a sample."""
        empty = self.weight_BK.new_zeros(len(self.weight_BK), self.n_experts)
        return empty.scatter(1, self.expert_BK, self.weight_BK)

    def balance(self) -> Float[Tensor, ""]:
        r"""E sum_i f_i P_i: f_i the share of places that expert i got, P_i its mean probability; 1 when even.

        P is the softmax over all experts, so that one which was never chosen still has a gradient (Fedus, Zoph and
        Shazeer, JMLR 2022, equation 4). 0 where nothing is learned.
        """
        if self.logit_BE is None:
            return self.weight_BK.new_zeros(())
        place_E = torch.bincount(self.expert_BK.flatten(), minlength=self.n_experts)
        share_E = place_E.to(self.logit_BE.dtype) / max(self.expert_BK.numel(), 1)
        return self.n_experts * (share_E * self.logit_BE.softmax(1).mean(0)).sum()

    def logit_size(self) -> Float[Tensor, ""]:
        """Mean squared log-sum-exp of the logits (z-loss, Zoph et al., arXiv:2202.08906); 0 without a gate."""
        if self.logit_BE is None:
            return self.weight_BK.new_zeros(())
        return self.logit_BE.logsumexp(1).square().mean()


class Router(nn.Module):
    r"""Chooses K of E experts a sample.

    ``top_k``: the K largest of softmax(gate(h)), divided by their sum (for K = 1 the probability itself, as else the
    gate had no gradient). ``dense``: all, by their probability. ``uniform``: all alike. ``hash``: K that the sample's
    key names, alike. The gate is Linear, LayerNorm, ReLU, Linear in float32, and starts near zero.

    Args:
        features: Width H of what the gate reads.
        n_experts: E.
        top_k: K for ``top_k`` and ``hash``.
        choice: See above.
        hidden: Width of the gate's hidden layer.
        start_sd: Of the last layer's fresh weights, 0.01 for near zero; none: torch's own, as published.
        bias_rate: Step of a bias a expert that counts in the choice only, and rises by each ``even_out`` where an
            expert got less than its share (Wang et al., arXiv:2408.15664); 0: no such bias.

    Raises:
        ValueError: An unknown choice, or more experts a sample than there are.

    Shapes:
        h_BH [B, H] and key_B int64 [B] -> ``Routing``.
    """

    bias_E: Tensor

    def __init__(
        self,
        features: int,
        n_experts: int,
        top_k: int,
        choice: str = "top_k",
        hidden: int = 128,
        start_sd: float | int | None = 0.01,
        bias_rate: float | int = 0.0,
    ) -> None:
        super().__init__()
        if choice not in CHOICES:
            raise ValueError(f"router {choice!r} is none of {CHOICES}")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"{top_k} experts a sample of {n_experts}")
        self.n_experts, self.top_k, self.choice, self.bias_rate = n_experts, top_k, choice, bias_rate
        self.gate: nn.Sequential | None = None
        if choice in ("top_k", "dense"):
            self.gate = nn.Sequential(
                nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, n_experts)
            )
            if start_sd is not None:
                last = self.gate[-1]
                assert isinstance(last, nn.Linear)
                nn.init.normal_(last.weight, std=start_sd)
                nn.init.zeros_(last.bias)
        self.register_buffer("bias_E", torch.zeros(n_experts))
        self._place_E: Tensor | None = None

    def forward(self, h_BH: Float[Tensor, "B H"], key_B: Int[Tensor, " B"] | None = None) -> Routing:
        """Experts and weights of each sample."""
        n, n_experts = len(h_BH), self.n_experts
        everyone_BE = torch.arange(n_experts, device=h_BH.device).expand(n, -1)
        if self.choice == "uniform":
            return Routing(everyone_BE, h_BH.new_full((n, n_experts), 1 / n_experts), None, n_experts)
        if self.choice == "hash":
            assert key_B is not None, "hash routing needs a key a sample"
            expert_BK = (key_B[:, None] + torch.arange(self.top_k, device=h_BH.device)) % n_experts
            return Routing(expert_BK, h_BH.new_full(expert_BK.shape, 1 / self.top_k), None, n_experts)
        assert self.gate is not None
        with torch.autocast(h_BH.device.type, enabled=False):
            logit_BE = self.gate(full_precision(h_BH))
            share_BE = logit_BE.softmax(1)
        if self.choice == "dense":
            return Routing(everyone_BE, share_BE, logit_BE, n_experts)
        expert_BK = (share_BE.detach() + self.bias_E).topk(self.top_k, dim=1).indices
        weight_BK = share_BE.gather(1, expert_BK)
        if self.top_k > 1:
            weight_BK = weight_BK / weight_BK.sum(1, keepdim=True)
        if self.training and self.bias_rate:
            place_E = torch.bincount(expert_BK.flatten(), minlength=n_experts)
            self._place_E = place_E if self._place_E is None else self._place_E + place_E
        return Routing(expert_BK, weight_BK, logit_BE, n_experts)

    @torch.no_grad()
    def even_out(self, add_up: Callable[[Tensor], Tensor] = lambda counts: counts) -> None:
        """Move the bias by the places that each expert got since the last call, if any were counted.

        Args:
            add_up: Sums them over processes, whose biases then stay one.
        """
        if self._place_E is None:
            return
        place_E, self._place_E = add_up(self._place_E).to(self.bias_E), None
        self.bias_E.add_(self.bias_rate * (place_E.mean() - place_E).sign())
