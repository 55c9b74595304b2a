"""The perturbation head: what a set of perturbed genes makes of all genes of the wild type, one vector a set."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from torchcell.graph.ranges import owner
from torchcell.nn.set_pooling import SetPooling
from torchcell.nn.spmm import full_precision

SCORES = 2**22
"""Scores [sets, genes] of one run. Three tensors of that size live at once in the backward pass."""
LEAST = -60.0
"""Scores this far below a set's largest one count as this far: e^-60 is below the rounding error of a sum even in
float64, and lower scores would become denormal numbers, whose exp takes a CPU a hundred times as long."""


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
    in runs of sets and made again in the backward pass, so nothing of size B x N is kept. A gene that stands twice
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
        tensors = self._query(h_ND, gene_M, kind_M, ptr_P), h_ND, present_NH, shift_MH
        seen_BH = _Read.apply(*map(full_precision, tensors), gene_M, ptr_P)
        # W_2 is linear and each row of beta sums to one, so it may come after the sum.
        return self.outer(seen_BH.to(present_NH.dtype))

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


class _Read(torch.autograd.Function):
    """beta @ value + sum over the members of beta * shift; the backward pass computes beta again, run by run."""

    @staticmethod
    def forward(ctx, query, key, value, shift, gene, ptr):
        out, lse = query.new_empty(len(query), value.shape[1]), query.new_empty(len(query), 1)
        with torch.autocast(query.device.type, enabled=False):
            for rows, span, whose in _runs(ptr, len(query), len(key)):
                beta = query[rows] @ key.T
                peak = beta.amax(-1, keepdim=True)
                total = beta.sub_(peak).clamp_(min=LEAST).exp_().sum(-1, keepdim=True)
                lse[rows] = peak + total.log()
                # Divided after the product, which is the smaller tensor.
                read = (beta @ value).index_add_(0, whose, beta[whose, gene[span]][:, None] * shift[span])
                out[rows] = read / total
        ctx.save_for_backward(query, key, value, shift, gene, ptr, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        query, key, value, shift, gene, ptr, out, lse = ctx.saved_tensors
        grad_query, grad_shift = torch.empty_like(query), torch.empty_like(shift)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        with torch.autocast(query.device.type, enabled=False):
            for rows, span, whose in _runs(ptr, len(query), len(key)):
                beta = (query[rows] @ key.T).sub_(lse[rows]).clamp_(min=LEAST).exp_()
                grad_M, member = grad[rows][whose], (whose, gene[span])
                grad_shift[span] = beta[member][:, None] * grad_M
                grad_value.addmm_(beta.T, grad[rows])
                score = grad[rows] @ value.T
                score.index_put_(member, (grad_M * shift[span]).sum(-1), accumulate=True)
                score.sub_((grad[rows] * out[rows]).sum(-1, keepdim=True)).mul_(beta)
                grad_query[rows] = score @ key
                grad_key.addmm_(score.T, query[rows])
        return grad_query, grad_key, grad_value, grad_shift, None, None


def _runs(ptr: Tensor, n_sets: int, n_genes: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Sets of a run, their members, and the set within the run that each member belongs to."""
    size = max(1, SCORES // max(n_genes, 1))
    for first in range(0, n_sets, size):
        last = min(first + size, n_sets)
        span = slice(int(ptr[first]), int(ptr[last]))
        yield slice(first, last), span, owner(ptr[first : last + 1], span.stop - span.start)
