"""The graph regularization loss: attention of a head against a network's rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.io.errors import InputError
from torchcell.nn.relations import out_edges, relational_product, reversed_csr
from torchcell.nn.sparse import full_precision
from torchcell.screen.models.cell_graph_transformer.attention import log_sum_exp


class GraphTarget(nn.Module):
    r"""The row-normalized adjacency of one relation between genes, in parts.

    .. math::
        \tilde A_{ij} = |w_{ij}| / \sum_j |w_{ij}|

    over the edges between covered genes, without self-loops and edges of weight 0. The weights are stored as
    they are and the rows divided after a product, so that an undirected relation is its own transpose.

    Args:
        graph: Holds the relation.
        relation: Which; both its ends are genes.
        covered: Genes that the relation speaks of [N]; by default those with an edge in either direction. The
            others are neither row nor column.

    Attributes:
        row_R: Covered genes with a neighbor, int64 [R].
        column_C: Covered genes, int64 [C].
        other_X: Genes that are not covered, int64 [X].
        degree_N: Neighbors a gene, int64 [N].
        total_N: Sum of the absolute weights of a row, float64 [N].
        entropy_N: sum_j A~_ij log A~_ij, float64 [N].

    Raises:
        InputError: An unknown relation, one with other ends, or a mask of another length.
    """

    row_R: Tensor
    column_C: Tensor
    other_X: Tensor
    degree_N: Tensor
    total_N: Tensor
    entropy_N: Tensor

    def __init__(self, graph: CellGraph, relation: str, covered: Bool[Tensor, " N"] | None = None) -> None:
        super().__init__()
        if graph.ends(relation) != ("gene", "gene"):
            source, target = graph.ends(relation)
            raise InputError(f"relation {relation} joins {source}s to {target}s: assign a head to one between genes")
        if covered is not None and len(covered) != len(graph):
            raise InputError(f"the mask of {relation} covers {len(covered)} genes, the graph has {len(graph)}")
        matrix = _between(graph.scipy(relation), None if covered is None else covered.cpu().numpy())
        transpose = matrix.T.tocsr()
        degree = np.diff(matrix.indptr)
        is_covered = (degree > 0) | (np.diff(transpose.indptr) > 0) if covered is None else covered.cpu().numpy()
        exact = matrix.astype(np.float64)
        total = np.asarray(exact.sum(1)).ravel()
        exact.data /= np.repeat(total, degree)
        exact.data *= np.log(exact.data)
        self.n_genes, self.n_edges, self.symmetric = len(graph), matrix.nnz, (matrix != transpose).nnz == 0
        self._hold("forward", matrix)
        if not self.symmetric:
            self._hold("backward", transpose)
        for name, values in (
            ("row_R", np.flatnonzero(degree)),
            ("column_C", np.flatnonzero(is_covered)),
            ("other_X", np.flatnonzero(~is_covered)),
            ("degree_N", degree.astype(np.int64)),
            ("total_N", total),
            ("entropy_N", np.asarray(exact.sum(1)).ravel()),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _hold(self, name: str, matrix: sp.csr_matrix) -> None:
        for part, values in zip(CSR._fields, (matrix.indptr, matrix.indices, matrix.data), strict=True):
            kind = np.float32 if part == "weight" else np.int32
            self.register_buffer(f"{name}_{part}", torch.from_numpy(values.astype(kind)), persistent=False)

    def csr(self, transpose: bool = False) -> CSR:
        """The absolute weights [N, N], or their transpose."""
        name = "backward" if transpose and not self.symmetric else "forward"
        return CSR(*(getattr(self, f"{name}_{part}") for part in CSR._fields))

    def slice(self, row_S: Int[Tensor, " S"]) -> CSR:
        """Some of the rows [S, N], columns sorted."""
        csr = self.csr()
        edge_E, size_S, _ = out_edges(csr, row_S)
        indptr = torch.cat([size_S.new_zeros(1), size_S.cumsum(0)]).int()
        return CSR(indptr, csr.indices[edge_E], csr.weight[edge_E])

    def mean(self, x_ND: Float[Tensor, "N D"], row_S: Int[Tensor, " S"] | None = None) -> Float[Tensor, "S D"]:
        """A~ X for the rows ``row_R``, or for the given ones: one sparse product of width D."""
        if row_S is None:
            product_SD = relational_product([(self.csr(), self.csr(True))], x_ND, None, True)[self.row_R]
            row_S = self.row_R
        else:
            rows = self.slice(row_S)
            product_SD = relational_product([(rows, reversed_csr(rows, self.n_genes))], x_ND, None, True)
        return product_SD / self.total_N[row_S, None].to(product_SD.dtype)

    def place(self, column_M: Int[Tensor, " M"]) -> Int[Tensor, " N"]:
        """Where each gene stands in a list of columns, int64 [N]; -1 for a gene that is not in it."""
        place_N = column_M.new_full((self.n_genes,), -1)
        place_N[column_M] = torch.arange(len(column_M), device=column_M.device)
        return place_N

    def neighbors(self, row_S: Int[Tensor, " S"], place_N: Int[Tensor, " N"], n_columns: int) -> Bool[Tensor, "S M"]:
        """Which of M columns are neighbors of which of S rows; for a chunk of rows, not for all."""
        csr = self.csr()
        edge_E, _, whose_E = out_edges(csr, row_S)
        column_E = place_N[csr.indices[edge_E]]
        among = column_E >= 0
        near_SM = torch.zeros(len(row_S), n_columns, dtype=torch.bool, device=row_S.device)
        near_SM[whose_E[among], column_E[among]] = True
        return near_SM

    def has_edge(self, row_P: Int[Tensor, " P"], column_P: Int[Tensor, " P"]) -> Bool[Tensor, " P"]:
        """Whether column j is a neighbor of row i, for P pairs: a binary search in each row."""
        indptr, indices, _ = self.csr()
        low_P, end_P = indptr[row_P].long(), indptr[row_P + 1].long()
        high_P = end_P.clone()
        for _ in range(int(self.degree_N.max()).bit_length()):
            middle_P = (low_P + high_P) // 2
            before = (low_P < high_P) & (indices[middle_P.clamp(max=self.n_edges - 1)] < column_P)
            low_P = torch.where(before, middle_P + 1, low_P)
            high_P = torch.where(before, high_P, middle_P)
        return (low_P < end_P) & (indices[low_P.clamp(max=self.n_edges - 1)] == column_P)

    def extra_repr(self) -> str:
        """Rows, columns and edges."""
        return f"{len(self.row_R):,} rows, {len(self.column_C):,} columns, {self.n_edges:,} edges"


def _between(matrix: sp.csr_matrix, covered: np.ndarray | None) -> sp.csr_matrix:
    """Absolute weights of the edges between two different covered genes, sorted."""
    coo = matrix.tocoo()
    keep = (coo.row != coo.col) & (coo.data != 0)
    if covered is not None:
        keep &= covered[coo.row] & covered[coo.col]
    kept = (np.abs(coo.data[keep]), (coo.row[keep], coo.col[keep]))
    found = sp.csr_matrix(kept, shape=matrix.shape, dtype=np.float32)
    found.sort_indices()
    return found


PAIRS = 4_096
"""Edges a step, and as many pairs that are none."""

BCE_ROWS = 512
"""Rows whose scores exist at once where all pairs are looked at."""

ROUNDS = 16
"""How often pairs are drawn until enough of them are no edges; in a nearly complete relation few are found."""


def sampled_bce(
    target: GraphTarget, q_ND: Float[Tensor, "N D"], k_ND: Float[Tensor, "N D"], scale: float
) -> Float[Tensor, ""]:
    r"""On up to 4,096 edges E and as many other pairs F of covered genes, from torch's global generator.

    .. math::
        \tfrac12 \Big( \frac{1}{|E|} \sum_{ij \in E} \log(1 + e^{-s_{ij}})
            + \frac{1}{|F|} \sum_{ij \in F} \log(1 + e^{s_{ij}}) \Big), \quad s_{ij} = s \, q_i \cdot k_j
    """
    row_P, column_P = _edges(target)
    loss = softplus(-_score(q_ND, k_ND, row_P, column_P, scale)).mean()
    row_P, column_P = _other_pairs(target, len(row_P))
    if len(row_P):
        loss = loss + softplus(_score(q_ND, k_ND, row_P, column_P, scale)).mean()
    return loss / 2


def exact_bce(
    target: GraphTarget, q_ND: Float[Tensor, "N D"], k_ND: Float[Tensor, "N D"], scale: float
) -> Float[Tensor, ""]:
    """The same over all edges and all other pairs of two covered genes, some rows at a time."""
    columns, place_N = target.column_C, target.place(target.column_C)
    edge, other = q_ND.new_zeros(()), q_ND.new_zeros(())
    for row_S in columns.split(BCE_ROWS):
        given = (target, q_ND, k_ND, row_S, place_N, scale)
        parts = checkpoint(_sums, *given, use_reentrant=False, preserve_rng_state=False)
        edge, other = edge + parts[0], other + parts[1]
    n_others = len(columns) * (len(columns) - 1) - target.n_edges
    return (edge / target.n_edges + other / max(n_others, 1)) / 2


def _sums(
    target: GraphTarget, q_ND: Tensor, k_ND: Tensor, row_S: Tensor, place_N: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    score_SC = q_ND[row_S] @ k_ND[target.column_C].T * scale
    near_SC = target.neighbors(row_S, place_N, len(target.column_C))
    other_SC = ~near_SC
    other_SC[torch.arange(len(row_S), device=row_S.device), place_N[row_S]] = False
    return softplus(-score_SC[near_SC]).sum(), softplus(score_SC[other_SC]).sum()


def _score(q_ND: Tensor, k_ND: Tensor, row_P: Tensor, column_P: Tensor, scale: float) -> Float[Tensor, " P"]:
    return (q_ND[row_P] * k_ND[column_P]).sum(-1) * scale


def _edges(target: GraphTarget) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """All edges if they are few; otherwise drawn with replacement, which costs the same for any relation."""
    indptr, indices, _ = target.csr()
    n_edges, device = target.n_edges, indices.device
    few = n_edges <= PAIRS
    edge_P = torch.arange(n_edges, device=device) if few else torch.randint(n_edges, (PAIRS,)).to(device)
    return torch.searchsorted(indptr, edge_P.int(), right=True) - 1, indices[edge_P].long()


def _other_pairs(target: GraphTarget, n: int) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Up to n pairs of two covered genes that are no edges."""
    columns = target.column_C
    found: list[Tensor] = [columns.new_empty(2, 0)]
    missing = 0 if target.n_edges == len(columns) * (len(columns) - 1) else n
    for _ in range(ROUNDS):
        if missing <= 0:
            break
        pair_2P = columns[torch.randint(len(columns), (2, 2 * n)).to(columns.device)]
        wrong_P = (pair_2P[0] == pair_2P[1]) | target.has_edge(pair_2P[0], pair_2P[1])
        found.append(pair_2P[:, ~wrong_P])
        missing -= found[-1].shape[1]
    row_P, column_P = torch.cat(found, 1)[:, :n]
    return row_P, column_P


