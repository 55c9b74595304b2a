"""A Gaussian process over treated wells: what wells of similar drugs, doses, cell lines and controls say of one."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOST_TO_WEIGH = 1000
"""Samples of which the kernels' weights are found, drawn at random; a step on 1,000 takes some tenths of a second."""
JITTER = 1e-6
STEPS = 40
"""Of L-BFGS, on the logarithms of the weights."""
OF_DRUG = ("drug", "drug dose", "drug line", "drug dose line", "like", "like dose", "like line", "like dose line")
OF_TREATMENT = (*OF_DRUG, "dose", "dose line")
OF_CONTROL = ("control line",)
PARTS: tuple[str, ...] = (*OF_TREATMENT, *OF_CONTROL, "noise")
"""Kernels that are summed: products of same drug, like structure (Tanimoto), like dose and time, same line, like
control."""


@dataclass(frozen=True, eq=False)
class Wells:
    """What the Gaussian process reads of n samples.

    Attributes:
        drug: Row in the table of molecules, int64 [n].
        line: Number of the cell line, -1 for another than those of training, int64 [n].
        treatment: log10 of the dose in µM and log2 of the hours, float [n, 2].
        control: Departure of the sample's control from the mean control of its cell line, float [n, G].
    """

    drug: Tensor
    line: Tensor
    treatment: Tensor
    control: Tensor

    def __len__(self) -> int:
        return len(self.drug)

    def __getitem__(self, index: Tensor) -> Wells:
        return Wells(self.drug[index], self.line[index], self.treatment[index], self.control[index])


