"""Drug response as batches: molecules, cell lines, doses and controls of each sample, at the level that is scored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.core.batch import EVALUATION_ONLY, Batch, BatchOrder, Packed, PackedLoader
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.prediction_notes import Notes, trained_range
from torchcell.core.prior import Prior
from torchcell.core.spec import Spec, fit_scaler
from torchcell.core.split import Split
from torchcell.drug_response.metrics import ResponseContext
from torchcell.drug_response.molecules import Molecules, borrowings, coverage
from torchcell.drug_response.plates import plate_center
from torchcell.drug_response.record import Response
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.drug_response.splits import SPLITS
from torchcell.drug_response.table import extend_spec, molecule_list, read_treatments, response_notes
from torchcell.drug_response.task import TASK
from torchcell.evaluation.checks import Halves
from torchcell.evaluation.results import Results
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.io.quantities import LEAST_DOSE

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
        measured = ~np.isnan(values)
        total, count = np.zeros((len(names), values.shape[1])), np.zeros((len(names), values.shape[1]))
        np.add.at(total, row, np.where(measured, values, 0.0))
        np.add.at(count, row, measured)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(np.float32)

    first = np.unique(row, return_index=True)[1]
    control, center = samples.context.eval_control, samples.context.center
    assert control is not None
    assert center is not None
    return replace(
        samples,
        sample_id=names,
        group=samples.group[first],
        measured=mean(samples.measured),
        systems={
            name: mean(np.full_like(values, np.nan) if name == samples.ceiling else values)
            for name, values in samples.systems.items()
        },
        context=ResponseContext(mean(control), center=mean(center)),
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
    plates = [set(zip(each.cell_line.tolist(), each.plate.tolist(), strict=True)) for each in (test, trained)]
    shared = sum(place in plates[1] for place in zip(test.cell_line.tolist(), test.plate.tolist(), strict=True))
    notes = [
        "Test samples are scored as predict would answer: their own control is known, no treated well of their plate.",
    ]
    several = plates_differ(record)
    if several:
        notes += [
            f"Metrics headed {PLATE_KNOWN}/ stand beside: the same samples, the mean of the treated training wells of "
            "their plate being known. They are no part of the verdict.",
            f"{shared:,} of {len(test):,} test samples lie on plates of the training part, which has met controls like "
            "theirs; the control of another plate tells a model less.",
        ]
    if record.basal is None:
        notes.append(
            "Changes are taken from each sample's own control, truth and prediction from the same: its noise raises "
            "pearson_delta of all that do not start from it; pearson_delta_plate and metrics on replicates count more."
        )
        if several:
            notes.append(
                f"What that noise is worth is told by the row fake_perturbation of {PLATE_KNOWN}/pearson_delta, "
                "another control of the same plate; it is undefined where a plate has one control."
            )
    return notes


@dataclass(frozen=True, eq=False)
class ResponseBatch(Batch):
    """B treated samples over G genes, besides the ``target`` and ``sample`` of every batch.

    Vectors and graphs of the molecules are a table of the model's; a batch says which row.

    Attributes:
        drug: Row in the table of molecules, int64 [B].
        line: Position in the spec's lines, int64 [B]; -1 is a line that was not trained on.
        log_dose: log10 of the dose in µM, float32 [B].
        log_time: log2 of the hours, float32 [B].
        input_control: The sample's control, float32 [B, G]. It is the eval control too: a sample has one.
        basal: Expression of the untreated line, float32 [B, G].
        plate_mean: Mean of the other treated training samples of its line on its plate, see ``plate_center``, float32
            [B, G]; NaN where nothing treated of the plate is known, as in a request and wherever a model is scored.
        eval_center: What the plate-centered change is taken from, float32 [B, G]; a score's, never an input.
    """

    drug: Tensor
    line: Tensor
    log_dose: Tensor
    log_time: Tensor
    input_control: Tensor
    basal: Tensor
    plate_mean: Tensor
    eval_center: Tensor = field(metadata=EVALUATION_ONLY)

    @property
    def input_controls(self) -> Mapping[str, Tensor]:
        """Changes are taken from the control, and from the plate's center."""
        return {"control": self.input_control, "plate": self.eval_center}


