"""The controls, with nothing added to them, or a mean change of the training part: of all, or of the perturbation."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.cells_baseline import balanced_mean, change, require_same_genes, training_centre
from torchcell.data.conditions import Conditions
from torchcell.graph.cell_graph import CellGraph


class NoChange(Baseline):
    """The mean of the other half of the group's controls: a perturbation does nothing."""

    name = "no_change"

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        return record.other_control.astype(np.float32)


class PerturbedMean(Baseline):
    """The group's controls plus the mean change of its training perturbations, see ``training_centre``."""

    name = "perturbed_mean"

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train = train
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.train.genes)
        return training_centre(self.train, record)


class SamePerturbation(Baseline):
    """The group's controls plus the mean change that the same perturbation had in other groups, e.g. cell lines.

    NaN for a perturbation that was not trained on.
    """

    name = "same_perturbation"

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        change_nG, self.genes = change(train), train.genes
        labels = train.perturbation.tolist()
        self.change = {
            label: balanced_mean(change_nG[at], train.group[at])
            for label in sorted(set(labels))
            for at in [train.perturbation == label]
        }
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.genes)
        nothing = np.full(len(self.genes), np.nan)
        added = [self.change.get(label, nothing) for label in record.perturbation.tolist()]
        return (record.other_control + np.stack(added)).astype(np.float32)
