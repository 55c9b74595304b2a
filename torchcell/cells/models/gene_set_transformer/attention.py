"""Attention over gene tokens: full, among neighbors, or through inducing points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR, owner
from torchcell.io.errors import InputError
from torchcell.nn.gene_embedding import FeatureProjection, GeneVectors
from torchcell.nn.ragged import segment_sum
from torchcell.nn.sparse import STRATEGIES, Gathered, full_precision

NUMBERS = {"sparse": 2**18, "gather": 2**26}
"""Numbers on edges that each way holds at a time; cells are taken so many at once."""


def neighbor_attention(
    qkv_CT3HD: Float[Tensor, "C T 3 H D"], seen: CSR, way: str | None = None
) -> Float[Tensor, "C T H D"]:
    r"""Each gene attends to the tokens of its list, each global token to all.

    .. math::
        y_i = \sum_{j \in A(i)} \alpha_{ij} v_j, \quad \alpha_{ij} \propto \exp(q_i \cdot k_j / \sqrt{D})

    Scores exist for the listed pairs only and for a few cells at a time, and the backward pass, which keeps q, k, v, y
    and the log-sum-exp, computes them again: memory is linear in the genes. All C cells share the lists.

    Args:
        qkv_CT3HD: Queries, keys and values as one projection gives them, T = P global tokens and then A genes.
        seen: Row i: the tokens that gene i sees, at least one, see ``seen_tokens``; weights are not read.
        way: ``sparse`` (CPU only) or ``gather``; none: by the device.

    Returns:
        [C, T, H, D].
    """
    return _NeighborAttention.apply(
        qkv_CT3HD, seen.indptr, seen.indices, way or ("sparse" if qkv_CT3HD.device.type == "cpu" else "gather")
    )


class _NeighborAttention(torch.autograd.Function):
    """Within a few cells heads come first: X = cells x heads."""

    @staticmethod
    def forward(ctx, qkv, indptr, indices, way):
        n_cells, n_tokens, _, n_heads, width = qkv.shape
        out, scale = qkv.new_empty(n_cells, n_tokens, n_heads, width), width**-0.5
        lse_CTH = full_precision(out[:0]).new_empty(n_cells, n_tokens, n_heads)
        first = n_tokens - (len(indptr) - 1)
        with torch.autocast(qkv.device.type, enabled=False):
            for cells in _tiles(qkv, indices, way):
                q, k, v = _heads_first(qkv[cells])
                y_XTD, lse_XT = torch.empty_like(q), q.new_empty(q.shape[:2])
                score_XPT = q[:, :first] @ k.mT * scale
                lse_XT[:, :first] = score_XPT.logsumexp(-1)
                y_XTD[:, :first] = score_XPT.softmax(-1) @ v
                for edges, rows in _chunks(indptr, indices, first, n_tokens, STRATEGIES[way]):
                    part_XE = edges.dots(q[:, rows], k).mul_(scale)
                    top_Xn = edges.largest(part_XE)
                    part_XE.sub_(edges.spread(top_Xn)).exp_()
                    total_Xn = edges.total(part_XE)
                    y_XTD[:, rows] = edges.collect(part_XE, v) / total_Xn[:, :, None]
                    lse_XT[:, rows] = top_Xn + total_Xn.log()
                _put(out[cells], y_XTD)
                lse_CTH[cells] = lse_XT.unflatten(0, (-1, n_heads)).transpose(1, 2)
        ctx.save_for_backward(qkv, indptr, indices, out, lse_CTH)
        ctx.way = way
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, indptr, indices, out, lse_CTH = ctx.saved_tensors
        n_tokens, scale, found = qkv.shape[1], qkv.shape[-1] ** -0.5, torch.empty_like(qkv)
        first = n_tokens - (len(indptr) - 1)
        with torch.autocast(qkv.device.type, enabled=False):
            for cells in _tiles(qkv, indices, ctx.way):
                q, k, v = _heads_first(qkv[cells])
                (g,) = _heads_first(grad[cells][:, :, None])
                inner_XT = (_heads_first(out[cells][:, :, None])[0] * g).sum(-1)
                lse_XT = lse_CTH[cells].transpose(1, 2).flatten(0, 1)
                share_XPT = (q[:, :first] @ k.mT * scale - lse_XT[:, :first, None]).exp()
                score_XPT = (g[:, :first] @ v.mT - inner_XT[:, :first, None]) * share_XPT * scale
                to_q, to_k, to_v = torch.empty_like(q), score_XPT.mT @ q[:, :first], share_XPT.mT @ g[:, :first]
                to_q[:, :first] = score_XPT @ k
                for edges, rows in _chunks(indptr, indices, first, n_tokens, STRATEGIES[ctx.way]):
                    share_XE = edges.dots(q[:, rows], k).mul_(scale).sub_(edges.spread(lse_XT[:, rows])).exp_()
                    edges.deliver(share_XE, g[:, rows], to_v)
                    score_XE = edges.dots(g[:, rows], v).sub_(edges.spread(inner_XT[:, rows]))
                    score_XE.mul_(share_XE).mul_(scale)
                    to_q[:, rows] = edges.collect(score_XE, k)
                    edges.deliver(score_XE, q[:, rows], to_k)
                for place, part in enumerate((to_q, to_k, to_v)):
                    _put(found[cells][:, :, place], part)
        return found, None, None, None


def _tiles(qkv_CT3HD: Tensor, indices: Tensor, way: str) -> Iterator[slice]:
    """Cells that are taken at once: as many as fit, for gathers hold a vector an edge."""
    n_cells, n_heads, width = len(qkv_CT3HD), *qkv_CT3HD.shape[3:]
    each = min(len(indices), STRATEGIES[way].edges) * n_heads * (width if way == "gather" else 1)
    step = max(1, NUMBERS[way] // max(each, 1))
    for start in range(0, n_cells, step):
        yield slice(start, min(start + step, n_cells))


def _chunks(
    indptr: Tensor, indices: Tensor, first: int, n_tokens: int, kind: type[Gathered]
) -> Iterator[tuple[Gathered, slice]]:
    """Edges into whole rows, so many at a time as the way takes, and the tokens that the rows are."""
    row, n_rows = 0, len(indptr) - 1
    while row < n_rows:
        last = int(torch.searchsorted(indptr, indptr[row] + kind.edges, right=True)) - 1
        last = min(max(row + 1, last), n_rows)
        span = slice(int(indptr[row]), int(indptr[last]))
        yield kind(indptr[row : last + 1] - indptr[row], indices[span], n_tokens), slice(first + row, first + last)
        row = last


def _heads_first(x_CTKHD: Tensor) -> Tensor:
    """K times [C x H, T, D], each in a row, at least float32."""
    return full_precision(x_CTKHD.permute(2, 0, 3, 1, 4)).contiguous().flatten(1, 2)


def _put(to_CTHD: Tensor, x_XTD: Tensor) -> None:
    """Write [C x H, T, D] into its place."""
    to_CTHD.copy_(x_XTD.unflatten(0, (len(to_CTHD), -1)).transpose(1, 2))


class TokenAttention(nn.Module):
    r"""Multi-head attention within each cell's tokens.

    Full and sparse have the same weights: without lists every token sees every token, by torch's fused kernel.

    Args:
        features: Width D of a token.
        heads: D / heads must be at least 16, which fused kernels ask for.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].

    Raises:
        InputError: Heads that don't divide the width, or are narrower than 16.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        refuse_narrow(features, heads)
        self.features, self.heads = features, heads
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)  # a key's bias would do nothing
        self.output = nn.Linear(features, features)

    def forward(self, x_CTD: Float[Tensor, "C T D"], seen: CSR | None = None) -> Float[Tensor, "C T D"]:
        """One row a token; ``seen`` says what each gene looks at, none: everything."""
        qkv_CT3Hd = self.query_key_value(x_CTD).unflatten(-1, (3, self.heads, -1))
        if seen is None:
            y_CTHd = scaled_dot_product_attention(*qkv_CT3Hd.permute(2, 0, 3, 1, 4)).transpose(1, 2)
        else:
            y_CTHd = neighbor_attention(qkv_CT3Hd, seen)
        return self.output(y_CTHd.flatten(2))

    def extra_repr(self) -> str:
        """Width and heads."""
        return f"{self.features}, heads={self.heads}"


