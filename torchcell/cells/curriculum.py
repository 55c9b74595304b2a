"""Genes learned in phases: how they are chosen, the callback that adds them, and its part of the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure

from torchcell.cells.spec import PhaseSources
from torchcell.io.configurable import CALLBACKS, configurable
from torchcell.io.errors import InputError, near, some
from torchcell.report import layout
from torchcell.report.plots import BLUE, GREY, INK, RULE, canvas
from torchcell.report.sections import Section

KEYS = {"epoch", "genes"}
LEADS_FROM = 0.2
"""A source with this share of the genes that a phase adds is part of the phase's name."""


@dataclass(frozen=True)
class Phase:
    """Some epochs over the same genes.

    Attributes:
        epoch: The first epoch.
        genes: Positions in the outputs, ascending.
    """

    epoch: int
    genes: tuple[int, ...]


def find_phases(
    given: Sequence[Mapping[str, Any]], outputs: Sequence[str], order: Iterable[int] | None = None
) -> list[Phase]:
    """Find each phase's genes.

    Args:
        given: Each with ``epoch``, its first, from 0; ``genes``: a share of the outputs (0.02), a number of them (100),
            a list of names, or null for all.
        outputs: Names of all genes.
        order: Their positions, most wanted first; none: as they stand.

    Raises:
        InputError: No phase, other keys, epochs that do not rise from 0, more genes than there are, an unknown name, a
            phase that is not a superset of the one before, or a last one without all genes.
    """
    check_phases(given)
    ranked = list(range(len(outputs))) if order is None else [int(place) for place in order]
    phases = [
        Phase(int(phase["epoch"]), tuple(sorted(_positions(phase["genes"], number, outputs, ranked))))
        for number, phase in enumerate(given)
    ]
    for number, (earlier, later) in enumerate(pairwise(phases), 1):
        lacking = [outputs[place] for place in sorted(set(earlier.genes) - set(later.genes))]
        if lacking:
            raise InputError(
                f"phase {number} of the curriculum is no superset of phase {number - 1}: it lacks {len(lacking)} "
                f"of its genes: {some(lacking)}; a gene that was learned stays active"
            )
    if len(phases[-1].genes) < len(outputs):
        raise InputError(
            f"the curriculum's last phase has {len(phases[-1].genes):,} of the {len(outputs):,} genes; set its genes "
            "to null for all, or select fewer"
        )
    return phases


def check_phases(given: Sequence[Mapping[str, Any]]) -> None:
    """What can be told without the genes: there is a phase, with its keys, and each begins after the one before."""
    if not given:
        raise InputError("callbacks.curriculum.phases is empty; name at least one phase")
    for number, phase in enumerate(given):
        if set(phase) != KEYS:
            raise InputError(f"phase {number} of the curriculum has the keys {sorted(phase)}; it needs epoch and genes")
    starts = [phase["epoch"] for phase in given]
    if starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts)):
        raise InputError(f"the curriculum's phases begin at the epochs {starts}; the first is 0, and each comes later")


def entry_phase(phases: Sequence[Phase], n: int) -> np.ndarray:
    """Number of the phase in which each of ``n`` genes becomes active, int64 [n]; 0 without phases."""
    entered = np.zeros(n, dtype=np.int64)
    for number in range(len(phases) - 1, -1, -1):
        entered[list(phases[number].genes)] = number
    return entered


def describe_phases(entered: np.ndarray, source: np.ndarray | None) -> tuple[PhaseSources, ...]:
    """What the report tells of each phase.

    Args:
        entered: See ``entry_phase``, int64 [n].
        source: Where each gene came from [n], with or without "... for", which fills another's quota; none: unknown.

    Returns:
        One a phase; empty where no source is known.
    """
    found = []
    for number in range(int(entered.max(initial=0)) + 1):
        added = [] if source is None else source[entered == number].tolist()
        counts = Counter(str(name).split(" for ")[0] for name in added)
        sources = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        leading = [name for name, n in sources.items() if n >= LEADS_FROM * len(added)]
        found.append(PhaseSources(", ".join(leading), sources))
    return tuple(found)


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


@configurable(place=CALLBACKS)
class Curriculum(lightning.Callback):
    """Activates the genes of the phase that the epoch belongs to; a pure function of the epoch, so a run can go on.

    Outputs stand in the order in which genes were selected (or in that of the spec's ``gene_order``), and a
    phase takes the first of them, or names them. Each phase must hold all genes of the one before, the last one all.

    No shape changes, so weights and optimizer go on. With fewer genes more batches are accumulated, so that an
    optimizer step sees about as many tokens in every phase; an epoch's batches are spread evenly over its steps. A step
    ends with its epoch at the latest: where that has too few batches a step has fewer tokens, and each such phase says
    so when it begins. Early stopping counts anew with each phase, and can end the run in the last one only.

    In the history ``curriculum/step_tokens`` is what a step had in the mean of the epoch, 1 being a step over all
    genes; ``curriculum/steps`` counts optimizer steps; ``curriculum/full_epochs`` is what was spent: an epoch over a
    tenth of the genes counts as a tenth of an epoch over all.

    Args:
        phases: Each with ``epoch`` and ``genes``, see ``torchcell.cells.curriculum``.
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
        """Batches an optimizer step: of ``n_batches`` an epoch, the number whose steps are in the mean nearest to what
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
        self.resolve(pl_module.spec.outputs, pl_module.spec.gene_order)
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


