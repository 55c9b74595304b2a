"""What each phase of a curriculum was trained on, what it cost and where it got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from torchcell.report.layout import number
from torchcell.report.plots import BLUE, GREY, INK, RULE, canvas
from torchcell.report.sections import Section

FIRST = "val/first_genes/Pearson"
SPENT = "curriculum/full_epochs"


def curriculum_sections(
    history: pd.DataFrame | None, phases: Sequence[Mapping[str, Any]], n_active: int, n_genes: int
) -> list[Section]:
    """The score against what was spent, and a section for each phase; nothing without a curriculum.

    Args:
        history: One row an epoch, with the columns that ``torchcell.callbacks.curriculum`` logs.
        phases: What is known of each, see ``describe_phases``; may be empty.
        n_active: Genes that are active in the scored weights.
        n_genes: All genes.
    """
    if history is None or "curriculum/phase" not in history or history["curriculum/phase"].isna().all():
        return []
    held = history[history["curriculum/phase"].notna()]
    parts = [(int(float(str(key))), rows) for key, rows in held.groupby("curriculum/phase")]
    unknown: Mapping[str, Any] = {"name": "", "sources": {}}
    about = {phase: phases[phase] if phase < len(phases) else unknown for phase, _ in parts}
    rows = [_row(phase, part, about[phase]["name"]) for phase, part in parts]
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
        gain = "" if np.isnan(was) else f"; before it began it stood at {number(was)}"
        sources = ", ".join(f"{name} {n:,}" for name, n in about[phase]["sources"].items())
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
        "tokens a step": number(float(last["curriculum/step_tokens"])),
        "steps": f"{int(last['curriculum/steps']):,}",
        "full epochs": number(float(last[SPENT])),
    }
    row |= {what: number(float(part[column].max())) if column in part else "" for what, column in shown.items()}
    costs = {"s an epoch": ("epoch_s", "median"), "memory MB": ("memory_mb", "max")}
    return row | {
        what: f"{part[column].agg(how):,.1f}" if column in part else "" for what, (column, how) in costs.items()
    }


def _curve(history: pd.DataFrame) -> Figure:
    figure, axes = canvas(6.2, 2.8)
    axis = axes[0, 0]
    for column, colour, label in (("val/score", BLUE, "all genes"), (FIRST, GREY, "the first phase's")):
        if column in history:
            axis.plot(history[SPENT], history[column], color=colour, label=label)
    starts = history.groupby("curriculum/phase")[SPENT].min().iloc[1:]
    for start in starts:
        axis.axvline(float(start), color=INK, linewidth=0.8, linestyle=":")
    axis.set(xlabel="epochs over all genes", ylabel="validation score")
    axis.grid(color=RULE, linewidth=0.5)
    axis.legend(frameon=False, fontsize=8)
    return figure
