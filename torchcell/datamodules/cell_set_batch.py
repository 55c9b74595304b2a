"""Batches of cell sets, and how cells are dealt to them."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, some
from torchcell.datamodules.batch import Batch, BatchOrder
from torchcell.datamodules.cell_rows import CellRows
from torchcell.datamodules.shared_rows import SharedRows
from torchcell.datamodules.spec import Spec
from torchcell.graph.ranges import owner


@dataclass(frozen=True, eq=False)
class CellSetBatch(Batch):
    """B sets of C control and S perturbed cells over G genes, besides the ``target`` and ``sample`` of every batch.

    Attributes:
        control: Control cells of the set's group, log-normalised [B, C, G]; to be made dense where they are read.
        perturbed: Cells of the condition likewise [B, S, G]; S is 0 where they are to be predicted.
        gene: Perturbed genes, positions in ``spec.genes``, int64 [M].
        ptr: Set i has ``gene[ptr[i]:ptr[i + 1]]``, int64 [B + 1].
        group: Position in the spec's groups, int64 [B]; -1 is a group that was not trained on.
        reference: Mean of the group's controls, of the half that ``control`` is drawn from and of the truth's half:
            what changes are taken against; rows [B, 2, G]. The second is for scores alone, and no model may read it.
    """

    control: CellRows
    perturbed: CellRows
    gene: Tensor
    ptr: Tensor
    group: Tensor
    reference: SharedRows

    @property
    def owner(self) -> Tensor:
        """The set that each perturbed gene belongs to, int64 [M]."""
        return owner(self.ptr, len(self.gene))

    @property
    def references(self) -> Mapping[str, Tensor]:
        """Predicted changes are taken against the half of the controls that the model draws from."""
        return {"control": self.reference.part(0)}

    @property
    def truth_references(self) -> Mapping[str, Tensor]:
        """Measured changes are taken against the other half."""
        return {"control": self.reference.part(1)}

    def blind(self) -> CellSetBatch:
        """Also without the half of the controls that truth is taken against."""
        table = self.reference.table.clone()
        table[:, 1] = torch.nan
        return replace(super().blind(), reference=replace(self.reference, table=table))

    def narrow(self, start: int, stop: int) -> CellSetBatch:
        """Sets ``start`` to ``stop``; all but the pointer are views."""
        first, last = int(self.ptr[start]), int(self.ptr[stop])
        return CellSetBatch(
            self.target[start:stop],
            self.sample[start:stop],
            self.control.narrow(start, stop),
            self.perturbed.narrow(start, stop),
            self.gene[first:last],
            self.ptr[start : stop + 1] - first,
            self.group[start:stop],
            self.reference.narrow(start, stop),
        )


class ConditionSets:
    """Conditions to predict: each stands on the same control cells whenever it is asked for.

    Control cells come from the half of the controls that truth is not scored against, chosen by the condition's name.

    Args:
        record: n conditions.
        spec: Names genes and groups, and the number of cells.
    """

    gathered_at_once = 1
    """A batch and no more: its cells are many."""

    def __init__(self, record: Conditions, spec: Spec) -> None:
        self.record, self.spec = record, spec
        place = {name: i for i, name in enumerate(spec.genes)}
        unknown = sorted({gene for targets in record.targets for gene in targets if gene not in place})
        if unknown:
            raise InputError(
                f"{record.name}: perturbed genes that the model does not know: {some(unknown)}; it knows those it was "
                "trained with and those that have features"
            )
        self.gene = [torch.tensor([place[gene] for gene in targets], dtype=torch.int64) for targets in record.targets]
        groups = {name: i for i, name in enumerate(spec.extras["groups"])}
        self.group = torch.tensor([groups.get(name, -1) for name in record.group.tolist()], dtype=torch.int64)
        self.target = torch.from_numpy(np.asarray(record.target, dtype=np.float32))
        self.reference = torch.from_numpy(np.stack([record.other_control, record.control], axis=1))
        self.starts = torch.arange(len(record))  # the condition whose control cells each one starts from
        self.moved: Tensor | None = None

    def __len__(self) -> int:
        return len(self.record)

    def __getitem__(self, index: Tensor) -> CellSetBatch:
        size = self.spec.extras["input_cells"] * self.spec.extras["eval_sets"]
        rows = np.stack([self._controls(i, size) for i in index.tolist()])
        control = CellRows.of(self.record.cells.X, rows)
        gene, ptr = ragged([self.gene[i] for i in index.tolist()])
        unseen = CellRows.none(len(index), control.shape[2])
        reference = SharedRows(self.reference, index)
        return CellSetBatch(self.target[index], index, control, unseen, gene, ptr, self.group[index], reference)

    def _controls(self, condition: int, size: int) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(str(self.record.sample_id[condition]).encode()))
        return draw(rng, self.record.input_controls(int(self.starts[condition])), size)

    def exchanged(self, what: str, index: Tensor, source: Tensor) -> ConditionSets:
        """The same conditions, but those at ``index`` have what those at ``source`` have: the perturbed genes, or with
        ``what`` a ``cell_line`` its control cells; ``moved`` then says how far the start of a prediction moved [n, G].
        """
        twin = copy.copy(self)
        if what == "cell_line":
            twin.starts, twin.group = self.starts.clone(), self.group.clone()
            twin.starts[index], twin.group[index] = self.starts[source], self.group[source]
            twin.reference = self.reference[twin.starts]
            twin.moved = twin.reference[:, 0] - self.reference[:, 0]
            return twin
        twin.gene = list(self.gene)
        for to, other in zip(index.tolist(), source.tolist(), strict=True):
            twin.gene[to] = self.gene[other]
        return twin


class TrainingSets:
    """Sets of perturbed cells with control cells of their group, dealt anew each epoch.

    Each cell of a condition comes once an epoch; the last set of a condition is filled up with cells drawn again.

    Args:
        record: The training conditions.
        spec: Names genes and groups, and the number of cells a set.
        sample: Positions of the conditions in the datamodule's sample ids.
        seed: Of the deal, with the epoch.
        pseudobulk: The target is the mean of the condition, not of the set.
    """

    gathered_at_once = 1

    def __init__(
        self, record: Conditions, spec: Spec, sample: np.ndarray, seed: int = 0, pseudobulk: bool = False
    ) -> None:
        self.sets, self.record, self.seed, self.pseudobulk = ConditionSets(record, spec), record, seed, pseudobulk
        self.sample = torch.from_numpy(np.asarray(sample, dtype=np.int64))
        self.size, self.n_inputs = int(spec.extras["set_size"]), int(spec.extras["input_cells"])
        counts = -(-np.diff(record.ptr) // self.size)
        self.condition = torch.from_numpy(np.repeat(np.arange(len(record)), counts))
        self.deal(0)

    def __len__(self) -> int:
        return len(self.condition)

    def deal(self, epoch: int) -> None:
        """Shuffle each condition's cells into its sets; a pure function of seed and epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        cells, controls = [], []
        for i in range(len(self.record)):
            members = self.record.members(i)
            n_sets = -(-len(members) // self.size)
            order = rng.permutation(members)
            filled = np.concatenate([order, rng.choice(members, n_sets * self.size - len(members))])
            cells.append(filled.reshape(n_sets, self.size))
            inputs = self.record.input_controls(i)
            controls.append(np.stack([draw(rng, inputs, self.n_inputs) for _ in range(n_sets)]))
        self.cells, self.controls = np.concatenate(cells), np.concatenate(controls)

    def __getitem__(self, index: Tensor) -> CellSetBatch:
        condition = self.condition[index]
        perturbed = CellRows.of(self.record.cells.X, self.cells[index.numpy()])
        target = self.sets.target[condition] if self.pseudobulk else perturbed.mean()
        gene, ptr = ragged([self.sets.gene[i] for i in condition.tolist()])
        control = CellRows.of(self.record.cells.X, self.controls[index.numpy()])
        group, reference = self.sets.group[condition], SharedRows(self.sets.reference, condition)
        return CellSetBatch(target, self.sample[condition], control, perturbed, gene, ptr, group, reference)


class SetOrder(BatchOrder):
    """The order of training sets, which are dealt anew with each epoch."""

    def __init__(self, sets: TrainingSets, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        super().__init__(torch.arange(len(sets)), shuffle, seed, rank, world)
        self.sets = sets

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        super().set_epoch(epoch)
        self.sets.deal(epoch)


def draw(rng: np.random.Generator, cells: np.ndarray, size: int) -> np.ndarray:
    """``size`` of the cells, each once where there are enough."""
    return rng.choice(cells, size, replace=len(cells) < size)


def ragged(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Values of all parts in a row, and the pointer to each."""
    sizes = torch.tensor([0, *map(len, parts)])
    return (torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)), sizes.cumsum(0)
