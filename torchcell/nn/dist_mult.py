"""Log-odds of typed links between two nodes: DistMult, with an antisymmetric part and node biases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.nn.spmm import full_precision


class DistMult(nn.Module):
    r"""Score of the links (source i, metaedge m, target j); Yang et al., ICLR 2015, arXiv:1412.6575.

    .. math::
        s_{imj} = \sum_d w_{md} z_{id} z_{jd} / \sqrt{D} + c_m + b^{source}_{mi} + b^{target}_{mj}

    The product says the same of both directions. A directed metaedge within one kind, e.g. ``Gr>G``, also has
    an antisymmetric part, the imaginary one of ComplEx (Trouillon et al., ICML 2016): with the halves z = [a, b],
    sum_d v_md (a_id b_jd - b_id a_jd) / sqrt(D). Other metaedges join two kinds, whose vectors differ anyway.

    Args:
        features: D, even if any metaedge is ``directed``.
        n_metaedges: Metaedges.
        n_nodes: N, rows of the biases; 0 leaves the biases out.
        directed: Codes of the metaedges with an antisymmetric part.
        symmetric: Codes of the metaedges without direction, whose two ends share one bias a node.

    Shapes:
        source_PD, target_PD [P, D], and the metaedge and node numbers [P] -> [P].
    """

    def __init__(
        self,
        features: int,
        n_metaedges: int,
        n_nodes: int = 0,
        directed: Sequence[int] = (),
        symmetric: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if directed and features % 2:
            raise InputError(f"{features} features: directed metaedges need an even number")
        self.features, self.n_metaedges, self.n_nodes = features, n_metaedges, n_nodes
        self.weight = nn.Parameter(torch.empty(n_metaedges, features))
        self.turn = nn.Parameter(torch.empty(len(directed), features // 2)) if directed else None
        row = torch.full((n_metaedges,), -1)
        row[list(directed)] = torch.arange(len(directed))
        self.turn_row: Tensor
        self.register_buffer("turn_row", row, persistent=False)
        self.bias = nn.Parameter(torch.zeros(n_metaedges))
        # One table a metaedge and end, so that a node's bias for one relation says nothing of another.
        self.node_bias = nn.Parameter(torch.zeros(2, n_metaedges, n_nodes)) if n_nodes else None
        self.target_end: Tensor
        end = torch.ones(n_metaedges, dtype=torch.int64)
        end[list(symmetric)] = 0
        self.register_buffer("target_end", end, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights near 1, so that alike nodes attract at the start; no turn, no biases."""
        nn.init.normal_(self.weight, 1.0, 0.1)
        nn.init.zeros_(self.bias)
        for zero in (self.turn, self.node_bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(
        self,
        source_PD: Float[Tensor, "P D"],
        target_PD: Float[Tensor, "P D"],
        metaedge_P: Int[Tensor, " P"],
        source_P: Int[Tensor, " P"],
        target_P: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Log-odds of P links.

        Args:
            source_PD: Vectors of the sources [P, D].
            target_PD: Vectors of the targets [P, D].
            metaedge_P: Codes of the metaedges [P].
            source_P: Node numbers of the sources, for the biases [P].
            target_P: Node numbers of the targets [P].

        Returns:
            [P].
        """
        query_PD = self.query(source_PD, metaedge_P)
        score_P = (query_PD * target_PD).sum(-1)
        return (
            score_P
            + self.offset(metaedge_P, source_P, 0)
            + self.offset(metaedge_P, target_P, 1)
            + self.bias[metaedge_P]
        )

    def query(self, source_PD: Float[Tensor, "P D"], metaedge_P: Int[Tensor, " P"]) -> Float[Tensor, "P D"]:
        """What a target's vector is multiplied with, so that many targets cost one matrix product [P, D]."""
        query_PD = source_PD * self.weight[metaedge_P]
        if self.turn is not None:
            row_P = self.turn_row[metaedge_P]
            turn_PH = self.turn[row_P.clamp(min=0)] * (row_P >= 0)[:, None]
            a_PH, b_PH = source_PD.chunk(2, dim=-1)
            query_PD = query_PD + torch.cat([-turn_PH * b_PH, turn_PH * a_PH], dim=-1)
        return query_PD * self.features**-0.5

    def grid(
        self,
        source_PD: Float[Tensor, "P D"],
        target_KD: Float[Tensor, "K D"],
        code: int,
        source_P: Int[Tensor, " P"],
        target_K: Int[Tensor, " K"],
    ) -> Float[Tensor, "P K"]:
        """Log-odds of one metaedge between each of P sources and each of K targets [P, K]; see ``forward``."""
        code_P, code_K = torch.full_like(source_P, code), torch.full_like(target_K, code)
        with torch.autocast(source_PD.device.type, enabled=False):  # rounded log-odds would tie in a ranking
            score_PK = self.query(full_precision(source_PD), code_P) @ full_precision(target_KD).T
        offset_PK = self.offset(code_P, source_P, 0)[:, None] + self.offset(code_K, target_K, 1)
        return score_PK + offset_PK + self.bias[code]

    def offset(self, metaedge_P: Int[Tensor, " P"], node_P: Int[Tensor, " P"], end: int) -> Tensor:
        """Biases of nodes at one end, 0 the source and 1 the target [P]; zeros without biases."""
        if self.node_bias is None:
            return self.bias.new_zeros(len(node_P))
        table_P = self.target_end[metaedge_P] * end
        return self.node_bias[table_P, metaedge_P, node_P]

    def extra_repr(self) -> str:
        """Width, metaedges, and whether nodes have biases."""
        return f"{self.features}, metaedges={self.n_metaedges}, node_biases={self.node_bias is not None}"
