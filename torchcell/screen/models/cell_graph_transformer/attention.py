"""Attention over CLS and all genes: plain, masked, and within a fixed amount of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.io.errors import InputError
from torchcell.nn.sparse import edge_softmax, full_precision

LSE_ROWS = 512
"""Rows whose scores exist at once."""


def log_sum_exp(q_ND: Float[Tensor, "N D"], k_MD: Float[Tensor, "M D"], scale: float) -> Float[Tensor, " N"]:
    r"""What the softmax of each row would be divided by, as a logarithm.

    .. math::
        \ell_i = \log \sum_j \exp(s \, q_i \cdot k_j)

    Rows and columns may be different subsets of tokens. Backward keeps q, k and the result:
    :math:`P_{ij} = g_i \exp(s \, q_i \cdot k_j - \ell_i)`, :math:`dQ = s P K`, :math:`dK = s P^T Q`.

    Args:
        q_ND: Rows [N, D].
        k_MD: Columns [M, D].
        scale: s, usually one over the root of the head's width.

    Returns:
        [N], float32 for half precisions; minus infinity where there is no column.
    """
    return _LogSumExp.apply(full_precision(q_ND), full_precision(k_MD), scale)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_ND, k_MD, scale):
        lse_N = q_ND.new_full((len(q_ND),), -torch.inf)
        for rows, score_RM in _scores(q_ND, k_MD, scale):
            # A row of scores that are all -inf would otherwise become NaN.
            top_R = score_RM.amax(1).clamp(min=torch.finfo(score_RM.dtype).min)
            lse_N[rows] = score_RM.sub_(top_R[:, None]).exp_().sum(1).log_().add_(top_R)
        ctx.save_for_backward(q_ND, k_MD, lse_N)
        ctx.scale = scale
        return lse_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N):
        q_ND, k_MD, lse_N = ctx.saved_tensors
        grad_q, grad_k = torch.zeros_like(q_ND), torch.zeros_like(k_MD)
        scaled_N = grad_N * ctx.scale
        for rows, score_RM in _scores(q_ND, k_MD, ctx.scale):
            share_RM = score_RM.sub_(lse_N[rows, None]).exp_().mul_(scaled_N[rows, None])
            with torch.autocast(q_ND.device.type, enabled=False):
                grad_q[rows] = share_RM @ k_MD
                grad_k.addmm_(share_RM.T, q_ND[rows])
        return grad_q, grad_k, None


def _scores(q_ND: Tensor, k_MD: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """The scores of ROWS rows after the other, always in the same memory."""
    if not len(k_MD):
        return
    held = q_ND.new_empty(min(LSE_ROWS, len(q_ND)), len(k_MD))
    with torch.autocast(q_ND.device.type, enabled=False):
        for first in range(0, len(q_ND), LSE_ROWS):
            rows = slice(first, min(first + LSE_ROWS, len(q_ND)))
            yield rows, torch.mm(q_ND[rows] * scale, k_MD.T, out=held[: rows.stop - rows.start])


KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What the fused kernel for CPUs takes."""

SHORT, SHORTEST = 1e-18, 1e-30
"""Of g, and at least: largest entry of a row of dO that counts. Below it the row is noise beside g."""

