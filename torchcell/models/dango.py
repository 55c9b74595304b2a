"""DANGO: several networks of the wild-type cell, and a set of perturbed genes read by Hyper-SAGNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError, some
from torchcell.datamodules.perturbation import PerturbationBatch
from torchcell.datamodules.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.models.base import LossWeights
from torchcell.models.wild_type import WildTypeModel
from torchcell.nn.hyper_sagnn import HyperSAGNN
from torchcell.nn.kinds import KindRows
from torchcell.nn.ragged import segment_mean
from torchcell.nn.reconstruction import Reconstruction
from torchcell.nn.relation_merge import RelationMerge
from torchcell.nn.sage import SAGE


class Dango(WildTypeModel):
    r"""DANGO (Zhang et al., bioRxiv 2020.11.26.400739) for perturbation sets of any size.

    One embedding e_i a gene, shared by all channels; two GraphSAGE layers a channel give z_ic, which
    reconstructs the channel; a softmax over channels per gene merges them; Hyper-SAGNN
    scores the set. Terms: ``phenotype``, ``reconstruction`` (the mean over channels, 1 is no skill), and
    with ``embedding_decay`` also ``embedding``.

    The encoder runs once a step for all genes; in evaluation, once until the parameters change.

    Args:
        spec: Needs a graph.
        channels: Relations of the graph to use; by default all that are among genes.
        dim: Width of the embeddings.
        layers: GraphSAGE layers a channel.
        heads: Attention heads.
        dropout: Share of the members' features dropped in training.
        score: Of Hyper-SAGNN, ``difference`` or ``product``.
        zero_weight: Weight of absent edges in the reconstruction, for all channels or by channel.
        decoder: Columns that reconstruct an adjacency row: ``own``, a fully connected layer a channel as
            published, A_ij ~ z_ic . w_jc; or ``shared``, the embeddings themselves, A_ij ~ z_ic . e_j, which
            ties them to the networks more tightly.
        residual: Add e_i to what each channel gives.
        embedding_sd: Length of a fresh embedding; each entry is drawn with sd / sqrt(dim).
        embedding_gain: e_i is this times a row of the table, so Adam moves embeddings so many times faster
            than weights.
        embedding_decay: Weight of the members' mean squared embedding length; 0 leaves the term out.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``; ``torchcell.nn.loss_schedule`` has the paper's schedules.

    Raises:
        InputError: No graph, or none among genes; a channel that is unknown, repeated or not among genes; a
            zero_weight that does not fit the channels.
    """

    graph: CellGraph

    def __init__(
        self,
        spec: Spec,
        *,
        channels: Sequence[str] | None = None,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        score: str = "difference",
        zero_weight: float | Mapping[str, float] = 0.1,
        decoder: str = "shared",
        residual: bool = True,
        embedding_sd: float = 1.0,
        embedding_gain: float = 3.0,
        embedding_decay: float = 3.0,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        self.channels = _channels(spec, channels)
        if decoder not in ("own", "shared"):
            raise InputError(f"model.decoder is 'own' or 'shared', not {decoder!r}")
        self.residual, self.gain, self.embedding_decay = residual, embedding_gain, embedding_decay
        self.embedding = nn.Embedding(len(spec.genes), dim)
        nn.init.normal_(self.embedding.weight, std=embedding_sd / embedding_gain / dim**0.5)
        self.encoders = nn.ModuleList(nn.ModuleList(SAGE(dim, dim) for _ in range(layers)) for _ in self.channels)
        owners = self.channels if decoder == "own" else []
        fresh = [0.1 / dim**0.5 * torch.randn(len(spec.genes), dim) for _ in owners]
        self.decoders = nn.ModuleList(nn.Embedding.from_pretrained(columns, freeze=False) for columns in fresh)
        self.reconstruction = Reconstruction(self.graph, self.channels, zero_weight)
        self.merge = RelationMerge(len(self.channels), dim)
        self.dropout = nn.Dropout(dropout)
        self.head = HyperSAGNN(dim, len(spec.outputs), heads, score)
        self.kind_rows = KindRows(spec.kinds)
        # One kind alone would only shift all members alike, so it has no embedding.
        self.kind_embedding = nn.Embedding(len(spec.kinds), dim) if len(spec.kinds) > 1 else None
        if self.kind_embedding is not None:
            nn.init.zeros_(self.kind_embedding.weight)

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
        raw_BT = self.head(self.dropout(self._members(self.wild_type(), batch)), batch.ptr)
        return self.center + self.scale * raw_BT

    def losses(self, batch: PerturbationBatch, prediction: Tensor) -> dict[str, Tensor]:
        """Phenotype and reconstruction, from the same encoding that gave the prediction."""
        encoded = self.take_step()
        columns = [cast(nn.Embedding, each).weight for each in self.decoders] or [self.genes()] * len(encoded)
        terms = [
            self.reconstruction(self.graph, channel, z_ND, w_ND)
            for channel, z_ND, w_ND in zip(self.channels, encoded, columns, strict=True)
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


def _channels(spec: Spec, channels: Sequence[str] | None) -> list[str]:
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
        raise InputError(f"model.channels must name at least one relation, and each once, not {chosen}")
    for channel in chosen:
        source, target = spec.graph.ends(channel)  # raises with the nearest names
        if channel not in among:
            raise InputError(
                f"model.channels names {channel!r}, which joins {source}s to {target}s; DANGO reads relations among "
                f"genes: {some(among)}"
            )
    return chosen
