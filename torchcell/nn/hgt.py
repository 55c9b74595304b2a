"""Attention over typed edges (heterogeneous graph transformer)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError
from torchcell.nn.relations import Cell, out_edges
from torchcell.nn.sparse import Block, block_softmax, edge_softmax

Messages = tuple[Tensor, Tensor, Tensor]
"""Queries [N, H, D], and keys and values as each relation sees them [R, N, H, D]."""


def draw_matrices(*matrices: Tensor) -> None:
    """Fill stacks of matrices [..., n, m] with uniform entries of variance 1 / n, which keep a row's variance."""
    for matrix in matrices:
        bound = (3 / matrix.shape[-2]) ** 0.5
        nn.init.uniform_(matrix, -bound, bound)


class HGT(nn.Module):
    r"""Heterogeneous graph transformer (Hu et al., WWW 2020, arXiv:2003.01332).

    .. math::
        \alpha_{rij} \propto \mu_r \, q_i \cdot A_r k_j / \sqrt{d}, \quad
        y_i = s \, W^{out}_{\tau(i)} \, \mathrm{gelu}\Big(\sum_{r,j} \alpha_{rij} M_r v_j\Big) + (1 - s) \, x_i

    with q, k, v linear maps by node type, A_r, M_r and the prior by relation and head, s a learned gate by type, and
    one softmax over the edges of all relations into a node. Edge weights count as in ``edge_softmax``.

    Args:
        features: Width of input and output.
        n_relations: R.
        n_types: Node types.
        heads: Attention heads of width ``features / heads``; 16 or more keep GPU kernels fast.
        norm: LayerNorm at the end.

    Shapes:
        x_ND [N, D] -> [N, D].
    """

    additive, linear, mixes_nodes = False, False, ""

    def __init__(self, features: int, n_relations: int, n_types: int, heads: int = 2, norm: bool = True) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"{features} features do not divide into {heads} heads")
        self.features, self.heads, self.n_relations, self.n_types = features, heads, n_relations, n_types
        width = features // heads
        self.project = nn.Parameter(torch.empty(n_types, features, 3 * features))
        self.out = nn.Parameter(torch.empty(n_types, features, features))
        self.attend = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.send = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.prior = nn.Parameter(torch.ones(n_relations, heads))
        self.gate = nn.Parameter(torch.zeros(n_types, 1))
        self.norm = nn.LayerNorm(features) if norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new matrices; priors 1 and gates half open."""
        draw_matrices(self.project, self.out, self.attend, self.send)
        nn.init.ones_(self.prior)
        nn.init.zeros_(self.gate)

    def forward(self, x_ND: Float[Tensor, "N D"], cell: Cell) -> Float[Tensor, "N D"]:
        """The layer on a cell; nodes that are missing there send nothing and become zeros."""
        return self.finish(x_ND, self.messages(x_ND, cell), cell)

    def messages(self, x_ND: Float[Tensor, "N D"], cell: Cell) -> Messages:
        """Queries [N, H, D], and keys and values as each relation sees them [R, N, H, D]."""
        query, key, value = self._by_type(x_ND, self.project, cell.type_N).unflatten(-1, (3, self.heads, -1)).unbind(1)
        key_RNHD = torch.einsum("nhd,rhde->rnhe", key, self.attend * self.prior[:, :, None, None])
        return query, key_RNHD, torch.einsum("nhd,rhde->rnhe", value, self.send)

    def finish(self, x_ND: Float[Tensor, "N D"], messages: Messages, cell: Cell) -> Float[Tensor, "N D"]:
        """The nodes' new features from their own and the messages."""
        query, key, value = messages
        relations = [forward for forward, _ in cell.pairs]
        return self._finish(x_ND, edge_softmax(relations, query, key, value, cell.keep_N), cell.type_N, cell.keep_N)

    def at(self, row_C: Int[Tensor, " C"], x_ND: Float[Tensor, "N D"], messages: Messages, cell: Cell) -> Tensor:
        """The layer at some nodes only [C, D], from the messages of the whole cell less the missing nodes'.

        Args:
            row_C: Which nodes.
            x_ND: The whole cell's features.
            messages: Of the whole cell.
            cell: The cell with nodes missing.
        """
        query, key, value = messages
        relations = []
        for forward, _ in cell.pairs:
            edge, size, _ = out_edges(forward, row_C)
            indptr = torch.cat([size.new_zeros(1), size.cumsum(0)]).int()
            relations.append(CSR(indptr, forward.indices[edge], forward.weight[edge]))
        heard = edge_softmax(relations, query[row_C], key, value, cell.keep_N)
        keep_C = None if cell.keep_N is None else cell.keep_N[row_C]
        return self._finish(x_ND[row_C], heard, cell.type_N[row_C], keep_C)

    def _finish(self, x_ND: Tensor, heard_NHD: Tensor, type_N: Tensor, keep_N: Tensor | None) -> Tensor:
        gate = self.gate.sigmoid()[type_N]
        said_ND = self._by_type(nn.functional.gelu(heard_NHD.flatten(1)), self.out, type_N)
        y_ND = gate * said_ND + (1 - gate) * x_ND
        y_ND = y_ND if self.norm is None else self.norm(y_ND)
        return y_ND if keep_N is None else y_ND * keep_N[:, None]

    def _by_type(self, x_ND: Tensor, weight_TDK: Tensor, type_N: Tensor) -> Tensor:
        """x W with the W of each node's type."""
        if self.n_types == 1:
            return x_ND @ weight_TDK[0]
        out_NK = x_ND.new_zeros(len(x_ND), weight_TDK.shape[2])
        for number, weight_DK in enumerate(weight_TDK):
            chosen = (type_N == number).nonzero()[:, 0]
            out_NK = out_NK.index_copy(0, chosen, x_ND[chosen] @ weight_DK)
        return out_NK

    def extra_repr(self) -> str:
        """Width, heads, relations and types."""
        return f"{self.features}, heads={self.heads}, relations={self.n_relations}, types={self.n_types}"


