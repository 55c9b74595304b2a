"""Trains on a few genes first and on more later: phases by epoch, with the same weights and optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from torchcell.data.errors import InputError, near, some

KEYS = ("epoch", "genes", "name")


@dataclass(frozen=True)
class Phase:
    """Some epochs over the same genes.

    Attributes:
        name: For the report.
        epoch: The first epoch.
        genes: Positions in the outputs, ascending.
    """

    name: str
    epoch: int
    genes: tuple[int, ...]


class Curriculum(lightning.Callback):
    """Activates the genes of the phase that the epoch belongs to; a pure function of the epoch, so a run can go on.

    Outputs stand in the order in which genes were selected (or in that of ``gene_order`` in the spec's extras), and a
    phase takes the first of them, or names them. Each phase must hold all genes of the one before.

    No shape changes, so weights and optimiser go on. With fewer genes more batches are accumulated, so that an
    optimiser step sees about as many tokens in every phase. Early stopping counts anew with each phase, and can end the
    run in the last one only. ``curriculum/full_epochs`` in the history is what was spent: an epoch over a tenth of the
    genes counts as a tenth of an epoch over all.

    Args:
        phases: Each with ``epoch``, its first, from 0; ``genes``: a share of the outputs (0.02), a number of them
            (100), a list of names, or null for all; and perhaps a ``name``.
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
        if not self.given:
            raise InputError("callbacks.curriculum.phases is empty; name at least one phase")
        if budget is not None and not budget > 0:
            raise InputError(f"callbacks.curriculum.budget={budget} must be above 0")
        for number, phase in enumerate(self.given):
            if not set(phase) <= set(KEYS) or not {"epoch", "genes"} <= set(phase):
                raise InputError(
                    f"phase {number} of the curriculum has the keys {sorted(phase)}; it needs epoch and genes"
                )
        starts = [phase["epoch"] for phase in self.given]
        if starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts)):
            raise InputError(
                f"the curriculum's phases begin at the epochs {starts}; the first is 0, and each comes later"
            )
        self.phases: list[Phase] = []
        self.n_genes = 0
        self._base = 1

    # Pure functions of the epoch -------------------------------------------------------------------

    def phase_at(self, epoch: int) -> int:
        """Number of the phase that ``epoch`` belongs to."""
        return max(number for number, phase in enumerate(self.phases) if phase.epoch <= epoch)

    def spent(self, epochs: int) -> float:
        """Tokens of the first ``epochs`` epochs, in epochs over all genes."""
        return sum(len(self.phases[self.phase_at(epoch)].genes) for epoch in range(epochs)) / self.n_genes

    def epochs_within(self, budget: float | int) -> int:
        """Epochs until ``budget`` is spent, the last one whole."""
        epochs = 0
        while self.spent(epochs) < budget - 1e-9:
            epochs += 1
        return epochs

    def accumulated(self, epoch: int, n_batches: int) -> int:
        """Batches an optimiser step."""
        if not self.keep_tokens:
            return self._base
        share = len(self.phases[self.phase_at(epoch)].genes) / self.n_genes
        return max(1, min(round(self._base / share), max(n_batches, self._base)))

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
                f"the run ends after {end} epochs, before phase {last.name!r} begins at epoch {last.epoch}: set "
                "trainer.max_epochs, callbacks.curriculum.budget or the phases' epochs"
            )
        trainer.fit_loop.min_epochs = max(trainer.fit_loop.min_epochs or 0, last.epoch + 1)
        pl_module.watch(torch.tensor(self.phases[0].genes))

    def resolve(self, outputs: Sequence[str], order: torch.Tensor | None = None) -> None:
        """Find each phase's genes.

        Args:
            outputs: Names of all genes.
            order: Their positions, most wanted first; none: as they stand.

        Raises:
            InputError: More genes than there are, an unknown name, or a phase that is not a superset of the one before.
        """
        ranked = list(range(len(outputs))) if order is None else [int(place) for place in order]
        self.n_genes, self.phases = len(outputs), []
        for number, phase in enumerate(self.given):
            genes = tuple(sorted(_positions(phase["genes"], number, outputs, ranked)))
            self.phases.append(Phase(str(phase.get("name") or f"{len(genes):,} genes"), int(phase["epoch"]), genes))
        for number, (earlier, later) in enumerate(pairwise(self.phases), 1):
            lacking = [outputs[place] for place in sorted(set(earlier.genes) - set(later.genes))]
            if lacking:
                raise InputError(
                    f"phase {number} of the curriculum is no superset of phase {number - 1}: it lacks {len(lacking)} "
                    f"of its genes: {some(lacking)}; a gene that was learned stays active"
                )

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """The genes of this epoch, and how many batches make a step."""
        epoch = trainer.current_epoch
        phase = self.phases[self.phase_at(epoch)]
        pl_module.activate(torch.tensor(phase.genes))
        trainer.accumulate_grad_batches = self.accumulated(epoch, int(trainer.num_training_batches))
        if epoch <= self.phases[-1].epoch:
            trainer.should_stop = False  # what early stopping asked for in an earlier phase
        if epoch == phase.epoch:
            for callback in trainer.early_stopping_callbacks:
                assert isinstance(callback, EarlyStopping)
                callback.wait_count = 0

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Log the phase, its genes, batches a step and what was spent so far."""
        epoch = trainer.current_epoch
        number = self.phase_at(epoch)
        values = {
            "phase": number,
            "genes": len(self.phases[number].genes),
            "accumulated": trainer.accumulate_grad_batches,
            "full_epochs": self.spent(epoch + 1),
        }
        pl_module.log_dict({f"curriculum/{name}": float(value) for name, value in values.items()})


def _positions(genes: Any, number: int, outputs: Sequence[str], ranked: Sequence[int]) -> Sequence[int]:
    if genes is None:
        return ranked
    if not isinstance(genes, int | float):
        names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
        place = {name: i for i, name in enumerate(outputs)}
        unknown = [name for name in names if name not in place]
        if unknown or not names:
            nearest = near(unknown[0], list(place)) if unknown else []
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise InputError(f"phase {number} of the curriculum names genes that are no outputs: {some(unknown)}{hint}")
        return sorted({place[name] for name in names})
    count = round(genes * len(outputs)) if isinstance(genes, float) else genes
    if isinstance(genes, float) and not 0 < genes <= 1:
        raise InputError(f"phase {number} of the curriculum: genes={genes} is a share above 0 and up to 1.0")
    if not 1 <= count <= len(outputs):
        raise InputError(
            f"phase {number} of the curriculum asks for {count:,} genes of {len(outputs):,}; lower it, give a share "
            "such as 0.2, or select more genes"
        )
    return ranked[:count]
