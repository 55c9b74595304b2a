"""A screen as a symmetric matrix over what was perturbed: the ground of factorisation and of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.base import require_same_genes
from torchcell.data.screen import KINDS, Screen


@dataclass(frozen=True, eq=False)
class Items:
    """Numbers for (gene, kind) of the kinds seen in train; the last number is the unperturbed cell.

    Attributes:
        genes: The record's gene list.
        position: Position of each kind of ``KINDS`` among the seen ones; -1 for the others.
    """

    genes: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, train: Screen) -> Items:
        """The items of a training record."""
        kinds = np.unique(train.kind)
        position = np.full(len(KINDS), -1)
        position[kinds] = np.arange(len(kinds))
        return cls(train.genes, position)

    @property
    def n_kinds(self) -> int:
        """Distinct positions; kinds that share one are the same item."""
        return int(self.position.max()) + 1

    def __len__(self) -> int:
        return len(self.genes) * self.n_kinds + 1


@dataclass(frozen=True, eq=False)
class SetPairs:
    """All unordered pairs within each set; a single gene is paired with the unperturbed cell.

    Attributes:
        owner: The sample each pair belongs to [P].
        left: Items [P].
        right: Items [P].
        known: Samples all of whose kinds were seen in train [n]; the others have no pairs.
    """

    owner: np.ndarray
    left: np.ndarray
    right: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, record: Screen, items: Items) -> SetPairs:
        """The pairs of a record."""
        require_same_genes(record, items.genes)
        kind = items.position[record.kind]
        item = record.gene * items.n_kinds + kind
        known = np.ones(len(record), dtype=bool)
        known[record.owner[kind < 0]] = False
        owners, lefts, rights = [], [], []
        for size in np.unique(record.sizes[known]).tolist():
            samples = np.flatnonzero((record.sizes == size) & known)
            members = item[record.ptr[samples, None] + np.arange(size)]
            if size == 1:
                members = np.concatenate([members, np.full_like(members, len(items) - 1)], axis=1)
            # Sorted members: the order in which a set is written must not change even the rounding.
            members.sort(axis=1)
            a, b = np.triu_indices(members.shape[1], 1)
            owners.append(np.repeat(samples, len(a)))
            lefts.append(members[:, a].ravel())
            rights.append(members[:, b].ravel())
        owner, left, right = (
            np.concatenate([np.zeros(0, dtype=np.int64), *parts]) for parts in (owners, lefts, rights)
        )
        return cls(owner, left, right, known)

    def matrix(self, value: np.ndarray, n_items: int) -> sp.csr_matrix:
        """Symmetric matrix [items, items] of the mean value of the sets that contain a pair.

        Args:
            value: One value a sample [n]; NaN is missing.
            n_items: Side of the matrix.
        """
        held = ~np.isnan(value[self.owner])
        low, high = np.minimum(self.left, self.right)[held], np.maximum(self.left, self.right)[held]
        key, position = np.unique(low * n_items + high, return_inverse=True)
        # Sorted before summing, so that the order of the samples does not change the rounding.
        order = np.lexsort((value[self.owner][held], position))
        total = np.bincount(position[order], weights=value[self.owner][held][order], minlength=len(key))
        mean = (total / np.bincount(position, minlength=len(key))).astype(np.float32)
        low, high = key // n_items, key % n_items
        rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
        return sp.csr_matrix((np.concatenate([mean, mean]), (rows, columns)), shape=(n_items, n_items))

    def mean(self, value: np.ndarray) -> np.ndarray:
        """Mean of a value per pair [P] over the pairs of each sample [n]; NaN for samples without pairs."""
        n = len(self.known)
        count = np.bincount(self.owner, minlength=n)
        total = np.bincount(self.owner, weights=value, minlength=n)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def strangers(self, seen: np.ndarray) -> np.ndarray:
        """Samples with an item that was not ``seen`` [items] in train, or of a kind unseen, as a mask [n]."""
        strange = ~self.known
        strange[self.owner[~(seen[self.left] & seen[self.right])]] = True
        return strange
