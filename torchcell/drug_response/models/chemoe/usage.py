"""How the experts of a mixture are used, as counted, checked and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from torchcell.report.plots import BLUE, INK, canvas
from torchcell.report.sections import Section

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
    def add(self, weight_BE: Float[Tensor, "B E"], line_B: Int[Tensor, " B"], log_dose_B: Float[Tensor, " B"]) -> None:
        """Count the routing weights of a batch; cell lines of -1 go to the last column."""
        if self.running is None:
            self.running = torch.zeros_like(self.line_EL), torch.zeros_like(self.dose_EQ)
        weight_EB = weight_BE.T.to(self.line_EL.dtype)
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
    counted = np.flatnonzero(sums_C > 0).tolist()
    return pd.DataFrame(count_EC[:, counted] / sums_C[counted], columns=[names[c] for c in counted])


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
