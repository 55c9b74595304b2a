"""``Dango``: embeddings of genes from several networks, a hypergraph network on the perturbed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.core.options import a_rate, at_least, check_options, one_of
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.io.errors import InputError, near, some
from torchcell.nn.ragged import segment_mean
from torchcell.nn.sparse import full_precision, spmm
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.common import EmbeddingOptions, HyperSAGNN, KindRows, RelationMerge
from torchcell.screen.spec import ScreenSpec


@dataclass(frozen=True)
class EncoderOptions:
    """GraphSAGE layers on each network.

    Attributes:
        channels: Relations of the graph to use; none takes all that are among genes.
        dim: Width D of the embeddings.
        layers: GraphSAGE layers a channel.
        residual: Add a gene's own embedding to what each channel gives.
    """

    channels: Sequence[str] | None = None
    dim: int = 64
    layers: int = 2
    residual: bool = True

    def __post_init__(self) -> None:
        """Check the values; channels are checked against the graph by the model."""
        check_options("model.encoder", self, dim=at_least(1), layers=at_least(1))


@dataclass(frozen=True)
class ReconstructionOptions:
    """The loss ``reconstruction`` of the networks' adjacencies, see ``Reconstruction``.

    Attributes:
        zero_weight: Lambda of absent edges, for all channels or by channel.
    """

    zero_weight: float | Mapping[str, float] = 0.1


@dataclass(frozen=True)
class ReadoutOptions:
    """Hyper-SAGNN on the members of a set.

    Attributes:
        heads: Attention heads, dim / heads of at least 16.
        score: ``difference`` or ``product``, see ``HyperSAGNN``.
        dropout: Rate of the members' features dropped in training.
    """

    heads: int = 4
    score: str = "difference"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        rules = {"heads": at_least(1), "score": one_of("product", "difference"), "dropout": a_rate()}
        check_options("model.readout", self, **rules)


class Reconstruction(nn.Module):
    r"""Squared error of z_i . w_j against A_ij over all pairs, absent edges weighted lambda.

    .. math::
        L = \frac{1}{\sum_E A_{ij}^2} \Big[ \sum_{ij \in E} (A_{ij} - s_{ij})^2
            + \lambda \sum_{ij \notin E} s_{ij}^2 \Big], \quad s_{ij} = z_i \cdot w_j

    The sum over all N^2 pairs is a product of two D x D Gram matrices,
    sum_ij s_ij^2 = tr(Z^T Z W^T W), and the edges correct it with one number each: exact at a cost of
    N D^2 + E D, with nothing of size N x N or E x D. A value of 1 is what predicting no edge at all gives.

    Args:
        graph: The relations.
        channels: Which of them are reconstructed.
        zero_weight: lambda for all channels, or a table that names each channel once.

    Raises:
        InputError: A channel that the table lacks, or a name in it that is no channel.

    Source: Zhang et al., bioRxiv 2020.11.26.400739, reconstruction loss; the scale is ours, so that a
    channel's part does not depend on the number of its edges or of the genes.
    """

    def __init__(self, graph: CellGraph, channels: Sequence[str], zero_weight: float | Mapping[str, float]) -> None:
        super().__init__()
        self.zero_weight = zero_weights(channels, zero_weight)
        for channel in channels:
            self.register_buffer(f"{channel}_order", _transposed_order(graph, channel), persistent=False)

    def forward(
        self, graph: CellGraph, channel: str, z_ND: Float[Tensor, "N D"], w_ND: Float[Tensor, "N D"]
    ) -> Float[Tensor, ""]:
        """The loss of one channel.

        Args:
            graph: Holds the channel.
            channel: Which one.
            z_ND: Embeddings of the rows [N, D].
            w_ND: Embeddings of the columns [N, D].

        Returns:
            A scalar; 0 is perfect, 1 is no skill.
        """
        csrs = graph.csr(channel), graph.csr(channel, transpose=True)
        order = getattr(self, f"{channel}_order")
        with torch.autocast(z_ND.device.type, enabled=False):
            return _WeightedError.apply(
                full_precision(z_ND), full_precision(w_ND), *csrs, order, self.zero_weight[channel]
            )

    def extra_repr(self) -> str:
        """The weight of absent edges by channel."""
        return f"zero_weight={self.zero_weight}"


def zero_weights(channels: Sequence[str], zero_weight: float | Mapping[str, float]) -> dict[str, float]:
    """One weight a channel, from one number for all or from a table that must name exactly the channels."""
    if not isinstance(zero_weight, Mapping):
        zero_weight = {channel: float(zero_weight) for channel in channels}
    for name in zero_weight:
        if name not in channels:
            hint = near(name, list(channels)) or list(channels)
            raise InputError(
                f"model.reconstruction.zero_weight names {name!r}, which is no channel; the nearest are {hint}"
            )
    missing = [channel for channel in channels if channel not in zero_weight]
    if missing:
        raise InputError(f"model.reconstruction.zero_weight has no entry for the channels {missing}; add them")
    negative = [name for name, weight in zero_weight.items() if not 0 <= weight < float("inf")]
    if negative:
        raise InputError(f"model.reconstruction.zero_weight must be a number from 0 up; mend the entries of {negative}")
    return {channel: float(zero_weight[channel]) for channel in channels}


class _WeightedError(torch.autograd.Function):
    """The loss with its gradients, which share the Gram matrices and the edges' scores with it.

    dL/dZ = 2 lambda Z (W^T W) + G W and dL/dW = 2 lambda W (Z^T Z) + G^T Z, where G stands on the edges
    only: G_ij = 2 (s_ij - A_ij) - 2 lambda s_ij; all over the sum of A^2.
    """

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, w_ND: Tensor, csr: CSR, transpose: CSR, order: Tensor, zero: float) -> Tensor:
        weight_E = csr.weight.to(z_ND.dtype)
        pattern = _sparse(csr, weight_E, w_ND)
        score_E = torch.sparse.sampled_addmm(pattern, z_ND, w_ND.T, beta=0).values()
        gram_z, gram_w = z_ND.T @ z_ND, w_ND.T @ w_ND
        error_E = score_E - weight_E
        unit = weight_E.square().sum()
        grad_E = (error_E - zero * score_E) * (2 / unit)
        grad_z = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_z = (_sparse(csr, grad_E, w_ND) @ w_ND).addmm_(z_ND, gram_w * (2 * zero / unit))
        if ctx.needs_input_grad[1]:
            grad_w = (_sparse(transpose, grad_E[order], z_ND) @ z_ND).addmm_(w_ND, gram_z * (2 * zero / unit))
        ctx.save_for_backward(grad_z, grad_w)
        absent = (gram_z * gram_w).sum() - score_E.square().sum()
        return (error_E.square().sum() + zero * absent) / unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_w = ctx.saved_tensors
        return *(None if part is None else grad * part for part in (grad_z, grad_w)), None, None, None, None


def _sparse(csr: CSR, value_E: Tensor, other_ND: Tensor) -> Tensor:
    size = (len(csr.indptr) - 1, len(other_ND))
    return torch.sparse_csr_tensor(csr.indptr, csr.indices, value_E, size=size, check_invariants=False)


def _transposed_order(graph: CellGraph, channel: str) -> Int[Tensor, " E"]:
    """Where each edge of the transpose stands in the matrix itself."""
    indptr, indices, _ = (part.cpu().numpy() for part in graph.csr(channel))
    position = sp.csr_matrix((np.arange(1, len(indices) + 1), indices, indptr), shape=(len(graph), len(graph)))
    transpose = position.T.tocsr()
    transpose.sort_indices()
    return torch.from_numpy(transpose.data.astype(np.int64) - 1).to(graph.csr(channel).indices.device)


class SAGE(nn.Module):
    r"""One GraphSAGE layer with mean aggregation (Hamilton et al., NeurIPS 2017, arXiv:1706.02216).

    .. math::
        y_i = W_1 x_i + W_2 \, \frac{\sum_j A_{ij} x_j}{\sum_j |A_{ij}|}

    The mean is over the true neighbors, weighted by the confidence of their edges (for a binary relation
    it is the plain mean); a gene without neighbors gets zeros there. The aggregation is one sparse
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
        self.neighbors = nn.Linear(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.own.reset_parameters()
        self.neighbors.reset_parameters()

    def forward(self, graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """One row a gene: own features and the mean of its neighbors', each through its map."""
        # In place: on a CPU a step is bound by memory, and no backward pass reads the first term.
        return self.own(x_ND).add_(self.neighbors(neighbor_mean(graph, relation, x_ND)))

    def extra_repr(self) -> str:
        """Input and output width."""
        return f"{self.in_features}, {self.out_features}"


def neighbor_mean(graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Mean of the neighbors' rows, weighted by |edge weight|; zeros for a gene without neighbors.

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


class Dango(WildTypeModel):
    r"""DANGO (Zhang et al., bioRxiv 2020.11.26.400739) for perturbation sets of any size.

    .. code-block:: text

        embedding e [N, D] --+-> GraphSAGE layers on channel 1 -> z_1 [N, D] --+
                             +-> ...                                           +-> members of the sets [C, M, D]
                             +-> GraphSAGE layers on channel C -> z_C [N, D] --+               |
                                                                   |            softmax over channels [M, D]
                                                          reconstruction loss                  |
                                                                                     Hyper-SAGNN -> y [B, T]

    One embedding e_i a gene, shared by all channels; two GraphSAGE layers a channel give z_ic, which
    reconstructs the channel, A_ij ~ z_ic . e_j; a softmax over channels per gene merges them; Hyper-SAGNN
    scores the set. Losses: ``phenotype``, ``reconstruction`` (the mean over channels, 1 is no skill), and
    with ``embedding.decay`` also ``embedding``.

    The encoder runs once a step for all genes; in evaluation, once until the parameters change.

    Args:
        spec: Needs a graph.
        encoder: See ``EncoderOptions``.
        reconstruction: See ``ReconstructionOptions``.
        embedding: See ``EmbeddingOptions``.
        readout: See ``ReadoutOptions``.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``; ``torchcell.nn.losses`` has the paper's schedules.

    Raises:
        InputError: No graph, or none among genes; a channel that is unknown, repeated or not among genes; a
            zero_weight that does not fit the channels.

    Example:
        >>> model = Dango(spec, encoder=EncoderOptions(dim=128))  # doctest: +SKIP
    """

    reads = ScreenSpec
    spec: ScreenSpec
    graph: CellGraph

    def __init__(
        self,
        spec: ScreenSpec,
        *,
        encoder: EncoderOptions = EncoderOptions(),
        reconstruction: ReconstructionOptions = ReconstructionOptions(),
        embedding: EmbeddingOptions = EmbeddingOptions(decay=3.0),
        readout: ReadoutOptions = ReadoutOptions(),
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        self.channels = _channels(spec, encoder.channels)
        self.residual, self.gain, self.embedding_decay = encoder.residual, embedding.gain, embedding.decay
        dim, layers = encoder.dim, encoder.layers
        self.embedding = nn.Embedding(len(spec.genes), dim)
        nn.init.normal_(self.embedding.weight, std=embedding.sd / embedding.gain / dim**0.5)
        self.encoders = nn.ModuleList(nn.ModuleList(SAGE(dim, dim) for _ in range(layers)) for _ in self.channels)
        self.decoders = self.make_decoders(dim)
        self.reconstruction = Reconstruction(self.graph, self.channels, reconstruction.zero_weight)
        self.merge = RelationMerge(len(self.channels), dim)
        self.dropout = nn.Dropout(readout.dropout)
        self.head = HyperSAGNN(dim, len(spec.outputs), readout.heads, readout.score)
        self.kind_rows = KindRows(spec.kinds)
        # One kind alone would only shift all members alike, so it has no embedding.
        self.kind_embedding = nn.Embedding(len(spec.kinds), dim) if len(spec.kinds) > 1 else None
        if self.kind_embedding is not None:
            nn.init.zeros_(self.kind_embedding.weight)

    def make_decoders(self, dim: int) -> nn.ModuleList:
        """Weights of the reconstruction alone: none, the embeddings themselves are its columns."""
        return nn.ModuleList()

    def columns(self) -> list[Float[Tensor, "N D"]]:
        """What reconstructs an adjacency row of each channel beside z_ic [N, D]."""
        return [self.genes()] * len(self.channels)

    def genes(self) -> Float[Tensor, "N D"]:
        """The embeddings e_i that all channels share [N, D]."""
        return self.gain * self.embedding.weight

    def encode(self) -> list[Float[Tensor, "N D"]]:
        """Embeddings of all genes of the wild type, one [N, D] a channel."""
        shared_ND, encoded = self.genes(), []
        for channel, layers in zip(self.channels, self.encoders, strict=True):
            x_ND = shared_ND
            for depth, layer in enumerate(cast(nn.ModuleList, layers)):
                x_ND = nn.functional.leaky_relu(x_ND, 0.1) if depth else x_ND
                x_ND = layer(self.graph, channel, x_ND)
            encoded.append(x_ND + shared_ND if self.residual else x_ND)
        return encoded

    def forward(self, batch: PerturbationBatch) -> Float[Tensor, "B T"]:
        """The prediction in the target's units, log-odds for a binary target."""
        member_MD = self._members(self.wild_type(), batch)
        raw_BT = self.head(self.dropout(member_MD), batch.ptr)  # [M, D] -> [B, T]
        return self.center + self.scale * raw_BT

    def losses(self, batch: PerturbationBatch, prediction: Tensor) -> dict[str, Tensor]:
        """Phenotype and reconstruction, from the same encoding that gave the prediction."""
        encoded = self.take_step()
        terms = [
            self.reconstruction(self.graph, channel, z_ND, w_ND)
            for channel, z_ND, w_ND in zip(self.channels, encoded, self.columns(), strict=True)
        ]
        losses = super().losses(batch, prediction) | {"reconstruction": torch.stack(terms).mean()}
        if self.embedding_decay:
            length_M = (self.gain * self.embedding(batch.gene)).square().sum(-1)
            losses["embedding"] = self.embedding_decay * length_M.mean()
        return losses

    def set_embeddings(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """``members``: the mean of what Hyper-SAGNN reads of each set's genes [B, D]."""
        return {"members": segment_mean(self._members(self.wild_type(), batch), batch.ptr)}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: what the networks say about each gene, merged over channels [N, D]."""
        return {"genes": self.merge(torch.stack(self.wild_type()))}

    def _members(self, encoded: list[Tensor], batch: PerturbationBatch) -> Float[Tensor, "M D"]:
        """Merged over channels; only for the genes of the batch."""
        member_MD = self.merge(torch.stack([z_ND.index_select(0, batch.gene) for z_ND in encoded]))
        row_M = self.kind_rows(batch.kind)
        return member_MD if self.kind_embedding is None else member_MD + self.kind_embedding(row_M)


class OwnDecoderDango(Dango):
    """``Dango`` with a fully connected decoder a channel, A_ij ~ z_ic . w_jc, as published: a control.

    The networks then reach the embeddings only through the GraphSAGE layers.
    """

    def make_decoders(self, dim: int) -> nn.ModuleList:
        """Columns w_c of each channel [N, D], drawn anew."""
        fresh = [0.1 / dim**0.5 * torch.randn(len(self.spec.genes), dim) for _ in self.channels]
        return nn.ModuleList(nn.Embedding.from_pretrained(columns, freeze=False) for columns in fresh)

    def columns(self) -> list[Float[Tensor, "N D"]]:
        """Each channel's own."""
        return [cast(nn.Embedding, each).weight for each in self.decoders]


def _channels(spec: ScreenSpec, channels: Sequence[str] | None) -> list[str]:
    """The relations to use, all of them among genes."""
    if spec.graph is None:
        raise InputError(
            "DANGO needs networks, and the data has no graph; choose one, e.g. graph=yeast or graph=edge_list"
        )
    among = [relation for relation in spec.graph.relations if spec.graph.ends(relation) == ("gene", "gene")]
    if not among:
        raise InputError("DANGO needs networks among genes, and the graph has none; choose one, e.g. graph=yeast")
    chosen = list(among if channels is None else channels)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"model.encoder.channels must name at least one relation, and each once, not {chosen}")
    for channel in chosen:
        source, target = spec.graph.ends(channel)  # raises with the nearest names
        if channel not in among:
            raise InputError(
                f"model.encoder.channels names {channel!r}, which joins {source}s to {target}s; DANGO reads relations "
                f"among genes: {some(among)}"
            )
    return chosen