FIRST = "val/first_genes/Pearson"
SPENT = "curriculum/full_epochs"


def curriculum_sections(
    history: pd.DataFrame | None, phases: Sequence[PhaseSources], n_active: int, n_genes: int
) -> list[Section]:
    """The score against what was spent, and a section for each phase; nothing without a curriculum.

    Args:
        history: One row an epoch, with the columns that ``torchcell.cells.curriculum`` logs.
        phases: What is known of each, see ``describe_phases``; may be empty.
        n_active: Genes that are active in the scored weights.
        n_genes: All genes.
    """
    if history is None or "curriculum/phase" not in history or history["curriculum/phase"].isna().all():
        return []
    held = history[history["curriculum/phase"].notna()]
    parts = [(int(float(str(key))), rows) for key, rows in held.groupby("curriculum/phase")]
    unknown = PhaseSources("", {})
    about = {phase: phases[phase] if phase < len(phases) else unknown for phase, _ in parts}
    rows = [_row(phase, part, about[phase].name) for phase, part in parts]
    scored = [phase for phase, part in parts if int(part["curriculum/genes"].iloc[-1]) == n_active]
    of_phase = f" of phase {scored[0]}" if scored else ""
    text = (
        f"The scored weights are{of_phase}, with {n_active:,} of {n_genes:,} genes active. "
        "Cost is in epochs over all genes: one over a tenth of them counts as a tenth. Both scores are on fixed genes: "
        "all of them, those not yet active at their mean, and those of the first phase. Tokens a step are in those of "
        "a step over all genes, as a mean: below 1 an epoch had too few batches."
    )
    caption = "Validation score against what was spent; dotted lines mark where a phase begins."
    found = [Section("Curriculum", text, _curve(held), pd.DataFrame(rows), "curriculum", caption)]
    for (phase, part), row in zip(parts, rows, strict=True):
        was = float("nan") if phase == parts[0][0] else found_before(held, part)
        gain = "" if np.isnan(was) else f"; before it began it stood at {layout.number(was)}"
        sources = ", ".join(f"{name} {n:,}" for name, n in about[phase].sources.items())
        title = f"Curriculum, phase {phase}: {row['genes']} genes"
        found.append(
            Section(
                f"{title}, {row['name']}" if row["name"] else title,
                (f"It adds {sources}. " if sources else "")
                + f"Epochs {row['epochs']}, {row['batches a step']} batch(es) a step with {row['tokens a step']} of "
                f"the tokens of a step over all genes; {row['steps']} steps and {row['full epochs']} epochs' worth of "
                f"tokens by its end. Best validation score {row['best val/score']}{gain}; on the first phase's genes "
                f"{row['best on first genes']}.",
            )
        )
    return found


def found_before(history: pd.DataFrame, part: pd.DataFrame) -> float:
    """The best validation score of the epochs before ``part``."""
    earlier = history[history["epoch"] < part["epoch"].min()]
    return float(earlier["val/score"].max()) if "val/score" in earlier and len(earlier) else float("nan")


def _row(phase: int, part: pd.DataFrame, name: str) -> dict[str, str]:
    last = part.iloc[-1]
    shown = {"best val/score": "val/score", "best on first genes": FIRST}
    row = {
        "phase": str(phase),
        "name": name,
        "genes": f"{int(last['curriculum/genes']):,}",
        "epochs": f"{int(part['epoch'].min())} to {int(part['epoch'].max())}",
        "batches a step": str(int(last["curriculum/accumulated"])),
        "tokens a step": layout.number(float(last["curriculum/step_tokens"])),
        "steps": f"{int(last['curriculum/steps']):,}",
        "full epochs": layout.number(float(last[SPENT])),
    }
    row |= {what: layout.number(float(part[column].max())) if column in part else "" for what, column in shown.items()}
    costs = {"s an epoch": ("epoch_s", "median"), "memory MB": ("memory_mb", "max")}
    return row | {
        what: f"{part[column].agg(how):,.1f}" if column in part else "" for what, (column, how) in costs.items()
    }


def _curve(history: pd.DataFrame) -> Figure:
    figure, axes = canvas(6.2, 2.8)
    axis = axes[0, 0]
    for column, color, label in (("val/score", BLUE, "all genes"), (FIRST, GREY, "the first phase's")):
        if column in history:
            axis.plot(history[SPENT], history[column], color=color, label=label)
    starts = history.groupby("curriculum/phase")[SPENT].min().iloc[1:]
    for start in starts:
        axis.axvline(float(start), color=INK, linewidth=0.8, linestyle=":")
    axis.set(xlabel="epochs over all genes", ylabel="validation score")
    axis.grid(color=RULE, linewidth=0.5)
    axis.legend(frameon=False, fontsize=8)
    return figure
