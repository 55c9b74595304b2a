"""Trains on a few genes first and on more later: phases by epoch, with the same weights and optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from torchcell.data.errors import InputError
from torchcell.data.gene_phases import Phase, check_phases, find_phases


class Curriculum(lightning.Callback):
    """Activates the genes of the phase that the epoch belongs to; a pure function of the epoch, so a run can go on.

    Outputs stand in the order in which genes were selected (or in that of ``gene_order`` in the spec's extras), and a
    phase takes the first of them, or names them. Each phase must hold all genes of the one before, the last one all.

    No shape changes, so weights and optimiser go on. With fewer genes more batches are accumulated, so that an
    optimiser step sees about as many tokens in every phase; an epoch's batches are dealt to its steps evenly. A step
    ends with its epoch at the latest: where that has too few batches a step has fewer tokens, and each such phase says
    so when it begins. Early stopping counts anew with each phase, and can end the run in the last one only.

    In the history ``curriculum/step_tokens`` is what a step had in the mean of the epoch, 1 being a step over all
    genes; ``curriculum/steps`` counts optimiser steps; ``curriculum/full_epochs`` is what was spent: an epoch over a
    tenth of the genes counts as a tenth of an epoch over all.

    Args:
        phases: Each with ``epoch`` and ``genes``, see ``torchcell.data.gene_phases``.
        keep_tokens: Accumulate more batches where there are fewer genes.
        budget: Stop, whatever trainer.max_epochs says, at the end of the epoch in which the tokens of so many epochs
            over all genes were spent; none leaves it to the trainer. With one budget two curricula, or one phase of all
            genes, can be compared.
    """

    activates_genes = True

    def __init__(
        self,
        phases: Sequence[Mapping[str, Any]],
        keep_tokens: bool = True,
        budget: float | int | None = None,
    ) -> None:
        self.given, self.keep_tokens, self.budget = [dict(phase) for phase in phases], keep_tokens, budget
        if budget is not None and not budget > 0:
            raise InputError(f"callbacks.curriculum.budget={budget} must be above 0")
        check_phases(self.given)
        self.phases: list[Phase] = []
        self.n_genes = 0
        self._base = 1

    # Pure functions of the epoch -------------------------------------------------------------------

    def phase_at(self, epoch: int) -> int:
        """Number of the phase that ``epoch`` belongs to."""
        return max(number for number, phase in enumerate(self.phases) if phase.epoch <= epoch)

    def share(self, epoch: int) -> float:
        """Active genes as a share of all."""
        return len(self.phases[self.phase_at(epoch)].genes) / self.n_genes

    def spent(self, epochs: int) -> float:
        """Tokens of the first ``epochs`` epochs, in epochs over all genes."""
        return sum(len(self.phases[self.phase_at(epoch)].genes) for epoch in range(epochs)) / self.n_genes

    def epochs_within(self, budget: float | int) -> int:
        """Epochs until ``budget`` is spent, the last one whole."""
        epochs = 0
        while self.spent(epochs) < budget - 1e-9:
            epochs += 1
        return epochs

    def wanted(self, epoch: int) -> int:
        """Batches with the tokens of a step over all genes."""
        return round(self._base / self.share(epoch))

    def accumulated(self, epoch: int, n_batches: int) -> int:
        """Batches an optimiser step: of ``n_batches`` an epoch, the number whose steps are in the mean nearest to what
        is wanted; of several the least, which leaves the last step the fullest.
        """
        if not self.keep_tokens:
            return self._base
        wanted = self.wanted(epoch)
        sizes = range(1, max(1, min(n_batches, 2 * wanted)) + 1)
        return min(sizes, key=lambda size: abs(n_batches / max(1, math.ceil(n_batches / size)) - wanted))

    def step_tokens(self, epoch: int, n_batches: int) -> float:
        """Tokens of a step in the mean of an epoch, 1 being a whole step over all genes."""
        steps = math.ceil(n_batches / self.accumulated(epoch, n_batches))
        return self.share(epoch) * n_batches / max(steps, 1) / self._base

    # What the trainer calls ------------------------------------------------------------------------

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Turn the config into phases over this model's genes, and set how long the run may and must last."""
        if stage != "fit":
            return
        if not hasattr(pl_module, "activate"):
            raise InputError(
                f"callbacks=curriculum: {type(pl_module).__name__} cannot train on a part of its genes; choose "
                "model=gene_set_transformer, or callbacks=default"
            )
        self.resolve(pl_module.spec.outputs, pl_module.spec.extras.get("gene_order"))
        self._base = trainer.accumulate_grad_batches
        if self.budget is not None:
            trainer.fit_loop.max_epochs = self.epochs_within(self.budget)
        last, end = self.phases[-1], trainer.fit_loop.max_epochs
        if end is not None and 0 <= end <= last.epoch:
            rank_zero_warn(
                f"the run ends after {end} epochs, before the curriculum's last phase begins at epoch {last.epoch}: "
                "set trainer.max_epochs, callbacks.curriculum.budget or the phases' epochs"
            )
        trainer.fit_loop.min_epochs = max(trainer.fit_loop.min_epochs or 0, last.epoch + 1)
        pl_module.watch(torch.tensor(self.phases[0].genes))

    def resolve(self, outputs: Sequence[str], order: Iterable[int] | None = None) -> None:
        """Find each phase's genes, see ``find_phases``."""
        self.n_genes, self.phases = len(outputs), find_phases(self.given, outputs, order)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """The genes of this epoch, and how many batches make a step."""
        epoch, n_batches = trainer.current_epoch, int(trainer.num_training_batches)
        number = self.phase_at(epoch)
        phase = self.phases[number]
        pl_module.activate(torch.tensor(phase.genes))
        trainer.accumulate_grad_batches = self.accumulated(epoch, n_batches)
        if epoch <= self.phases[-1].epoch:
            trainer.should_stop = False  # what early stopping asked for in an earlier phase
        if epoch != phase.epoch:
            return
        for callback in trainer.early_stopping_callbacks:
            assert isinstance(callback, EarlyStopping)
            callback.wait_count = 0
        if self.keep_tokens and n_batches < self.wanted(epoch):
            rank_zero_warn(
                f"phase {number} of the curriculum: on {len(phase.genes):,} of {self.n_genes:,} genes a step takes "
                f"{self.wanted(epoch):,} batches to have the tokens of one over all genes, and an epoch has "
                f"{n_batches:,}: its steps have {self.step_tokens(epoch, n_batches):.0%} of them; lower "
                "data.batch_size for more batches an epoch, or give the phase more genes"
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Log the phase, its genes, what a step was, and what was spent so far."""
        epoch = trainer.current_epoch
        number = self.phase_at(epoch)
        values = {
            "phase": number,
            "genes": len(self.phases[number].genes),
            "accumulated": trainer.accumulate_grad_batches,
            "step_tokens": self.step_tokens(epoch, int(trainer.num_training_batches)),
            "steps": trainer.global_step,
            "full_epochs": self.spent(epoch + 1),
        }
        pl_module.log_dict({f"curriculum/{name}": float(value) for name, value in values.items()})
