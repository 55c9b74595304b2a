"""``CellGraphTransformer``: attention over CLS and all genes, some heads drawn towards the networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.core.cached_encoding import WildTypeModel
from torchcell.core.model import LossWeights
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.nn.gene_embedding import FeatureProjection, GeneVectors, Imputation
from torchcell.nn.sparse import full_precision
from torchcell.report.sections import Section
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.cell_graph_transformer.attention import HeadScores, attention
from torchcell.screen.models.cell_graph_transformer.head_assignments import (
    GraphLosses,
    HeadAssignment,
    assign_heads,
    graph_loss_section,
)
from torchcell.screen.models.cell_graph_transformer.heads import PairTable, SetPooling, set_attention
from torchcell.screen.models.cell_graph_transformer.options import (
    EmbeddingOptions,
    EncoderOptions,
    GraphLossOptions,
    ReadoutOptions,
)
from torchcell.screen.models.common import HyperSAGNN, KindRows
from torchcell.screen.spec import ScreenSpec

if TYPE_CHECKING:
    import pandas as pd


class TransformerLayer(nn.Module):
    r"""Self-attention and a two-layer network, each on normalized input and added to it (pre-norm).

    .. math::
        x' = x + W_O \, \mathrm{attention}(\mathrm{LayerNorm}(x)), \quad
        y = x' + W_2 \, \mathrm{GELU}(W_1 \mathrm{LayerNorm}(x'))

    There are no positions: tokens are a set.

    Args:
        features: Width D of a token.
        heads: Attention heads; D / heads must be at least 16, which fused kernels ask for.
        expansion: Width of the inner network in units of D.
        dropout: Share of both additions dropped in training.

    Shapes:
        x_TD [T, D] -> [T, D].

    Raises:
        InputError: Heads that don't divide the width, or are narrower than 16.

    Source: Xiong et al., ICML 2020, arXiv:2002.04745 (pre-norm).
    """

    def __init__(self, features: int, heads: int, expansion: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        if features % heads or features // heads < 16:
            raise InputError(
                f"a layer of width {features} with {heads} heads: each head needs the same width, at least 16; "
                "change the width or the number of heads"
            )
        self.features, self.heads = features, heads
        self.attention_norm, self.network_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)  # a key's bias would do nothing
        self.output = nn.Linear(features, features)
        self.network = nn.Sequential(
            nn.Linear(features, expansion * features), nn.GELU(), nn.Linear(expansion * features, features)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_TD: Float[Tensor, "T D"], shown: Sequence[int] = (), summed: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "K T d"], Float[Tensor, "K T d"], Float[Tensor, "J T"]]:
        """The new tokens, and what graph losses read.

        Args:
            x_TD: Tokens [T, D].
            shown: K heads whose queries and keys are returned.
            summed: J heads whose log-sum-exp of the scores is returned.

        Returns:
            Tokens [T, D], queries and keys [K, T, D / heads], log-sum-exp [J, T], in the orders given.
        """
        qkv_TF = self.query_key_value(self.attention_norm(x_TD))
        q_HTd, k_HTd, v_HTd = qkv_TF.view(len(x_TD), 3, self.heads, -1).permute(1, 2, 0, 3)
        y_HTd, lse_JT = self.attend(q_HTd, k_HTd, v_HTd, summed)
        x_TD = x_TD + self.dropout(self.output(y_HTd.transpose(0, 1).reshape(len(x_TD), self.features)))
        x_TD = x_TD + self.dropout(self.network(self.network_norm(x_TD)))
        return x_TD, q_HTd[list(shown)], k_HTd[list(shown)], lse_JT

    def attend(self, q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, summed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What each head reads [H, T, d], and the log-sum-exp of the scores of J heads [J, T]."""
        return attention(q_HTd, k_HTd, v_HTd, summed)

    def extra_repr(self) -> str:
        """Width and heads."""
        return f"{self.features}, heads={self.heads}"


class EncodedCell(NamedTuple):
    """CLS [D], genes [N, D], and queries and keys of the heads that were named."""

    cls_D: Tensor
    gene_ND: Tensor
    scores: list[HeadScores]


