"""GraphSAGE over one relation of the wild-type graph."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.spmm import spmm


class SAGE(nn.Module):
    r"""One GraphSAGE layer with mean aggregation (Hamilton et al., NeurIPS 2017, arXiv:1706.02216).

    .. math::
        y_i = W_1 x_i + W_2 \, \frac{\sum_j A_{ij} x_j}{\sum_j |A_{ij}|}

    The mean is over the true neighbours, weighted by the confidence of their edges (for a binary relation
    it is the plain mean); a gene without neighbours gets zeros there. The aggregation is one sparse
    product, so nothing of size edges x features is made, in either direction.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.

    Shapes:
        x_ND [N, in_features] -> [N, out_features].
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.own = nn.Linear(in_features, out_features)
        self.neighbours = nn.Linear(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.own.reset_parameters()
        self.neighbours.reset_parameters()

    def forward(self, graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One row a gene: own features and the mean of its neighbours', each through its map."""
        # In place: on a CPU a step is bound by memory, and no backward pass reads the first term.
        return self.own(x_ND).add_(self.neighbours(neighbour_mean(graph, relation, x_ND)))

    def extra_repr(self) -> str:
        """Input and output width."""
        return f"{self.in_features}, {self.out_features}"


def neighbour_mean(graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Mean of the neighbours' rows, weighted by |edge weight|; zeros for a gene without neighbours.

    Args:
        graph: Holds the relation.
        relation: Which one.
        x_ND: One row a gene [N, D].

    Returns:
        [N, D].
    """
    csr = graph.csr(relation)
    with torch.no_grad():
        weight = csr.weight.abs().to(x_ND.dtype)
        total_N = torch.segment_reduce(weight, "sum", offsets=csr.indptr, axis=0)
        inverse_N = torch.where(total_N > 0, 1 / total_N, 0)
    return spmm(graph, relation, x_ND).mul_(inverse_N[:, None])
