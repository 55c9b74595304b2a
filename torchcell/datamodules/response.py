"""Drug response as batches and as results: of samples, and of conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.data.errors import InputError, some
from torchcell.data.molecules import Molecules, borrowings, coverage
from torchcell.data.plate_centre import plate_centre
from torchcell.data.response import Response
from torchcell.datamodules.base import RecordDataModule
from torchcell.datamodules.batch import BatchOrder, Packed, PackedLoader
from torchcell.datamodules.derangement import derangement
from torchcell.datamodules.prediction_notes import Notes
from torchcell.datamodules.response_levels import (
    PLATE_KNOWN,
    by_condition,
    information_notes,
    plates_differ,
    replicate_changes,
    replicate_halves,
    with_plates,
)
from torchcell.datamodules.response_notes import response_notes
from torchcell.datamodules.response_request import read_treatments, widened
from torchcell.datamodules.response_samples import (
    HELD_OUT,
    INPUTS,
    JOINED,
    ResponseSamples,
    floats,
    tensors_of,
    wells,
)
from torchcell.datamodules.spec import Spec, fit_scaler
from torchcell.graph.cell_graph import CellGraph
from torchcell.metrics.checks import Halves
from torchcell.metrics.results import Results
from torchcell.splits.methods import make_split
from torchcell.splits.split import Split


class ResponseDataModule(RecordDataModule):
    """Batches of treated samples; see ``RecordDataModule`` for the arguments that are not named here.

    Args:
        record: The samples.
        split: Keys of the ``split`` config.
        molecules: Makes the vectors of the record's drugs, see ``torchcell.data.morgan`` and its neighbours.
        missing_molecules: Drugs without a vector: ``error``, ``drop`` their samples, or ``learned``: one vector for all
            of them that the model learns.
        cell_line: Use only this line, or these; none: all.
    """

    def __init__(
        self,
        record: Response,
        split: dict[str, Any],
        molecules: Callable[[Response], Molecules],
        missing_molecules: Literal["error", "drop", "learned"] = "error",
        cell_line: str | Sequence[str] | None = None,
        graph: CellGraph | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        subset: int | None = None,
        unknown_genes: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> None:
        self._every = record.validate()
        record = record.on_lines(cell_line)
        record = replace(record, molecules=molecules(record))
        record, dropped = with_vectors(record, missing_molecules)
        if dropped:  # a table of the drugs that are left
            record = replace(record, molecules=molecules(record))
        super().__init__(record, split, graph, batch_size, eval_batch_size, subset, unknown_genes, seed)
        self.lost |= dropped

    def packed_whole(self) -> ResponseSamples:
        """The samples with their plate's centre, which is that of the training part."""
        self.centre = plate_centre(self.record_whole, self.split.part == "train")
        self.known = ResponseSamples(replace(self.record_whole, plate_mean=self.centre), self.spec, self.centre)
        return ResponseSamples(self.record_whole, self.spec, self.centre)

    @staticmethod
    def pack(record: Response, spec: Spec) -> ResponseSamples:
        """The samples of a request as tensors, see ``ResponseSamples``."""
        return ResponseSamples(record, spec)

    @staticmethod
    def vocabulary(record: Response, graph: CellGraph | None) -> tuple[str, ...]:
        """The genes that are measured."""
        return tuple(record.genes.tolist())

    def deal(self, record: Response, split: Mapping[str, Any]) -> Split:
        """As all samples of the file are dealt, so that a drug's fold is the same whichever lines are loaded.

        A split from a file names these samples and no other, and which line is held out is a matter of the lines
        that are loaded.
        """
        if split["method"] in ("file", "cold_cell"):
            return super().deal(record, split)
        whole = make_split(self._every, **split)
        return whole.of(record.sample_id).validate(record.sample_id)

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """The training part, with the other treated wells of each sample's plate."""
        index = torch.from_numpy(self.split.index("train"))
        return PackedLoader(self.known, BatchOrder(index, shuffle, self.seed, rank, world), batch_size)

    def asked(self, part: str) -> dict[str, Callable[[], Response]]:
        """The part as ``predict`` is asked for it; and with the treated wells of its plates, where they differ."""

        def known() -> Response:
            return replace(self.record(part).blind(), plate_mean=self.centre[self.split.index(part)])

        request = {"": lambda: self.record(part).as_request()}
        return {**request, PLATE_KNOWN: known} if plates_differ(self.record_whole) else request

    def extras(self, train: Response) -> dict[str, Any]:
        """Molecules, lines with their mean control and basal profile, the size of a change, and the training wells."""
        table = self.record_whole.molecules
        assert table is not None
        lines = np.unique(train.cell_line)
        basal = train.control if train.basal is None else train.basal
        at = [train.cell_line == line for line in lines]
        center, scale = fit_scaler(floats(train.treated - train.control), self.task(train))
        trained = np.isin(table.id, train.drug)
        held: dict[str, Any] = {
            "id": table.id.tolist(),
            "smiles": table.smiles.tolist(),
            "vectors": torch.from_numpy(np.ascontiguousarray(table.vectors, dtype=np.float32)),
            "known": torch.from_numpy(table.known),
            "trained": torch.from_numpy(trained),
            "features": dict(table.features),
        }
        if table.graphs is not None:
            held["graphs"] = {name: torch.from_numpy(values) for name, values in table.graphs.items()}
        return {
            "molecules": held,
            "lines": lines.tolist(),
            "line_control": torch.stack([floats(train.control[rows].mean(0)) for rows in at]),
            "line_treated": torch.stack([floats(train.treated[rows].mean(0)) for rows in at]),
            "basal_scale": torch.from_numpy(np.maximum(basal.std(0), 1e-3).astype(np.float32)),
            "line_basal": torch.stack([floats(basal[rows].mean(0)) for rows in at]),
            "change_center": center,
            "change_scale": scale,
            "trained": wells(train, lines.tolist()),
        }

    def inputs(self) -> tuple[str, ...]:
        """What the split holds out, then each input alone."""
        held_out = HELD_OUT.get(self.split.method, ("drug", "dose"))
        return (JOINED.join(held_out), *INPUTS)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The samples with each other's drug, dose, line or basal profile, or several of them together."""
        packed, names = self.packed, tensors_of(name)
        assert isinstance(packed, ResponseSamples)
        order = derangement(packed.keys(names, index), generator)
        return None if order is None else packed.exchanged(names, index, index[order])

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
        return packed.zeroed(names, values)

    def halves(self, part: str) -> Halves | None:
        """What sets each sample apart on its plate, and the same of its replicates on other plates, within its line."""
        return replicate_halves(self.record_whole, self.centre, self.split.index(part))

    def reference(self, record: Response) -> np.ndarray | None:
        """Each sample's control."""
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
        centre = self.centre[self.split.index(part)]
        samples = replace(samples, replicate=self.replicates(record), centre=centre)
        found = [samples, by_condition(samples, record.condition)] if self._repeats(part) else [samples]
        if PLATE_KNOWN in predictions:
            found.append(with_plates(samples, predictions[PLATE_KNOWN]))
        return found

    def _repeats(self, part: str) -> bool:
        """Whether a condition has two samples in ``part``."""
        condition = self.record_whole.condition[self.split.index(part)]
        return len(np.unique(condition)) < len(condition)

    def notes(self) -> list[str]:
        """What was assumed of units, which splits leak, how many drugs have vectors, and what is scored."""
        said = [*self.record_whole.notes, *information_notes(self.record_whole, self.split.part)]
        if single := [part for part in ("train", "val", "test") if not self._repeats(part)]:
            said.append(f"No condition has two samples in {', '.join(single)}: there is no level condition/ to score.")
        if len(single) < 3:
            said.append("Metrics headed condition/ are of means over replicates.")
        if self.split.method in ("random", "condition"):
            leak = "replicates of one condition" if self.split.method == "random" else "other doses and lines of a drug"
            said.append(
                f"split={self.split.method} leaks: {leak} stand in training and test; cold_drug is the hard one."
            )
        shares = coverage(self.record_whole, self.split.part)
        told = ", ".join(f"{part} {known:,} of {every:,}" for part, (known, every) in shares.items())
        said.append(f"Drugs with a vector of their own: {told}.")
        assert self.record_whole.molecules is not None
        if borrowed := borrowings(self.record_whole.molecules):
            said.append(f"Borrowed vectors, each of the most similar molecule: {some(borrowed, 20)}.")
        return said

    reads_columns = True
    ceiling_is = "one replicate"

    @staticmethod
    def read_request(path: str, spec: Spec, columns: Mapping[str, str] | None = None) -> Response:
        """Treatments to predict, see ``response_request``."""
        return read_treatments(path, spec, columns)

    @staticmethod
    def widened(request: Response, spec: Spec) -> Spec:
        """The spec with the request's new molecules."""
        return widened(request, spec)

    @staticmethod
    def prediction_notes(record: Response, spec: Spec, model: Any) -> Notes:
        """New drugs and lines; doses and times outside the trained range."""
        return response_notes(record, spec)

    @staticmethod
    def origin(record: Response) -> np.ndarray:
        """Each sample's control."""
        return record.control

    @staticmethod
    def response(record: Response, prediction: np.ndarray, spec: Spec) -> pd.DataFrame:
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