class CellEncoder(nn.Module):
    """CLS + N gene tokens through pre-norm layers and a last LayerNorm; see ``TransformerLayer``.

    Args:
        layers: The layers, first to last; none gives the normalized tokens.
        features: Width D of a token.
        gradient_checkpointing: Compute each layer again in the backward pass and keep only its input.

    Shapes:
        x_ND [N, D] -> CLS [D] and genes [N, D].
    """

    def __init__(self, layers: Sequence[TransformerLayer], features: int, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(features))  # a vector, which weight decay leaves alone
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(features)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(
        self,
        x_ND: Float[Tensor, "N D"],
        shown: Sequence[tuple[int, int]] = (),
        summed: Sequence[tuple[int, int]] = (),
    ) -> EncodedCell:
        """Encode the wild type.

        Args:
            x_ND: A token a gene [N, D].
            shown: (layer, head) pairs whose queries and keys are returned.
            summed: Those of them whose log-sum-exp is returned too.
        """
        x_TD, found = torch.cat([self.cls[None].to(x_ND.dtype), x_ND]), {}
        for number, layer in enumerate(self.layers):
            heads = [head for at, head in shown if at == number]
            lse_heads = [head for at, head in summed if at == number]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x_TD, q_KTd, k_KTd, lse_JT = checkpoint(layer, x_TD, heads, lse_heads, use_reentrant=False)
            else:
                x_TD, q_KTd, k_KTd, lse_JT = layer(x_TD, heads, lse_heads)
            for place, head in enumerate(heads):
                lse_T = lse_JT[lse_heads.index(head)] if head in lse_heads else None
                found[number, head] = HeadScores(q_KTd[place], k_KTd[place], lse_T)
        x_TD = self.norm(x_TD)
        return EncodedCell(x_TD[0], x_TD[1:], [found[place] for place in shown])


