"""Sets of cells: control cells in, cells of one condition out, drawn anew each epoch; see ``cell_set_batch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.cells.batch import ConditionSets, SetOrder, TrainingSets
from torchcell.cells.curriculum import describe_phases, entry_phase, find_phases
from torchcell.cells.gene_selection import GeneSelection, Responsive, chosen
from torchcell.cells.metrics import CellPairs, CellsContext, own_columns, significant_genes
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import moments
from torchcell.cells.spec import CellsSpec, NetworkGenes, PhaseSources, Single, TrainedPerturbations
from torchcell.cells.table import (
    Controls,
    cell_notes,
    extend_spec,
    named_conditions,
    read_perturbations,
    with_known_genes,
)
from torchcell.cells.task import TASK
from torchcell.core.batch import Packed, PackedLoader
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.prediction_notes import Notes
from torchcell.core.spec import Spec
from torchcell.evaluation.checks import Halves
from torchcell.evaluation.results import Results
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.io.gene_features import GeneFeatures

UNKNOWN = "in no network"
"""Column of the features: 1 for a gene that the graph does not name."""
LEAST_SCALE = 0.1
"""Least scale of a gene, in units of the root mean square over genes."""


class CellSetDataModule(RecordDataModule):
    """Samples are conditions, a perturbation within a group of covariates; see ``RecordDataModule`` for the rest.

    Args:
        record: The conditions with their cells.
        split: Keys of the ``split`` config.
        graph: Networks that neighbors and features are made of; they may know more genes than are measured, and fewer.
            What was made goes into the spec, they don't.
        set_size: Perturbed cells S of a set.
        input_cells: Control cells that a set is predicted from; none: as many. They are what training costs.
        eval_sets: Control cells that a prediction is averaged over, in sets.
        pseudobulk: Train on the mean of a condition instead of on cells.
        features: Makes features of the graph's genes, see ``torchcell.graph.features``; those of the vocabulary
            are taken, unmeasured targets among them. A gene that the graph does not know is added to it without edges,
            and the column ``in no network`` says so. Without a graph there is one of the vocabulary alone.
        neighbors: Makes the list of neighbors of each measured gene for sparse attention, see ``GeneNeighbors``.
        n_genes: Genes to select, the most variable ones where no ``selection`` is given; none: what it says, else all.
        max_cells: Keep so many cells, for trials; the same ones whatever the seed.
        selection: Chooses the genes on the training conditions, see ``torchcell.cells.gene_selection``.
        phases: Of the curriculum, so that ``genes.csv`` and the report can tell what each adds; none: no curriculum.
        batch_size: Sets a training batch.
    """

    TASK = TASK
    spec: CellsSpec

    def __init__(
        self,
        record: Pseudobulk,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        set_size: int = 16,
        input_cells: int | None = None,
        eval_sets: int = 4,
        pseudobulk: bool = False,
        features: Callable[[CellGraph], GeneFeatures] | None = None,
        neighbors: Callable[[Pseudobulk, CellGraph | None], np.ndarray] | None = None,
        n_genes: int | None = None,
        max_cells: int | None = None,
        selection: GeneSelection | None = None,
        phases: Sequence[Mapping[str, Any]] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        subset: int | None = None,
        unknown_genes: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> None:
        self.set_size, self.eval_sets, self.pseudobulk = set_size, eval_sets, pseudobulk
        self.input_cells = set_size if input_cells is None else input_cells
        sizes = {"set_size": set_size, "input_cells": self.input_cells, "eval_sets": eval_sets}
        if min(sizes.values()) < 1:
            raise InputError(", ".join(f"data.{name}={size}" for name, size in sizes.items()) + ": must be 1 or more")
        self.make_features, self.make_neighbors, self.networks = features, neighbors, graph
        self.phases = phases
        self.features: GeneFeatures | None = None
        how: dict[str, Any] = {"n_genes": n_genes, "max_cells": max_cells, "selection": selection}
        record, self.selected = chosen(record, split, **how, subset=subset)
        self.told = _unmeasured(record)
        if self.selected is not None:
            record, self.told = record.on_genes(self.selected.genes), [*self.told, *self.selected.notes]
        super().__init__(record, split, None, batch_size, eval_batch_size, subset, unknown_genes, seed)
        self.graph = graph  # for baselines; the spec's would have to name exactly the vocabulary

    @staticmethod
    def pack(record: Pseudobulk, spec: CellsSpec) -> ConditionSets:
        """Conditions as control cells of their group and the genes that are perturbed."""
        return ConditionSets(record, spec)

    @staticmethod
    def vocabulary(record: Pseudobulk, graph: CellGraph | None) -> tuple[str, ...]:
        """The genes that are measured, then those that are perturbed only."""
        measured = record.genes.tolist()
        further = sorted({gene for targets in record.targets for gene in targets} - set(measured))
        return (*measured, *further)

    def make_spec(self, base: Spec, train: Pseudobulk) -> CellsSpec:
        """Groups, the control's and the change's scale per gene, features and neighbors of genes, and their order."""
        center, variance = moments(train.cells.X, train.control_cells())
        change = train.target - train.input_control
        # A gene that control cells don't express and a perturbation induces varies by its changes alone; in units of
        # the control cells' spread it would be all that a loss sees.
        trained = TrainedPerturbations(
            genes=tuple(sorted({gene for targets in train.targets for gene in targets})),
            sizes=tuple(sorted({len(targets) for targets in train.targets})),
        )
        features, network_genes = (None, None) if self.make_features is None else self._features()
        make, order = self.make_neighbors, None
        if self.selected is None:  # selected genes stand in their order
            place = {gene: i for i, gene in enumerate(train.genes.tolist())}
            order = torch.tensor([place[gene] for gene in Responsive().symbols(train)])
        return CellsSpec(
            **vars(replace(base, gene_features=features)),
            groups=tuple(np.unique(train.group).tolist()),
            change_center=torch.from_numpy(np.asarray(change.mean(0), dtype=np.float32)),
            change_scale=_scale(change.var(0)),
            gene_center=torch.from_numpy(center.astype(np.float32)),
            gene_scale=_scale(variance + np.square(change).mean(0)),
            covariates=tuple(train.covariates),
            control_words=tuple(train.cells.control_words),
            trained_perturbations=trained,
            singles=_singles(train),
            # Counts are kept beside what they were normalized to.
            input_scale="lognorm" if train.cells.counts is None else "counts",
            library=train.cells.library,
            pseudobulk=self.pseudobulk,
            set_size=self.set_size,
            input_cells=self.input_cells,
            eval_sets=self.eval_sets,
            network_genes=network_genes,
            neighbors=None if make is None else torch.from_numpy(make(train, self.networks)),
            gene_order=order,
            phases=self._phase_sources(train, order),
        )

    def _phase_sources(self, train: Pseudobulk, order: Tensor | None) -> tuple[PhaseSources, ...]:
        """What each phase of the curriculum adds; nothing without one."""
        if self.phases is None:
            return ()
        phases = find_phases(self.phases, train.genes.tolist(), order)
        source = None if self.selected is None else self.selected.source
        return describe_phases(entry_phase(phases, len(train.genes)), source)

    def _features(self) -> tuple[GeneFeatures, NetworkGenes]:
        """Features of the vocabulary, and of the networks' other genes, which may be perturbed in a request."""
        assert self.make_features is not None
        graph = CellGraph(self.genes, {}) if self.networks is None else self.networks
        unknown = graph.index(self.genes) < 0
        lacking = [gene for gene, absent in zip(self.genes, unknown.tolist(), strict=True) if absent]
        self.features = made = self.make_features(graph.with_genes(lacking)).validate()
        further = sorted(set(graph.genes.tolist()) - set(self.genes))
        values, of_further, columns = made.aligned(self.genes), made.aligned(further), list(made.columns)
        if lacking:
            values = np.column_stack([values, unknown.astype(np.float32)])
            of_further = np.column_stack([of_further, np.zeros(len(further), dtype=np.float32)])
            columns.append(UNKNOWN)
            perturbed = {gene for targets in self.record_whole.targets for gene in targets}
            told = f"{len(lacking):,} of {len(self.genes):,} genes are in no network"
            missed = sorted(perturbed & set(lacking))
            self.told.append(f"{told}, the perturbed {some(missed)} among them" if missed else told)
        own = GeneFeatures(np.array(self.genes, dtype=str), tuple(columns), values)
        return own, NetworkGenes(tuple(further), torch.from_numpy(of_further))

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """Sets of cells, dealt anew each epoch."""
        train = self.record_whole.subset(self.split.index("train"))
        sets = TrainingSets(train, self.spec, self.split.index("train"), self.seed, self.pseudobulk)
        return PackedLoader(sets, SetOrder(sets, shuffle, self.seed, rank, world), batch_size)

    def single_changes(self) -> Tensor:
        """Mean change of each training condition of one gene, in the order of the spec's ``singles`` [K, G]."""
        train = self.record("train")
        alone = np.array([len(targets) == 1 for targets in train.targets], dtype=bool)
        return torch.from_numpy(np.asarray((train.target - train.input_control)[alone], dtype=np.float32))

    def inputs(self) -> tuple[str, ...]:
        """The perturbation; before it the cell line, its control cells, where that is what is held out."""
        return ("cell_line", "perturbation") if self.split.method == "cold_cell" else ("perturbation",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The conditions with each other's perturbed genes, or with each other's control cells."""
        packed, record = self.packed, self.record_whole.subset(index.numpy())
        assert isinstance(packed, ConditionSets)
        names = record.group if name == "cell_line" else np.array(["+".join(sorted(one)) for one in record.targets])
        order = derangement(torch.from_numpy(np.unique(names.astype(str), return_inverse=True)[1]), generator)
        return None if order is None else packed.exchanged(name, index, index[order])

    def halves(self, part: str) -> Halves | None:
        """Means of either half of each condition's cells, compared within its group."""
        from torchcell.cells.baselines import half_means

        record = self.record(part)
        return Halves(*half_means(record), record.group)

    def fingerprinted(self) -> dict[str, Any]:
        """The conditions, the networks that features and neighbors are made of, and a user's features of genes."""
        return {**super().fingerprinted(), "graph": self.networks, "gene features": self.features}

    def eval_control(self, record: Pseudobulk) -> np.ndarray | None:
        """The truth's half of the controls."""
        return record.eval_control

    def ceiling(self, record: Pseudobulk) -> np.ndarray | None:
        """What one half of a condition's cells tells of the other."""
        from torchcell.cells.baselines import split_half_ceiling

        return split_half_ceiling(record)

    def results(
        self, part: str, predictions: Mapping[str, Mapping[str, np.ndarray]], model: str, ceiling: str | None
    ) -> list[Results]:
        """Conditions, with how many genes each perturbs."""
        record = self.record(part)
        (found,) = super().results(part, predictions, model, ceiling)
        return [replace(found, set_size=np.array([len(targets) for targets in record.targets]))]

    def context(self, part: str, record: Pseudobulk) -> CellsContext:
        """The prediction's change is taken from the other half of the controls."""
        from torchcell.cells.baselines import training_center

        return CellsContext(
            eval_control=self.eval_control(record),
            input_control=record.input_control,
            center=training_center(self.record("train"), record),
            significant=significant_genes(record),
            own=own_columns(record),
            rank_within=record.group,
            cells=None if self.pseudobulk else CellPairs.drawn(record),
        )

    def notes(self) -> list[str]:
        """Perturbed genes that are not measured, what the selection of genes could not fill, genes without features."""
        return self.told

    def tables(self) -> dict[str, pd.DataFrame]:
        """``genes.csv``: where each gene came from and when it is active, if genes were selected."""
        if self.selected is None:
            return {}
        phases = [] if self.phases is None else find_phases(self.phases, self.selected.genes.tolist())
        return {"genes.csv": self.selected.to_table(phases)}

    def export(self, part: str, prediction: np.ndarray, folder: Path) -> list[Path]:
        """Measured and predicted cells as the package ``cell-eval`` reads them."""
        from torchcell.cells.metrics import predicted_cells, write_cell_eval

        record = self.record(part)
        return write_cell_eval(folder, record, predicted_cells(record, prediction))

    # Requests of a user, see ``cell_request`` ---------------------------------------------------------

    reads_controls = True
    request_batch = 64

    @staticmethod
    def read_request(path: str, spec: CellsSpec, controls: Controls | None = None) -> Pseudobulk:
        """Perturbations to predict, on the user's control cells."""
        return read_perturbations(path, spec, controls)

    @staticmethod
    def extend_spec(request: Pseudobulk, spec: CellsSpec) -> CellsSpec:
        """The spec with the groups of the request, and with the genes of it that only the networks know."""
        return extend_spec(request, spec)

    @staticmethod
    def filter_known(record: Pseudobulk, vocabulary: tuple[str, ...], policy: str) -> tuple[Pseudobulk, dict[str, int]]:
        """Refuse perturbed genes outside the vocabulary, or drop the conditions that name one."""
        return with_known_genes(record, vocabulary, policy)

    @staticmethod
    def prediction_notes(record: Pseudobulk, spec: CellsSpec, model: Any) -> Notes:
        """Genes that were never perturbed, new sizes of combinations and groups."""
        return cell_notes(record, spec)

    @staticmethod
    def input_control(record: Pseudobulk) -> np.ndarray:
        """The half of the controls that a prediction starts from; of a request all of them."""
        return record.input_control

    @staticmethod
    def to_table(record: Pseudobulk, prediction: np.ndarray, spec: CellsSpec) -> pd.DataFrame:
        """Sample id, perturbation, group and its covariates, then a column a gene."""
        return named_conditions(record, prediction, spec)


def _unmeasured(record: Pseudobulk) -> list[str]:
    """A sentence on the perturbed genes that are not measured, if there are any."""
    perturbed = {gene for targets in record.targets for gene in targets}
    lacking = sorted(perturbed.difference(record.genes.tolist()))
    told = f"{len(lacking):,} of {len(perturbed):,} perturbed genes are not measured: {some(lacking)}"
    return [told] if lacking else []


def _singles(train: Pseudobulk) -> tuple[Single, ...]:
    """The conditions of one gene, in their order."""
    pairs = zip(train.targets, train.group.tolist(), strict=True)
    return tuple(Single(targets[0], group) for targets, group in pairs if len(targets) == 1)


def _scale(variance: np.ndarray) -> Tensor:
    """Root of each gene's variance [G], with a floor for genes that hardly vary."""
    least = max(LEAST_SCALE * float(np.sqrt(variance.mean())), 1e-3)
    return torch.from_numpy(np.maximum(np.sqrt(variance), least).astype(np.float32))
