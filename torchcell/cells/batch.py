"""Sets of cells as tensors: the rows that one batch takes from the record, and the batch itself."""

from __future__ import annotations

import copy
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from torchcell.cells.backed import BackedMatrix
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.spec import CellsSpec
from torchcell.core.batch import EVALUATION_ONLY, Batch, BatchOrder, SharedRows
from torchcell.graph.cell_graph import expand, owner
from torchcell.io.errors import InputError, some


class CellRows(ABC):
    """Expression of B sets of S cells each over G genes, float32.

    Attributes:
        shape: B, S and G.
        values: Numbers of the cells, however they are stored.
    """

    shape: tuple[int, int, int]
    values: Tensor

    @staticmethod
    def of(matrix: Any, rows: np.ndarray) -> CellRows:
        """The cells at ``rows`` [B, S] of a matrix [n, G]: sparse if it is, and then read without its zeros."""
        values, shape = matrix[rows.ravel()], (*rows.shape, int(matrix.shape[1]))
        if not sparse.issparse(values):
            return DenseRows(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).view(shape))
        values = values.tocsr()
        kinds = {"indptr": np.int64, "indices": np.int32, "data": np.float32}
        held = {name: torch.from_numpy(getattr(values, name).astype(kind, copy=False)) for name, kind in kinds.items()}
        return SparseRows(held["indptr"], held["indices"], held["data"], shape)

    @staticmethod
    def none(n_sets: int, n_genes: int) -> CellRows:
        """Sets without cells."""
        return DenseRows(torch.empty(n_sets, 0, n_genes))

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that are carried."""

    @abstractmethod
    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""

    @abstractmethod
    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``; values are views."""

    def blank(self) -> CellRows:
        """As many sets over as many genes, without cells, on the same device."""
        n_sets, _, n_genes = self.shape
        return DenseRows(self.values.new_empty(n_sets, 0, n_genes))

    @abstractmethod
    def split(self, size: int) -> Iterator[Self]:
        """The same sets with at most ``size`` of their cells at a time."""

    @abstractmethod
    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell over the genes at these positions, each of them once; none: over all."""

    @abstractmethod
    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells."""