class GaussianProcessRegression(nn.Module):
    r"""d(x) = k(x, X) (K + noise)^{-1} Z, the mean of a Gaussian process with one kernel for all genes.

    The kernel is a sum of products of five: the same drug, the Tanimoto similarity of vectors, a bell curve of dose
    and time (one decade, one doubling), the same cell line, and a bell curve of the controls' departure from the mean
    control of their cell line (of the width that the training samples have). The last finds what a control holds by
    noise, and what was common to the treated wells of plates with such a control; of a control that is like none of
    training it says nothing. The weights are those of the largest marginal likelihood over all genes, each in units of
    its standard deviation. A sample of a drug without a vector is like itself alone.

    Args:
        vector_DF: Vectors of the molecules [D, F].
        known_D: Which molecules have one [D].
        trained: The training samples, n of them.

    Shapes:
        n wells -> [n, G] twice, in the units of what it was fitted to: the part of similar treatments and the part of
        similar controls, whose sum is d; zeros before ``fit``.

    Source:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5.4.
    """

    vector_DF: Tensor
    known_D: Tensor
    control_NG: Tensor
    weight_P: Tensor
    dual_NG: Tensor
    width: Tensor

    def __init__(self, vector_DF: Tensor, known_D: Tensor, trained: Wells) -> None:
        super().__init__()
        for name, value in (("vector_DF", vector_DF), ("known_D", known_D)):
            self.register_buffer(name, value, persistent=False)
        for name, value in (("drug_N", trained.drug), ("line_N", trained.line), ("treatment_N2", trained.treatment)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("control_NG", trained.control)
        self.register_buffer("width", torch.ones(()))
        self.register_buffer("weight_P", torch.ones(len(PARTS)))
        self.register_buffer("dual_NG", torch.zeros(trained.control.shape))

    @property
    def trained(self) -> Wells:
        """The training samples."""
        return Wells(*(self.get_buffer(name) for name in ("drug_N", "line_N", "treatment_N2", "control_NG")))

    def forward(self, wells: Wells) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B G"]]:
        """The mean at the wells: of the treatments' kernels and of the controls'."""
        with torch.autocast(self.dual_NG.device.type, enabled=False):  # sums over many samples that nearly cancel
            parts, weight_P = self._parts(wells, self.trained), self.weight_P
            treatment = _sum(islice(parts, len(OF_TREATMENT)), weight_P)
            return treatment @ self.dual_NG, _sum(parts, weight_P[len(OF_TREATMENT) :]) @ self.dual_NG

    @torch.no_grad()
    def fit(self, value_NG: Float[Tensor, "N G"], seed: int = 0, weighed: int = MOST_TO_WEIGH) -> None:
        """Find the weights and the duals.

        Args:
            value_NG: What is known of each training sample.
            seed: Of the samples that the weights are found with.
            weighed: How many samples these are at most.
        """
        self.width.copy_(self.control_NG.square().mean().sqrt().clamp(min=1e-6))
        exact = copy.deepcopy(self).double().cpu()
        scale_G = value_NG.double().cpu().std(0, correction=0).clamp(min=1e-9)
        z_NG, wells = value_NG.double().cpu() / scale_G, exact.trained
        some = torch.randperm(len(wells), generator=torch.Generator().manual_seed(seed))[:weighed].sort().values
        weight_P = _weights(list(exact._parts(wells[some], wells[some])), z_NG[some])
        dual_NG = torch.cholesky_solve(z_NG, _root(exact._parts(wells, wells), weight_P))
        self.weight_P.copy_(weight_P)
        self.dual_NG.copy_(dual_NG * scale_G)

    def _parts(self, a: Wells, b: Wells) -> Iterator[Float[Tensor, "n m"]]:
        """The kernels between wells one by one, in the order of ``PARTS`` but for the noise."""
        drug = (a.drug[:, None] == b.drug).to(self.weight_P.dtype)
        named = {
            "drug": drug,
            "like": torch.maximum(self._like(a.drug, b.drug), drug),
            "line": (a.line[:, None] == b.line).to(drug.dtype),
            "dose": torch.exp(-(a.treatment[:, None] - b.treatment).square().sum(2) / 2).to(drug.dtype),
            "control": self._alike(a.control, b.control),
        }
        for name in PARTS[:-1]:
            first, *others = name.split()
            yield math.prod((named[other] for other in others), start=named[first])

    def _alike(self, a: Tensor, b: Tensor) -> Float[Tensor, "n m"]:
        """A bell curve of the mean square over genes of the difference between controls [n, G] and [m, G]."""
        a, b = a.to(self.width.dtype) / self.width, b.to(self.width.dtype) / self.width
        apart = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return torch.exp(-apart.clamp(min=0) / (2 * a.shape[1]))

    def _like(self, a: Tensor, b: Tensor) -> Float[Tensor, "n m"]:
        """Tanimoto similarity of the molecules in rows a and b, 0 where either has no vector."""
        (row_A, at_A), (row_B, at_B) = (torch.unique(rows, return_inverse=True) for rows in (a, b))
        left, right = (self.vector_DF[rows] * self.known_D[rows, None] for rows in (row_A, row_B))
        shared = left @ right.T
        either = left.square().sum(1)[:, None] + right.square().sum(1) - shared
        return torch.where(either > 0, shared / either.clamp(min=1e-12), 0.0)[at_A][:, at_B]


def _weights(parts: Sequence[Tensor], z_NG: Tensor) -> Float[Tensor, " P"]:
    """Weights of the kernels, and the noise, with the largest marginal likelihood of all genes."""
    product_NN, n_genes = z_NG @ z_NG.T, z_NG.shape[1]
    log_P = torch.full((len(PARTS),), -3.0, dtype=torch.float64, device=z_NG.device)
    log_P[-1] = -0.5
    log_P.requires_grad_()
    search = torch.optim.LBFGS([log_P], max_iter=STEPS, line_search_fn="strong_wolfe")

    def surprise() -> Tensor:
        search.zero_grad()
        root = _root(parts, log_P.exp())
        fit = (torch.cholesky_inverse(root) * product_NN).sum() / n_genes
        loss = (fit + 2 * root.diagonal().log().sum()) / (2 * len(z_NG))
        loss.backward()
        return loss

    with torch.enable_grad():
        search.step(surprise)
    return log_P.detach().exp()


def _root(parts: Iterable[Tensor], weight_P: Tensor) -> Float[Tensor, "N N"]:
    """The Cholesky root of the kernel of N samples with themselves, with the noise on its diagonal."""
    kernel_NN = _sum(parts, weight_P)
    return torch.linalg.cholesky(kernel_NN + (weight_P[-1] + JITTER) * torch.eye(len(kernel_NN)).to(kernel_NN))


def _sum(parts: Iterable[Tensor], weight_P: Tensor) -> Tensor:
    """The kernels' weighted sum, without the noise."""
    return sum((weight * part for weight, part in zip(weight_P, parts, strict=False)), start=weight_P.new_zeros(()))
