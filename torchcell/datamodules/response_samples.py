"""Batches of drug response: numbers of drug and line, dose and time, and the profiles that are a sample's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchcell.data.quantities import LEAST_DOSE
from torchcell.data.response import Response
from torchcell.datamodules.batch import Batch
from torchcell.datamodules.spec import Spec


@dataclass(frozen=True, eq=False)
class ResponseBatch(Batch):
    """B treated samples over G genes, besides the ``target`` and ``sample`` of every batch.

    Vectors and graphs of the molecules are a table of the model's; a batch says which row.

    Attributes:
        drug: Row in the table of molecules, int64 [B].
        line: Position in the spec's lines, int64 [B]; -1 is a line that was not trained on.
        log_dose: log10 of the dose in µM, float32 [B].
        log_time: log2 of the hours, float32 [B].
        control: The sample's control, float32 [B, G].
        basal: Expression of the untreated line, float32 [B, G].
        plate_mean: Mean of the other treated training samples of its line on its plate, see ``plate_centre``, float32
            [B, G]; NaN where nothing treated of the plate is known, as in a request and wherever a model is scored.
        eval_center: What the plate-centered change is taken from, float32 [B, G]; a score's, never an input.
    """

    drug: Tensor
    line: Tensor
    log_dose: Tensor
    log_time: Tensor
    control: Tensor
    basal: Tensor
    plate_mean: Tensor
    eval_center: Tensor

    def blind(self) -> ResponseBatch:
        """Also without the center that scores are taken from."""
        nothing = torch.full((), torch.nan, device=self.eval_center.device).expand(self.eval_center.shape)
        return replace(super().blind(), eval_center=nothing)

    @property
    def references(self) -> Mapping[str, Tensor]:
        """Changes are taken against the control, and against the plate's center."""
        return {"control": self.control, "plate": self.eval_center}


INPUTS: dict[str, tuple[str, ...]] = {
    "drug": ("drug",),
    "basal": ("basal",),
    "dose": ("log_dose",),
    "line": ("line",),
}
"""Inputs whose use is checked, and the tensors that hold them; the control stays, which a prediction stands on."""
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
    """

    def __init__(self, record: Response, spec: Spec, eval_center: np.ndarray | None = None) -> None:
        self.target = floats(record.treated)
        named = wells(record, spec.extras["lines"])
        self.drug, self.line = named["drug"], named["line"]
        self.log_dose, self.log_time = named["log_dose"], named["log_time"]
        self.control = floats(record.control)
        self.basal = self.control if record.basal is None else floats(record.basal)
        self.plate_mean, self.eval_center = (
            torch.full((), torch.nan).expand(self.control.shape) if given is None else floats(given)
            for given in (record.plate_mean, eval_center)
        )

    def __len__(self) -> int:
        return len(self.drug)

    def __getitem__(self, index: Tensor) -> ResponseBatch:
        control = self.control.index_select(0, index)
        return ResponseBatch(
            self.target.index_select(0, index),
            index,
            self.drug.index_select(0, index),
            self.line.index_select(0, index),
            self.log_dose.index_select(0, index),
            self.log_time.index_select(0, index),
            control,
            control if self.basal is self.control else self.basal.index_select(0, index),
            self.plate_mean.index_select(0, index),
            self.eval_center.index_select(0, index),
        )

    def varies(self, names: Sequence[str], index: Tensor) -> bool:
        """Whether the samples at ``index`` differ in any of the tensors ``names``."""
        return any(bool((held != held[:1]).any()) for held in (getattr(self, name)[index] for name in names))

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
            held = getattr(self, name)
            setattr(twin, name, values[name].to(held.dtype).expand(held.shape).clone())
        return twin


def floats(values: np.ndarray) -> Tensor:
    """The values as float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def wells(record: Response, lines: Sequence[str]) -> dict[str, Tensor]:
    """``drug``, ``line``, ``log_dose`` and ``log_time`` of the samples [n] each, as in ``ResponseBatch``.

    Args:
        record: With its molecules.
        lines: Names by position.
    """
    place = {name: i for i, name in enumerate(lines)}
    return {
        "drug": torch.from_numpy(record.drug_index),
        "line": torch.tensor([place.get(name, -1) for name in record.cell_line.tolist()], dtype=torch.int64),
        "log_dose": floats(np.log10(np.maximum(record.dose_value, LEAST_DOSE))),
        "log_time": floats(np.log2(np.maximum(record.time, 1.0))),
    }