@dataclass(frozen=True, eq=False)
class DenseRows(CellRows):
    """Cells out of a dense matrix.

    Attributes:
        values: Expression [B, S, G].
    """

    values: Float[Tensor, "B S G"]

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """B, S and G."""
        n_sets, n_cells, n_genes = self.values.shape
        return n_sets, n_cells, n_genes

    @property
    def nbytes(self) -> int:
        """Bytes that are carried."""
        return self.values.nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""
        return type(self)(self.values.to(device, non_blocking=non_blocking))

    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``, a view."""
        return type(self)(self.values[start:stop])

    def split(self, size: int) -> Iterator[Self]:
        """Views with at most ``size`` cells a set."""
        return (type(self)(part) for part in self.values.split(size, 1))

    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell, over these genes or all."""
        return self.values if genes is None else self.values[:, :, genes]

    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells."""
        return self.values.mean(1)


@dataclass(frozen=True, eq=False)
class SparseRows(CellRows):
    """Cells out of a sparse matrix: CSR with a row a cell, the sets one after the other.

    Attributes:
        indptr: Cell i has the values ``indptr[i]`` to ``indptr[i + 1]``, int64 [B * S + 1].
        indices: Gene of each value, int32 [E], in any order.
        values: Float32 [E].
        shape: B, S and G.
    """

    indptr: Int[Tensor, " n"]
    indices: Int[Tensor, " E"]
    values: Float[Tensor, " E"]
    shape: tuple[int, int, int]

    @property
    def nbytes(self) -> int:
        """Bytes that are carried."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""
        held = {name: getattr(self, name) for name in ("indptr", "indices", "values")}
        return replace(self, **{name: each.to(device, non_blocking=non_blocking) for name, each in held.items()})

    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``; all but the pointer are views."""
        n_sets, n_cells, n_genes = self.shape
        start, stop, _ = slice(start, stop).indices(n_sets)
        indptr = self.indptr[start * n_cells : stop * n_cells + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        shape = (stop - start, n_cells, n_genes)
        return type(self)(indptr - first, self.indices[first:last], self.values[first:last], shape)

    def split(self, size: int) -> Iterator[Self]:
        """The same sets with at most ``size`` cells, whose values are gathered."""
        n_sets, n_cells, n_genes = self.shape
        if size >= n_cells:
            yield self
            return
        rows = torch.arange(n_sets * n_cells, device=self.values.device).view(n_sets, n_cells)
        for part in rows.split(size, 1):
            start, counts = self.indptr[part.flatten()], self.indptr.diff()[part.flatten()]
            at, _ = expand(start, counts)
            indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            yield type(self)(indptr, self.indices[at], self.values[at], (n_sets, part.shape[1], n_genes))

    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell, over these genes or all; a gene's values in one cell are added up."""
        n_sets, n_cells, n_genes = self.shape
        if genes is None:
            return self._scattered(self.indices, n_genes).view(self.shape)
        # Values of the other genes go to a last column that no one reads: to pick would make a device wait for a count.
        place = torch.full((n_genes,), len(genes), dtype=torch.int32, device=self.values.device)
        place[genes] = torch.arange(len(genes), dtype=torch.int32, device=self.values.device)
        wider = self._scattered(place.index_select(0, self.indices), len(genes) + 1)
        return wider.view(n_sets, n_cells, -1)[:, :, :-1]

    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells, added up from the values that are there."""
        n_sets, n_cells, n_genes = self.shape
        one_row_a_set = replace(self, indptr=self.indptr[::n_cells], shape=(n_sets, 1, n_genes))
        return one_row_a_set.dense()[:, 0].div_(n_cells)

    def _scattered(self, columns: Tensor, width: int) -> Tensor:
        """The values added into zeros at their rows and these columns [rows, width]."""
        if self.values.device.type != "cpu":
            return self._scattered_on_device(columns, width)
        parts = (part.numpy() for part in (self.values, columns, self.indptr))  # three times faster than scattering
        return torch.from_numpy(sparse.csr_matrix(tuple(parts), shape=(len(self.indptr) - 1, width)).toarray())

    def _scattered_on_device(self, columns: Tensor, width: int) -> Tensor:
        n_rows = len(self.indptr) - 1
        at = owner(self.indptr, len(columns)) * width + columns
        return self.values.new_zeros(n_rows * width).scatter_add_(0, at, self.values).view(n_rows, width)


@dataclass(frozen=True, eq=False)
class CellSetBatch(Batch):
    """B sets of C control and S perturbed cells over G genes, besides the ``target`` and ``sample`` of every batch.

    Attributes:
        input_cells: Control cells of the set's group, log-normalized [B, C, G]; to be made dense where they are read.
        perturbed: Cells of the condition likewise [B, S, G], for losses alone; S is 0 where they are to be predicted.
        gene: Perturbed genes, positions in ``spec.genes``, int64 [M].
        ptr: Set i has ``gene[ptr[i]:ptr[i + 1]]``, int64 [B + 1].
        group: Position in the spec's groups, int64 [B]; -1 is a group that was not trained on.
        input_control: Mean of the half of the group's controls that ``input_cells`` are drawn from, rows [B, G]: what
            predicted changes are taken from.
        eval_control: Mean of the other half likewise: what measured changes are taken from, for scores alone.
    """

    input_cells: CellRows
    perturbed: CellRows = field(metadata=EVALUATION_ONLY)
    gene: Tensor
    ptr: Tensor
    group: Tensor
    input_control: SharedRows
    eval_control: SharedRows = field(metadata=EVALUATION_ONLY)

    @property
    def owner(self) -> Tensor:
        """The set that each perturbed gene belongs to, int64 [M]."""
        return owner(self.ptr, len(self.gene))

    @property
    def input_controls(self) -> Mapping[str, Tensor]:
        """Predicted changes are taken from the half of the controls that the model draws from."""
        return {"control": self.input_control.rows()}

    @property
    def eval_controls(self) -> Mapping[str, Tensor]:
        """Measured changes are taken from the other half."""
        return {"control": self.eval_control.rows()}

    def narrow(self, start: int, stop: int) -> CellSetBatch:
        """Sets ``start`` to ``stop``; all but the pointer are views."""
        first, last = int(self.ptr[start]), int(self.ptr[stop])
        return CellSetBatch(
            self.target[start:stop],
            self.sample[start:stop],
            self.input_cells.narrow(start, stop),
            self.perturbed.narrow(start, stop),
            self.gene[first:last],
            self.ptr[start : stop + 1] - first,
            self.group[start:stop],
            self.input_control.narrow(start, stop),
            self.eval_control.narrow(start, stop),
            prior=None if self.prior is None else self.prior[start:stop],
        )


class ConditionSets:
    """Conditions to predict: each stands on the same control cells whenever it is asked for.

    Control cells come from the half of the controls that truth is not scored against, chosen by the condition's name.

    Args:
        record: n conditions.
        spec: Names genes and groups, and the number of cells.

    Attributes:
        prior: See ``Batch``, of all conditions [n, G]; none unless it is set.
    """

    gathered_at_once = 1
    """A batch and no more: its cells are many."""
    prior: Tensor | None = None

    @property
    def read_ahead(self) -> bool:
        """Whether the next batch is read while one is used: where cells are on disk."""
        return isinstance(self.record.cells.X, BackedMatrix)

    def __init__(self, record: Pseudobulk, spec: CellsSpec) -> None:
        self.record, self.spec = record, spec
        place = {name: i for i, name in enumerate(spec.genes)}
        unknown = sorted({gene for targets in record.targets for gene in targets if gene not in place})
        if unknown:
            raise InputError(
                f"{record.name}: perturbed genes that the model does not know: {some(unknown)}; it knows those it was "
                "trained with and those that have features"
            )
        self.gene = [torch.tensor([place[gene] for gene in targets], dtype=torch.int64) for targets in record.targets]
        groups = {name: i for i, name in enumerate(spec.groups)}
        self.group = torch.tensor([groups.get(name, -1) for name in record.group.tolist()], dtype=torch.int64)
        self.target = torch.from_numpy(np.asarray(record.target, dtype=np.float32))
        self.input_control, self.eval_control = map(torch.from_numpy, (record.input_control, record.eval_control))
        self.moved: Tensor | None = None

    def __len__(self) -> int:
        return len(self.record)

    def __getitem__(self, index: Tensor) -> CellSetBatch:
        size = self.spec.input_cells * self.spec.eval_sets
        rows = np.stack([self._controls(i, size) for i in index.tolist()])
        control = CellRows.of(self.record.cells.X, rows)
        gene, ptr = ragged([self.gene[i] for i in index.tolist()])
        unseen = CellRows.none(len(index), control.shape[2])
        return CellSetBatch(
            *(self.target[index], index, control, unseen, gene, ptr, self.group[index], *self.controls_of(index)),
            prior=self.prior_of(index),
        )

    def controls_of(self, index: Tensor) -> tuple[SharedRows, SharedRows]:
        """Means of the two halves of the controls, the input's and the truth's."""
        return SharedRows(self.input_control, index), SharedRows(self.eval_control, index)

    def prior_of(self, index: Tensor) -> Tensor | None:
        """What the prior predicts, float32 [B, G]."""
        return None if self.prior is None else self.prior.index_select(0, index)

    def _controls(self, condition: int, size: int) -> np.ndarray:
        rng = np.random.default_rng(zlib.crc32(str(self.record.sample_id[condition]).encode()))
        return draw(rng, self.record.input_cells(condition), size)

    def exchanged(self, what: str, index: Tensor, source: Tensor) -> ConditionSets:
        """The same conditions, but those at ``index`` have what those at ``source`` have: the perturbed genes, or with
        ``what`` a ``cell_line`` its control cells; ``moved`` then says how far the start of a prediction moved [n, G].
        The prior stays as it was.
        """
        twin, order = copy.copy(self), torch.arange(len(self))
        order[index] = source
        twin.record = self.record.exchanged(what, order.numpy())
        if what == "cell_line":
            twin.group, twin.input_control, twin.eval_control = (
                each[order] for each in (self.group, self.input_control, self.eval_control)
            )
            twin.moved = twin.input_control - self.input_control
        else:
            twin.gene = [self.gene[other] for other in order.tolist()]
        return twin


Sampling = Literal["rows", "blocks"]
"""Cells of a set: any of a condition (``rows``), or those of a stretch of the condition's list (``blocks``)."""
BLOCK = 128
"""Cells of a stretch. Where a condition's cells lie together, as ``data prepare`` writes them, it is one read."""
WINDOW = 32_768
"""Cells of the sets that are shuffled among each other in ``blocks``; they come from some hundred blocks."""
BUFFER = 2**26
"""Bytes of cells that are read from disk at a time."""


