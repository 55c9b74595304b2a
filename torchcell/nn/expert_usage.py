"""How much each expert was used over an epoch, by cell line and by dose."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.router import Routing

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
