"""A combination as the sum of what its genes do alone."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.cells_baseline import balanced_mean, change, mean_change, require_same_genes
from torchcell.data.conditions import Conditions
from torchcell.graph.cell_graph import CellGraph


class Additive(Baseline):
    """The group's controls plus, for each perturbed gene, the change that its single perturbation had in train.

    A single of the same group is taken before the mean over the other groups. A gene without a single in train adds the
    mean change of the training singles. NaN where no gene has one. (Ahlmann-Eltze, Huber and Anders 2025.)
    """

    name = "additive"

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        size = np.array([len(targets) for targets in train.targets])
        self.singles = train.subset(size == 1)
        change_nG = change(self.singles)
        self.change: dict[str, dict[str, np.ndarray]] = {}
        gene = self.singles.perturbation
        for name in sorted(set(gene.tolist())):
            at = np.flatnonzero(gene == name)
            own = dict(zip(self.singles.group[at].tolist(), change_nG[at], strict=True))
            self.change[name] = {"": balanced_mean(change_nG[at], self.singles.group[at]), **own}
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.singles.genes)
        found = np.full((len(record), len(record.genes)), np.nan)
        if not len(self.singles):
            return found.astype(np.float32)
        otherwise = mean_change(self.singles, record)
        for i, (targets, group) in enumerate(zip(record.targets, record.group.tolist(), strict=True)):
            known = [self.change.get(gene) for gene in targets]
            if any(known):
                found[i] = sum(otherwise[i] if one is None else one.get(group, one[""]) for one in known)
        return (record.other_control + found).astype(np.float32)
