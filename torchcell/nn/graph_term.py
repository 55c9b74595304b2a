"""``GraphTerm``: how far one head's attention is from one relation of the cell, without an N x N tensor.

Capitals: T tokens, special ones first, N genes, C covered genes, R rows that count, D width of the head.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.graph_term_bce import exact_bce, sampled_bce
from torchcell.nn.graph_term_sampled import sampled_log_sum_exp
from torchcell.nn.graph_term_target import GraphTarget
from torchcell.nn.log_sum_exp import log_sum_exp
from torchcell.nn.spmm import full_precision

FEW = 2048
"""Tokens outside the softmax up to which they are taken out of the attention's log-sum-exp."""

HEAVY = math.log(0.9)
"""Share of a row's attention outside the softmax, as a logarithm, from which the rest is summed on its own: the
difference of two nearly equal numbers has few digits left."""


class GraphTerm(nn.Module):
    r"""Row-wise divergence of a head's attention over genes from the row-normalised adjacency A~ of one relation.

    .. math::
        \mathrm{KL}_i = \sum_j \tilde A_{ij} \log \tilde A_{ij} - s \, q_i \cdot (\tilde A K)_i + \ell_i, \quad
        \ell_i = \log \sum_{j \in C} e^{s \, q_i \cdot k_j}, \quad s = 1 / \sqrt{D}

    and its mean over the covered genes i with a neighbour. The softmax runs over the covered genes C alone:
    special tokens and genes that the relation does not know are neither row nor column, so nothing is learned
    from edges that nobody could have seen. The edges cost one sparse product of width D.

    With ``loss="bce"`` instead the binary cross-entropy of the scores on up to 4,096 edges a step against as many
    pairs of covered genes that are no edges; in evaluation over all pairs.

    Args:
        graph: The cell.
        relation: Which of its relations, between genes.
        loss: ``kl`` or ``bce``.
        rows: Rows drawn a step in training, for ``kl``; by default all.
        negatives: Genes drawn a step that stand for all that are not a row's neighbours; by default no sample.
        covered: Genes that the relation speaks of [N]; by default those with an edge in either direction.
        specials: Special tokens, such as CLS, before the genes.

    Shapes:
        q_TD, k_TD [specials + N, D] and lse_T [specials + N] -> a number.

    Raises:
        InputError: A relation that is unknown or has other ends; an unknown loss; sizes below 1; ``negatives``
            without ``rows``; a mask or tokens of another length.
    """

    def __init__(
        self,
        graph: CellGraph,
        relation: str,
        loss: str = "kl",
        rows: int | None = None,
        negatives: int | None = None,
        covered: Bool[Tensor, " N"] | None = None,
        specials: int = 1,
    ) -> None:
        super().__init__()
        if loss not in ("kl", "bce"):
            raise InputError(f"the graph term's loss is 'kl' or 'bce', not {loss!r}")
        for name, size in (("rows", rows), ("negatives", negatives)):
            if size is not None and size < 1:
                raise InputError(f"{name}={size} of the graph term of {relation}: give at least 1, or none for all")
        if specials < 0:
            raise InputError(f"specials={specials} of the graph term of {relation}: give 0 or more")
        if negatives is not None and rows is None:
            raise InputError(f"negatives={negatives} of the graph term of {relation} needs rows: give both or none")
        if loss == "bce" and rows is not None:
            raise InputError(f"rows={rows} of the graph term of {relation} is for loss 'kl': 'bce' samples edges")
        self.relation, self.loss, self.specials = relation, loss, specials
        self.rows, self.negatives = rows, negatives
        self.target = GraphTarget(graph, relation, covered)

    @property
    def needs_lse(self) -> bool:
        """Whether the next call reads ``lse_T``; if not, the attention need not give it."""
        exact = self.loss == "kl" and not self._samples and self.target.n_edges > 0
        return exact and self.specials + len(self.target.other_X) <= FEW

    @property
    def _samples(self) -> bool:
        return self.training and self.rows is not None and self.rows < len(self.target.row_R)

    def forward(
        self, q_TD: Float[Tensor, "T D"], k_TD: Float[Tensor, "T D"], lse_T: Float[Tensor, " T"] | None = None
    ) -> Float[Tensor, ""]:
        """The mean over rows.

        Args:
            q_TD: The tied head's queries [T, D].
            k_TD: Its keys [T, D].
            lse_T: Log-sum-exp of its scores over all tokens [T], as ``attention`` gives it. Without it, it is
                computed again where it is needed.
        """
        self._check(q_TD)
        q_TD, k_TD = full_precision(q_TD), full_precision(k_TD)
        if not self.target.n_edges:
            return q_TD[:0].sum() + k_TD[:0].sum()  # 0, with gradients of 0
        scale = q_TD.shape[-1] ** -0.5
        q_ND, k_ND = q_TD[self.specials :], k_TD[self.specials :]
        with torch.autocast(q_TD.device.type, enabled=False):
            if self.loss == "bce":
                return (sampled_bce if self.training else exact_bce)(self.target, q_ND, k_ND, scale)
            if self._samples:
                return self._sampled_kl(q_ND, k_ND, scale)
            q_RD = q_ND[self.target.row_R]
            lse_R = self._lse(q_RD, k_TD, lse_T, scale)
            return self._kl(q_RD, self.target.mean(k_ND), lse_R, self.target.row_R, scale)

    def _kl(self, q_RD: Tensor, mean_RD: Tensor, lse_R: Tensor, row_R: Tensor, scale: float) -> Tensor:
        entropy_R = self.target.entropy_N[row_R].to(q_RD.dtype)
        return (entropy_R - scale * (q_RD * mean_RD).sum(-1) + lse_R).mean()

    def _sampled_kl(self, q_ND: Tensor, k_ND: Tensor, scale: float) -> Tensor:
        row_R = _draw(self.target.row_R, self.rows)
        q_RD = q_ND[row_R]
        if self.negatives is None:
            lse_R = log_sum_exp(q_RD, k_ND[self.target.column_C], scale)
        else:
            column_M = _draw(self.target.column_C, self.negatives)
            lse_R = sampled_log_sum_exp(self.target, q_RD, k_ND, row_R, column_M, scale)
        return self._kl(q_RD, self.target.mean(k_ND, row_R), lse_R, row_R, scale)

    def _lse(self, q_RD: Tensor, k_TD: Tensor, lse_T: Tensor | None, scale: float) -> Float[Tensor, " R"]:
        """Over the covered genes alone."""
        target, first = self.target, self.specials
        if lse_T is None or not self.needs_lse:
            return log_sum_exp(q_RD, k_TD[first + target.column_C], scale)
        lse_R = lse_T[first + target.row_R].to(q_RD.dtype)
        special_S = torch.arange(first, device=k_TD.device)
        k_XD = k_TD[torch.cat([special_S, first + target.other_X])]
        if not len(k_XD):
            return lse_R
        gap_R = log_sum_exp(q_RD, k_XD, scale) - lse_R
        heavy_R = gap_R.detach() > HEAVY
        # exp(-inf) = 0 has a gradient of 0; a mass near 1 would have given NaN, which 0 does not cancel.
        lse_R = lse_R + torch.log1p(-gap_R.masked_fill(heavy_R, -torch.inf).exp())
        row_W = heavy_R.nonzero()[:, 0]
        if not len(row_W):
            return lse_R
        return lse_R.index_copy(0, row_W, log_sum_exp(q_RD[row_W], k_TD[first + target.column_C], scale))

    @torch.no_grad()
    def edge_recall(
        self, q_TD: Float[Tensor, "T D"], k_TD: Float[Tensor, "T D"], chunk: int = 512
    ) -> Float[Tensor, ""]:
        """How much of the relation the head shows: 1 if each gene attends most to its neighbours.

        Args:
            q_TD: The head's queries [T, D].
            k_TD: Its keys [T, D].
            chunk: Rows whose scores exist at once.

        Returns:
            Mean over rows of the share of a gene's n neighbours among the n covered genes, other than itself,
            with its highest attention weights; NaN if no gene has neighbours.
        """
        self._check(q_TD)
        q_ND, k_ND = (full_precision(each)[self.specials :] for each in (q_TD, k_TD))
        target, place_N = self.target, self.target.place(self.target.column_C)
        if not target.n_edges:
            return q_ND.new_full((), torch.nan)
        k_CD, shares = k_ND[target.column_C], []
        # Rows of like degree together, so that no row is searched deeper than it has neighbours.
        row_R = target.row_R[target.degree_N[target.row_R].argsort()]
        for row_S in row_R.split(chunk):
            degree_S = target.degree_N[row_S]
            with torch.autocast(q_ND.device.type, enabled=False):
                score_SC = q_ND[row_S] @ k_CD.T
            score_SC.scatter_(1, place_N[row_S, None], -torch.inf)
            best_SB = score_SC.topk(int(degree_S[-1]), 1).indices
            hit_SB = target.neighbours(row_S, place_N, len(k_CD)).gather(1, best_SB)
            within_SB = torch.arange(best_SB.shape[1], device=row_S.device) < degree_S[:, None]
            shares.append((hit_SB & within_SB).sum(1).to(q_ND.dtype) / degree_S)
        return torch.cat(shares).mean()

    def _check(self, q_TD: Tensor) -> None:
        wanted = self.specials + self.target.n_genes
        if len(q_TD) != wanted:
            raise InputError(
                f"the head tied to {self.relation} has {len(q_TD)} tokens; give {self.specials} special ones "
                f"and the graph's {self.target.n_genes} genes, {wanted} in all"
            )

    def extra_repr(self) -> str:
        """Relation, loss and what is sampled."""
        return f"{self.relation}, loss={self.loss}, rows={self.rows}, negatives={self.negatives}"


def _draw(from_N: Int[Tensor, " N"], n: int | None) -> Int[Tensor, " M"]:
    """n of the entries without replacement, by torch's global generator on the CPU; sorted, so that memory is
    read in order."""
    chosen = torch.randperm(len(from_N))[:n].sort().values
    return from_N[chosen.to(from_N.device)]