class TrainingSets:
    """Sets of perturbed cells with control cells of their group, drawn anew each epoch.

    Each cell of a condition comes once an epoch; the last set of a condition is filled up with cells drawn again.
    With ``blocks`` the cells of a set come from ``BLOCK`` neighbors in the condition's list, and its controls from
    neighbors in theirs; the list begins elsewhere in each epoch. What is drawn depends on the lists and the seed alone,
    never on where the cells are stored.

    Args:
        record: The training conditions.
        spec: Names genes and groups, and the number of cells a set.
        sample: Positions of the conditions in the datamodule's sample ids.
        seed: Of the deal, with the epoch.
        pseudobulk: The target is the mean of the condition, not of the set.
        prior: See ``Batch``, of the training conditions [n, G].
        sampling: See ``Sampling``.
    """

    def __init__(
        self,
        record: Pseudobulk,
        spec: CellsSpec,
        sample: np.ndarray,
        seed: int = 0,
        pseudobulk: bool = False,
        prior: Tensor | None = None,
        sampling: Sampling = "rows",
    ) -> None:
        self.sampling = sampling
        self.sets, self.record, self.seed, self.pseudobulk = ConditionSets(record, spec), record, seed, pseudobulk
        self.sets.prior = prior
        self.sample = torch.from_numpy(np.asarray(sample, dtype=np.int64))
        self.size, self.n_inputs = spec.set_size, spec.input_cells
        counts = -(-np.diff(record.ptr) // self.size)
        self.condition = torch.from_numpy(np.repeat(np.arange(len(record)), counts))
        self.of_block = max(BLOCK // self.size, 1)
        within = np.arange(len(self.condition)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.block = np.cumsum(within % self.of_block == 0) - 1
        self.assign_folds(0)

    @property
    def read_ahead(self) -> bool:
        """Whether the next sets are read while some are used: where cells are on disk."""
        return self.sets.read_ahead

    @property
    def gathered_at_once(self) -> int:
        """Sets that are read at a time from disk, in the order of the file; a batch and no more in memory."""
        X = self.record.cells.X
        if not isinstance(X, BackedMatrix):
            return 1
        a_cell = 4 * X.shape[1] if X.n_values is None else 8 * X.n_values / max(len(X), 1)
        cells = min(BUFFER / max(a_cell, 1), WINDOW)
        return max(int(cells / (self.size + self.n_inputs)), 1)

    def __len__(self) -> int:
        return len(self.condition)

    def assign_folds(self, epoch: int) -> None:
        """Shuffle each condition's cells into its sets; a pure function of seed and epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        deal = self._rows if self.sampling == "rows" else self._blocks
        drawn = [deal(rng, self.record.members(i), self.record.input_cells(i)) for i in range(len(self.record))]
        self.cells, self.controls = (np.concatenate(parts) for parts in zip(*drawn, strict=True))

    def _rows(self, rng: np.random.Generator, members: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sets of a condition's cells [m, S], and control cells for each of them [m, C]."""
        n_sets = -(-len(members) // self.size)
        order = rng.permutation(members)
        filled = np.concatenate([order, rng.choice(members, n_sets * self.size - len(members))])
        controls = np.stack([draw(rng, inputs, self.n_inputs) for _ in range(n_sets)])
        return filled.reshape(n_sets, self.size), controls

    def _blocks(
        self, rng: np.random.Generator, members: np.ndarray, inputs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same, of stretches of both lists."""
        begun = np.roll(members, int(rng.integers(len(members))))
        cells, controls = [], []
        for start in range(0, len(begun), self.of_block * self.size):
            own = rng.permutation(begun[start : start + self.of_block * self.size])
            n_sets = -(-len(own) // self.size)
            own = np.concatenate([own, rng.choice(own, n_sets * self.size - len(own))])
            cells.append(own.reshape(n_sets, self.size))
            n = n_sets * self.n_inputs
            near = inputs[(int(rng.integers(len(inputs))) + np.arange(min(n, len(inputs)))) % len(inputs)]
            if len(near) == n:
                controls.append(rng.permutation(near).reshape(n_sets, self.n_inputs))
            else:
                controls.append(np.stack([draw(rng, near, self.n_inputs) for _ in range(n_sets)]))
        return np.concatenate(cells), np.concatenate(controls)

    def __getitem__(self, index: Tensor) -> CellSetBatch:
        condition = self.condition[index]
        perturbed = CellRows.of(self.record.cells.X, self.cells[index.numpy()])
        target = self.sets.target[condition] if self.pseudobulk else perturbed.mean()
        gene, ptr = ragged([self.sets.gene[i] for i in condition.tolist()])
        control = CellRows.of(self.record.cells.X, self.controls[index.numpy()])
        group, halves = self.sets.group[condition], self.sets.controls_of(condition)
        prior = self.sets.prior_of(condition)
        return CellSetBatch(target, self.sample[condition], control, perturbed, gene, ptr, group, *halves, prior=prior)


class SetOrder(BatchOrder):
    """The order of training sets, which are drawn anew with each epoch.

    With ``blocks`` whole blocks are shuffled and given to processes, then the sets within each window of blocks.
    """

    def __init__(self, sets: TrainingSets, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        stretch = 1 if sets.sampling == "rows" else sets.of_block
        super().__init__(torch.arange(len(sets)), shuffle, seed, rank, world, stretch=stretch)
        self.sets = sets

    def permuted(self, generator: torch.Generator) -> Tensor:
        """See ``BatchOrder``."""
        if self.sets.sampling == "rows":
            return super().permuted(generator)
        rank = torch.randperm(int(self.sets.block[-1]) + 1, generator=generator)[torch.from_numpy(self.sets.block)]
        return rank.argsort(stable=True)

    def draw(self) -> Tensor:
        """See ``BatchOrder``."""
        index = super().draw()
        if self.sets.sampling == "rows" or not self.shuffle:
            return index
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        size = max(WINDOW // (self.sets.size + self.sets.n_inputs), 1)
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in index.split(size)])

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        super().set_epoch(epoch)
        self.sets.assign_folds(epoch)


def draw(rng: np.random.Generator, cells: np.ndarray, size: int) -> np.ndarray:
    """``size`` of the cells, each once where there are enough."""
    return rng.choice(cells, size, replace=len(cells) < size)


def ragged(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Values of all parts in a row, and the pointer to each."""
    sizes = torch.tensor([0, *map(len, parts)])
    return (torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)), sizes.cumsum(0)
