"""A mixture of experts: each reads the samples that were sent to it, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.router import Router, Routing


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
