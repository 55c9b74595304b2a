"""What the heads on the perturbed genes are made of: pooling, attention of sets, pair factors, products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from torchcell.graph.cell_graph import owner
from torchcell.io.errors import InputError
from torchcell.nn.gene_embedding import GeneVectors, Imputation
from torchcell.nn.ragged import segment_mean, segment_sum
from torchcell.screen.models.common import HyperSAGNN

MISSING_WEIGHT = 0.02
"""Weight of a pair without a value, as a zero: in a screen that lists only its hits it is most often a null."""


def pair_values(gene: np.ndarray, ptr: np.ndarray, value: np.ndarray, n_genes: int) -> sp.csr_matrix:
    """Mean value of the sets that hold each pair of genes, symmetric [n_genes, n_genes].

    Each pair of a set gets an equal part of the set's value, since a score adds its pairs up.

    Args:
        gene: Members of all sets [M].
        ptr: Set b holds members ``ptr[b]`` to ``ptr[b + 1]`` [B + 1].
        value: Of each set [B]; NaN is missing. Sets of one are passed over.
        n_genes: Size of the table.
    """
    size, owners, keys = np.diff(ptr), [], []
    for n_members in np.unique(size[size > 1]).tolist():
        sets = np.flatnonzero((size == n_members) & ~np.isnan(value))
        member = np.sort(gene[ptr[sets][:, None] + np.arange(n_members)].astype(np.int64), axis=1)
        a, b = np.triu_indices(n_members, 1)
        differ = (member[:, a] != member[:, b]).ravel()  # a gene that stands twice in a set is no pair
        owners.append(np.repeat(sets, len(a))[differ])
        keys.append((member[:, a] * n_genes + member[:, b]).ravel()[differ])
    owner, key = (np.concatenate([np.empty(0, dtype=np.int64), *parts]) for parts in (owners, keys))
    owner, key = np.unique(np.stack([owner, key]), axis=1)  # nor do its pairs with others count twice
    part = value[owner] / np.bincount(owner)[owner]
    found, position, count = np.unique(key, return_inverse=True, return_counts=True)
    mean = (np.bincount(position, weights=part, minlength=len(found)) / count).astype(np.float32)
    # Built from positions, never by adding matrices, which would forget the pairs whose value is 0.
    low, high = found // n_genes, found % n_genes
    where = np.concatenate([low, high]), np.concatenate([high, low])
    return sp.csr_matrix((np.concatenate([mean, mean]), where), shape=(n_genes, n_genes))


def alternating_least_squares(
    matrix: sp.csr_matrix,
    rank: int,
    penalty: float,
    missing_weight: float = MISSING_WEIGHT,
    n_iter: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Factors u and v [n, rank] of a symmetric table with known and missing entries; zeros for empty rows.

    Minimizes the squared error of u_i . v_j over the known entries, plus that of all missing ones as zeros with a
    small weight, plus ``penalty`` times both factors' squared length. Deterministic.

    Args:
        matrix: Known entries, of root mean square 1 for the penalty to mean the same everywhere [n, n].
        rank: Width of the factors.
        penalty: Lambda.
        missing_weight: Weight of a missing entry.
        n_iter: Sweeps over both factors.
        seed: Of the start.

    Source: Hu, Koren, Volinsky, ICDM 2008.
    """
    v = np.random.default_rng(seed).normal(0, 0.1, (matrix.shape[0], rank)).astype(np.float32)
    v[np.diff(matrix.indptr) == 0] = 0
    u = v
    with threadpool_limits(limits=1):  # thousands of small systems: more threads wait for each other
        for _ in range(n_iter):
            u = _solve(matrix, v, penalty, missing_weight)
            v = _solve(matrix, u, penalty, missing_weight)
    return u, v


