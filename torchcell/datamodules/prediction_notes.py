"""What ``predict`` says of a sample whose like the model never met: texts by sample, and one line over all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.quantities import LEAST_DOSE
from torchcell.data.screen import KINDS
from torchcell.datamodules.spec import Spec

if TYPE_CHECKING:
    from torchcell.data.conditions import Conditions
    from torchcell.data.response import Response
    from torchcell.data.screen import Screen

Notes = dict[str, list[str]]
"""What is new -> a text for each sample that has it, empty for the others [n]."""


def joined(notes: Notes, n: int) -> np.ndarray:
    """The texts of each of n samples, joined by ``; `` and empty where there are none [n]."""
    columns = list(notes.values()) or [[""] * n]
    return np.array(["; ".join(filter(None, texts)) for texts in zip(*columns, strict=True)], dtype=object)


def summary(notes: Notes, n: int) -> str:
    """How many of n predictions carry a note, and of what; empty where none does."""
    noted = int((joined(notes, n) != "").sum())
    counts = {what: sum(map(bool, texts)) for what, texts in notes.items()}
    named = ", ".join(f"{what} ({count:,})" for what, count in counts.items() if count)
    return f"{noted:,} of {n:,} predictions carry a note: {named}" if noted else ""


def screen_notes(record: Screen, spec: Spec, reads_levels: bool) -> Notes:
    """Set sizes, genes and perturbation types without training samples; levels that are not read, or out of range.

    Args:
        record: What is asked for.
        spec: Of the checkpoint; what it does not tell gives no note.
        reads_levels: Whether the model does.
    """
    extras, owner, n, notes = spec.extras, record.owner, len(record), Notes()
    if "trained_sizes" in extras:
        notes["set of another size"] = _sizes("set", record.sizes.tolist(), extras["trained_sizes"])
    if "trained_genes" in extras:
        trained = np.array(spec.genes, dtype=str)[extras["trained_genes"].numpy()]
        new = ~np.isin(record.genes, trained)[record.gene]
        names = record.genes[record.gene[new]]
        notes["gene without training samples"] = _by_owner("no training sample of", names, owner[new], n)
    new = ~np.isin(np.array(KINDS), spec.kinds)[record.kind]
    names = np.array(KINDS)[record.kind[new]]
    notes["perturbation type unseen in training"] = _by_owner("unseen perturbation type", names, owner[new], n)
    if record.level is None:
        return notes
    if not reads_levels:
        notes["level that the model does not read"] = [
            "levels are not read by this model" if given else ""
            for given in np.bincount(owner[~np.isnan(record.level)], minlength=n).tolist()
        ]
    elif extras.get("trained_levels"):
        outside = _outside(record.level, extras["trained_levels"])
        text = f"trained on levels of {_between(extras['trained_levels'])}, not"
        names = np.array([f"{value:.4g}" for value in record.level[outside].tolist()], dtype=str)
        notes["level outside the trained range"] = _by_owner(text, names, owner[outside], n)
    return notes


def response_notes(record: Response, spec: Spec) -> Notes:
    """Drugs and cell lines without training samples; doses and times outside the trained range."""
    extras = spec.extras
    table = extras["molecules"]
    drugs = [name for name, trained in zip(table["id"], table["trained"].tolist(), strict=True) if trained]
    notes = {
        "drug without training samples": _unless("no training sample of", record.drug, drugs),
        "unseen cell line": _unless("no training sample of cell line", record.cell_line, extras["lines"]),
    }
    ranges = {
        "dose": (np.maximum(record.dose_value, LEAST_DOSE), 10 ** extras["trained"]["log_dose"].double(), "µM"),
        "time": (np.maximum(record.time, 1.0), 2 ** extras["trained"]["log_time"].double(), "h"),
    }
    for what, (values, trained, unit) in ranges.items():
        bounds = trained_range(trained.numpy())
        outside = _outside(values, bounds)
        notes[f"{what} outside the trained range"] = [
            f"trained on {what}s of {_between(bounds)} {unit}, not {value:.4g}" if odd else ""
            for value, odd in zip(values.tolist(), outside.tolist(), strict=True)
        ]
    return notes


def cell_notes(record: Conditions, spec: Spec) -> Notes:
    """Genes that were never perturbed in training, combinations of another size, groups without training cells."""
    extras, notes, targets = spec.extras, Notes(), record.targets
    if "trained_perturbations" in extras:
        trained = extras["trained_perturbations"]
        owner = np.repeat(np.arange(len(targets)), [len(genes) for genes in targets])
        names = np.array([gene for genes in targets for gene in genes], dtype=str)
        new = ~np.isin(names, trained["genes"])
        text = "never perturbed in training:"
        notes["gene never perturbed in training"] = _by_owner(text, names[new], owner[new], len(targets))
        sizes = [len(genes) for genes in targets]
        notes["combination of another size"] = _sizes("combination", sizes, trained["sizes"])
    notes["unseen group"] = _unless("no training cells of", record.group, extras["groups"])
    return notes


def link_notes(metaedge: np.ndarray, source: np.ndarray, target: np.ndarray, spec: Spec) -> Notes:
    """Nodes without an edge in the graph that the model reads, and edge types that it was not trained to predict.

    Args:
        metaedge: Edge type of each candidate [n].
        source: Ids of the sources [n].
        target: Ids of the targets [n].
        spec: Of a model of links.
    """
    graph, n = spec.extras["knowledge_graph"], len(metaedge)
    ends = [end.numpy() for pair in graph["edges"].values() for end in pair]
    connected = np.array(graph["node_id"], dtype=str)[np.unique(np.concatenate(ends)).astype(np.int64)]
    names, owner = np.concatenate([source, target]), np.tile(np.arange(n), 2)
    new = ~np.isin(names, connected)
    return {
        "node without an edge": _by_owner("no edge in the graph of training:", names[new], owner[new], n),
        "edge type not trained": _unless("not trained to predict", metaedge, spec.extras["supervised"]),
    }


def trained_range(values: np.ndarray) -> list[float]:
    """Least and largest of the values that are there; empty where there is none."""
    values = values[~np.isnan(values)]
    return [float(values.min()), float(values.max())] if len(values) else []


def _by_owner(text: str, names: np.ndarray, owner: np.ndarray, n: int) -> list[str]:
    """``text`` with each name once for the sample that it is of; empty for a sample without [n]."""
    of: dict[int, dict[str, None]] = {}
    for name, sample in zip(names.tolist(), owner.tolist(), strict=True):
        of.setdefault(sample, {})[str(name)] = None
    return [f"{text} {', '.join(of[i])}" if i in of else "" for i in range(n)]


def _unless(text: str, values: np.ndarray, known: Sequence[str]) -> list[str]:
    """``text`` with the value of each sample where it is not known [n]."""
    names = set(known)
    return ["" if value in names else f"{text} {value}" for value in map(str, values.tolist())]


def _sizes(what: str, sizes: Sequence[int], trained: Sequence[int]) -> list[str]:
    """A text for each sample of a size that training had none of [n]."""
    text = f"trained on {what}s of {', '.join(map(str, trained))}"
    return ["" if size in trained else f"{what} of {size}, {text}" for size in sizes]


def _outside(values: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """Which values lie outside by more than rounding to single precision; a missing one does not."""
    low, high = bounds
    return (values < low * (1 - 1e-4) - 1e-9) | (values > high * (1 + 1e-4) + 1e-9)


def _between(bounds: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(f"{bound:.4g}" for bound in bounds))
