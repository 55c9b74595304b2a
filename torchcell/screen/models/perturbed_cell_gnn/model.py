"""``PerturbedCellGNN``: a graph network on the cell without the deleted genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from torchcell.nn.gene_embedding import ColdStart
from torchcell.nn.hgt import HGT
from torchcell.nn.ragged import segment_mean
from torchcell.nn.relations import RelationStack
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.common import HyperSAGNN
from torchcell.screen.models.perturbed_cell_gnn.khop import lost_within, reads_all
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
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


HEADS = ("local", "global")
ABSENT = KINDS.index("absent")


class PerturbedCellGNN(WildTypeModel):
    r"""h(F(G) - F(G \ S)): message passing over the relations of a cell, with and without the deleted genes.

    The global head reads the sum over all nodes of F(G) - F(G \ S); the local head, Hyper-SAGNN, the members'
    embeddings in the wild type; a gate mixes both. With ``spec.hops`` = k, F sees only the nodes within k
    hops of the set; no parameter depends on it. Where the graph has reactions, those that lose their genes go too.

    Terms: ``phenotype``, and with ``embedding_decay`` also ``embedding``.

    Args:
        spec: Needs a graph; sets of absent genes only.
        relations: Of the graph, all by default; hops are counted along these.
        dim: Width of all node features.
        layers: Message-passing layers.
        aggregation: ``rgcn``, ``sage``, ``gin`` or ``hgt``.
        merge: Of the relations: ``sum``, ``mean``, ``attention`` or ``pairwise``; HGT has its own.
        degree: Messages are added up (``sum``) or divided by the ``wild_type`` degree or by the ``true`` one, among
            the nodes that are left.
        norm: ``layer`` or ``none``; ``batch`` and ``graph`` with ``computation=tile`` only.
        residual: Each layer adds its input to its output; HGT has a gate for that.
        linear_readout: The last layer is linear, so that its sum over nodes needs no edges; never HGT's.
        computation: ``auto``, ``tile``, ``hybrid`` or ``delta``: all give the same numbers.
        heads: ``local``, ``global`` or both.
        attention_heads: Of HGT and of the local head.
        score: Of the local head, ``product`` or ``difference``.
        spectral: Width of the fixed features from each relation's spectrum; 0 leaves them out.
        cold_start: A gene that no training set names takes the mean embedding of so many trained genes with the most
            similar neighborhoods; 0 leaves it as it is.
        cold_share: Share of the nodes that lose their free embedding in a training step, so that the model learns to
            do without it, as it must for genes it was never trained on.
        dropout: Share of the heads' inputs dropped in training.
        embedding_sd: Length of a fresh embedding. A gene that is never trained keeps it: 0 is best where fixed
            features or neighbors tell genes apart.
        embedding_gain: The embedding is this times the table's row, so it moves so many times faster.
        embedding_decay: Weight of the members' mean squared embedding length; 0 leaves the term out.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.

    Raises:
        InputError: No graph, an unknown relation or choice, kinds other than absent, ways that are not exact.
    """

    reads = ScreenSpec
    spec: ScreenSpec
    graph: CellGraph
    reads_hops = True

    def __init__(
        self,
        spec: ScreenSpec,
        *,
        relations: Sequence[str] | None = None,
        dim: int = 32,
        layers: int = 2,
        aggregation: str = "rgcn",
        merge: str = "sum",
        degree: str = "wild_type",
        norm: str = "layer",
        residual: bool = True,
        linear_readout: bool = False,
        computation: str = "auto",
        heads: Sequence[str] = HEADS,
        attention_heads: int = 2,
        score: str = "product",
        spectral: int = 0,
        cold_start: int = 0,
        cold_share: float = 0.0,
        dropout: float = 0.0,
        embedding_sd: float = 1.0,
        embedding_gain: float = 3.0,
        embedding_decay: float = 0.0,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        chosen = _checked(spec, relations, degree, heads)
        if aggregation == "hgt" and (norm not in ("layer", "none") or merge != "sum" or degree == "true"):
            raise InputError(
                "model.aggregation=hgt has one softmax over all relations and nodes that are there: keep merge=sum, "
                f"degree=wild_type, norm=layer or none; not merge={merge}, degree={degree}, norm={norm}"
            )
        self.cold_share, self.gain, self.embedding_decay = cold_share, embedding_gain, embedding_decay
        graph, n_outputs = self.graph, len(spec.outputs)
        self.embedding = nn.Embedding(graph.n_nodes, dim)
        nn.init.normal_(self.embedding.weight, std=embedding_sd / embedding_gain / dim**0.5)
        self.cold = ColdStart(graph, spec.trained_genes, cold_start) if cold_start else None
        self.features: Tensor | None
        features = torch.from_numpy(spectral_features(graph, chosen, spectral)) if spectral else None
        self.register_buffer("features", features)
        self.project = None if features is None else nn.Linear(features.shape[1], dim)
        self.kind_embedding = nn.Embedding(len(graph.node_types), dim) if len(graph.node_types) > 1 else None

        self.seen = graph.only(chosen)
        stack = RelationStack(self.seen, chosen, mean=degree == "wild_type")
        steps: list[RelationalLayer | HGT] = []
        for number in range(layers):
            if aggregation == "hgt":
                steps.append(HGT(dim, len(stack), len(graph.node_types), attention_heads, norm == "layer"))
            else:
                linear = linear_readout and number == layers - 1
                steps.append(RelationalLayer(dim, len(stack), aggregation, merge, norm, residual, linear))
        self.cell = PerturbedCell(stack, steps, _kinds(graph), computation, degree == "true")
        hops = spec.hops
        self.closure = None
        if hops is not None and "global" in heads and not reads_all(self.cell, hops):
            self.closure = closure(self.seen, hops)
        self.dropout = nn.Dropout(dropout)
        self.local = HyperSAGNN(dim, n_outputs, attention_heads, score) if "local" in heads else None
        self.whole = DifferenceHead(dim, n_outputs, 2 * dim, dropout) if "global" in heads else None
        self.gate = nn.Linear(dim, n_outputs) if len(heads) == 2 else None

    def nodes(self) -> Float[Tensor, "N D"]:
        """Input features of all nodes: free embedding, fixed features, node type."""
        x_ND = self.gain * self.embedding.weight
        if self.cold is not None:
            x_ND = self.cold(x_ND)
        if self.training and self.cold_share:
            x_ND = x_ND * (torch.rand_like(x_ND[:, :1]) >= self.cold_share)
        if self.project is not None:
            x_ND = x_ND + self.project(self.features)
        return x_ND if self.kind_embedding is None else x_ND + self.kind_embedding(self.cell.kind_N)

    def encode(self) -> WildType:
        """What each layer makes of the unperturbed cell."""
        return self.cell.wild_type(self.nodes())

    def forward(self, batch: PerturbationBatch) -> Float[Tensor, "B T"]:
        """The prediction in the target's units, log-odds for a binary target."""
        self._check_kinds(batch)
        wild, scores = self.wild_type(), []
        member_MD = wild.x[-1].index_select(0, batch.gene)
        if self.local is not None:
            scores.append(self.local(self.dropout(member_MD), batch.ptr))
        if self.whole is not None:
            scores.append(self.whole(self.lost(wild, batch)))
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
        if self.embedding_decay:
            length_M = (self.gain * self.embedding(batch.gene)).square().sum(-1)
            losses["embedding"] = self.embedding_decay * length_M.mean()
        return losses

    def set_embeddings(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        r"""What the heads read [B, D]: ``difference``, the sum of F(G) - F(G \ S); ``members``, the mean over S."""
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


def _checked(spec: ScreenSpec, relations: Sequence[str] | None, degree: str, heads: Sequence[str]) -> list[str]:
    """The relations to use, and errors for what does not go together."""
    if spec.graph is None:
        raise InputError("PerturbedCellGNN needs a cell, and the data has no graph; choose one, e.g. graph=yeast")
    others = sorted(set(spec.kinds) - {"absent"})
    if others:
        raise InputError(
            f"PerturbedCellGNN takes genes out of a graph, and the data also has kinds {some(others)}; leave these "
            "sets out, or use a model that reads kinds, e.g. model=dango"
        )
    if degree not in ("sum", "wild_type", "true"):
        raise InputError(f"model.degree={degree!r}: choose sum, wild_type or true")
    if not heads or set(heads) - set(HEADS) or len(set(heads)) < len(heads):
        raise InputError(f"model.heads={list(heads)}: choose local, global or both, each once")
    chosen = list(spec.graph.relations if relations is None else relations)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"model.relations must name at least one relation, and each once, not {chosen}")
    for relation in chosen:
        spec.graph.csr(relation)  # raises with the nearest names
    return chosen