class TypedHGT(nn.Module):
    r"""Heterogeneous graph transformer (Hu et al., WWW 2020, arXiv:2003.01332) on nodes in order of their type.

    .. math::
        \alpha_{rij} \propto \mu_r \, q_i \cdot A_r k_j / \sqrt{d}, \quad
        y_i = s \, W^{out}_{\tau(i)} \, \mathrm{gelu}\Big(\sum_{r,j} \alpha_{rij} M_r v_j\Big) + (1 - s) \, x_i

    with q, k, v affine maps by node type, A_r, M_r and the prior by relation and head, and one softmax over the edges
    of all relations into a node. An edge of weight w counts |w| times. Equal to PyG's ``HGTConv`` without the norm;
    ``HGT`` is the same over the relations of a cell, whose nodes may be missing.

    Args:
        features: Width of input and output.
        relations: Node types of source and target of each relation [R].
        n_types: K.
        heads: Attention heads of width ``features / heads``; 16 or more keep GPU kernels fast.
        norm: LayerNorm at the end.
        residual: 1 - s, the share of x that stays; none: learned, one a node type, half at first.

    Shapes:
        x_ND [N, D] -> [N, D].

    Raises:
        InputError: Heads that do not divide the width.
    """

    def __init__(
        self,
        features: int,
        relations: Sequence[tuple[int, int]],
        n_types: int,
        heads: int,
        norm: bool = True,
        residual: float | int | None = None,
    ) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"{features} features do not divide into {heads} heads")
        self.features, self.heads, self.n_types, self.residual = features, heads, n_types, residual
        self.relations = tuple((source, target) for source, target in relations)
        width, n_relations = features // heads, len(self.relations)
        self.project = nn.Parameter(torch.empty(n_types, features, 3 * features))
        self.project_bias = nn.Parameter(torch.empty(n_types, 3 * features))
        self.out = nn.Parameter(torch.empty(n_types, features, features))
        self.out_bias = nn.Parameter(torch.empty(n_types, features))
        self.attend = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.send = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.prior = nn.Parameter(torch.empty(n_relations, heads))
        self.gate = nn.Parameter(torch.empty(n_types)) if residual is None else None
        self.norm = nn.LayerNorm(features) if norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new matrices; biases 0, priors 1 and gates half open."""
        draw_matrices(self.project, self.out, self.attend, self.send)
        nn.init.ones_(self.prior)
        for bias in (self.project_bias, self.out_bias, self.gate):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x_ND: Float[Tensor, "N D"], bounds: Sequence[int], csrs: Sequence[CSR]) -> Float[Tensor, "N D"]:
        """The nodes' new features.

        Args:
            x_ND: One row a node, type by type [N, D].
            bounds: Node type k holds the rows ``bounds[k]`` to ``bounds[k + 1]`` [K + 1].
            csrs: A matrix a relation [R]: rows the nodes of its target type, columns those of its source type.
        """
        rows = [slice(first, last) for first, last in itertools.pairwise(bounds)]
        rows_ND = _by_type(x_ND, self.project, self.project_bias, rows)
        query, key, value = rows_ND.unflatten(-1, (3, self.heads, -1)).unbind(1)
        blocks = [
            Block(csr, rows[source], rows[target]) for csr, (source, target) in zip(csrs, self.relations, strict=True)
        ]
        attend = self.attend * self.prior[:, :, None, None]
        heard_NHD = block_softmax(blocks, query, key, value, attend, self.send)
        y_ND = _by_type(nn.functional.gelu(heard_NHD.flatten(1)), self.out, self.out_bias, rows)
        if self.gate is None:
            y_ND = (1 - self.residual) * y_ND + self.residual * x_ND if self.residual else y_ND
        else:
            sizes = torch.tensor([one.stop - one.start for one in rows], device=x_ND.device)
            gate_N1 = self.gate.sigmoid().repeat_interleave(sizes, output_size=len(x_ND))[:, None]
            y_ND = gate_N1 * y_ND + (1 - gate_N1) * x_ND
        return y_ND if self.norm is None else self.norm(y_ND)

    def extra_repr(self) -> str:
        """Width, heads, relations and node types."""
        share = "" if self.residual is None else f", residual={self.residual}"
        return f"{self.features}, heads={self.heads}, relations={len(self.relations)}, types={self.n_types}{share}"


def _by_type(x_ND: Tensor, weight_KDE: Tensor, bias_KE: Tensor, rows: Sequence[slice]) -> Float[Tensor, "N E"]:
    """x W + b with the W and b of each row's node type."""
    parts = [torch.addmm(b, x_ND[at], w) for at, w, b in zip(rows, weight_KDE, bias_KE, strict=True)]
    return torch.cat(parts)