class PerturbationHead(nn.Module):
    r"""Cross-attention from a perturbed set to all genes, whose values know what happened to the perturbed ones.

    .. math::
        q_S = \mathrm{pool}_{i \in S}(h_i + k_{m_i}), \quad
        \beta_{Si} = \mathrm{softmax}_i \, \frac{q_S \cdot W h_i}{\sqrt{D}}, \quad
        z_S = \sum_i \beta_{Si} \, \phi(h_i, m_i)

    .. math::
        \phi(h, m) = W_2 \, \mathrm{GELU}(W_1 \mathrm{LayerNorm}(h) + e_m + l_m \cdot \mathrm{level}) + b

    A gene outside S is present, a state with its own e. As phi depends on m at the members only,

    .. math::
        z_S = \sum_i \beta_{Si} \, \phi(h_i, \mathrm{present})
            + \sum_{i \in S} \beta_{Si} \, (\phi(h_i, m_i) - \phi(h_i, \mathrm{present}))

    which is one [B, N] x [N, D] product and one row a member; nothing is of size B x N x D. The attention is made
    in chunks of sets and made again in the backward pass, so nothing of size B x N is kept. A gene that stands twice
    in a set counts once a row.

    Args:
        features: Width D of the genes' vectors.
        n_kinds: Kinds of perturbation that were trained. One kind alone would only shift all queries alike, so
            then there is no k.
        pooling: Of q_S: ``mean``, ``sum`` or ``hyper_sagnn``.
        heads: Of the pooling, where it has any.
        hidden: Width of phi inside; D by default.
        levels: Read the members' levels; without, there is no l and levels are ignored.

    Shapes:
        h_ND [N, D]; gene, kind and level [M]; ptr [B + 1] -> [B, D].
    """

    def __init__(
        self,
        features: int,
        n_kinds: int,
        pooling: str = "mean",
        heads: int = 4,
        hidden: int | None = None,
        levels: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.n_kinds = features, n_kinds
        self.hidden = hidden = features if hidden is None else hidden
        self.pooling = SetPooling(features, pooling, heads)
        self.kind_query = nn.Embedding(n_kinds, features) if n_kinds > 1 else None
        self.query = nn.Linear(features, features, bias=False)  # a bias of W h would shift all scores of a set alike
        self.norm = nn.LayerNorm(features)
        self.inner = nn.Linear(features, hidden, bias=False)  # e is its bias
        self.present = nn.Parameter(torch.empty(hidden))
        self.kind_state = nn.Embedding(n_kinds, hidden)
        self.level_state = nn.Embedding(n_kinds, hidden) if levels else None
        self.outer = nn.Linear(hidden, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: W starts at 1, so that a fresh head looks at the members and at genes like them.

        With a random W every gene would get 1 / N, and the members would not be seen among thousands of others.
        """
        for layer in (self.pooling, self.norm, self.inner, self.outer):
            layer.reset_parameters()
        nn.init.eye_(self.query.weight)
        nn.init.normal_(self.present, std=0.5)
        nn.init.normal_(self.kind_state.weight, std=0.5)
        for embedding in (self.kind_query, self.level_state):
            if embedding is not None:
                nn.init.zeros_(embedding.weight)

    def forward(
        self,
        h_ND: Float[Tensor, "N D"],
        gene_M: Int[Tensor, " M"],
        kind_M: Int[Tensor, " M"],
        level_M: Float[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B D"]:
        """z_S, one row a set.

        Args:
            h_ND: The wild type's genes [N, D].
            gene_M: Members, rows of h [M].
            kind_M: What happened to them, 0 to ``n_kinds`` - 1, [M].
            level_M: How much of it [M], in the screen's unit; NaN where there is none, which counts as 0.
            ptr_P: Set b holds members ``ptr[b]`` to ``ptr[b + 1]``, [B + 1].
        """
        inner_NH = self.inner(self.norm(h_ND))
        present_NH = nn.functional.gelu(inner_NH + self.present)
        state_MH = self.kind_state(kind_M)
        if self.level_state is not None:
            state_MH = state_MH + self.level_state(kind_M) * torch.nan_to_num(level_M, nan=0.0)[:, None]
        member_MH = nn.functional.gelu(inner_NH.index_select(0, gene_M) + state_MH)
        shift_MH = member_MH - present_NH.index_select(0, gene_M)
        query_BD = full_precision(self._query(h_ND, gene_M, kind_M, ptr_P))
        value_NH, shift_MH = full_precision(present_NH), full_precision(shift_MH)
        read_BH = set_attention(query_BD, full_precision(h_ND), value_NH, shift_MH, gene_M, ptr_P)
        # W_2 is linear and each row of beta sums to one, so it may come after the sum.
        return self.outer(read_BH.to(present_NH.dtype))

    def attention(
        self,
        h_ND: Float[Tensor, "N D"],
        gene_M: Int[Tensor, " M"],
        kind_M: Int[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B N"]:
        """Beta, to see which genes the head looks at [B, N]; hand in few sets at a time."""
        return (self._query(h_ND, gene_M, kind_M, ptr_P) @ h_ND.T).softmax(-1)

    def _query(self, h_ND: Tensor, gene_M: Tensor, kind_M: Tensor, ptr_P: Tensor) -> Float[Tensor, "B D"]:
        """W^T q_S / sqrt(D): W on this side costs one row a set and leaves h as the key."""
        x_MD = h_ND.index_select(0, gene_M)
        if self.kind_query is not None:
            x_MD = x_MD + self.kind_query(kind_M)
        return self.query(self.pooling(x_MD, ptr_P)) * self.features**-0.5

    def extra_repr(self) -> str:
        """Widths, kinds, and whether levels are read."""
        return f"{self.features}, n_kinds={self.n_kinds}, hidden={self.hidden}, levels={self.level_state is not None}"


class EncodedWildType(NamedTuple):
    """What one encoding of the wild type gives: the cell, and the pair factors of all genes if there are any."""

    cell: EncodedCell
    pair_NP: Tensor | None


class CellGraphTransformer(WildTypeModel):
    r"""Attention over CLS and all genes of the wild type, and heads that look at the cell from a perturbed set.

    .. code-block:: text

        gene features [N, F] -> projection ---+
        free embedding [N, D] -> imputation --+-> tokens [N, D], CLS -> attention layers --+-> h_CLS [D]
                                                                               |           +-> H [N, D]
                    networks -> graph losses <-- queries, keys of assigned heads

        H, batch: genes, kinds, levels [M] -> perturbation head -> z_S [B, D] -> MLP([h_CLS, z_S]) -> [B, T] --+
        rows of H [M, D] -> Hyper-SAGNN ------------------------------------------------------------> [B, T] --+-> y
        pair factors f [M, P] -> products of pairs -------------------------------------------------> [B, T] --+

    .. math::
        [h_{CLS}, H] = \mathrm{encoder}(x_1 \dots x_N), \quad
        y_S = \mathrm{MLP}([h_{CLS}, z_S]) + \mathrm{members}(h_S) + \mathrm{pairs}(f_S)

    with z_S of ``PerturbationHead``, members of ``HyperSAGNN`` and pairs of ``PairTable`` on free factors. A token
    is the sum of a free embedding and of projected gene features, as far as there are any; there are no positions.
    Each assigned head's attention is drawn towards its network by ``GraphLoss``. The wild type is encoded once a
    step, whatever the batch, and once for given weights in evaluation.

    Losses: ``phenotype``; ``graph_<relation>``, lambda times the divergence over the number of assigned heads; with
    the decays also ``embedding`` and ``pairs``.

    Args:
        spec: Without a graph the cell is its genes, and no head is assigned. Reads ``gene_features`` where the data
            give them; without a free embedding and without pair factors no parameter then knows a gene by name, and
            the weights fit any other cell with the same features.
        encoder: See ``EncoderOptions``.
        graph_loss: See ``GraphLossOptions``.
        embedding: See ``EmbeddingOptions``.
        readout: See ``ReadoutOptions``.
        optimizer, scheduler, loss_weights: See ``Model``.

    Raises:
        InputError: Head assignments or options that do not fit; nothing to make a token of.

    Example:
        >>> model = CellGraphTransformer(spec, encoder=EncoderOptions(dim=128, layers=4))  # doctest: +SKIP
    """

    reads = ScreenSpec
    spec: ScreenSpec
    graph: CellGraph
    adds_genes = True
    memory_options: Mapping[str, Any] = {"encoder.gradient_checkpointing": False}

    def __init__(
        self,
        spec: ScreenSpec,
        *,
        encoder: EncoderOptions = EncoderOptions(),
        graph_loss: GraphLossOptions = GraphLossOptions(),
        embedding: EmbeddingOptions = EmbeddingOptions(),
        readout: ReadoutOptions = ReadoutOptions(),
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        if spec.graph is None:
            self.graph = CellGraph(spec.genes, {})
        if not embedding.free and spec.gene_features is None:
            raise InputError("there is nothing to make tokens of: give data.features, or set model.embedding.free=true")
        readout.pairs.check(spec)
        self.embedding_decay, self.pair_options = embedding.decay, readout.pairs
        self.untrained_rate = embedding.imputation.untrained_rate
        self.reads_names, self.reads_levels = embedding.free or readout.pairs.width > 0, readout.levels
        self._make_tokens(encoder.dim, embedding)
        self._make_encoder(encoder, graph_loss)
        self._make_heads(encoder, readout)
        self.started: Tensor
        self.register_buffer("started", torch.tensor(False))

    def _make_tokens(self, dim: int, embedding: EmbeddingOptions) -> None:
        """What a token and the pair factors are made of."""
        spec, pairs = self.spec, self.pair_options
        known, sizes = spec.gene_features, (len(spec.genes), spec.n_trained_with)
        self.project = None if known is None else FeatureProjection(torch.from_numpy(known.values), sizes[1], dim)
        imputation = None
        if embedding.imputation.neighbors and self.reads_names:
            features = None if self.project is None else self.project.features
            imputation = Imputation(
                self.graph,
                spec.trained_genes,
                embedding.imputation.neighbors,
                embedding.imputation.power,
                features,
                self.untrained_rate > 0,
                sizes[1],
            )
        self.embedding = GeneVectors(*sizes, dim, imputation) if embedding.free else None
        outputs = len(spec.outputs)
        self.pairs = PairTable(*sizes, pairs.width, outputs, imputation, pairs.trained) if pairs.width else None

    def _make_encoder(self, encoder: EncoderOptions, graph_loss: GraphLossOptions) -> None:
        """Attention layers, and the losses that draw some of their heads towards networks."""
        networks = graph_loss.networks(self.graph)
        self.assignments = assign_heads(
            self.graph, graph_loss.head_assignments, graph_loss.weight, encoder.layers, encoder.heads
        )
        layers = self.make_layers(encoder, networks)
        self.encoder = CellEncoder(layers, encoder.dim, encoder.gradient_checkpointing)
        assignments = self.regularized()
        self.graph_losses = GraphLosses(networks, assignments, graph_loss.form, graph_loss.rows, graph_loss.negatives)
        self.recall_before: list[float] = [math.nan] * len(assignments)

    def _make_heads(self, encoder: EncoderOptions, readout: ReadoutOptions) -> None:
        """What reads the encoded cell."""
        dim, kinds, outputs = encoder.dim, self.spec.kinds, len(self.spec.outputs)
        self.dropout = nn.Dropout(encoder.dropout)
        self.kind_rows = KindRows(kinds)
        self.head = PerturbationHead(dim, len(kinds), readout.pooling, encoder.heads, levels=readout.levels)
        self.readout = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Dropout(encoder.dropout), nn.Linear(2 * dim, outputs)
        )
        score = readout.score
        self.members = HyperSAGNN(dim, outputs, encoder.heads, score) if score is not None else None
        # One kind alone would only shift all members alike, so it has no embedding.
        several = self.members is not None and len(kinds) > 1
        self.kind_embedding = nn.Embedding(len(kinds), dim) if several else None
        if self.kind_embedding is not None:
            nn.init.zeros_(self.kind_embedding.weight)

    def make_layers(self, encoder: EncoderOptions, networks: CellGraph) -> list[TransformerLayer]:
        """The attention layers, first to last; ``networks`` are those of the graph loss."""
        return [
            TransformerLayer(encoder.dim, encoder.heads, encoder.expansion, encoder.dropout)
            for _ in range(encoder.layers)
        ]

    def regularized(self) -> list[HeadAssignment]:
        """The assigned heads that the graph loss draws towards their network."""
        return self.assignments

    def encode(self) -> EncodedWildType:
        """The wild type from the present weights."""
        untrained_N = None
        if self.training and self.untrained_rate:
            untrained_N = torch.rand(len(self.spec.genes), device=self.center.device) < self.untrained_rate
        parts = [] if self.project is None else [self.project()]  # of tokens, each [N, D]
        if self.embedding is not None:
            parts.append(self.embedding(untrained_N))
        pair_NP = None if self.pairs is None else self.pairs.vectors(untrained_N)
        cell = self.encoder(sum(parts), self.graph_losses.places, self.graph_losses.summed)  # CLS [D], genes [N, D]
        return EncodedWildType(cell, pair_NP)

    def forward(self, batch: PerturbationBatch) -> Float[Tensor, "B T"]:
        """The prediction in the target's units, log-odds for a binary target."""
        wild = self.wild_type()
        z_BD = self._perturb(wild, batch)
        cls_BD = wild.cell.cls_D.expand_as(z_BD)
        raw_BT = self.readout(torch.cat([cls_BD, z_BD], 1))  # [B, 2D] -> [B, T]
        if self.members is not None:
            h_MD = self.dropout(wild.cell.gene_ND.index_select(0, batch.gene))
            if self.kind_embedding is not None:
                h_MD = h_MD + self.kind_embedding(self.kind_rows(batch.kind))
            raw_BT = raw_BT + self.members(h_MD, batch.ptr)
        if self.pairs is not None:
            assert wild.pair_NP is not None
            raw_BT = raw_BT + self.pairs(wild.pair_NP, batch.gene, batch.ptr)
        return self.center + self.scale * raw_BT

    def _perturb(self, wild: EncodedWildType, batch: PerturbationBatch) -> Float[Tensor, "B D"]:
        """z_S: what each set makes of the genes [N, D]."""
        return self.head(wild.cell.gene_ND, batch.gene, self.kind_rows(batch.kind), batch.level, batch.ptr)

    def losses(self, batch: PerturbationBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The phenotype, the graph losses of this step's encoding, and how long the members' vectors are."""
        losses = super().losses(batch, prediction) | self.graph_losses.losses(self.take_step().cell.scores)
        tables = {"embedding": (self.embedding, self.embedding_decay)}
        if self.pairs is not None:
            tables["pairs"] = (self.pairs.vectors, self.pair_options.decay)
        for name, (vectors, decay) in tables.items():
            if vectors is not None and decay:
                losses[name] = decay * vectors.length(batch.gene)
        return losses

    def diagnostics(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """Divergence and edge recall of the assigned heads, also where lambda is 0."""
        return self.graph_losses.diagnostics(self.wild_type().cell.scores)

    def set_embeddings(self, batch: PerturbationBatch) -> dict[str, Tensor]:
        """``z_S``: what each set makes of the cell [B, D]."""
        return {"z_S": self._perturb(self.wild_type(), batch)}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``tokens``: genes after the last layer [N, D]; ``pair_factors``: free factors of the pairs [N, P]."""
        wild = self.wild_type()
        found = {"tokens": wild.cell.gene_ND}
        return found if wild.pair_NP is None else found | {"pair_factors": wild.pair_NP}

    def cell_embeddings(self) -> dict[str, Tensor]:
        """``h_CLS`` [D], the same for all sets: the wild type has one CLS."""
        return {"h_CLS": self.wild_type().cell.cls_D}

    def attended(self, batch: PerturbationBatch) -> Float[Tensor, "B N"]:
        """Beta, how much each set looks at each gene."""
        gene_ND = self.wild_type().cell.gene_ND
        return self.head.attention(gene_ND, batch.gene, self.kind_rows(batch.kind), batch.ptr)

    @torch.no_grad()
    def report_sections(self, history: pd.DataFrame | None) -> list[Section]:
        """A table of the graph losses: divergence, edge recall before and after, share of the objective."""
        losses, scores = self.eval().graph_losses, self.wild_type().cell.scores
        found = zip(losses.values(scores), self.recall_before, losses.recalls(scores), strict=True)
        rows = [
            (*head, float(value), before, float(after))
            for head, (value, before, after) in zip(losses.assignments, found, strict=True)
        ]
        return [graph_loss_section(rows, history)] if rows else []

    def on_fit_start(self) -> None:
        """The least-squares start, once in a model's life, and the edge recall before the first step."""
        if not self.started and self.pair_options.start == "least_squares":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.start_pairs(data.packed[torch.from_numpy(data.split.index("train"))])
            assert self.pairs is not None
            for tensor in (self.pairs.vectors.table.weight, self.pairs.product.pair.weight):
                # Another machine's linear algebra may round in another way, and nothing would bring them together.
                tensor.data.copy_(self.trainer.strategy.broadcast(tensor.data))
        self.started.fill_(True)
        if self.trainer.ckpt_path is None:  # else the heads are trained already
            with torch.no_grad():
                recalls = self.graph_losses.recalls(self.eval().wild_type().cell.scores)
            self.recall_before = [float(recall) for recall in recalls]
            self.train()

    @torch.no_grad()
    def start_pairs(self, train: PerturbationBatch) -> None:
        """Factorize the table of training pairs, and let the pair factors say just that.

        A pair without a value counts as 0 in the target's own units: the wild type's, not the mean.

        Args:
            train: All training samples as one batch.
        """
        last = self.readout[-1]
        assert self.pairs is not None
        assert isinstance(last, nn.Linear)
        target_BT, zero_T = train.target / self.scale.to(train.target), -self.center / self.scale
        if self.spec.task == "binary":
            target_BT, zero_T = 4 * train.target - 2, torch.zeros_like(self.center)  # log-odds near one half
        self.pairs.start(train.gene, train.ptr, target_BT, self.pair_options.penalty)
        last.bias.copy_(zero_T)
        # What the other heads say at random would drown the start; they begin at nothing and grow from there.
        last.weight.zero_()
        if self.members is not None:
            self.members.readout.weight.zero_()