INPUTS: dict[str, tuple[str, ...]] = {
    "drug": ("drug",),
    "basal": ("basal",),
    "dose": ("log_dose",),
    "line": ("line",),
}
"""Inputs whose use is checked, and the tensors that hold them; the control stays, which a prediction stands on."""
FIELDS: dict[str, tuple[str, ...]] = {
    "drug": ("drug", "smiles", "inchikey"),
    "basal": ("basal",),
    "log_dose": ("dose_value",),
    "line": ("cell_line",),
}
"""Each of these tensors with the fields of a record that tell the same."""
JOINED = "_with_"
"""Between the names of inputs that are shuffled together."""
HELD_OUT: dict[str, tuple[str, ...]] = {
    "cold_cell": ("line", "basal"),
    "cold_drug_cell": ("drug", "dose", "line", "basal"),
}
"""Inputs that a split holds out; all others hold out the drug with its dose."""


def tensors_of(inputs: str) -> tuple[str, ...]:
    """The tensors that hold one input, or several whose names are joined."""
    return tuple(name for one in inputs.split(JOINED) for name in INPUTS[one])


class ResponseSamples:
    """All samples of a response packed into tensors once; indexing with a tensor gathers a batch.

    Args:
        record: The samples, its molecules being those of ``spec``; with its ``plate_mean`` where that may be known.
        spec: Names the lines.
        eval_center: See ``ResponseBatch`` [n, G]; none for a request, which is not scored.

    Attributes:
        prior: See ``Batch``, of all samples [n, G]; none unless it is set.
    """

    prior: Tensor | None = None

    def __init__(self, record: Response, spec: DrugResponseSpec, eval_center: np.ndarray | None = None) -> None:
        self.target = floats(record.treated)
        self.drug = torch.from_numpy(record.drug_index)
        row = {name: i for i, name in enumerate(spec.lines)}
        self.line = torch.tensor([row.get(name, -1) for name in record.cell_line.tolist()], dtype=torch.int64)
        self.log_dose = floats(np.log10(np.maximum(record.dose_value, LEAST_DOSE)))
        self.log_time = floats(np.log2(np.maximum(record.time, 1.0)))
        self.input_control = floats(record.control)
        self.basal = self.input_control if record.basal is None else floats(record.basal)
        self.plate_mean, self.eval_center = (
            torch.full((), torch.nan).expand(self.input_control.shape) if given is None else floats(given)
            for given in (record.plate_mean, eval_center)
        )

    def __len__(self) -> int:
        return len(self.drug)

    def __getitem__(self, index: Tensor) -> ResponseBatch:
        control = self.input_control.index_select(0, index)
        return ResponseBatch(
            self.target.index_select(0, index),
            index,
            self.drug.index_select(0, index),
            self.line.index_select(0, index),
            self.log_dose.index_select(0, index),
            self.log_time.index_select(0, index),
            control,
            control if self.basal is self.input_control else self.basal.index_select(0, index),
            self.plate_mean.index_select(0, index),
            self.eval_center.index_select(0, index),
            prior=None if self.prior is None else self.prior.index_select(0, index),
        )

    def varies(self, names: Sequence[str], index: Tensor) -> bool:
        """Whether the samples at ``index`` differ in any of the tensors ``names``."""
        return any(bool((values != values[:1]).any()) for values in (getattr(self, name)[index] for name in names))

    def keys(self, names: Sequence[str], index: Tensor) -> Tensor:
        """A number for each sample at ``index``, the same for two that share all tensors ``names``, int64 [m]."""
        each = [torch.unique(getattr(self, name)[index], dim=0, return_inverse=True)[1] for name in names]
        return torch.unique(torch.stack(each, dim=1), dim=0, return_inverse=True)[1]

    def exchanged(self, names: Sequence[str], index: Tensor, source: Tensor) -> ResponseSamples:
        """The same samples, but those at ``index`` have the tensors ``names`` of those at ``source``."""
        twin, order = copy.copy(self), torch.arange(len(self))
        order[index] = source
        for name in names:
            setattr(twin, name, getattr(self, name).index_select(0, order))
        return twin

    def zeroed(self, names: Sequence[str], values: Mapping[str, Tensor]) -> ResponseSamples:
        """The same samples with one value of each tensor in ``names`` for all."""
        twin = copy.copy(self)
        for name in names:
            tensor = getattr(self, name)
            setattr(twin, name, values[name].to(tensor.dtype).expand(tensor.shape).clone())
        return twin


