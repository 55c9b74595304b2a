"""One layer of the heterogeneous graph transformer over a knowledge graph, whole or sampled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR
from torchcell.nn.edge_products import Block
from torchcell.nn.edge_softmax import block_softmax
from torchcell.nn.hgt import draw_matrices


class TypedHGT(nn.Module):
    r"""Heterogeneous graph transformer (Hu et al., WWW 2020, arXiv:2003.01332) on nodes in order of their kind.

    .. math::
        \alpha_{rij} \propto \mu_r \, q_i \cdot A_r k_j / \sqrt{d}, \quad
        y_i = s \, W^{out}_{\tau(i)} \, \mathrm{gelu}\Big(\sum_{r,j} \alpha_{rij} M_r v_j\Big) + (1 - s) \, x_i

    with q, k, v affine maps by kind, A_r, M_r and the prior by relation and head, and one softmax over the edges of all
    relations into a node. An edge of weight w counts |w| times. Equal to PyG's ``HGTConv`` without the norm; ``HGT``
    is the same over the relations of a cell, whose nodes may be missing.

    Args:
        features: Width of input and output.
        relations: Kinds of source and target of each relation [R].
        n_kinds: K.
        heads: Attention heads of width ``features / heads``; 16 or more keep GPU kernels fast.
        norm: LayerNorm at the end.
        residual: 1 - s, the share of x that stays; none: learned, one a kind, half at first.

    Shapes:
        x_ND [N, D] -> [N, D].

    Raises:
        InputError: Heads that do not divide the width.
    """

    def __init__(
        self,
        features: int,
        relations: Sequence[tuple[int, int]],
        n_kinds: int,
        heads: int,
        norm: bool = True,
        residual: float | int | None = None,
    ) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"{features} features do not divide into {heads} heads")
        self.features, self.heads, self.n_kinds, self.residual = features, heads, n_kinds, residual
        self.relations = tuple((source, target) for source, target in relations)
        width, n_relations = features // heads, len(self.relations)
        self.project = nn.Parameter(torch.empty(n_kinds, features, 3 * features))
        self.project_bias = nn.Parameter(torch.empty(n_kinds, 3 * features))
        self.out = nn.Parameter(torch.empty(n_kinds, features, features))
        self.out_bias = nn.Parameter(torch.empty(n_kinds, features))
        self.attend = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.send = nn.Parameter(torch.empty(n_relations, heads, width, width))
        self.prior = nn.Parameter(torch.empty(n_relations, heads))
        self.gate = nn.Parameter(torch.empty(n_kinds)) if residual is None else None
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
            x_ND: One row a node, kind by kind [N, D].
            bounds: Kind k holds the rows ``bounds[k]`` to ``bounds[k + 1]`` [K + 1].
            csrs: A matrix a relation [R]: rows the nodes of its target kind, columns those of its source kind.
        """
        kinds = [slice(first, last) for first, last in itertools.pairwise(bounds)]
        rows_ND = _by_kind(x_ND, self.project, self.project_bias, kinds)
        query, key, value = rows_ND.unflatten(-1, (3, self.heads, -1)).unbind(1)
        blocks = [
            Block(csr, kinds[source], kinds[target]) for csr, (source, target) in zip(csrs, self.relations, strict=True)
        ]
        attend = self.attend * self.prior[:, :, None, None]
        heard_NHD = block_softmax(blocks, query, key, value, attend, self.send)
        y_ND = _by_kind(nn.functional.gelu(heard_NHD.flatten(1)), self.out, self.out_bias, kinds)
        if self.gate is None:
            y_ND = (1 - self.residual) * y_ND + self.residual * x_ND if self.residual else y_ND
        else:
            sizes = torch.tensor([kind.stop - kind.start for kind in kinds], device=x_ND.device)
            gate_N1 = self.gate.sigmoid().repeat_interleave(sizes, output_size=len(x_ND))[:, None]
            y_ND = gate_N1 * y_ND + (1 - gate_N1) * x_ND
        return y_ND if self.norm is None else self.norm(y_ND)

    def extra_repr(self) -> str:
        """Width, heads, relations and kinds."""
        share = "" if self.residual is None else f", residual={self.residual}"
        return f"{self.features}, heads={self.heads}, relations={len(self.relations)}, kinds={self.n_kinds}{share}"


def _by_kind(x_ND: Tensor, weight_KDE: Tensor, bias_KE: Tensor, kinds: Sequence[slice]) -> Float[Tensor, "N E"]:
    """x W + b with the W and b of each row's kind."""
    parts = [torch.addmm(b, x_ND[at], w) for at, w, b in zip(kinds, weight_KDE, bias_KE, strict=True)]
    return torch.cat(parts)