ROWS, EDGES = 512, 65_536
"""Rows, and edges unless one row has more, whose scores exist at once."""


def sampled_log_sum_exp(
    target: GraphTarget,
    q_SD: Float[Tensor, "S D"],
    k_ND: Float[Tensor, "N D"],
    row_S: Int[Tensor, " S"],
    column_M: Int[Tensor, " M"],
    scale: float,
) -> Float[Tensor, " S"]:
    r"""An estimate of the log-sum-exp over the covered genes, exact if ``column_M`` is all of them.

    .. math::
        \ell_i = \log \Big( \sum_{j \in N(i)} e^{s_{ij}}
            + \frac{C - |N(i)|}{|M \setminus N(i)|} \sum_{j \in M \setminus N(i)} e^{s_{ij}} \Big)

    A few rows at a time, computed again in backward.

    Args:
        target: Whose neighbors N(i) and C covered genes.
        q_SD: Queries of the rows [S, D].
        k_ND: Keys of all genes [N, D].
        row_S: Which genes the rows are [S].
        column_M: The sample M of covered genes, shared by all rows [M]; neighbors in it are not counted twice.
        scale: Of the scores.

    Returns:
        [S]; a row without a sampled non-neighbor counts its neighbors alone.
    """
    place_N, parts = target.place(column_M), []
    for rows in _chunks(target.degree_N[row_S]):
        given = (target, q_SD[rows], k_ND, row_S[rows], column_M, place_N, scale)
        parts.append(checkpoint(_log_sum_exp, *given, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def _log_sum_exp(
    target: GraphTarget, q_SD: Tensor, k_ND: Tensor, row_S: Tensor, column_M: Tensor, place_N: Tensor, scale: float
) -> Tensor:
    rows = target.slice(row_S)
    degree_S = target.degree_N[row_S]
    whose_E = torch.repeat_interleave(degree_S)
    edge_E = (q_SD.index_select(0, whose_E) * k_ND.index_select(0, rows.indices)).sum(-1) * scale
    near_SM = target.neighbors(row_S, place_N, len(column_M))
    left_S = (~near_SM).sum(1)
    # Where none is left all scores are -inf, whatever is added to them.
    weight_S = ((len(target.column_C) - degree_S) / left_S.clamp(min=1)).to(q_SD.dtype)
    other_SM = (q_SD @ k_ND[column_M].T * scale + weight_S.log()[:, None]).masked_fill(near_SM, -torch.inf)
    top_S = other_SM.detach().amax(1).scatter_reduce(0, whose_E, edge_E.detach(), "amax")
    total_S = (other_SM - top_S[:, None]).exp().sum(1).index_add(0, whose_E, (edge_E - top_S[whose_E]).exp())
    return top_S + total_S.log()


def _chunks(degree_S: Tensor) -> Iterator[slice]:
    """Chunks of at most ROWS rows with at most EDGES edges, or of one row."""
    first, edges = 0, 0
    for row, degree in enumerate(degree_S.tolist()):
        if row > first and (row - first == ROWS or edges + degree > EDGES):
            yield slice(first, row)
            first, edges = row, 0
        edges += degree
    yield slice(first, len(degree_S))


FEW = 2048
"""Tokens outside the softmax up to which they are taken out of the attention's log-sum-exp."""

HEAVY = math.log(0.9)
"""Share of a row's attention outside the softmax, as a logarithm, from which the rest is summed on its own: the
difference of two nearly equal numbers has few digits left."""


class GraphLoss(nn.Module):
    r"""Row-wise divergence of a head's attention over genes from the row-normalized adjacency A~ of one relation.

    .. math::
        \mathrm{KL}_i = \sum_j \tilde A_{ij} \log \tilde A_{ij} - s \, q_i \cdot (\tilde A K)_i + \ell_i, \quad
        \ell_i = \log \sum_{j \in C} e^{s \, q_i \cdot k_j}, \quad s = 1 / \sqrt{D}

    and its mean over the covered genes i with a neighbor. The softmax runs over the covered genes C alone:
    special tokens and genes that the relation does not know are neither row nor column, so nothing is learned
    from edges that nobody could have seen. The edges cost one sparse product of width D.

    With ``loss="bce"`` instead the binary cross-entropy of the scores on up to 4,096 edges a step against as many
    pairs of covered genes that are no edges; in evaluation over all pairs.

    Args:
        graph: The cell.
        relation: Which of its relations, between genes.
        loss: ``kl`` or ``bce``.
        rows: Rows drawn a step in training, for ``kl``; by default all.
        negatives: Genes drawn a step that stand for all that are not a row's neighbors; by default no sample.
        covered: Genes that the relation speaks of [N]; by default those with an edge in either direction.
        specials: Special tokens, such as CLS, before the genes.

    Shapes:
        q_TD, k_TD [specials + N, D] and lse_T [specials + N] -> a number.

    Raises:
        InputError: A relation that is unknown or has other ends; a mask or tokens of another length. The choices are
            checked by ``GraphLossOptions``.
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
        if specials < 0:
            raise InputError(f"specials={specials} of the graph loss of {relation}: give 0 or more")
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
            q_TD: The assigned head's queries [T, D].
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
        """How much of the relation the head shows: 1 if each gene attends most to its neighbors.

        Args:
            q_TD: The head's queries [T, D].
            k_TD: Its keys [T, D].
            chunk: Rows whose scores exist at once.

        Returns:
            Mean over rows of the share of a gene's n neighbors among the n covered genes, other than itself,
            with its highest attention weights; NaN if no gene has neighbors.
        """
        self._check(q_TD)
        q_ND, k_ND = (full_precision(each)[self.specials :] for each in (q_TD, k_TD))
        target, place_N = self.target, self.target.place(self.target.column_C)
        if not target.n_edges:
            return q_ND.new_full((), torch.nan)
        k_CD, shares = k_ND[target.column_C], []
        # Rows of like degree together, so that no row is searched deeper than it has neighbors.
        row_R = target.row_R[target.degree_N[target.row_R].argsort()]
        for row_S in row_R.split(chunk):
            degree_S = target.degree_N[row_S]
            with torch.autocast(q_ND.device.type, enabled=False):
                score_SC = q_ND[row_S] @ k_CD.T
            score_SC.scatter_(1, place_N[row_S, None], -torch.inf)
            best_SB = score_SC.topk(int(degree_S[-1]), 1).indices
            hit_SB = target.neighbors(row_S, place_N, len(k_CD)).gather(1, best_SB)
            within_SB = torch.arange(best_SB.shape[1], device=row_S.device) < degree_S[:, None]
            shares.append((hit_SB & within_SB).sum(1).to(q_ND.dtype) / degree_S)
        return torch.cat(shares).mean()

    def _check(self, q_TD: Tensor) -> None:
        wanted = self.specials + self.target.n_genes
        if len(q_TD) != wanted:
            raise InputError(
                f"the head assigned to {self.relation} has {len(q_TD)} tokens; give {self.specials} special ones "
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