def refuse_narrow(features: int, heads: int) -> None:
    """Raise unless each head has the same width of at least 16."""
    if heads < 1 or features % heads or features // heads < 16:
        raise InputError(
            f"attention of width {features} with {heads} heads: each head needs the same width, at least 16; "
            "change the width or the number of heads"
        )


class InducedAttention(nn.Module):
    r"""Points look at all tokens, then each token looks at the points.

    .. math::
        h = \mathrm{LayerNorm}(p + \mathrm{attention}(p, x, x)), \quad y = \mathrm{attention}(x, h, h)

    with I learned points p, the same for all cells.

    Args:
        features: Width D of a token.
        heads: D / heads must be at least 16.
        points: I.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].

    Raises:
        InputError: Heads that don't fit the width, or no point.

    Source: Lee et al., ICML 2019, arXiv:1810.00825, eq. 9 (ISAB).
    """

    def __init__(self, features: int, heads: int, points: int = 32) -> None:
        super().__init__()
        refuse_narrow(features, heads)
        if points < 1:
            raise InputError(f"induced attention needs at least one point, not {points}")
        self.features, self.heads = features, heads
        self.point_embedding = nn.Parameter(torch.empty(points, features))
        self.point_query = nn.Linear(features, features, bias=False)
        self.point_norm = nn.LayerNorm(features)
        self.token = nn.Linear(features, 3 * features, bias=False)  # keys and values for the points, then queries
        self.from_points = nn.Linear(features, 2 * features, bias=False)
        self.output = nn.Linear(features, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.normal_(self.point_embedding)
        for layer in (self.point_query, self.point_norm, self.token, self.from_points, self.output):
            layer.reset_parameters()

    def forward(self, x_CTD: Float[Tensor, "C T D"]) -> Float[Tensor, "C T D"]:
        """One row a token."""
        key, value, query = (self._heads(x) for x in self.token(x_CTD).chunk(3, -1))
        asked = self._heads(self.point_query(self.point_embedding)[None]).expand(len(x_CTD), -1, -1, -1)
        h_CID = scaled_dot_product_attention(asked, key, value).transpose(1, 2).flatten(2)
        h_CID = self.point_norm(self.point_embedding + h_CID)
        key, value = (self._heads(x) for x in self.from_points(h_CID).chunk(2, -1))
        y_CHTd = scaled_dot_product_attention(query, key, value)
        return self.output(y_CHTd.transpose(1, 2).flatten(2))

    def _heads(self, x_CTD: Tensor) -> Tensor:
        return x_CTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Width, heads and points."""
        return f"{self.features}, heads={self.heads}, points={len(self.point_embedding)}"


ATTENTIONS = ("full", "neighbors", "induced")
"""Kinds that ``GeneSetEncoder`` has."""


@dataclass(frozen=True)
class EncoderOptions:
    """Tokens and the layers that they go through.

    Attributes:
        dim: Width D of a token.
        layers: Attention layers.
        heads: Of each layer, D / heads at least 16.
        expansion: Width of a layer's inner network in units of D.
        dropout: Share of both additions of a layer that is dropped in training.
        attention: ``full``, ``neighbors`` of the spec, the gene itself and the global tokens, or ``induced``; the first
            two have the same weights.
        points: Of induced attention.
        global_tokens: Tokens that see all genes and are seen by all, and carry the perturbation.
        gradient_checkpointing: Keep only the layers' inputs, and compute them again in the backward pass.

    Raises:
        InputError: A value that can't be, by its key.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 4
    expansion: int = 2
    dropout: float | int = 0.0
    attention: str = "full"
    points: int = 32
    global_tokens: int = 2
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        key = "model.encoder"
        if self.attention not in ATTENTIONS:
            raise InputError(f"{key}.attention={self.attention!r}: choose one of {list(ATTENTIONS)}")
        least = {"layers": 0, "expansion": 1, "points": 1, "global_tokens": 1}
        below = [f"{key}.{name}={getattr(self, name)}" for name, value in least.items() if getattr(self, name) < value]
        if below:
            bounds = ", ".join(f"{name} at least {value}" for name, value in least.items())
            raise InputError(f"{', '.join(below)}: it must be {bounds}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"{key}.dropout={self.dropout}: it is a share, at least 0 and below 1")
        if self.heads < 1 or self.dim % self.heads or self.dim // self.heads < 16:
            raise InputError(
                f"{key}.dim={self.dim}, {key}.heads={self.heads}: each head needs the same width, dim / heads, at "
                "least 16"
            )


class GeneSetEncoder(nn.Module):
    r"""Pre-norm layers over sets of tokens, each cell on its own, and a last LayerNorm.

    .. math::
        x' = x + \mathrm{attention}(\mathrm{LayerNorm}(x)), \quad
        y = x' + W_2 \, \mathrm{GELU}(W_1 \mathrm{LayerNorm}(x'))

    Args:
        options: Sizes and the kind of attention.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].
    """

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        self.layers = nn.ModuleList(_Layer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.dim)

    def forward(self, x_CTD: Float[Tensor, "C T D"], seen: CSR | None = None) -> Float[Tensor, "C T D"]:
        """Tokens after the last layer; ``seen`` is what each gene looks at where attention is sparse."""
        for layer in self.layers:
            if self.gradient_checkpointing and x_CTD.requires_grad:
                x_CTD = checkpoint(layer, x_CTD, seen, use_reentrant=False)
            else:
                x_CTD = layer(x_CTD, seen)
        return self.norm(x_CTD)


class _Layer(nn.Module):
    def __init__(self, options: EncoderOptions) -> None:
        super().__init__()
        width, inner = options.dim, options.expansion * options.dim
        self.attention: nn.Module = (
            InducedAttention(width, options.heads, options.points)
            if options.attention == "induced"
            else TokenAttention(width, options.heads)
        )
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_CTD: Tensor, seen: CSR | None) -> Tensor:
        normed = self.attention_norm(x_CTD)
        y_CTD = self.attention(normed) if seen is None else self.attention(normed, seen)
        x_CTD = x_CTD + self.dropout(y_CTD)
        return x_CTD + self.dropout(self.network(self.network_norm(x_CTD)))


MOST = 10.0
"""Standard deviations beyond which expression is cut off: a gene that few cells express has no smaller ones."""


class GeneIdentity(nn.Module):
    r"""What a gene is: a free vector by name, and its projected features if there are any.

    .. math::
        e_g = \sqrt{D} \, t_g + W f_g

    Args:
        n_measured: Genes that are measured and come first; the vectors of the others start at 0, so that one that
            training never names stays 0.
        n_own: Genes that the model was built with; those after them were added later and have no free vector.
        n_genes: All genes N.
        width: D.
        features_NF: Features of all genes [N, F], or none.
    """

    def __init__(
        self, n_measured: int, n_own: int, n_genes: int, width: int, features_NF: Float[Tensor, "N F"] | None = None
    ) -> None:
        super().__init__()
        self.gain = width**0.5
        self.free = GeneVectors(n_genes, n_own, width)
        with torch.no_grad():
            self.free.table.weight[n_measured:] = 0
        self.project = None if features_NF is None else FeatureProjection(features_NF, n_own, width)

    def forward(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """The free part and the part from features, each [N, D]."""
        free_ND = self.gain * self.free()
        return free_ND, torch.zeros_like(free_ND) if self.project is None else self.project()


class PerturbationVector(nn.Module):
    r"""One vector a set of perturbed genes; their order changes nothing, and no gene gives 0.

    .. math::
        p_S = \sum_{g \in S} W_2 \, \mathrm{GELU}(W_1 e_g)

    Args:
        width: D.
        free_drop: Share of the perturbed genes whose free part is left out in a training step, so that features say
            what a gene does that was never perturbed.
    """

    def __init__(self, width: int, free_drop: float | int = 0.0) -> None:
        super().__init__()
        self.free_drop = free_drop
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self,
        free_ND: Float[Tensor, "N D"],
        known_ND: Float[Tensor, "N D"],
        gene_M: Int[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B D"]:
        """One row a set, from ``GeneIdentity``'s two parts and ragged members."""
        free_MD = free_ND.index_select(0, gene_M)
        if self.training and self.free_drop:
            free_MD = free_MD * (torch.rand(len(gene_M), 1, device=free_MD.device) >= self.free_drop)
        return segment_sum(self.network(free_MD + known_ND.index_select(0, gene_M)), ptr_P)


class GeneTokens(nn.Module):
    r"""Tokens of the active genes in each cell, and global tokens that know the perturbation.

    .. math::
        x_{cg} = W e_g + v_{cg} V e_g + [g \in S_c] \, f, \quad x_{cp} = g_p + U_p p_S

    with expression v in standard deviations of the control cells, and a flag f at perturbed genes that are active.

    Args:
        width: D.
        n_global: Global tokens P.

    Shapes:
        -> [B, S, P + A, D].
    """

    def __init__(self, width: int, n_global: int) -> None:
        super().__init__()
        self.level, self.slope = nn.Linear(width, width), nn.Linear(width, width)
        self.flag = nn.Parameter(torch.randn(width))
        self.global_embedding = nn.Parameter(torch.randn(n_global, width))
        self.spread = nn.Linear(width, n_global * width, bias=False)

    def forward(
        self,
        value_BSA: Float[Tensor, "B S A"],
        e_AD: Float[Tensor, "A D"],
        p_BD: Float[Tensor, "B D"],
        place_M: Int[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B S T D"]:
        """Tokens of all cells.

        Args:
            value_BSA: Expression of the active genes, standardized.
            e_AD: What each active gene is.
            p_BD: Of the perturbations.
            place_M: Where each perturbed gene stands among the active; -1 where it does not.
            ptr_P: Set b has perturbed genes ``ptr[b]`` to ``ptr[b + 1]``.
        """
        n_sets, n_cells, n_active = value_BSA.shape
        hit_BA = value_BSA.new_zeros(n_sets, n_active + 1)  # the last column takes what is not active
        hit_BA[owner(ptr_P, len(place_M)), place_M] = 1
        shared_BAD = self.level(e_AD) + hit_BA[:, :n_active, None] * self.flag
        value_BSA = value_BSA.clamp(-MOST, MOST)
        gene_BSAD = torch.addcmul(shared_BAD[:, None], value_BSA[..., None], self.slope(e_AD).to(value_BSA.dtype))
        global_BPD = self.global_embedding + self.spread(p_BD).unflatten(-1, self.global_embedding.shape)
        global_BSPD = global_BPD[:, None].expand(-1, n_cells, -1, -1)
        return torch.cat([global_BSPD, gene_BSAD], 2)


def seen_tokens(neighbor_GK: Int[Tensor, "G K"], active_A: Int[Tensor, " A"], n_global: int) -> CSR:
    """Tokens that each active gene sees, each once, whatever the lists say twice.

    Args:
        neighbor_GK: Neighbors of every gene, positions among all G genes; -1 pads [G, K].
        active_A: Positions of the active genes [A], each once.
        n_global: Global tokens P, which come first and are seen by all.

    Returns:
        Row i of A: columns of the P + A tokens, in order, with ones as weights.
    """
    place_G = neighbor_GK.new_full((len(neighbor_GK) + 1,), -1)  # the last one is for the pads
    place_G[active_A] = torch.arange(len(active_A), device=active_A.device) + n_global
    rows = place_G[active_A, None]
    seen_AS = torch.cat([place_G[neighbor_GK[active_A]], rows], 1).sort(1).values
    keep_AS = seen_AS >= 0
    keep_AS[:, 1:] &= seen_AS[:, 1:] != seen_AS[:, :-1]
    everywhere = torch.arange(n_global, device=active_A.device).expand(len(active_A), -1)
    seen_AS = torch.cat([everywhere, seen_AS], 1)
    keep_AS = torch.cat([torch.ones_like(everywhere, dtype=torch.bool), keep_AS], 1)
    indices = seen_AS[keep_AS].int()
    indptr = torch.cat([keep_AS.new_zeros(1, dtype=torch.int32), keep_AS.sum(1).cumsum(0).int()])
    return CSR(indptr, indices, torch.ones_like(indices, dtype=torch.float32))
