"""``PerturbedCellGNN``: a graph network on the cell without the deleted genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.graph.cell_graph import CellGraph, deleted_nodes
from torchcell.graph.features import spectral_features
from torchcell.graph.neighborhood import closure
from torchcell.io.errors import InputError, some
from torchcell.nn.gene_embedding import Imputation
from torchcell.nn.hgt import HGT
from torchcell.nn.ragged import segment_mean
from torchcell.nn.relations import RelationStack
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.common import HyperSAGNN
from torchcell.screen.models.perturbed_cell_gnn.khop import lost_within, reads_all
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
from torchcell.screen.models.perturbed_cell_gnn.options import (
    EncoderOptions,
    MessageOptions,
    NodeEmbeddingOptions,
    ReadoutOptions,
)
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import PerturbedCell, WildType
from torchcell.screen.record import KINDS
from torchcell.screen.spec import ScreenSpec


def oversmoothing(x_ND: Tensor) -> Tensor:
    """Mean squared distance to the mean row over mean squared norm: 1 for centered rows, 0 when all are one.

    Args:
        x_ND: One row a node [N, D].

    Returns:
        A scalar in [0, 1]; NaN where all rows are zero. It does not change when all rows are scaled.
    """
    spread = (x_ND - x_ND.mean(0)).square().sum(1).mean()
    size = x_ND.square().sum(1).mean()
    return torch.where(size > 0, spread / size, torch.nan)


def effective_rank(x_ND: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values (Roy and Vetterli, EUSIPCO 2007): 1 to min(N, D).

    Args:
        x_ND: One row a node [N, D].

    Returns:
        A scalar; NaN where all rows are zero or a number is not finite.
    """
    if not torch.isfinite(x_ND).all():
        return torch.full((), torch.nan, device=x_ND.device)
    values = torch.linalg.svdvals(x_ND.float())
    share = values / values.sum()
    return torch.special.entr(share).sum().exp()


