"""Sets of cells: control cells in, cells of one condition out, drawn anew each epoch; see ``cell_set_batch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError
from torchcell.data.gene_features import GeneFeatures
from torchcell.data.gene_selection import GeneSelection
from torchcell.datamodules.base import RecordDataModule
from torchcell.datamodules.batch import Packed, PackedLoader
from torchcell.datamodules.cell_set_batch import ConditionSets, SetOrder, TrainingSets
from torchcell.datamodules.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.metrics.results import Results
from torchcell.splits.methods import make_split


class CellSetDataModule(RecordDataModule):
    """Samples are conditions, a perturbation within a group of covariates; see ``RecordDataModule`` for the rest.

    Args:
        record: The conditions with their cells.
        split: Keys of the ``split`` config.
        set_size: Cells S of a set.
        eval_sets: Control cells that a prediction is averaged over, in sets.
        pseudobulk: Train on the mean of a condition instead of on cells.
        features: Makes features of the genes of the vocabulary, unmeasured targets among them.
        n_genes: Genes to select where no ``selection`` is given; none: all that are measured.
        max_cells: Keep so many cells, for trials.
        selection: Chooses the genes on the training conditions, see ``torchcell.data.gene_selection``.
        batch_size: Sets a training batch.
    """

    def __init__(
        self,
        record: Conditions,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        set_size: int = 16,
        eval_sets: int = 4,
        pseudobulk: bool = False,
        features: Callable[[tuple[str, ...]], GeneFeatures] | None = None,
        n_genes: int | None = None,
        max_cells: int | None = None,
        selection: Callable[[Conditions], Any] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        subset: int | None = None,
        unknown_genes: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> None:
        if set_size < 1 or eval_sets < 1:
            raise InputError(f"data.set_size={set_size} and data.eval_sets={eval_sets} must be 1 or more")
        self.set_size, self.eval_sets, self.pseudobulk, self.make_features = set_size, eval_sets, pseudobulk, features
        if max_cells is not None:
            record = record.limited(max_cells, seed)
        self.selection_notes: tuple[str, ...] = ()
        if selection is not None or n_genes is not None:
            dealt = make_split(record, **split)
            chosen = (selection or GeneSelection(n_genes=n_genes))(record.subset(dealt.index("train")))
            record, self.selection_notes = record.on_genes(chosen.genes), tuple(chosen.notes)
        super().__init__(record, split, graph, batch_size, eval_batch_size, subset, unknown_genes, seed)

    @staticmethod
    def pack(record: Conditions, spec: Spec) -> ConditionSets:
        """Conditions as control cells of their group and the genes that are perturbed."""
        return ConditionSets(record, spec)

    @staticmethod
    def vocabulary(record: Conditions, graph: CellGraph | None) -> tuple[str, ...]:
        """The genes that are measured, then those that are perturbed only."""
        measured = record.genes.tolist()
        further = sorted({gene for targets in record.targets for gene in targets} - set(measured))
        return (*measured, *further)

    def extras(self, train: Conditions) -> dict[str, Any]:
        """Groups, the control's and the change's scale per gene, and features of genes."""
        controls = train.control_cells()
        change = train.target - train.other_control
        groups, first = np.unique(train.group, return_index=True)
        extras: dict[str, Any] = {
            "groups": groups.tolist(),
            "group_control": torch.from_numpy(np.asarray(train.other_control[first], dtype=np.float32)),
            "change_center": torch.from_numpy(np.asarray(change.mean(0), dtype=np.float32)),
            "gene_center": torch.from_numpy(controls.mean(0)),
            "gene_scale": torch.from_numpy(np.maximum(controls.std(0), 1e-3)),
            "change_scale": torch.from_numpy(np.maximum(change.std(0), 1e-3)),
            "set_size": self.set_size,
            "eval_sets": self.eval_sets,
        }
        if self.make_features is not None:
            made = self.make_features(self.genes).validate()
            values = torch.from_numpy(made.aligned(self.genes))
            extras["gene_features"] = {"columns": list(made.columns), "values": values}
        return extras

    def train_dataloader(self) -> PackedLoader:
        """Sets of cells, dealt anew each epoch."""
        train = self.record_whole.subset(self.split.index("train"))
        sets = TrainingSets(train, self.spec, self.split.index("train"), self.seed, self.pseudobulk)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        shuffle = not getattr(self.trainer, "overfit_batches", 0)
        return PackedLoader(sets, SetOrder(sets, shuffle, self.seed, rank, world), self.batch_size)

    def ablations(self, index: Tensor, generator: torch.Generator) -> dict[str, Packed | None]:
        """The perturbations shuffled among the conditions."""
        packed = self.packed
        assert isinstance(packed, ConditionSets)
        return {"perturbation_shuffled": packed.shuffled(index, generator)}

    def reference(self, record: Conditions) -> np.ndarray | None:
        """The truth's half of the controls."""
        return record.control

    def ceiling(self, record: Conditions) -> np.ndarray | None:
        """What one half of a condition's cells tells of the other."""
        from torchcell.baselines.cells_ceiling import split_half_ceiling

        return split_half_ceiling(record)

    def results(
        self, part: str, predictions: Mapping[str, Mapping[str, np.ndarray]], model: str, ceiling: str | None
    ) -> list[Results]:
        """Conditions, the prediction's change being taken from the other half of the controls."""
        from torchcell.baselines.cells_baseline import training_centre
        from torchcell.metrics.cells_genes import own_columns
        from torchcell.metrics.cells_significant import significant_genes

        record, train = self.record(part), self.record("train")
        (found,) = super().results(part, predictions, model, ceiling)
        return [
            replace(
                found,
                other_reference=record.other_control,
                centre=training_centre(train, record),
                significant=significant_genes(record),
                own=own_columns(record),
                context=record.group,
                set_size=np.array([len(targets) for targets in record.targets]),
            )
        ]

    def notes(self) -> list[str]:
        """What the selection of genes could not fill."""
        return list(self.selection_notes)
