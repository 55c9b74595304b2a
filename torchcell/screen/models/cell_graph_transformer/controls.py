"""Controls of the graph regularization loss: random networks, and networks that confine instead of persuade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.graph.features import randomize
from torchcell.io.errors import InputError
from torchcell.nn.sparse import edge_softmax
from torchcell.screen.models.cell_graph_transformer.attention import attention
from torchcell.screen.models.cell_graph_transformer.head_assignments import HeadAssignment
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer, TransformerLayer
from torchcell.screen.models.cell_graph_transformer.options import EncoderOptions, GraphLossOptions


@dataclass(frozen=True)
class RandomNetworks(GraphLossOptions):
    """The loss draws the heads towards random networks of the same degrees; all else reads the true ones.

    Attributes:
        network_seed: Of the random networks.
    """

    network_seed: int = 0

    def networks(self, graph: CellGraph) -> CellGraph:
        """The cell's genes with random networks, each gene's degree kept."""
        return randomize(graph, seed=self.network_seed)


class HardMask(nn.Module):
    r"""One attention head that a network confines; the control for a graph loss that only persuades.

    .. math::
        y_i = \sum_{j \in A(i)} \alpha_{ij} v_j, \quad \alpha_{ij} \propto \exp(q_i \cdot k_j / \sqrt{D})

    A(i) of a gene: its neighbors in the relation (the sources of the edges into it, each counting once, whatever
    its weight), itself, and the special tokens. Special tokens see all tokens. Only allowed pairs are visited, so
    nothing is of size N x N.

    Args:
        graph: The networks.
        relation: Which of them; it joins genes to genes.
        specials: Tokens before the genes, e.g. 1 for CLS.

    Shapes:
        q, k, v [T, D], T = specials + genes -> [T, D].

    Raises:
        InputError: An unknown relation, one that reaches other nodes than genes, or another number of tokens.
    """

    def __init__(self, graph: CellGraph, relation: str, specials: int = 1) -> None:
        super().__init__()
        if graph.ends(relation) != ("gene", "gene"):
            source, target = graph.ends(relation)
            raise InputError(f"relation {relation} joins {source}s to {target}s; a mask needs one of genes to genes")
        self.relation, self.specials, self.n_tokens = relation, specials, specials + len(graph)
        allowed = _allowed(graph.scipy(relation), specials)
        for name, values in zip(CSR._fields, (allowed.indptr, allowed.indices, allowed.data), strict=True):
            kind = np.float32 if name == "weight" else np.int32
            self.register_buffer(name, torch.from_numpy(values.astype(kind)), persistent=False)

    def forward(
        self, q_TD: Float[Tensor, "T D"], k_TD: Float[Tensor, "T D"], v_TD: Float[Tensor, "T D"]
    ) -> Float[Tensor, "T D"]:
        """One row a token: special tokens first, then the genes in the graph's order."""
        if len(q_TD) != self.n_tokens:
            raise InputError(
                f"the mask of {self.relation} is for {self.n_tokens} tokens, {self.specials} of them special, but "
                f"{len(q_TD)} came; for added genes build the mask on graph.with_genes(added)"
            )
        csr = CSR(*(getattr(self, name) for name in CSR._fields))
        return edge_softmax([csr], q_TD[:, None], k_TD[None, :, None], v_TD[None, :, None])[:, 0].to(v_TD.dtype)

    def extra_repr(self) -> str:
        """The relation, tokens and how many pairs are allowed."""
        pairs = len(self.get_buffer("indices"))
        return f"{self.relation}, specials={self.specials}, tokens={self.n_tokens:,}, pairs={pairs:,}"


def _allowed(network: sp.csr_matrix, specials: int) -> sp.csr_matrix:
    """Ones at the pairs [T, T] that attention may visit."""
    n_genes = network.shape[0]
    pattern = sp.csr_matrix((np.ones(network.nnz, np.float32), network.indices, network.indptr), shape=network.shape)
    genes = pattern + sp.identity(n_genes, dtype=np.float32, format="csr")
    to_specials = sp.csr_matrix(np.ones((n_genes, specials), np.float32))
    everything = sp.csr_matrix(np.ones((specials, specials + n_genes), np.float32))
    allowed = sp.vstack([everything, sp.hstack([to_specials, genes])], format="csr")
    allowed.data[:] = 1  # an edge of a gene to itself would count twice
    return allowed


class MaskedLayer(TransformerLayer):
    """A ``TransformerLayer`` some of whose heads see nothing but a network.

    Args:
        features, heads, expansion, dropout: See ``TransformerLayer``.
        masks: Head -> the network that confines it.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        expansion: int = 2,
        dropout: float = 0.0,
        masks: Mapping[int, HardMask] | None = None,
    ) -> None:
        super().__init__(features, heads, expansion, dropout)
        self.masks = nn.ModuleDict({str(head): mask for head, mask in (masks or {}).items()})

    def attend(self, q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, summed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Free heads together, and each confined head alone; a confined head has no log-sum-exp."""
        free = [head for head in range(self.heads) if str(head) not in self.masks]
        rows = [torch.empty(0)] * self.heads
        lse_JT = q_HTd.new_empty(0, q_HTd.shape[1])
        if free:
            seen, lse_JT = attention(q_HTd[free], k_HTd[free], v_HTd[free], [free.index(head) for head in summed])
            for number, head in enumerate(free):
                rows[head] = seen[number]
        for name, mask in self.masks.items():
            head = int(name)
            rows[head] = mask(q_HTd[head], k_HTd[head], v_HTd[head])
        return torch.stack(rows), lse_JT


class HardMaskTransformer(CellGraphTransformer):
    """``CellGraphTransformer`` whose assigned heads see nothing but their network, without a graph loss."""

    def make_layers(self, encoder: EncoderOptions, networks: CellGraph) -> list[TransformerLayer]:
        """Layers whose assigned heads are confined."""
        masks: list[dict[int, HardMask]] = [{} for _ in range(encoder.layers)]
        for one in self.assignments:
            masks[one.layer][one.head] = HardMask(networks, one.relation)
        return [MaskedLayer(encoder.dim, encoder.heads, encoder.expansion, encoder.dropout, mask) for mask in masks]

    def regularized(self) -> list[HeadAssignment]:
        """None: a confined head needs no persuasion."""
        return []
