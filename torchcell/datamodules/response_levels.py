"""What of drug response is scored: samples, conditions, and samples whose plates are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from torchcell.data.response import Response
from torchcell.metrics.checks import Halves
from torchcell.metrics.results import Results

PLATE_KNOWN = "plate_known"
"""What is predicted beside a request, and heads the names of its metrics: the same samples, the treated wells of their
plates being known. It is shown, and no part of the verdict."""


def plates_differ(record: Response) -> bool:
    """Whether a line has several plates, or several controls.

    Elsewhere the treated training wells of a plate tell no more than those of the line, and all rows would stand twice.
    """
    plate, control = record.plate, record.control
    rows = [np.flatnonzero(record.cell_line == line) for line in np.unique(record.cell_line)]
    return any(len(np.unique(plate[at])) > 1 or bool((control[at] != control[at[:1]]).any()) for at in rows)


def replicate_changes(record: Response, whole: Response) -> np.ndarray:
    """Mean change from control of all samples of the same condition on other plates, float32 [n, G].

    Samples of one plate subtract the same control, whose noise they then share. NaN without any.

    Args:
        record: n samples.
        whole: Where their replicates are looked for.
    """
    change = (whole.treated - whole.control).astype(np.float64)
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(whole.condition.tolist()):
        rows.setdefault(name, []).append(i)
    found = np.full(record.treated.shape, np.nan, dtype=np.float32)
    for i, (name, plate) in enumerate(zip(record.condition.tolist(), record.plate.tolist(), strict=True)):
        others = [row for row in rows[name] if whole.plate[row] != plate]
        if others:
            found[i] = change[others].mean(0)
    return found


def replicate_halves(whole: Response, center: np.ndarray, index: np.ndarray) -> Halves | None:
    """The samples at ``index`` and, as their second halves, the means of their replicates on other plates.

    Both are taken from the plate's center, and a sample is not compared with what was measured on its own plate: wells
    of one plate are alike for reasons that are no drug's.

    Args:
        whole: All samples, among which replicates are looked for.
        center: Mean of the treated training samples of each sample's plate [n, G]; NaN where there is none: the
            sample's control stands in.
        index: Positions of the samples.
    """
    change = whole.treated.astype(np.float64) - np.where(np.isnan(center), whole.control, center)
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(whole.condition.tolist()):
        rows.setdefault(name, []).append(i)
    condition, plate = whole.condition, whole.plate
    others = [[row for row in rows[condition[i]] if plate[row] != plate[i]] for i in index.tolist()]
    if not any(others):
        return None
    second = np.stack([change[at].mean(0) if at else np.full(change.shape[1], np.nan) for at in others])
    technical = np.array([[plate[i] in set(plate[at]) for at in others] for i in index.tolist()], dtype=bool)
    return Halves(change[index], second, whole.cell_line[index], technical)


def by_condition(samples: Results, condition: np.ndarray) -> Results:
    """Means of truth, predictions, controls and centers over the samples of each condition.

    The ceiling has nothing to say: replicates that stand in one mean would predict each other's.
    """
    names, row = np.unique(condition, return_inverse=True)

    def mean(values: np.ndarray) -> np.ndarray:
        held = ~np.isnan(values)
        total, count = np.zeros((len(names), values.shape[1])), np.zeros((len(names), values.shape[1]))
        np.add.at(total, row, np.where(held, values, 0.0))
        np.add.at(count, row, held)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(np.float32)

    first = np.unique(row, return_index=True)[1]
    assert samples.reference is not None
    assert samples.centre is not None
    return replace(
        samples,
        sample_id=names,
        group=samples.group[first],
        measured=mean(samples.measured),
        systems={
            name: mean(np.full_like(values, np.nan) if name == samples.ceiling else values)
            for name, values in samples.systems.items()
        },
        reference=mean(samples.reference),
        centre=mean(samples.centre),
        replicate=None,
        decides=False,
        level="condition",
    )


def with_plates(samples: Results, known: Mapping[str, np.ndarray]) -> Results:
    """The same samples with what each system predicts of known plates, by system; the ceiling knows no other."""
    systems = {name: known.get(name, values) for name, values in samples.systems.items()}
    return replace(samples, systems=systems, decides=False, level=PLATE_KNOWN)


def information_notes(record: Response, part: np.ndarray) -> list[str]:
    """Sentences on what is known of a scored sample, and what that makes of the scores.

    Args:
        record: n samples.
        part: Part of each [n].
    """
    test, trained = (record.subset(part == name) for name in ("test", "train"))
    places = [set(zip(each.cell_line.tolist(), each.plate.tolist(), strict=True)) for each in (test, trained)]
    shared = sum(place in places[1] for place in zip(test.cell_line.tolist(), test.plate.tolist(), strict=True))
    said = [
        "Test samples are scored as predict would answer: their own control is known, no treated well of their plate.",
    ]
    several = plates_differ(record)
    if several:
        said += [
            f"Metrics headed {PLATE_KNOWN}/ stand beside: the same samples, the mean of the treated training wells of "
            "their plate being known. They are no part of the verdict.",
            f"{shared:,} of {len(test):,} test samples lie on plates of the training part, which has met controls like "
            "theirs; the control of another plate tells a model less.",
        ]
    if record.basal is None:
        said.append(
            "Changes are taken from each sample's own control, truth and prediction from the same: its noise raises "
            "pearson_de of all that do not start from it; pearson_delta_plate and metrics on replicates count more."
        )
        if several:
            said.append(
                f"What that noise is worth is told by the row fake_perturbation of {PLATE_KNOWN}/pearson_de, another "
                "control of the same plate; it is undefined where a plate has one control."
            )
    return said