ROWS = 191
"""Queries a call of the kernel's backward: below 192 it works in blocks that stay in a core's cache."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(
    q_HTD: Float[Tensor, "H T D"],
    k_HTD: Float[Tensor, "H T D"],
    v_HTD: Float[Tensor, "H T D"],
    tied: Sequence[int] = (),
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    r"""Attention of all heads, and the log-sum-exp of the scores of the tied ones.

    .. math::
        y_i = \sum_j e^{s_{ij} - \ell_i} v_j, \quad \ell_i = \log \sum_j e^{s_{ij}}, \quad
        s_{ij} = q_i \cdot k_j / \sqrt{D}

    On a CPU both come from one fused kernel, whose log-sum-exp has no gradient of its own. With g the gradient
    of :math:`\ell`, row i of dS lacks g_i P_i, and the kernel's backward takes dO_i . O_i off each dP_ij; handed
    O'_i = O_i - g_i dO_i / |dO_i|^2 it takes off g_i less, and costs nothing more. On other devices the log-sum-exp
    is computed a second time in chunks.

    Args:
        q_HTD: Queries [H, T, D]. Under autocast they are cast as for torch's own attention.
        k_HTD: Keys [H, T, D].
        v_HTD: Values [H, T, D].
        tied: Heads whose log-sum-exp is wanted, each once; a graph term needs it.

    Returns:
        Output [H, T, D], and the log-sum-exp [K, T] in the order of ``tied``, float32 for half precisions.

    Raises:
        InputError: A tied head that does not exist, or is named twice.
    """
    n_heads = len(q_HTD)
    if len(set(tied)) < len(tied) or not all(0 <= head < n_heads for head in tied):
        raise InputError(f"tied heads {list(tied)}: name each once, from 0 to {n_heads - 1}")
    q_HTD, k_HTD, v_HTD = (_autocast(each) for each in (q_HTD, k_HTD, v_HTD))
    if q_HTD.device.type == "cpu" and q_HTD.dtype in KERNEL_DTYPES:
        return _Attention.apply(q_HTD, k_HTD, v_HTD, tuple(tied))
    if not tied:
        out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
        return out_HTD, q_HTD.new_empty((0, q_HTD.shape[1]), dtype=full_precision(out_HTD[:0]).dtype)
    return chunked_attention(q_HTD, k_HTD, v_HTD, tied)


def chunked_attention(
    q_HTD: Float[Tensor, "H T D"],
    k_HTD: Float[Tensor, "H T D"],
    v_HTD: Float[Tensor, "H T D"],
    tied: Sequence[int],
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    """The same on any device: torch's attention, and the log-sum-exp of the tied heads by chunks of rows."""
    out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
    scale = q_HTD.shape[-1] ** -0.5
    return out_HTD, torch.stack([log_sum_exp(q_HTD[head], k_HTD[head], scale) for head in tied])


def _autocast(x: Tensor) -> Tensor:
    """What autocast would do to an input of torch's own attention; it does not see into a custom function."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_HTD, k_HTD, v_HTD, tied):
        out, lse = _flash(q_HTD[None], k_HTD[None], v_HTD[None], scale=q_HTD.shape[-1] ** -0.5)
        ctx.save_for_backward(q_HTD, k_HTD, v_HTD, out[0], lse[0])
        ctx.tied = tied
        ctx.set_materialize_grads(False)
        return out[0], lse[0, list(tied)]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_HTD, grad_KT):
        held = ctx.saved_tensors
        if grad_HTD is None:
            grad_HTD = torch.zeros_like(held[3])
        if grad_KT is None or not ctx.tied:
            return *_gradients(grad_HTD, held), None
        grad_lse_HT = grad_KT.new_zeros(held[4].shape).index_copy_(0, torch.tensor(ctx.tied), grad_KT)
        if full_precision(grad_HTD[:0]).dtype == grad_HTD.dtype:
            return *_gradients(grad_HTD, held, grad_lse_HT), None
        tied = list(ctx.tied)
        free = [head for head in range(len(held[0])) if head not in ctx.tied]
        grads = [torch.empty_like(each) for each in held[:3]]
        with torch.autocast(grad_HTD.device.type, enabled=False):
            # In half precision g, one over the number of rows, would lose digits or vanish.
            wide = [full_precision(each[tied]) for each in held]
            parts = [(tied, _gradients(full_precision(grad_HTD[tied]), wide, grad_lse_HT[tied]))]
            if free:
                parts.append((free, _gradients(grad_HTD[free], [each[free] for each in held])))
        for heads, part in parts:
            for whole, some in zip(grads, part, strict=True):
                whole[heads] = some.to(whole.dtype)
        return *grads, None


def _gradients(grad_HTD: Tensor, held: Sequence[Tensor], grad_lse_HT: Tensor | None = None) -> list[Tensor]:
    """Of q, k and v, by the stock kernel; ``held`` is q, k, v, the output and the log-sum-exp."""
    q, k, v, out, lse = held
    if grad_lse_HT is not None:
        grad_HTD, out = _with_lse(grad_HTD, out, grad_lse_HT[..., None].to(grad_HTD.dtype))
    # Half precisions are packed anew a call, so there all queries go at once.
    rows = ROWS if full_precision(q[:0]).dtype == q.dtype else max(1, q.shape[1])
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for some in (slice(first, first + rows) for first in range(0, q.shape[1], rows)):
        some_q, some_out, some_grad, some_lse = (each[None, :, some] for each in (q, out, grad_HTD, lse))
        part = _flash_backward(
            some_grad, some_q, k[None], v[None], some_out, some_lse, 0.0, False, scale=q.shape[-1] ** -0.5
        )
        grad_q[:, some] = part[0][0]
        grad_k += part[1][0]
        grad_v += part[2][0]
    return [grad_q, grad_k, grad_v]


def _with_lse(grad_HTD: Tensor, out_HTD: Tensor, g_HT1: Tensor) -> tuple[Tensor, Tensor]:
    """dO and O' = O - g dO / |dO|^2. Rows of dO too short to divide by are made as long as rounding errors of g."""
    size_HT1 = grad_HTD.abs().amax(-1, keepdim=True)
    least_HT1 = (g_HT1.abs() * SHORT).clamp(min=SHORTEST)
    short_HT1 = (size_HT1 < least_HT1) & (g_HT1 != 0)
    if short_HT1.any():
        grad_HTD = grad_HTD.clone()
        grad_HTD[..., :1] += torch.where(short_HT1, 2 * least_HT1, 0)
        size_HT1 = grad_HTD.abs().amax(-1, keepdim=True)
    unit_HTD = grad_HTD / size_HT1.clamp(min=SHORTEST)  # of largest entry 1, whose square neither is 0 nor infinite
    along_HTD = unit_HTD / unit_HTD.square().sum(-1, keepdim=True).clamp(min=1)
    return grad_HTD, out_HTD - g_HT1 / size_HT1.clamp(min=SHORTEST) * along_HTD


