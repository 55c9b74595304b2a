"""What a reader sees before scrolling: the verdict in parts, what the data were, warnings, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.evaluation.comparison import BETTER, WORSE
from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.results import Results
from torchcell.evaluation.verdict import NO_VERDICT, counted
from torchcell.report.sections import check_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLAGS = ("COLLAPSED", "INPUT IGNORED", "WARNING", "failed", "not shown")
"""Beginnings of the status of a check that a reader must not miss."""


@dataclass(frozen=True)
class Step:
    """Something to do next: a sentence, and the command for it where there is one."""

    text: str
    command: str = ""


def verdict_parts(evaluation: Evaluation) -> tuple[str, list[str]]:
    """The verdict's line as its first part and the others, which are shown smaller."""
    first, *others = evaluation.verdict.text.split("; ")
    return first, others


def data_words(results: Results, info: Mapping[str, Any]) -> list[str]:
    """Sentences on the data: the scored part, the whole by what it holds, the split, what was left out."""
    test = f"{len(results):,} samples in {counted(results.n_clusters, results.design.cluster)}"
    lines = [f"Scored on the part “{results.part}”: {test}."]
    parts = info.get("split_counts") or {}
    split = str(info.get("split", ""))
    if split:
        sizes = ", ".join(f"{part} {n:,}" for part, n in parts.items() if n)
        lines.append(f"Split {split}{f': {sizes}' if sizes else ''}.")
    if contents := info.get("contents"):
        lines.append(f"The data hold {', '.join(counted(n, what) for what, n in contents.items())}.")
    if dropped := info.get("dropped"):
        lines.append(f"Left out: {'; '.join(f'{what} {n:,}' for what, n in dropped.items())}.")
    return lines


def warnings(info: Mapping[str, Any], checks: Mapping[str, Any]) -> list[str]:
    """What a reader must not miss: checks that did not pass, then the notes of the run."""
    rows = [row for name, value in checks.items() for row in check_rows(name, value)]
    found = [f"{row['check']}: {row['finding']} ({row['status']})" for row in rows if row["status"].startswith(FLAGS)]
    return [*found, *(str(note) for note in info.get("notes", ()))]


def origin(info: Mapping[str, Any]) -> str:
    """Day, time and commit."""
    commit = str(info.get("git_commit") or "")
    changed = " with uncommitted changes" if commit and info.get("git_dirty") else ""
    at = f", commit {commit[:10]}{changed}" if commit else ""
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}{at}"


def next_steps(evaluation: Evaluation, results: Results, folder: Path, info: Mapping[str, Any]) -> list[Step]:
    """What to do with this outcome, the most useful first."""
    return [*_after_verdict(evaluation, results, folder, info), *_use(folder)]


def _after_verdict(evaluation: Evaluation, results: Results, folder: Path, info: Mapping[str, Any]) -> Iterator[Step]:
    verdict, baseline = evaluation.verdict, evaluation.verdict.primary.baseline
    folds, trained = results.design.n_folds, (folder / "checkpoints" / "best.ckpt").exists()
    if verdict.kind == NO_VERDICT:
        yield Step(f"Get a verdict. What stands in its way: {verdict.reason}.")
    elif verdict.kind != BETTER and baseline is not None and trained:
        better = "predicts better" if verdict.kind == WORSE else "is as good, and simpler"
        yield Step(f"Predict with {baseline}, which {better}:", _predict(folder, f"system={baseline} "))
        if info.get("prior") is None and "stack" in results.baselines:
            yield Step(
                "Let the network learn only what the stack of baselines leaves: run again with model.prior=stack."
            )
    if verdict.kind != NO_VERDICT and folds:
        every = ",".join(map(str, range(folds)))
        how = f"the same command with -m split.fold={every}" if trained else "predictions of each, judged"
        yield Step(
            f"Confirm it on all {folds} folds: {how}, then",
            f"python -m torchcell.collect {folder.parent} -o folds.html",
        )
    if results.design.split == "random":
        yield Step(
            "Split by what will be new when you predict: a random split flatters, as its test resembles training."
        )


def _use(folder: Path) -> Iterator[Step]:
    if command := _predict(folder):
        yield Step("Predict perturbations of your own:", command)
    if (folder / "environment.json").exists():
        yield Step("Run it again and compare:", f"python -m torchcell.reproduce {folder}")


def _predict(folder: Path, system: str = "") -> str:
    """The command that predicts with this run; empty where there is no checkpoint."""
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.exists():
        return ""
    return f"python -m torchcell.predict ckpt={checkpoint} {system}perturbations=FILE out=predictions.parquet"


def primary_forest(evaluation: Evaluation, results: Results) -> Figure:
    """Value and interval on the primary metric, of each system that has one, and of the model."""
    from torchcell.evaluation.registry import higher_is_better
    from torchcell.report.layout import role
    from torchcell.report.plots import forest_of

    rows = evaluation.table[evaluation.table["metric"] == evaluation.primary].set_index("system")
    shown = [one for one in results.ordered if one == results.model or rows["value"].notna().get(one, False)]
    roles = {system: role(results, system) for system in shown}
    return forest_of(evaluation.table, roles, evaluation.primary, higher_is_better(evaluation.primary))
