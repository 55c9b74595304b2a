"""Sets of cells: control cells in, cells of one condition out, drawn anew each epoch; see ``cells.batch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.cells.batch import ConditionSets, Sampling, SetOrder, TrainingSets
from torchcell.cells.curriculum import describe_phases, entry_phase, find_phases
from torchcell.cells.gene_selection import GeneSelection, Responsive, chosen
from torchcell.cells.metrics import CellPairs, CellsContext, own_columns, significant_genes
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.spec import CellsSpec, NetworkGenes, PhaseSources, TrainedPerturbations
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
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, some
from torchcell.io.gene_features import GeneFeatures

UNKNOWN = "in no network"
"""Column of the features: 1 for a gene that the graph does not name."""
LEAST_SCALE = 0.1
"""Least scale of a gene, in units of the root mean square over genes."""


@configurable
@dataclass(frozen=True)
class SetOptions:
    """Which cells a batch holds.

    Attributes:
        size: Perturbed cells S of a set.
        input_cells: Control cells that a set is predicted from; none: as many. They are what training costs.
        eval_sets: Control cells that a prediction is averaged over, in sets.
        pseudobulk: Train on the mean of a condition instead of on cells.

    Raises:
        InputError: A number below 1, by its key.
    """

    size: int = 16
    input_cells: int | None = None
    eval_sets: int = 4
    pseudobulk: bool = False

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("size", "input_cells", "eval_sets")}
        below = [f"data.sets.{name}={value}" for name, value in numbers.items() if value is not None and value < 1]
        if below:
            raise InputError(f"{', '.join(below)}: must be 1 or more")


@configurable
@dataclass(frozen=True, eq=False)
class GeneOptions:
    """Which genes are worked on, and what is known of each.

    Attributes:
        selection: Chooses the genes on the training conditions, see ``torchcell.cells.gene_selection``.
        features: Makes features of the graph's genes, see ``torchcell.graph.features``; those of the vocabulary are
            taken, unmeasured targets among them. A gene that the graph does not know is added to it without edges, and
            the column ``in no network`` says so. Without a graph there is one of the vocabulary alone.
        neighbors: Makes the list of neighbors of each measured gene for sparse attention, see ``GeneNeighbors``.
        phases: Of the curriculum, so that ``genes.csv`` and the report can tell what each adds; none: no curriculum.
    """

    selection: GeneSelection | None = None
    features: Callable[[CellGraph], GeneFeatures] | None = None
    neighbors: Callable[[Pseudobulk, CellGraph | None], np.ndarray] | None = None
    phases: Sequence[Mapping[str, Any]] | None = None


class CellSetDataModule(RecordDataModule):
    """Samples are conditions, a perturbation within a group of covariates; see ``RecordDataModule`` for the rest.

    Args:
        record: The conditions with their cells.
        split: Keys of the ``split`` config.
        graph: Networks that neighbors and features are made of; they may know more genes than are measured, and fewer.
            What was made goes into the spec, they don't.
        n_genes: Genes to select, the most variable ones where no ``selection`` is given; none: what it says, else all.
        max_cells: Keep so many cells, for trials; the same ones whatever the seed.
        sets: Which cells a batch holds.
        genes: Which genes are worked on, and what is known of each.
        sampling: ``rows``: a set holds any cells of its condition; ``blocks``: neighbors, which are read together.
        base: Batch sizes, ``subset``, ``unknown_genes`` and ``seed``, see ``RecordDataModule``; 64 sets a batch.
    """

    TASK = TASK
    request_columns = ("perturbation",)
    spec: CellsSpec
    packed: ConditionSets
    takes_prior = True

    def __init__(
        self,
        record: Pseudobulk,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        n_genes: int | None = None,
        max_cells: int | None = None,
        sets: SetOptions | None = None,
        genes: GeneOptions | None = None,
        sampling: Sampling = "rows",
        **base: Any,
    ) -> None:
        if sampling not in ("rows", "blocks"):
            raise InputError(f"data.sampling={sampling!r}: must be rows or blocks")
        self.sampling = sampling
        self.sets, self.gene_options, self.networks = sets or SetOptions(), genes or GeneOptions(), graph
        self.features: GeneFeatures | None = None
        how: dict[str, Any] = {"n_genes": n_genes, "max_cells": max_cells, "subset": base.get("subset")}
        record, self.selected = chosen(record, split, **how, selection=self.gene_options.selection)
        self.found_notes = _unmeasured(record)
        if self.selected is not None:
            record = record.on_genes(self.selected.genes)
            self.found_notes += self.selected.notes
        super().__init__(record, split, None, **{"batch_size": 64, "eval_batch_size": 64, **base})
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
        center, variance, _ = train.control_moments()
        change = train.target - train.input_control
        # A gene that control cells don't express and a perturbation induces varies by its changes alone; in units of
        # the control cells' spread it would be all that a loss sees.
        trained = TrainedPerturbations(
            genes=tuple(sorted({gene for targets in train.targets for gene in targets})),
            sizes=tuple(sorted({len(targets) for targets in train.targets})),
        )
        features, network_genes = (None, None) if self.gene_options.features is None else self._features()
        make, order = self.gene_options.neighbors, None
        if self.selected is None:  # selected genes stand in their order
            place = {gene: i for i, gene in enumerate(train.genes.tolist())}
            order = torch.tensor([place[gene] for gene in Responsive().symbols(train)])
        sets = self.sets
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
            # Counts are kept beside what they were normalized to.
            input_scale="lognorm" if train.cells.counts is None else "counts",
            library=train.cells.library,
            pseudobulk=sets.pseudobulk,
            set_size=sets.size,
            input_cells=sets.size if sets.input_cells is None else sets.input_cells,
            eval_sets=sets.eval_sets,
            network_genes=network_genes,
            neighbors=None if make is None else torch.from_numpy(make(train, self.networks)),
            gene_order=order,
            phases=self._phase_sources(train, order),
        )

    def _phase_sources(self, train: Pseudobulk, order: Tensor | None) -> tuple[PhaseSources, ...]:
        """What each phase of the curriculum adds; nothing without one."""
        if self.gene_options.phases is None:
            return ()
        phases = find_phases(self.gene_options.phases, train.genes.tolist(), order)
        source = None if self.selected is None else self.selected.source
        return describe_phases(entry_phase(phases, len(train.genes)), source)

    def _features(self) -> tuple[GeneFeatures, NetworkGenes]:
        """Features of the vocabulary, and of the networks' other genes, which may be perturbed in a request."""
        assert self.gene_options.features is not None
        graph = CellGraph(self.genes, {}) if self.networks is None else self.networks
        unknown = graph.index(self.genes) < 0
        lacking = [gene for gene, absent in zip(self.genes, unknown.tolist(), strict=True) if absent]
        self.features = made = self.gene_options.features(graph.with_genes(lacking)).validate()
        further = sorted(set(graph.genes.tolist()) - set(self.genes))
        values, of_further, columns = made.aligned(self.genes), made.aligned(further), list(made.columns)
        if lacking:
            values = np.column_stack([values, unknown.astype(np.float32)])
            of_further = np.column_stack([of_further, np.zeros(len(further), dtype=np.float32)])
            columns.append(UNKNOWN)
            perturbed = {gene for targets in self.record_whole.targets for gene in targets}
            note = f"{len(lacking):,} of {len(self.genes):,} genes are in no network"
            missed = sorted(perturbed & set(lacking))
            self.found_notes.append(f"{note}, the perturbed {some(missed)} among them" if missed else note)
        own = GeneFeatures(np.array(self.genes, dtype=str), tuple(columns), values)
        return own, NetworkGenes(tuple(further), torch.from_numpy(of_further))

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """Sets of cells, drawn anew each epoch."""
        index = self.split.index("train")
        prior = self.packed.prior_of(torch.from_numpy(index))
        how = (self.seed, self.sets.pseudobulk, prior, self.sampling)
        sets = TrainingSets(self.record("train"), self.spec, index, *how)
        return PackedLoader(sets, SetOrder(sets, shuffle, self.seed, rank, world), batch_size)

    def residual_spec(self, train: Pseudobulk, prediction: np.ndarray) -> CellsSpec:
        """Also ``change_scale``, the unit that a network's changes are in."""
        start = train.input_control + self.spec.change_center.numpy()
        prediction = np.where(np.isnan(prediction), start, prediction)
        spec = super().residual_spec(train, prediction)
        assert isinstance(spec, CellsSpec)
        left = train.target.astype(np.float64) - prediction
        return replace(spec, change_scale=_scale(np.square(left).mean(0)))

    def inputs(self) -> tuple[str, ...]:
        """The perturbation; before it the cell line, its control cells, where that is what is held out."""
        return ("cell_line", "perturbation") if self.split.method == "cold_cell" else ("perturbation",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The conditions with each other's perturbed genes, or control cells; the prior predicts them anew."""
        record = self.record_whole.subset(index.numpy())
        names = record.group if name == "cell_line" else np.array(["+".join(sorted(one)) for one in record.targets])
        order = derangement(torch.from_numpy(np.unique(names.astype(str), return_inverse=True)[1]), generator)
        if order is None:
            return None
        twin = self.packed.exchanged(name, index, index[order])
        if self.prior is not None and self.packed.prior is not None:
            predicted = self.prior.predict(twin.record.subset(index.numpy()))
            twin.prior = self.packed.prior.index_copy(0, index, predicted)
        return twin

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
            cells=None if self.sets.pseudobulk else CellPairs.drawn(record),
        )

    def notes(self) -> list[str]:
        """Perturbed genes that are not measured, what the selection of genes could not fill, genes without features."""
        return self.found_notes

    def tables(self) -> dict[str, pd.DataFrame]:
        """``genes.csv``: where each gene came from and when it is active, if genes were selected."""
        if self.selected is None:
            return {}
        phases = (
            []
            if self.gene_options.phases is None
            else find_phases(self.gene_options.phases, self.selected.genes.tolist())
        )
        return {"genes.csv": self.selected.to_table(phases)}

    def export(self, part: str, prediction: np.ndarray, folder: Path) -> list[Path]:
        """Measured and predicted cells as the package ``cell-eval`` reads them."""
        from torchcell.cells.metrics import predicted_cells, write_cell_eval

        record = self.record(part)
        return write_cell_eval(folder, record, predicted_cells(record, prediction))

    # Requests of a user, see ``cells.table`` ----------------------------------------------------------

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
    note = f"{len(lacking):,} of {len(perturbed):,} perturbed genes are not measured: {some(lacking)}"
    return [note] if lacking else []


def _scale(variance: np.ndarray) -> Tensor:
    """Root of each gene's variance [G], with a floor for genes that hardly vary."""
    least = max(LEAST_SCALE * float(np.sqrt(variance.mean())), 1e-3)
    return torch.from_numpy(np.maximum(np.sqrt(variance), least).astype(np.float32))