class DifferenceHead(nn.Module):
    r"""An MLP on the direction and the size of a summed difference.

    .. math::
        y = W_2 \, \mathrm{relu}(W_1 [\mathrm{LayerNorm}(z), \log(1 + \|z\|)] + b_1) + b_2

    A hub's deletion changes a thousand nodes and a leaf's two; the logarithm keeps both in reach.

    Args:
        features: Width D of z.
        outputs: Number T of scores.
        hidden: Width of the hidden layer.
        dropout: Share of hidden units dropped in training.

    Shapes:
        z_BD [B, D] -> [B, T].
    """

    def __init__(self, features: int, outputs: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.first = nn.Linear(features + 1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, z_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B T"]:
        """One row of scores a sample."""
        # The root of nothing has no gradient; a set without any effect must not turn the step into NaN.
        size_B1 = z_BD.square().sum(1, keepdim=True).add(1e-12).sqrt().log1p()
        hidden_BK = torch.relu(self.first(torch.cat([self.norm(z_BD), size_B1], 1)))
        return self.second(self.dropout(hidden_BK))


ABSENT = KINDS.index("absent")


class PerturbedCellGNN(WildTypeModel):
    r"""h(F(G) - F(G \ S)): message passing over the relations of a cell, with and without the deleted genes.

    .. code-block:: text

        free embedding + fixed features + node type -> nodes x [N, D]
                                                           |
                  +----------------------------------------+-----+
                  v                                              v
        layers on the cell G                     layers on G \ S, or on what S changes
                  |                                              |
             F(G) [N, D] -------------- minus ------------ F(G \ S) [N, D]
                  |                       +-> sum over nodes [B, D] -> global part -> [B, T] --+
                  +-> members [M, D] -> Hyper-SAGNN, the local part ----------------> [B, T] --+-> gate -> y

    The global part reads the sum over all nodes of F(G) - F(G \ S); the local part, Hyper-SAGNN, the members'
    embeddings in the wild type; a gate mixes both. With ``spec.hops`` = k, F sees only the nodes within k
    hops of the set; no parameter depends on it. Where the graph has reactions, those that lose their genes go too.

    Losses: ``phenotype``, and with ``embedding.decay`` also ``embedding``.

    Args:
        spec: Needs a graph; sets of absent genes only.
        encoder: See ``EncoderOptions``.
        messages: See ``MessageOptions``.
        embedding: See ``NodeEmbeddingOptions``; ``sd`` 0 is best where fixed features or neighbors tell genes apart.
        readout: See ``ReadoutOptions``.
        optimizer, scheduler, loss_weights: See ``Model``.

    Raises:
        InputError: No graph, an unknown relation, kinds other than absent, options that do not fit each other.

    Example:
        >>> model = PerturbedCellGNN(spec, encoder=EncoderOptions(dim=64))  # doctest: +SKIP
    """

    reads = ScreenSpec
    spec: ScreenSpec
    graph: CellGraph
    reads_hops = True

    def __init__(
        self,
        spec: ScreenSpec,
        *,
        encoder: EncoderOptions = EncoderOptions(),
        messages: MessageOptions = MessageOptions(),
        embedding: NodeEmbeddingOptions = NodeEmbeddingOptions(),
        readout: ReadoutOptions = ReadoutOptions(),
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        chosen = _checked(spec, encoder, messages)
        self.options = embedding
        self._make_nodes(chosen, encoder.dim, embedding)
        self._make_layers(chosen, encoder, messages)
        hops = spec.hops
        self.closure = None
        if hops is not None and "global" in readout.parts and not reads_all(self.cell, hops):
            self.closure = closure(self.seen, hops)
        dim, outputs, dropout = encoder.dim, len(spec.outputs), readout.dropout
        self.dropout = nn.Dropout(dropout)
        local, whole = ("local" in readout.parts, "global" in readout.parts)
        self.local = HyperSAGNN(dim, outputs, encoder.attention_heads, readout.score) if local else None
        self.whole = DifferenceHead(dim, outputs, 2 * dim, dropout) if whole else None
        self.gate = nn.Linear(dim, outputs) if local and whole else None

    def _make_nodes(self, relations: list[str], dim: int, embedding: NodeEmbeddingOptions) -> None:
        """What the input features of the nodes are made of."""
        graph, imputation = self.graph, embedding.imputation
        self.embedding = nn.Embedding(graph.n_nodes, dim)
        nn.init.normal_(self.embedding.weight, std=embedding.sd / embedding.gain / dim**0.5)
        self.imputation = None
        if imputation.neighbors:
            self.imputation = Imputation(graph, self.spec.trained_genes, imputation.neighbors, imputation.power)
        self.features: Tensor | None
        spectral = embedding.spectral
        features = torch.from_numpy(spectral_features(graph, relations, spectral)) if spectral else None
        self.register_buffer("features", features)
        self.project = None if features is None else nn.Linear(features.shape[1], dim)
        self.kind_embedding = nn.Embedding(len(graph.node_types), dim) if len(graph.node_types) > 1 else None

    def _make_layers(self, relations: list[str], encoder: EncoderOptions, messages: MessageOptions) -> None:
        """Message passing over the chosen relations, on the whole cell and without the deleted genes."""
        dim, norm, n_types = encoder.dim, encoder.norm, len(self.graph.node_types)
        self.seen = self.graph.only(relations)
        stack = RelationStack(self.seen, relations, mean=messages.degree == "wild_type")
        layers: list[RelationalLayer | HGT] = []
        for number in range(encoder.layers):
            if messages.aggregation == "hgt":
                layers.append(HGT(dim, len(stack), n_types, encoder.attention_heads, norm == "layer"))
            else:
                kind = messages.aggregation, messages.merge
                linear = encoder.linear_readout and number == encoder.layers - 1
                layers.append(RelationalLayer(dim, len(stack), *kind, norm, encoder.residual, linear))
        self.cell = PerturbedCell(stack, layers, _kinds(self.graph), encoder.strategy, messages.degree == "true")

    def nodes(self) -> Float[Tensor, "N D"]:
        """Input features of all nodes: free embedding, fixed features, node type."""
        x_ND = self.options.gain * self.embedding.weight
        if self.imputation is not None:
            x_ND = self.imputation(x_ND)
        if self.training and self.options.imputation.untrained_rate:
            x_ND = x_ND * (torch.rand_like(x_ND[:, :1]) >= self.options.imputation.untrained_rate)
        if self.project is not None:
            x_ND = x_ND + self.project(self.features)
        return x_ND if self.kind_embedding is None else x_ND + self.kind_embedding(self.cell.kind_N)

    def encode(self) -> WildType:
        """What each layer makes of the unperturbed cell."""
        return self.cell.wild_type(self.nodes())

    def forward(self, batch: PerturbationBatch) -> Float[Tensor, "B T"]:
        """The prediction in the target's units, log-odds for a binary target."""
        self._check_kinds(batch)
        wild, scores = self.wild_type(), []  # scores of the parts, each [B, T]
        member_MD = wild.x[-1].index_select(0, batch.gene)
        if self.local is not None:
            scores.append(self.local(self.dropout(member_MD), batch.ptr))
        if self.whole is not None:
            scores.append(self.whole(self.lost(wild, batch)))  # [B, D] -> [B, T]
        raw_BT = scores[0]
        if self.gate is not None:
            raw_BT = torch.lerp(scores[0], scores[1], self.gate(segment_mean(member_MD, batch.ptr)).sigmoid())
        return self.center + self.scale * raw_BT

    def lost(self, wild: WildType, batch: PerturbationBatch) -> Float[Tensor, "B D"]:
        r"""Sum over the nodes of F(G) - F(G \ S), over the whole cell or the set's neighborhood."""
        node_K, ptr_P = deleted_nodes(self.graph, batch.gene, batch.ptr)
        if self.closure is None:
            return self.cell.lost(wild, node_K, ptr_P)
        return lost_within(self.cell, self.seen, self.closure, wild, node_K, ptr_P)

    def losses(self, batch: PerturbationBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The phenotype, and how long the members' embeddings are."""
        self._step = None  # no term reads it, and kept it would double the memory of the next step
        losses = super().losses(batch, prediction)
        if self.options.decay:
            length_M = (self.options.gain * self.embedding(batch.gene)).square().sum(-1)
            losses["embedding"] = self.options.decay * length_M.mean()
        return losses

    def set_embeddings(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        r"""What the parts read [B, D]: ``difference``, the sum of F(G) - F(G \ S); ``members``, the mean over S."""
        self._check_kinds(batch)
        wild = self.wild_type()
        found = {} if self.whole is None else {"difference": self.lost(wild, batch)}
        if self.local is not None:
            found["members"] = segment_mean(wild.x[-1].index_select(0, batch.gene), batch.ptr)
        return found

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``wild_type``: the last layer's output at each gene of the unperturbed cell [N, D]."""
        return {"wild_type": self.wild_type().x[-1][self.graph.span("gene")]}

    def cell_embeddings(self) -> dict[str, Tensor]:
        """``wild_type``: F(G) summed over all nodes [D], of which ``difference`` is a part."""
        return {"wild_type": self.wild_type().x[-1].sum(0)}

    def _check_kinds(self, batch: PerturbationBatch) -> None:
        if not self.training and (batch.kind != ABSENT).any():
            kinds = some([KINDS[number] for number in batch.kind.unique().tolist() if number != ABSENT])
            raise InputError(f"PerturbedCellGNN takes genes out of a graph, and knows no {kinds}; leave these sets out")

    def diagnostics(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """Oversmoothing and effective rank of wild type (z_w), perturbed (z_p) and difference (z_d).

        Of the batch's first set, and over the whole cell also where the model sees a neighborhood of it.
        """
        if self.whole is None:
            return {}
        wild = self.wild_type()
        node_K, _ = deleted_nodes(self.graph, batch.gene[: int(batch.ptr[1])], batch.ptr[:2])
        z_p = self.cell.perturbed(wild, node_K)
        latents = {"z_w": wild.x[-1], "z_p": z_p, "z_d": wild.x[-1] - z_p}
        measures = {"oversmoothing": oversmoothing, "effective_rank": effective_rank}
        return {f"{name}_{z}": measure(x) for name, measure in measures.items() for z, x in latents.items()}

    def sample_size(self, batch: PerturbationBatch) -> tuple[float, float]:
        """Mean number of nodes and of edges that F is defined on, a sample; deltas touch fewer."""
        if self.whole is None:
            return float(batch.ptr.diff().float().mean()), 0.0
        if self.closure is None:
            return float(self.graph.n_nodes), float(self.cell.stack.n_edges)
        node_K, ptr_P = deleted_nodes(self.graph, batch.gene, batch.ptr)
        inside_BN = self.closure.nodes(node_K, ptr_P)
        edges = [float(self.cell.stack.edges_within(inside_N)) for inside_N in inside_BN[:32]]
        return float(inside_BN.sum(1).float().mean()), sum(edges) / len(edges)


def _kinds(graph: CellGraph) -> Int[Tensor, " N"]:
    """Type of each node as a number, int64 [M]."""
    spans = [graph.span(kind) for kind in graph.node_types]
    return torch.cat([torch.full((span.stop - span.start,), number) for number, span in enumerate(spans)])


def _checked(spec: ScreenSpec, encoder: EncoderOptions, messages: MessageOptions) -> list[str]:
    """The relations to use, and errors for what does not go together."""
    if spec.graph is None:
        raise InputError("PerturbedCellGNN needs a cell, and the data has no graph; choose one, e.g. graph=yeast")
    others = sorted(set(spec.kinds) - {"absent"})
    if others:
        raise InputError(
            f"PerturbedCellGNN takes genes out of a graph, and the data also has kinds {some(others)}; leave these "
            "sets out, or use a model that reads kinds, e.g. model=dango"
        )
    chosen = list(spec.graph.relations if messages.relations is None else messages.relations)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"model.messages.relations must name at least one relation, and each once, not {chosen}")
    for relation in chosen:
        spec.graph.csr(relation)  # raises with the nearest names
    merge, degree, norm = messages.merge, messages.degree, encoder.norm
    if messages.aggregation == "hgt" and (norm not in ("layer", "none") or merge != "sum" or degree == "true"):
        raise InputError(
            "model.messages.aggregation=hgt has one softmax over all relations and nodes that are there: keep "
            "model.messages.merge=sum, model.messages.degree=wild_type, model.encoder.norm=layer or none; not "
            f"merge={merge}, degree={degree}, norm={norm}"
        )
    return chosen