class HardMask(nn.Module):
    r"""One attention head that a network confines; the control for a graph term that only persuades.

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
        masks: Head -> the network that confines it.

    Shapes:
        x_TD [T, D] -> [T, D].

    Raises:
        InputError: Heads that don't divide the width, or are narrower than 16.

    Source: Xiong et al., ICML 2020, arXiv:2002.04745 (pre-norm).
    """

    def __init__(
        self,
        features: int,
        heads: int,
        expansion: int = 2,
        dropout: float = 0.0,
        masks: Mapping[int, HardMask] | None = None,
    ) -> None:
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
        self.masks = nn.ModuleDict({str(head): mask for head, mask in (masks or {}).items()})

    def forward(
        self, x_TD: Float[Tensor, "T D"], shown: Sequence[int] = (), summed: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "K T d"], Float[Tensor, "K T d"], Float[Tensor, "J T"]]:
        """The new tokens, and what graph terms read.

        Args:
            x_TD: Tokens [T, D].
            shown: K heads whose queries and keys are returned.
            summed: J heads whose log-sum-exp of the scores is returned; none of them masked.

        Returns:
            Tokens [T, D], queries and keys [K, T, D / heads], log-sum-exp [J, T], in the orders asked for.
        """
        qkv_TF = self.query_key_value(self.attention_norm(x_TD))
        q_HTd, k_HTd, v_HTd = qkv_TF.view(len(x_TD), 3, self.heads, -1).permute(1, 2, 0, 3)
        if self.masks:
            y_HTd, lse_JT = self._masked(q_HTd, k_HTd, v_HTd, summed)
        else:
            y_HTd, lse_JT = attention(q_HTd, k_HTd, v_HTd, summed)
        x_TD = x_TD + self.dropout(self.output(y_HTd.transpose(0, 1).reshape(len(x_TD), self.features)))
        x_TD = x_TD + self.dropout(self.network(self.network_norm(x_TD)))
        return x_TD, q_HTd[list(shown)], k_HTd[list(shown)], lse_JT

    def _masked(self, q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, summed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Free heads together, and each confined head alone."""
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

    def extra_repr(self) -> str:
        """Width and heads."""
        return f"{self.features}, heads={self.heads}"


class HeadScores(NamedTuple):
    """What a graph term reads of one head: queries and keys of all tokens, and their log-sum-exp if asked for."""

    q_TD: Tensor
    k_TD: Tensor
    lse_T: Tensor | None


class EncodedCell(NamedTuple):
    """CLS [D], genes [N, D], and the heads that were asked for."""

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
