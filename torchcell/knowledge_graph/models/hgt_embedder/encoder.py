"""Vectors of all nodes of a knowledge graph: learned embeddings, layers of typed attention, an initial residual."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError
from torchcell.nn.hgt import TypedHGT


class TypedEncoder(nn.Module):
    r"""Initial embeddings, then layers of a heterogeneous graph transformer that never forget them.

    .. math::
        x^0 = \mathrm{norm}(W_{\tau(i)} e_i + V_{\tau(i)} \log(1 + d_i)), \quad
        x^{l+1} = (1 - a) \, \mathrm{HGT}(x^l) + a \, x^0

    with d_i the degrees of node i in each relation of the graph that is given, so that they hold no edge that was
    taken out. The initial residual a keeps nodes apart that have the same neighbors (Chen et al., GCNII, ICML 2020).

    Args:
        sizes: Nodes of each type.
        relations: Node types of source and target of each relation [R].
        inputs: ``free``, a learned embedding a node; or ``constant``, one a node type, which collapses every type whose
            nodes have alike neighbors: for showing that.
        embedding: Width of the embeddings.
        hidden: Width D of all else.
        layers: HGT layers.
        heads: Attention heads, hidden / heads of at least 16.
        residual: a, 0 to less than 1.
        jump: Give the norm of the sum of x^0 and all layers, each by its own matrix (jumping knowledge, Xu et al.,
            ICML 2018).
        degrees: Whether the degrees are read.
        dropout: Share of the entries of e_i and of each layer's output dropped in training.
        embedding_sd: Standard deviation of a fresh embedding's entries.
        recompute: Compute each layer again in the backward pass, which holds its insides only once.

    Shapes:
        [M, D] for the M nodes that are asked for.

    Raises:
        InputError: A width that does not divide into heads of 16 or more, an unknown input, a residual out of range.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        relations: Sequence[tuple[int, int]],
        *,
        inputs: str = "free",
        embedding: int = 512,
        hidden: int = 256,
        layers: int = 2,
        heads: int = 8,
        residual: float | int = 0.2,
        jump: bool = False,
        degrees: bool = True,
        dropout: float | int = 0.0,
        embedding_sd: float | int = 0.1,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if hidden % heads or hidden // heads < 16:
            raise InputError(
                f"model.hidden={hidden} with model.heads={heads}: heads need a width of 16 or more, and to divide it"
            )
        if inputs not in ("free", "constant"):
            raise InputError(f"model.inputs is 'free' or 'constant', not {inputs!r}")
        if not 0 <= residual < 1:
            raise InputError(f"model.residual={residual} must lie in 0 to 1, 1 left out")
        self.sizes, self.relations, self.inputs, self.hidden = list(sizes), list(relations), inputs, hidden
        self.residual, self.recompute, self.embedding_sd = residual, recompute, embedding_sd
        self.embedding = nn.Embedding(sum(sizes) if inputs == "free" else len(sizes), embedding)
        self.project = nn.Parameter(torch.empty(len(sizes), embedding, hidden))
        n_degrees = len(relations) if degrees else 0
        self.read_degree = nn.Parameter(torch.empty(n_degrees, hidden)) if n_degrees else None
        self.norm = nn.LayerNorm(hidden)
        # The residual of the layers is this module's own, so that 0 leaves a node nothing of itself.
        self.layers = nn.ModuleList(
            TypedHGT(hidden, self.relations, len(sizes), heads, norm=True, residual=0.0) for _ in range(layers)
        )
        self.jump = nn.Parameter(torch.empty(layers + 1, hidden, hidden)) if jump else None
        self.last = nn.LayerNorm(hidden) if jump else None
        self.dropout = nn.Dropout(dropout)
        self.type_N: Tensor
        type_N = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(self.sizes))
        self.register_buffer("type_N", type_N, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new embeddings and matrices; each layer draws its own."""
        nn.init.normal_(self.embedding.weight, std=self.embedding_sd)
        for matrix in (self.project, self.read_degree, self.jump):
            if matrix is not None:
                nn.init.normal_(matrix, std=matrix.shape[-2] ** -0.5)
        if self.read_degree is not None:
            nn.init.normal_(self.read_degree, std=0.1 * self.embedding_sd)

    def forward(
        self,
        csrs: Sequence[CSR],
        bounds: Sequence[int],
        degree_MR: Float[Tensor, "M R"] | None = None,
        node_M: Int[Tensor, " M"] | None = None,
    ) -> Float[Tensor, "M D"]:
        """Vectors of the nodes.

        Args:
            csrs: A matrix a relation [R], rows the nodes of its target type and columns those of its source type.
            bounds: Node type k occupies the rows bounds[k] to bounds[k + 1] of the nodes.
            degree_MR: See ``degrees``; needed where they are read.
            node_M: Which nodes, sorted by node type, if not all.
        """
        first_MD = self._first(bounds, degree_MR, node_M)
        x_MD, seen = first_MD, [first_MD]
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                heard_MD = checkpoint(layer, x_MD, bounds, csrs, use_reentrant=False)
            else:
                heard_MD = layer(x_MD, bounds, csrs)
            x_MD = (1 - self.residual) * self.dropout(heard_MD) + self.residual * first_MD
            seen.append(x_MD)
        if self.jump is None or self.last is None:
            return x_MD
        return self.last(torch.stack([x @ matrix for x, matrix in zip(seen, self.jump, strict=True)]).sum(0))

    def degrees(self, csrs: Sequence[CSR]) -> Float[Tensor, "N R"] | None:
        """log(1 + summed weight) of the edges into each node [N, R], of the whole graph; none where none are read."""
        if self.read_degree is None:
            return None
        columns, starts = [], [sum(self.sizes[:node_type]) for node_type in range(len(self.sizes) + 1)]
        for (_, target), csr in zip(self.relations, csrs, strict=True):
            total_E = torch.cat([csr.weight.new_zeros(1), csr.weight.cumsum(0)])
            column_N = csr.weight.new_zeros(len(self.type_N))
            column_N[starts[target] : starts[target + 1]] = total_E[csr.indptr.long()].diff().log1p()
            columns.append(column_N)
        return torch.stack(columns, dim=1)

    def _first(self, bounds: Sequence[int], degree_MR: Tensor | None, node_M: Tensor | None) -> Tensor:
        """x^0 [M, D]."""
        number_M = torch.arange(len(self.type_N), device=self.type_N.device) if node_M is None else node_M
        row_M = number_M if self.inputs == "free" else self.type_N[number_M]
        raw_ME = self.dropout(self.embedding.weight if row_M is number_M and node_M is None else self.embedding(row_M))
        parts = [
            raw_ME[first:last] @ matrix
            for (first, last), matrix in zip(itertools.pairwise(bounds), self.project, strict=True)
        ]
        first_MD = torch.cat(parts)
        if self.read_degree is not None:
            assert degree_MR is not None
            first_MD = first_MD + degree_MR @ self.read_degree
        return self.norm(first_MD)

    def extra_repr(self) -> str:
        """Inputs, widths and the residual."""
        return f"{self.inputs} {self.embedding.embedding_dim} -> {self.hidden}, residual={self.residual}"