def floats(values: np.ndarray) -> Tensor:
    """The values as float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def with_inputs(record: Response, names: Sequence[str], source: Response) -> Response:
    """The same samples with inputs of others.

    Args:
        record: n samples.
        names: Of the tensors that hold the inputs, see ``INPUTS``.
        source: n samples whose inputs they get.
    """
    if source.basal is None:
        source = replace(source, basal=source.control)
    return replace(record, **{field: getattr(source, field) for name in names for field in FIELDS[name]})


class ResponseDataModule(RecordDataModule):
    """Batches of treated samples; see ``RecordDataModule`` for the arguments that are not named here.

    Args:
        record: The samples.
        split: Keys of the ``split`` config.
        molecules: Makes the vectors of the record's drugs, see ``molecules``.
        missing_molecules: Drugs without a vector: ``error``, ``drop`` their samples, or ``learned``: one vector for all
            of them that the model learns.
        cell_line: Use only this line, or these; none: all.
        others: ``graph``, ``subset``, ``unknown_genes`` and ``seed``.
    """

    TASK = TASK
    spec: DrugResponseSpec
    takes_prior = True

    def __init__(
        self,
        record: Response,
        split: dict[str, Any],
        molecules: Callable[[Response], Molecules],
        missing_molecules: Literal["error", "drop", "learned"] = "error",
        cell_line: str | Sequence[str] | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        **others: Any,
    ) -> None:
        self._every = record.validate()
        record = record.on_lines(cell_line)
        record = replace(record, molecules=molecules(record))
        record, dropped = with_vectors(record, missing_molecules)
        if dropped:  # a table of the drugs that are left
            record = replace(record, molecules=molecules(record))
        super().__init__(record, split, batch_size=batch_size, eval_batch_size=eval_batch_size, **others)
        self.dropped |= dropped

    def packed_whole(self) -> ResponseSamples:
        """The samples with their plate's center, which is that of the training part."""
        self.center = plate_center(self.record_whole, self.split.part == "train")
        self.known = ResponseSamples(replace(self.record_whole, plate_mean=self.center), self.spec, self.center)
        return ResponseSamples(self.record_whole, self.spec, self.center)

    @staticmethod
    def pack(record: Response, spec: DrugResponseSpec) -> ResponseSamples:
        """The samples of a request as tensors, see ``ResponseSamples``."""
        return ResponseSamples(record, spec)

    @staticmethod
    def vocabulary(record: Response, graph: CellGraph | None) -> tuple[str, ...]:
        """The genes that are measured."""
        return tuple(record.genes.tolist())

    def assign_folds(self, record: Response, split: Mapping[str, Any]) -> Split:
        """As all samples of the file are dealt, so that a drug's fold is the same whichever lines are loaded.

        A split from a file names these samples and no other, and which line is held out is a matter of the lines
        that are loaded.
        """
        if split["method"] in ("file", "cold_cell"):
            return super().assign_folds(record, split)
        whole = SPLITS.make(self._every, **split)
        return whole.of(record.sample_id).validate(record.sample_id)

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """The training part, with the other treated wells of each sample's plate."""
        index = torch.from_numpy(self.split.index("train"))
        return PackedLoader(self.known, BatchOrder(index, shuffle, self.seed, rank, world), batch_size)

    def evaluation_inputs(self, part: str) -> dict[str, Callable[[], Response]]:
        """The part as a request to ``predict``; and with the treated wells of its plates, where they differ."""

        def known() -> Response:
            return replace(self.record(part).blind(), plate_mean=self.center[self.split.index(part)])

        request = {"": lambda: self.record(part).as_request()}
        return {**request, PLATE_KNOWN: known} if plates_differ(self.record_whole) else request

    def make_spec(self, base: Spec, train: Response) -> DrugResponseSpec:
        """Molecules, lines with their mean control and basal profile, the size of a change, doses and times."""
        table = self.record_whole.molecules
        assert table is not None
        lines = np.unique(train.cell_line)
        basal = train.control if train.basal is None else train.basal
        at = [train.cell_line == line for line in lines]
        center, scale = fit_scaler(floats(train.treated - train.control), self.task(train))
        trained = np.isin(table.id, train.drug)
        return DrugResponseSpec(
            **vars(base),
            molecules=molecule_list(table, torch.from_numpy(trained)),
            lines=tuple(lines.tolist()),
            line_control=torch.stack([floats(train.control[rows].mean(0)) for rows in at]),
            line_treated=torch.stack([floats(train.treated[rows].mean(0)) for rows in at]),
            line_basal=torch.stack([floats(basal[rows].mean(0)) for rows in at]),
            basal_scale=torch.from_numpy(np.maximum(basal.std(0), 1e-3).astype(np.float32)),
            change_center=center,
            change_scale=scale,
            dose_range=tuple(trained_range(np.maximum(train.dose_value, LEAST_DOSE))),
            time_range=tuple(trained_range(np.maximum(train.time, 1.0))),
        )

    def inputs(self) -> tuple[str, ...]:
        """What the split holds out, then each input alone."""
        held_out = HELD_OUT.get(self.split.method, ("drug", "dose"))
        return (JOINED.join(held_out), *INPUTS)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The samples with each other's drug, dose, line or basal profile, or several of them together."""
        packed, names = self.packed, tensors_of(name)
        assert isinstance(packed, ResponseSamples)
        order = derangement(packed.keys(names, index), generator)
        if order is None:
            return None
        source = self.record_whole.subset(index[order].numpy())
        return self._prior_follows(packed.exchanged(names, index, index[order]), names, index, source)

    def constant(self, name: str, index: Tensor) -> Packed | None:
        """One value of an input for all samples: the commonest drug and line of training, the mean basal profile and
        log dose. It tells samples apart as little as zeros would, and is one that the model knows how to read.
        """
        packed, names = self.packed, tensors_of(name)
        assert isinstance(packed, ResponseSamples)
        if JOINED in name or not packed.varies(names, index):
            return None
        train = torch.from_numpy(self.split.index("train"))
        values = {name: getattr(packed, name)[train].float().mean(0) for name in ("basal", "log_dose")}
        values |= {name: getattr(packed, name)[train].mode().values for name in ("drug", "line")}
        part = self.record_whole.subset(index.numpy())
        source = replace(
            part,
            drug=np.full(len(part), self.spec.molecules.id[int(values["drug"])]),
            smiles=None if part.smiles is None else np.full(len(part), self.spec.molecules.smiles[int(values["drug"])]),
            inchikey=None,
            cell_line=np.full(len(part), self.spec.lines[int(values["line"])]),
            dose_value=np.full(len(part), 10.0 ** float(values["log_dose"])),
            basal=np.broadcast_to(values["basal"].numpy(), part.control.shape),
        )
        return self._prior_follows(packed.zeroed(names, values), names, index, source)

    def _prior_follows(
        self, changed: ResponseSamples, names: Sequence[str], index: Tensor, source: Response
    ) -> ResponseSamples:
        """The prior predicts the samples at ``index`` by the inputs ``names`` that they now have, those of ``source``.

        Else the check of an input would say that what the prior reads is not used.
        """
        if self.prior is not None and changed.prior is not None:
            request = with_inputs(self.record_whole.subset(index.numpy()), names, source).as_request()
            changed.prior = changed.prior.index_copy(0, index, self.prior.predict(request))
        return changed

    def predicted_by(self, prior: Prior) -> Tensor:
        """What a prior predicts of all samples, nothing treated of their plates being known, as ``predict`` asks."""
        return prior.predict(self.record_whole.as_request())

    def use_prior(self, prior: Prior, prediction: Tensor) -> None:
        """Let batches of training hold it too."""
        super().use_prior(prior, prediction)
        self.known.prior = prediction

    def residual_spec(self, train: Response, prediction: np.ndarray) -> Spec:
        """See ``RecordDataModule``; the scale of a change is then that of what the prior leaves of it."""
        spec = super().residual_spec(train, prediction)
        assert isinstance(spec, DrugResponseSpec)
        return replace(spec, change_scale=spec.scale)

    def halves(self, part: str) -> Halves | None:
        """What sets each sample apart on its plate, and the same of its replicates on other plates, within its line."""
        return replicate_halves(self.record_whole, self.center, self.split.index(part))

    def eval_control(self, record: Response) -> np.ndarray | None:
        """Each sample's control: there is one, from which both the truth's change and the prediction's are taken."""
        return record.control

    def ceiling(self, record: Response) -> np.ndarray | None:
        """The control and the mean change of the sample's replicates [n, G]; NaN without any."""
        change = self.replicates(record)
        return None if np.isnan(change).all() else record.control + change

    def replicates(self, record: Response) -> np.ndarray:
        """See ``replicate_changes``."""
        return replicate_changes(record, self.record_whole)

    def results(
        self, part: str, predictions: Mapping[str, Mapping[str, np.ndarray]], model: str, ceiling: str | None
    ) -> list[Results]:
        """Samples; conditions, the mean over the replicates that are in the part, if any has two there (else its scores
        would be the samples'); and samples whose plates are known, if that was predicted.
        """
        record = self.record(part)
        (samples,) = super().results(part, predictions, model, ceiling)
        found = [samples, by_condition(samples, record.condition)] if self._repeats(part) else [samples]
        if PLATE_KNOWN in predictions:
            found.append(with_plates(samples, predictions[PLATE_KNOWN]))
        return found

    def context(self, part: str, record: Response) -> ResponseContext:
        """Changes are taken from each sample's control, or from its plate's center."""
        center = self.center[self.split.index(part)]
        return ResponseContext(self.eval_control(record), center=center, replicate=self.replicates(record))

    def _repeats(self, part: str) -> bool:
        """Whether a condition has two samples in ``part``."""
        condition = self.record_whole.condition[self.split.index(part)]
        return len(np.unique(condition)) < len(condition)

    def notes(self) -> list[str]:
        """What was assumed of units, which splits leak, how many drugs have vectors, and what is scored."""
        notes = [*self.record_whole.notes, *information_notes(self.record_whole, self.split.part)]
        if single := [part for part in ("train", "val", "test") if not self._repeats(part)]:
            notes.append(f"No condition has two samples in {', '.join(single)}: there is no level condition/ to score.")
        if len(single) < 3:
            notes.append("Metrics headed condition/ are of means over replicates.")
        if self.split.method in ("random", "condition"):
            leak = "replicates of one condition" if self.split.method == "random" else "other doses and lines of a drug"
            notes.append(
                f"split={self.split.method} leaks: {leak} stand in training and test; cold_drug holds whole drugs out."
            )
        covered = coverage(self.record_whole, self.split.part)
        counts = ", ".join(f"{part} {known:,} of {every:,}" for part, (known, every) in covered.items())
        notes.append(f"Drugs with a vector of their own: {counts}.")
        assert self.record_whole.molecules is not None
        if borrowed := borrowings(self.record_whole.molecules):
            notes.append(f"Borrowed vectors, each of the most similar molecule: {some(borrowed, 20)}.")
        return notes

    reads_columns = True
    ceiling_is = "one replicate"

    @staticmethod
    def read_request(path: str, spec: DrugResponseSpec, columns: Mapping[str, str] | None = None) -> Response:
        """Treatments to predict, see ``table.read_treatments``."""
        return read_treatments(path, spec, columns)

    @staticmethod
    def extend_spec(request: Response, spec: DrugResponseSpec) -> DrugResponseSpec:
        """The spec with the request's new molecules."""
        return extend_spec(request, spec)

    @staticmethod
    def prediction_notes(record: Response, spec: DrugResponseSpec, model: Any) -> Notes:
        """New drugs and lines; doses and times outside the trained range."""
        return response_notes(record, spec)

    @staticmethod
    def input_control(record: Response) -> np.ndarray:
        """Each sample's control, see ``eval_control``."""
        return record.control

    @staticmethod
    def to_table(record: Response, prediction: np.ndarray, spec: DrugResponseSpec) -> pd.DataFrame:
        """Sample id, drug, line, dose and time, then a column a gene."""
        known = {
            "sample_id": record.sample_id,
            "drug": record.drug,
            "cell_line": record.cell_line,
            "dose_value": record.dose_value,
            "time": record.time,
        }
        return pd.DataFrame(known | dict(zip(spec.outputs, prediction.T, strict=True)))


def with_vectors(record: Response, policy: str) -> tuple[Response, dict[str, int]]:
    """The record with what ``policy`` makes of drugs without a vector, and a count of what was dropped."""
    table = record.molecules
    assert table is not None
    lacking = ~table.known
    if lacking.all():
        raise InputError(f"{record.name}: no drug has a vector; choose other data.molecules, or name the structures")
    if policy not in ("error", "drop", "learned"):
        raise InputError(f"data.missing_molecules={policy!r}: must be error, drop or learned")
    if not lacking.any() or policy == "learned":
        return record, {}
    if policy == "error":
        raise InputError(
            f"{record.name}: {int(lacking.sum()):,} of {len(table):,} drugs have no vector: {some(table.id[lacking])}; "
            "set data.missing_molecules=learned (one vector for all of them) or drop"
        )
    keep = table.known[record.drug_index]
    return record.subset(keep), {"samples of drugs without a vector": int((~keep).sum())}
