"""A mixture of experts: the router, the experts, and how they are used, as counted, checked and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from torchcell.nn.sparse import full_precision
from torchcell.report.plots import BLUE, INK, canvas
from torchcell.report.sections import Section

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


DOSE_EDGES = (-1.25, -0.75, -0.25, 0.25, 0.75, 1.25)
DOSE_BINS = ("0.03 or less", "0.1", "0.3", "1", "3", "10", "30 or more")
"""Steps of half a decade around these doses in µM; edges in log10 µM."""
DEAD = 0.1
"""An expert with less than this part of an even share is dead."""


class ExpertUsage(nn.Module):
    """Sums of routing weights; those of the last whole epoch are buffers, so a checkpoint has them.

    Args:
        n_experts: E.
        n_lines: Cell lines L of training; a further column counts the unknown ones.

    Attributes:
        line_EL: Weights by expert and line [E, L + 1].
        dose_EQ: By expert and bin of dose [E, Q].
        running: The same two of the epoch so far, in this process; none before its first batch.
    """

    line_EL: Tensor
    dose_EQ: Tensor

    def __init__(self, n_experts: int, n_lines: int) -> None:
        super().__init__()
        self.register_buffer("line_EL", torch.zeros(n_experts, n_lines + 1))
        self.register_buffer("dose_EQ", torch.zeros(n_experts, len(DOSE_BINS)))
        # No buffers: each process has its own, and a checkpoint's buffers are the first one's.
        self.running: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def add(self, routing: Routing, line_B: Int[Tensor, " B"], log_dose_B: Float[Tensor, " B"]) -> None:
        """Count a batch; lines of -1 go to the last column."""
        if self.running is None:
            self.running = torch.zeros_like(self.line_EL), torch.zeros_like(self.dose_EQ)
        weight_EB = routing.weight_BE().T.to(self.line_EL.dtype)
        column_B = torch.where(line_B < 0, self.line_EL.shape[1] - 1, line_B)
        bin_B = torch.bucketize(log_dose_B, torch.tensor(DOSE_EDGES, device=log_dose_B.device, dtype=log_dose_B.dtype))
        self.running[0].index_add_(1, column_B, weight_EB)
        self.running[1].index_add_(1, bin_B, weight_EB)

    def close(self, add_up: Callable[[Tensor], Tensor] = lambda counts: counts) -> bool:
        """End the epoch: running sums become the buffers; ``add_up`` sums over processes. False: no counts."""
        if self.running is None:
            return False
        for buffer, counts in zip((self.line_EL, self.dose_EQ), self.running, strict=True):
            buffer.copy_(add_up(counts))
        self.running = None
        return True

    @property
    def counted(self) -> bool:
        """Whether a whole epoch was counted."""
        return bool(self.line_EL.any())

    @property
    def share_E(self) -> Float[Tensor, " E"]:
        """Of the weights, by expert [E]."""
        return self.line_EL.sum(1) / self.line_EL.sum().clamp(min=1e-12)

    @property
    def entropy(self) -> Float[Tensor, ""]:
        """Of the shares; 1 is even."""
        return torch.special.entr(self.share_E).sum() / torch.tensor(float(max(len(self.line_EL), 2))).log()

    @property
    def dead(self) -> list[int]:
        """Experts that next to nothing is sent to."""
        return (self.share_E < DEAD / len(self.line_EL)).nonzero().flatten().tolist()

    def collapse(self) -> str:
        """What to say of a mixture of which one expert does all; empty for any other."""
        n_experts = len(self.line_EL)
        if not self.counted or n_experts - len(self.dead) > 1 or n_experts == 1:
            return ""
        shares = ", ".join(f"{100 * share:.1f}" for share in self.share_E.tolist())
        return f"its mixture is one network, of {n_experts} experts one does all (shares {shares} %)"

    def measures(self) -> dict[str, Tensor]:
        """Shares of the experts, their entropy (1 is even), how many are dead, and what line and dose tell of them."""
        found = {f"expert_{number}": share for number, share in enumerate(self.share_E)}
        found |= {"entropy": self.entropy, "dead": self.line_EL.new_tensor(float(len(self.dead)))}
        return found | {"bits_of_line": shared_bits(self.line_EL), "bits_of_dose": shared_bits(self.dose_EQ)}


def shared_bits(count_EC: Float[Tensor, "E C"]) -> Float[Tensor, ""]:
    """Mutual information of expert and column in bits: 0 where the choice does not depend on the column [E, C]."""
    joint_EC = count_EC / count_EC.sum().clamp(min=1e-12)
    entropy = torch.special.entr
    total = entropy(joint_EC.sum(0)).sum() + entropy(joint_EC.sum(1)).sum() - entropy(joint_EC).sum()
    return total.clamp(min=0) / torch.tensor(2.0).log()


class MixtureOfExperts(nn.Module):
    r"""y_b = sum over the chosen experts e of w_be f_e(h_b, gamma).

    Rows are sent by ``index_select`` and put back by ``index_add``; this equals the dense form, all experts on all
    samples and weights of 0, to rounding. An expert without samples runs on no rows, so its weights get a gradient of
    0 instead of none, which DDP would wait for.

    Args:
        router: Chooses experts and weights.
        experts: Modules h [b, H], gamma [G, D] -> [b, G].

    Shapes:
        h_BH [B, H], gamma_GD [G, D], key_B int64 [B] -> [B, G] and the ``Routing``.
    """

    def __init__(self, router: Router, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(experts) != router.n_experts:
            raise ValueError(f"{len(experts)} experts for a router of {router.n_experts}")
        self.router, self.experts = router, nn.ModuleList(experts)

    def forward(
        self,
        h_BH: Float[Tensor, "B H"],
        gamma_GD: Float[Tensor, "G D"],
        key_B: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B G"], Routing]:
        """The mixture, and who took part in it."""
        routing = self.router(h_BH, key_B)
        mixed_BG: Tensor | None = None
        for number, expert in enumerate(cast(Sequence[nn.Module], self.experts)):
            row_M, place_M = (routing.expert_BK == number).nonzero(as_tuple=True)
            said_MG = expert(h_BH.index_select(0, row_M), gamma_GD)
            weighted_MG = (routing.weight_BK[row_M, place_M, None] * said_MG).to(said_MG.dtype)
            if mixed_BG is None:
                mixed_BG = said_MG.new_zeros(len(h_BH), len(gamma_GD))
            mixed_BG = mixed_BG.index_add(0, row_M, weighted_MG)
        assert mixed_BG is not None
        return mixed_BG, routing


TITLE = "Which experts read what"


def expert_section(
    line_EL: np.ndarray,
    dose_EQ: np.ndarray,
    lines: Sequence[str],
    doses: Sequence[str],
    entropy: float,
    dead: Sequence[int],
) -> Section:
    """Heat maps of the experts' shares within each line and each bin of dose, and the table.

    Args:
        line_EL: Sums of routing weights by expert and line [E, L + 1], the last column for unknown lines.
        dose_EQ: By expert and bin of dose [E, Q].
        lines: Names [L].
        doses: Names of the bins in µM [Q].
        entropy: Of the experts' shares; 1 is even.
        dead: Experts that next to nothing is sent to.
    """
    if not line_EL.any():
        return Section(TITLE, "No epoch was counted yet, so nothing is known of the experts' use.")
    share_E = line_EL.sum(1) / line_EL.sum()
    n_experts = len(share_E)
    names = [*lines, "unknown line"]
    within = {"cell line": _columns(line_EL, names), "dose in µM": _columns(dose_EQ, doses)}
    text = (
        f"Sums of routing weights over the epoch of these weights. Entropy {entropy:.2f} of the {n_experts} experts' "
        f"shares, 1 being even; {f'dead: {list(dead)}' if dead else 'no expert is dead'} (below a tenth of an even "
        "share). Columns that look alike mean that the choice does not depend on the line, or on the dose. Whether the "
        "mixture beats one network of equal cost is said by torchcell.evaluate with comparators=[CKPT], CKPT being a "
        "checkpoint of model=response_mlp on the same split."
    )
    table = pd.concat([pd.DataFrame({"expert": range(n_experts), "share": share_E.round(3)}), *within.values()], axis=1)
    return Section(
        TITLE,
        text,
        _maps(within),
        table.round(3),
        "experts",
        "Share of each expert within a cell line (left) and within a bin of dose (right); a column adds up to 1.",
    )


def _columns(count_EC: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Shares within each column that counted anything."""
    sums_C = count_EC.sum(0)
    held = np.flatnonzero(sums_C > 0).tolist()
    return pd.DataFrame(count_EC[:, held] / sums_C[held], columns=[names[c] for c in held])


def _maps(within: dict[str, pd.DataFrame]) -> Figure:
    widths = [max(2.2, 0.34 * shares.shape[1] + 1.0) for shares in within.values()]
    n_experts = len(next(iter(within.values())))
    figure, axes = canvas(sum(widths) + 0.8, 1.6 + 0.34 * n_experts, len(within))
    axes[0, 0].get_gridspec().set_width_ratios(widths)
    for axis, (label, shares) in zip(axes[0], within.items(), strict=True):
        drawn = _map(axis, label, shares)
    bar = figure.colorbar(drawn, ax=axes[0, -1], shrink=0.8, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("share", size=8)
    return figure


def _map(axis: Axes, label: str, shares: pd.DataFrame):
    shades = LinearSegmentedColormap.from_list("share", ["#F4F6F8", BLUE, INK])
    drawn = axis.imshow(shares.to_numpy(), cmap=shades, vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(shares.shape[1]), list(shares.columns), rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(shares)), [f"expert {number}" for number in range(len(shares))])
    axis.set(xlabel=label)
    axis.spines[:].set_visible(False)
    return drawn