def signed_factors(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vector a row for a symmetric score: (u_i . v_j + u_j . v_i) / 2 = sum_d sign_d e_id e_jd.

    Returns:
        e [n, 2 * rank] and sign [2 * rank]: (u + v) / 2 with +1, (u - v) / 2 with -1.
    """
    sign = np.repeat(np.array([1, -1], dtype=np.float32), u.shape[1])
    return np.concatenate([(u + v) / 2, (u - v) / 2], axis=1), sign


def least_squares_factors(
    gene: np.ndarray, ptr: np.ndarray, target: np.ndarray, n_genes: int, width: int, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose signed products say what the sets' pairs were measured to be, a stretch of ``width`` a phenotype.

    Args:
        gene: Members of all sets [M].
        ptr: Pointers [B + 1].
        target: Phenotypes, 0 for no effect, NaN for missing [B, T].
        n_genes: Rows of the vectors.
        width: Of all stretches together; what does not divide by 2 T stays zero.
        penalty: See ``alternating_least_squares``.

    Returns:
        e [n_genes, width] and sign [T, width], float32: y_t of a pair (i, j) is about sum_d sign_td e_id e_jd.
    """
    n_outputs = target.shape[1]
    rank = width // (2 * n_outputs)
    vectors, signs = np.zeros((n_genes, width), np.float32), np.zeros((n_outputs, width), np.float32)
    for t in range(n_outputs):
        table = pair_values(gene, ptr, target[:, t], n_genes)
        size = float(np.sqrt(np.mean(table.data**2))) if table.nnz else 0.0
        if not size:
            continue
        table.data /= size
        stretch = slice(2 * rank * t, 2 * rank * (t + 1))
        e, signs[t, stretch] = signed_factors(*alternating_least_squares(table, rank, penalty))
        vectors[:, stretch] = e * np.sqrt(size)
    return vectors, signs


def _solve(matrix: sp.csr_matrix, factor: np.ndarray, penalty: float, missing_weight: float) -> np.ndarray:
    """The least-squares rows of one factor given the other."""
    solved = np.zeros_like(factor)
    shared = missing_weight * (factor.T @ factor)
    shared[np.diag_indices_from(shared)] += penalty
    # With L L^T = shared and z = L^-1 f a row's system is I + (1 - w) sum z z^T: of its Gram matrix over the rank
    # and that over the row's known pairs the smaller one is solved.
    cholesky = np.linalg.cholesky(shared)
    white = scipy.linalg.solve_triangular(cholesky, factor.T, lower=True).T
    weight = np.float32(1 - missing_weight)
    for row in np.flatnonzero(np.diff(matrix.indptr)).tolist():
        known = slice(matrix.indptr[row], matrix.indptr[row + 1])
        part, value = white[matrix.indices[known]], matrix.data[known]
        wide = len(part) > part.shape[1]
        gram = weight * (part.T @ part if wide else part @ part.T)
        gram[np.diag_indices_from(gram)] += 1
        solved[row] = np.linalg.solve(gram, part.T @ value) if wide else part.T @ np.linalg.solve(gram, value)
    return scipy.linalg.solve_triangular(cholesky, solved.T, lower=True, trans="T").T


class PairProduct(nn.Module):
    r"""A bilinear score of each pair of a set, and an effect of each member.

    .. math::
        y = W \sum_{i < j} e_i \circ e_j + V \sum_i e_i, \quad
        \sum_{i < j} e_i \circ e_j = \tfrac12 \Big( \big(\sum_i e_i\big)^2 - \sum_i e_i^2 \Big)

    A pooled network has to find the product of two genes' vectors by itself, and learns it last, after overfitting;
    here it is given. The sum over pairs costs one row a member, for sets of any size.

    Args:
        features: Width P of a member.
        outputs: Number T of scores.

    Shapes:
        e_MP [M, P] and ptr [B + 1] -> [B, T].
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        self.pair = nn.Linear(features, outputs, bias=False)
        self.single = nn.Linear(features, outputs, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Signs for the pairs, so that both attraction and repulsion can be said at once; no effect of a member."""
        with torch.no_grad():
            self.pair.weight.normal_().sign_()
        nn.init.zeros_(self.single.weight)

    def forward(self, e_MP: Float[Tensor, "M P"], ptr_P: Int[Tensor, " Q"]) -> Float[Tensor, "B T"]:
        """One row of scores a set; ``ptr_P`` [B + 1] says which members are whose."""
        total_BP, square_BP = segment_sum(e_MP, ptr_P), segment_sum(e_MP.square(), ptr_P)
        return self.pair((total_BP.square() - square_BP) / 2) + self.single(total_BP)

    def extra_repr(self) -> str:
        """Widths."""
        return f"{self.features}, {self.outputs}"


class PairTable(nn.Module):
    """Factors of each gene by name, and the score of a set from its members' factors; see ``PairProduct``.

    Args:
        n_genes: Genes N of the cell.
        n_own: Genes that have factors of their own, see ``GeneVectors``.
        width: Width P of the factors.
        outputs: Number T of scores.
        imputation: See ``GeneVectors``.
        trained: Whether the factors move from where they start.

    Shapes:
        pair_NP [N, P], gene [M], ptr [B + 1] -> [B, T].
    """

    def __init__(
        self,
        n_genes: int,
        n_own: int,
        width: int,
        outputs: int,
        imputation: Imputation | None = None,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.vectors = GeneVectors(n_genes, n_own, width, imputation)
        self.vectors.table.requires_grad_(trained)
        self.product = PairProduct(width, outputs)

    def forward(
        self, pair_NP: Float[Tensor, "N P"], gene_M: Int[Tensor, " M"], ptr_P: Int[Tensor, " Q"]
    ) -> Float[Tensor, "B T"]:
        """One row of scores a set, from the factors that ``vectors`` gave in this step."""
        return self.product(pair_NP.index_select(0, gene_M), ptr_P)

    @torch.no_grad()
    def start(
        self, gene_M: Int[Tensor, " M"], ptr_P: Int[Tensor, " Q"], target_BT: Float[Tensor, "B T"], penalty: float
    ) -> None:
        """Factorize the table of measured pairs, and let factors and signs say just that; see ``pair_factors``.

        Args:
            gene_M: Members of all training sets.
            ptr_P: Their pointers [B + 1].
            target_BT: Phenotypes in units of the score, 0 for no effect, NaN for missing.
            penalty: Ridge penalty on the factors.
        """
        weight_OP = self.vectors.table.weight
        gene, ptr, target = (each.cpu().numpy() for each in (gene_M, ptr_P, target_BT))
        factors, sign = least_squares_factors(gene, ptr, target, len(weight_OP), weight_OP.shape[1], penalty)
        weight_OP.copy_(torch.from_numpy(factors))
        self.product.pair.weight.copy_(torch.from_numpy(sign))


POOLINGS: tuple[str, ...] = ("mean", "sum", "hyper_sagnn")
"""How ``SetPooling`` can pool."""


class SetPooling(nn.Module):
    r"""Members of a set to one vector of the same width; their order changes nothing.

    .. math::
        q_S = \frac{1}{|S|} \sum_{i \in S} x_i, \quad \sum_{i \in S} x_i, \quad \text{or } \mathrm{HyperSAGNN}(x_S)

    Mean and sum have no weights. Hyper-SAGNN lets each member attend over the others of its set.

    Args:
        features: Width D of a member and of the result.
        pooling: One of ``POOLINGS``.
        heads: Attention heads of Hyper-SAGNN; D must be a multiple. The others have none.

    Shapes:
        x_MD [M, D] and ptr [B + 1] -> [B, D].

    Raises:
        InputError: An unknown pooling.
    """

    def __init__(self, features: int, pooling: str = "mean", heads: int = 4) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"pooling is one of {list(POOLINGS)}, not {pooling!r}")
        self.features, self.pooling = features, pooling
        self.sagnn = HyperSAGNN(features, features, heads) if pooling == "hyper_sagnn" else None

    def reset_parameters(self) -> None:
        """Draw new weights, where there are any."""
        if self.sagnn is not None:
            self.sagnn.reset_parameters()

    def forward(self, x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B D"]:
        """One row a set; ``ptr_P`` [B + 1] says which members are whose."""
        if self.sagnn is not None:
            return self.sagnn(x_MD, ptr_P)
        return segment_sum(x_MD, ptr_P) if self.pooling == "sum" else segment_mean(x_MD, ptr_P)

    def extra_repr(self) -> str:
        """Width and how the members are pooled."""
        return f"{self.features}, pooling={self.pooling}"


SCORES = 2**22
"""Scores [sets, genes] of one chunk. Three tensors of that size live at once in the backward pass."""
LEAST = -60.0
"""Scores this far below a set's largest one count as this far: e^-60 is below the rounding error of a sum even in
float64, and lower scores would become denormal numbers, whose exp takes a CPU a hundred times as long."""


def set_attention(
    query_BD: Float[Tensor, "B D"],
    key_ND: Float[Tensor, "N D"],
    value_NH: Float[Tensor, "N H"],
    shift_MH: Float[Tensor, "M H"],
    gene_M: Int[Tensor, " M"],
    ptr_P: Int[Tensor, " P"],
) -> Float[Tensor, "B H"]:
    r"""Attention from sets to all genes, whose values are others at the set's own members.

    .. math::
        z_S = \sum_i \beta_{Si} v_i + \sum_{i \in S} \beta_{Si} \delta_i, \quad \beta_S = \mathrm{softmax}(q_S K^T)

    Nothing of size B x N is kept: the attention is made in chunks of sets, and again in the backward pass.

    Args:
        query_BD: q, scaled [B, D].
        key_ND: K [N, D].
        value_NH: v [N, H].
        shift_MH: delta of each member [M, H].
        gene_M: Members, rows of K [M].
        ptr_P: Pointers of the sets [B + 1].
    """
    return _SetAttention.apply(query_BD, key_ND, value_NH, shift_MH, gene_M, ptr_P)


class _SetAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, shift, gene, ptr):
        out, lse = query.new_empty(len(query), value.shape[1]), query.new_empty(len(query), 1)
        with torch.autocast(query.device.type, enabled=False):
            for rows, span, whose in _chunks(ptr, len(query), len(key)):
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
            for rows, span, whose in _chunks(ptr, len(query), len(key)):
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


def _chunks(ptr: Tensor, n_sets: int, n_genes: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Sets of a chunk, their members, and the set within the chunk that each member belongs to."""
    size = max(1, SCORES // max(n_genes, 1))
    for first in range(0, n_sets, size):
        last = min(first + size, n_sets)
        span = slice(int(ptr[first]), int(ptr[last]))
        yield slice(first, last), span, owner(ptr[first : last + 1], span.stop - span.start)
