"""``GeneSetTransformer``: a set of control cells and perturbed genes in, the set's mean change out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.cells.batch import CellRows, CellSetBatch
from torchcell.cells.curriculum import curriculum_sections
from torchcell.cells.models.gene_set_transformer.attention import (
    EncoderOptions,
    GeneIdentity,
    GeneSetEncoder,
    GeneTokens,
    PerturbationVector,
    seen_tokens,
)
from torchcell.cells.spec import CellsSpec
from torchcell.core.model import LossWeights, Model
from torchcell.evaluation.streaming import ScoreName, StreamingProfile
from torchcell.io.errors import InputError
from torchcell.nn.losses import profile_distance

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.report.sections import Section


UNITS = ("cells", "change", "none")


def check_choices(
    spec: CellsSpec, encoder: EncoderOptions, free_drop: float | int, standardize: str, distribution: bool
) -> None:
    """Refuse what the model or its data can't give.

    Raises:
        InputError: An unknown choice, sparse attention without neighbors, or a term on cells where the data train on
            means.
    """
    if distribution and spec.pseudobulk:
        raise InputError(
            "model.distribution=true is a term on the cells of a condition, and data.sets.pseudobulk=true trains on "
            "means; set one of them to false"
        )
    if standardize not in UNITS:
        raise InputError(f"model.standardize={standardize!r}: choose one of {list(UNITS)}")
    if not 0 <= free_drop <= 1:
        raise InputError(f"model.free_drop={free_drop} is a share between 0 and 1")
    if encoder.attention == "neighbors" and spec.neighbors is None:
        raise InputError(
            "model.encoder.attention=neighbors needs a list of neighbors a gene, which these data don't give; choose "
            "data with a network, or model.encoder.attention=full or induced"
        )


def energy_distance(x_BSG: Float[Tensor, "B S G"], y_BRG: Float[Tensor, "B R G"]) -> Float[Tensor, " B"]:
    r"""Energy distance of B pairs of samples.

    .. math::
        E = 2 \, \overline{|x_i - y_j|} - \overline{|x_i - x_j|} - \overline{|y_i - y_j|}

    with means over all pairs, those of a cell with itself too (the V-statistic), so that E is never negative and 0 for
    equal samples. The gradient of a distance 0 is 0.

    Args:
        x_BSG: S cells each [B, S, G], any units.
        y_BRG: R cells each.

    Returns:
        [B], in the same units.

    Source: Székely and Rizzo, J. Stat. Plan. Inference 143, 2013, eq. 1.1.
    """
    between, within_x, within_y = (_mean_distance(*pair) for pair in ((x_BSG, y_BRG), (x_BSG, x_BSG), (y_BRG, y_BRG)))
    return 2 * between - within_x - within_y


def mean_energy_distance(x_BSG: Float[Tensor, "B S G"], y_BRG: Float[Tensor, "B R G"]) -> Float[Tensor, ""]:
    """Mean over the pairs whose y has no NaN; 0 without any."""
    held_B = ~y_BRG.isnan().flatten(1).any(1)
    distance_B = energy_distance(x_BSG, torch.where(held_B[:, None, None], y_BRG, 0.0))
    return (distance_B * held_B).sum() / held_B.sum().clamp(min=1)


def _mean_distance(x_BSG: Tensor, y_BRG: Tensor) -> Tensor:
    # Differences written out would be S times as large as the cells; torch's matrix form loses digits.
    return torch.cdist(x_BSG, y_BRG, compute_mode="donot_use_mm_for_euclid_dist").mean((1, 2))


TOKENS = 262_144
"""Tokens that are encoded at once where no gradient is asked for."""


class GeneSetTransformer(Model):
    r"""Attention within each control cell over its active genes, and a change read from every gene's token.

    ::

        control cells [B, S, A] -+
        gene vectors e    [A, D] -+-> tokens [B, S, P + A, D] -> attention within a cell -> h [B, S, A, D] -+
        perturbed genes -> p [B, D] -+                                                                      +-> [B, A]
                                     +----------------------------------------------------------------------+
        prediction [B, G] = mean of the controls + mean change + scale * the reading of active genes, 0 of the others

    B sets of S control cells, A of G measured genes active, P global tokens, width D.

    .. math::
        \hat y_g = \bar x_g + m_g + \frac{s_g}{S} \sum_c \Big(w \cdot h_{cg} +
        \frac{p_S \cdot (A h_{cg} + B e_g)}{\sqrt D}\Big)

    with S control cells, the mean of all control cells that they are drawn from (so that what is drawn moves the
    prediction little), tokens h of ``GeneTokens`` through ``GeneSetEncoder``, the perturbation p of
    ``PerturbationVector``, and mean m (``change_center`` of the spec; 0 where the data don't give it) and standard
    deviation s of the training changes.

    One table holds all genes; the active ones are an index set, see ``activate``. A gene that is not active has no
    token and is predicted at its mean change, beside a prior too: else the scores of an early phase on all genes would
    be the prior's. No parameter knows how many are active.

    Terms: ``phenotype``, the squared residual over active genes; ``correlation``, 1 - Pearson over them of the change
    from the control; with ``distribution`` the term of that name: the energy distance of predicted and measured cells,
    in standard deviations of a control cell, over the root of the number of genes.

    Args:
        spec: Of the task ``cells``; with ``neighbors`` [G, K] for sparse attention.
        encoder: Tokens and attention layers; none: as ``EncoderOptions`` has them.
        free_drop: See ``PerturbationVector``.
        standardize: The unit of a residual: how far ``cells`` spread, controls and perturbed; standard deviation of the
            training conditions' ``change``; or ``none``.
        distribution: Whether there is a term on the distribution of cells.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.

    Raises:
        InputError: An unknown choice, sparse attention without neighbors, or ``distribution`` where the data train on
            means.
    """

    reads = CellsSpec
    spec: CellsSpec
    adds_genes = True
    memory_options: Mapping[str, Any] = {"encoder.attention": "full", "encoder.gradient_checkpointing": False}

    active_G: Tensor
    neighbor_GK: Tensor
    center_G: Tensor
    spread_G: Tensor
    mean_G: Tensor
    sd_G: Tensor

    def __init__(
        self,
        spec: CellsSpec,
        *,
        encoder: EncoderOptions | None = None,
        free_drop: float | int = 0.0,
        standardize: str = "cells",
        distribution: bool = False,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        encoder = encoder or EncoderOptions()
        check_choices(spec, encoder, free_drop, standardize, distribution)
        dim, self.n_global, self.sparse = encoder.dim, encoder.global_tokens, encoder.attention == "neighbors"
        self.distribution = distribution
        n_measured, known = len(spec.outputs), spec.gene_features
        features = None if known is None else torch.from_numpy(known.values)
        self.identity = GeneIdentity(n_measured, spec.n_trained_with, len(spec.genes), dim, features)
        self.perturbation = PerturbationVector(dim, free_drop)
        self.tokens = GeneTokens(dim, self.n_global)
        self.encoder = GeneSetEncoder(encoder)
        self.readout = nn.Linear(dim, 1)
        self.cell_product, self.gene_product = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        for layer in (self.readout, self.cell_product, self.gene_product):
            nn.init.normal_(layer.weight, std=0.02)  # near no change, yet with a gradient for all
        scale = spec.gene_scale.float()
        scale = torch.where(scale > 0, scale, 1.0)
        unit = {"cells": scale, "change": spec.change_scale, "none": torch.ones_like(scale)}[standardize]
        neighbors = spec.neighbors if self.sparse else torch.empty(n_measured, 0, dtype=torch.int64)
        for name, value in {
            "center_G": spec.gene_center.float(),
            "spread_G": scale,
            "mean_G": spec.change_center,
            "sd_G": spec.change_scale,
            "scale": unit,  # of a residual, here and in stacking
            "neighbor_GK": neighbors,
        }.items():
            self.register_buffer(name, value, persistent=False)
        # Part of the state, so that a checkpoint from the middle of a curriculum knows what it was trained on.
        self.register_buffer("active_G", torch.ones(n_measured, dtype=torch.bool))
        self._watched: Tensor | None = None
        self.watched_metrics = StreamingProfile(("control",))
        self._cells: Tensor | None = None

    # Which genes are active ------------------------------------------------------------------------

    def activate(self, genes: Int[Tensor, " A"] | None) -> None:
        """Let the genes at these positions of ``spec.outputs`` have tokens, and no others; none: all of them."""
        self.active_G.fill_(genes is None)
        if genes is not None:
            self.active_G[genes.to(self.active_G.device)] = True

    def active_outputs(self) -> Tensor:
        """The active genes, a mask [G]."""
        return self.active_G

    def watch(self, genes: Int[Tensor, " W"] | None) -> None:
        """Log ``val/first_genes/Pearson``, the validation score on these genes alone, each epoch."""
        self._watched = genes

    def on_fit_start(self) -> None:
        """Without a curriculum all genes are active, also where a run starts from weights out of the middle of one."""
        if not any(getattr(callback, "activates_genes", False) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            self.activate(None)

    # What is predicted -----------------------------------------------------------------------------

    def starting_point(self, batch: CellSetBatch) -> Float[Tensor, "B G"]:
        """The control cells' mean, changed as the mean of the training conditions."""
        return batch.input_control.rows() + self.mean_G

    def forward(self, batch: CellSetBatch) -> Float[Tensor, "B G"]:
        """Mean expression of the perturbed cells, log-normalized."""
        active_A = self.active_G.nonzero()[:, 0]
        if torch.is_grad_enabled():
            read_BSA = self._read(batch, batch.input_cells, active_A)
            # Kept for the term on the distribution: these cells gave this prediction.
            self._cells = read_BSA if self.distribution and self.training else None
            read_BA = read_BSA.mean(1)
        else:
            step = max(1, TOKENS // (len(batch) * (len(active_A) + self.n_global)))
            parts = [self._read(batch, some, active_A).sum(1) for some in batch.input_cells.split(step)]
            read_BA = torch.stack(parts).sum(0) / batch.input_cells.shape[1]
        return self.express(batch, read_BA, active_A)

    def express(
        self, batch: CellSetBatch, read_BA: Float[Tensor, "B A"], active_A: Int[Tensor, " A"]
    ) -> Float[Tensor, "B G"]:
        """What a reading means in the units of expression."""
        start_BG = self.starting_point(batch)
        return start_BG + torch.zeros_like(start_BG).index_add(1, active_A, self.sd_G[active_A] * read_BA)

    def _read(self, batch: CellSetBatch, control: CellRows, active_A: Int[Tensor, " A"]) -> Float[Tensor, "B S A"]:
        """The change of each cell and active gene in standard deviations of the training changes."""
        free_ND, known_ND = self.identity()
        p_BD = self.perturbation(free_ND, known_ND, batch.gene, batch.ptr)
        e_AD = free_ND[active_A] + known_ND[active_A]
        value_BSA = (control.dense(active_A) - self.center_G[active_A]) / self.spread_G[active_A]
        place_N = active_A.new_full((len(self.spec.genes),), -1)
        place_N[active_A] = torch.arange(len(active_A), device=active_A.device)
        x_BSTD = self.tokens(value_BSA, e_AD, p_BD, place_N[batch.gene], batch.ptr)
        seen = seen_tokens(self.neighbor_GK, active_A, self.n_global) if self.sparse else None
        h_CTD = self.encoder(x_BSTD.flatten(0, 1), seen)
        h_BSAD = h_CTD[:, self.n_global :].unflatten(0, x_BSTD.shape[:2])
        width = p_BD.shape[1] ** 0.5
        # One vector a set reads all its cells, so no product of the size of the tokens is made.
        reader_BD = self.readout.weight + (p_BD @ self.cell_product.weight) / width
        read_BSA = torch.einsum("bsad,bd->bsa", h_BSAD, reader_BD.to(h_BSAD.dtype)) + self.readout.bias
        direct_BA = self.gene_product(p_BD) @ e_AD.T / width
        return (read_BSA + direct_BA[:, None]).float()

    # What is learned -------------------------------------------------------------------------------

    def phenotype_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared residual over measured values, each gene in its own unit; in training of active genes only."""
        measured = ~torch.isnan(target)
        if self.training:
            measured = measured & self.active_G
        residual = torch.where(measured, prediction - target, 0.0) / self.scale
        return residual.square().sum() / measured.sum().clamp(min=1)

    def losses(self, batch: CellSetBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The residual, where the changes point, and how far cells lie apart as distributions."""
        active_A, control_BG = self.active_G.nonzero()[:, 0], batch.input_control.rows()
        terms = super().losses(batch, prediction)
        parts = (each[:, active_A] for each in (prediction, batch.target, control_BG))
        terms["correlation"] = profile_distance(*parts)
        if self.distribution:
            read_BSA, self._cells = self._cells, None
            if read_BSA is None:
                read_BSA = self._read(batch, batch.input_cells, active_A)
            change_BSA = self.mean_G[active_A] + self.sd_G[active_A] * read_BSA
            if self.learns_residual:  # the prior moves all cells alike
                network_BG = self.express(batch, read_BSA.mean(1), active_A)
                change_BSA = change_BSA + (prediction - network_BG)[:, None, active_A]
            unit_A = self.spread_G[active_A] * len(active_A) ** 0.5
            cells_BSA = (batch.input_cells.dense(active_A) + change_BSA) / unit_A
            terms["distribution"] = mean_energy_distance(cells_BSA, batch.perturbed.dense(active_A) / unit_A)
        return terms

    def set_embeddings(self, batch: CellSetBatch) -> dict[str, Tensor]:
        """``perturbation``: p_S, what the perturbed genes are together [B, D]."""
        return {"perturbation": self.perturbation(*self.identity(), batch.gene, batch.ptr)}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: e, what each gene is [N, D]."""
        free_ND, known_ND = self.identity()
        return {"genes": free_ND + known_ND}

    def _observe(self, stage: str, batch: CellSetBatch, prediction: Tensor) -> None:
        super()._observe(stage, batch, prediction)
        if stage == "val" and self._watched is not None:
            at = self._watched.to(prediction.device)
            both = (batch.input_controls, batch.eval_controls)
            own = ({name: values[:, at] for name, values in controls.items()} for controls in both)
            self.watched_metrics.update(prediction[:, at], batch.target[:, at], *own)

    def on_validation_epoch_end(self) -> None:
        """Also the watched genes."""
        super().on_validation_epoch_end()
        if self._watched is not None:
            self.log(
                "val/first_genes/Pearson",
                self.watched_metrics.compute()[ScoreName("control", "Pearson")],
                sync_dist=True,
            )
            self.watched_metrics.reset()

    def report_sections(self, history: pd.DataFrame | None) -> list[Section]:
        """What each phase of a curriculum did, if there was one."""
        phases, n_active = self.spec.phases, int(self.active_G.sum())
        return curriculum_sections(history, phases, n_active, len(self.spec.outputs))
