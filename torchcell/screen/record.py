"""``Screen``: which genes were perturbed in each sample, and the phenotype that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from torchcell.io.errors import InputError, as_positions, refuse, some
from torchcell.io.fingerprint import may_repeat, record_fingerprint, sums_of_hashes, text_hashes
from torchcell.io.matrices import LARGEST

KINDS: tuple[str, ...] = ("absent", "present", "added", "overexpressed", "knockdown")
"""What can happen to a gene; ``Screen.kind`` holds positions in this tuple."""


@dataclass(frozen=True, eq=False)
class Screen:
    """Perturbation sets of any size with their phenotypes; n samples, M set members, T phenotypes.

    Attributes:
        name: Short name, e.g. ``costanzo2010``.
        genes: Gene names [n_genes], each once.
        gene: Members of all sets, positions in ``genes``, int64 [M].
        ptr: Set i is ``gene[ptr[i]:ptr[i + 1]]``, int64 [n + 1].
        kind: What happened to each member, positions in ``KINDS``, int8 [M].
        phenotype: Measured values, float32 [n, T]; NaN is a missing value.
        phenotype_names: [T].
        sample_id: Unique names of the samples [n].
        task: ``regression``, or ``binary`` for 0/1 phenotypes.
        level: Dose or expression level per member, float32 [M], NaN where it has none.
        columns: Further values per sample, each [n]. ``query`` and ``array`` name the genes in that
            role, joined by ``|``; ``unlabeled`` marks sampled negatives.
        replicates: Single measurements, float32 [n, R, T], where there are any.
        truth: Noiseless phenotype, float32 [n, T]; simulated data only.
        dropped: What parsing left out and how many of each, for the reader of the report.
    """

    name: str
    genes: np.ndarray
    gene: np.ndarray
    ptr: np.ndarray
    kind: np.ndarray
    phenotype: np.ndarray
    phenotype_names: tuple[str, ...]
    sample_id: np.ndarray
    task: Literal["regression", "binary"] = "regression"
    level: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    replicates: np.ndarray | None = None
    truth: np.ndarray | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """The phenotype table [n, T]; every record kind names its target so."""
        return self.phenotype

    @property
    def contents(self) -> dict[str, int]:
        """What the samples hold, counts by a noun, for the report."""
        return {"gene": len(np.unique(self.gene)), "phenotype": len(self.phenotype_names)}

    @property
    def sizes(self) -> np.ndarray:
        """Number of perturbed genes per sample, int64 [n]."""
        return np.diff(self.ptr)

    @property
    def owner(self) -> np.ndarray:
        """The sample that each member belongs to, int64 [M]."""
        sizes = self.sizes
        alike = len(sizes) and (sizes == sizes[0]).all()  # then ten times as fast
        return np.repeat(np.arange(len(self)), int(sizes[0]) if alike else sizes)

    def sets(self) -> list[tuple[str, ...]]:
        """Gene names per sample, in stored order."""
        names = self.genes[self.gene]
        return [tuple(names[a:b]) for a, b in zip(self.ptr[:-1], self.ptr[1:], strict=True)]

    def subset(self, index: np.ndarray) -> Screen:
        """The samples at ``index`` (integers or a mask), in that order; the gene list stays whole."""
        index = as_positions(index)
        sizes = self.sizes[index]
        ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        member = np.arange(ptr[-1]) - np.repeat(ptr[:-1] - self.ptr[:-1][index], sizes)
        pick = {
            f.name: getattr(self, f.name)[index]
            for f in fields(self)
            if f.name in ("phenotype", "sample_id", "replicates", "truth") and getattr(self, f.name) is not None
        }
        return replace(
            self,
            gene=self.gene[member],
            kind=self.kind[member],
            level=None if self.level is None else self.level[member],
            ptr=ptr,
            columns={name: values[index] for name, values in self.columns.items()},
            **pick,
        )

    def blind(self) -> Screen:
        """The same samples with nothing measured: what a baseline may see of a test part."""
        return replace(self, phenotype=np.full_like(self.phenotype, np.nan), replicates=None, truth=None)

    def duplicate_keys(self) -> np.ndarray:
        """A number per sample, the same for two samples that perturb the same genes in the same way, int64 [n].

        They are in the order of the texts that the sorted members, ``gene:kind``, would make joined by ``|``, since
        random folds are assigned in that order.
        """
        member, sizes = self.gene * len(KINDS) + self.kind, self.sizes
        used = np.flatnonzero(np.bincount(member, minlength=1))
        names = [f"{self.genes[item // len(KINDS)]}:{item % len(KINDS)}" for item in used.tolist()]
        names, number = sorted(names), np.argsort(np.argsort(np.array(names, dtype=object)))
        # A member behind which nothing stands is before the same one with another behind it.
        texts = np.array([*names, *(f"{name}|" for name in names)], dtype=object)
        token = (np.argsort(np.argsort(texts)) + 1).astype(np.int32)
        last, inner = token[: len(names)], token[len(names) :]
        number_of = np.zeros(member.max(initial=0) + 1, dtype=np.int32)
        number_of[used] = number
        member = number_of[member]
        if len(sizes) and (sizes == sizes[0]).all():
            member = np.sort(member.reshape(len(sizes), sizes[0]), axis=1).ravel()
        else:
            member = np.sort(self.owner * len(used) + member) % max(len(used), 1)
        end = self.ptr[1:][sizes > 0] - 1
        found = inner[member]
        found[end] = last[member[end]]
        return _keys_of_rows(found, self.ptr, len(texts) + 1)

    def fingerprint(self) -> str:
        """A hash over all values and names, see ``torchcell.io.fingerprint``; not over ``name`` and ``dropped``."""
        return self.known_as or record_fingerprint(self)

    @property
    def known_as(self) -> str:
        """The fingerprint of a record that was looked up in the cache; empty for others."""
        found: str = self.__dict__.get("_known_as", "")
        return found

    def known(self, fingerprint: str) -> Screen:
        """The record itself, valid and of this fingerprint; its arrays can't be written any more. No copy is known."""
        values = [getattr(self, f.name) for f in fields(self)]
        for value in (*values, *self.columns.values()):
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        self.__dict__["_known_as"] = fingerprint
        return self

    def validate(self) -> Screen:
        """Return self, or raise one ``InputError`` that names the offending samples."""
        if self.known_as:
            return self
        self._validate_shapes()
        ids, sizes = self.sample_id, self.sizes
        refuse(self.name, ids[sizes == 0], "an empty gene set", "name at least one gene")
        member = self.owner
        member *= len(self.genes)
        member += self.gene
        member.sort()
        twice = np.unique(member[1:][member[1:] == member[:-1]])
        refuse(self.name, ids[twice // max(len(self.genes), 1)], "a gene named twice", "name each gene once")
        huge = (np.abs(self.phenotype) > LARGEST).any(1)
        what = f"an infinite phenotype, or one beyond {LARGEST:g}"
        refuse(self.name, ids[huge], what, "use NaN for a missing value")
        refuse(self.name, ids[np.isnan(self.phenotype).all(1)], "no phenotype at all", "drop the row")
        if self.task == "binary":
            odd = ~(np.isnan(self.phenotype) | np.isin(self.phenotype, (0, 1))).all(1)
            refuse(self.name, ids[odd], "a binary phenotype other than 0 or 1", "recode it")
        refuse(self.name, ids[self._repeated_sets()], "a gene set that an earlier row has too", "merge the rows")
        return self

    def _validate_shapes(self) -> None:
        n, m, t = len(self.sample_id), len(self.gene), len(self.phenotype_names)
        if may_repeat(text_hashes(self.sample_id)):
            unique, counts = np.unique(self.sample_id, return_counts=True)
            refuse(self.name, unique[counts > 1], "a sample id used twice", "make the ids unique")
        unique, counts = np.unique(self.genes, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"{self.name}: genes listed twice: {some(unique[counts > 1])}")
        expected = {
            "ptr": (n + 1,), "kind": (m,), "level": (m,), "phenotype": (n, t), "truth": (n, t),
        }  # fmt: skip
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(f"{self.name}: {name} has shape {value.shape}, expected {shape}")
        if self.ptr[0] != 0 or self.ptr[-1] != m or (np.diff(self.ptr) < 0).any():
            raise InputError(f"{self.name}: ptr must rise from 0 to the number of members, {m}")
        if m and (self.gene.min() < 0 or self.gene.max() >= len(self.genes)):
            raise InputError(f"{self.name}: gene indices must lie in 0..{len(self.genes) - 1}")
        if m and (self.kind.min() < 0 or self.kind.max() >= len(KINDS)):
            raise InputError(f"{self.name}: kinds must be positions in {KINDS}")

    def _repeated_sets(self) -> np.ndarray:
        """Positions of the samples whose set an earlier one has too, whatever the order of its members."""
        import pandas as pd

        member = self.gene * len(KINDS) + self.kind
        if self.level is not None:
            level, different = pd.factorize(np.nan_to_num(self.level, nan=-1.0))
            member = member * len(different) + level
        if not may_repeat(sums_of_hashes(member, self.ptr)):
            return np.array([], dtype=np.int64)
        member = pd.factorize(member)[0]
        n_members = member.max(initial=0) + 1
        ordered = np.sort(self.owner * n_members + member) % n_members
        key, sizes = self.sizes.copy(), self.sizes
        for place in range(sizes.max(initial=0)):  # two sets are alike if all their members are, taken in order
            here = sizes > place
            own = np.zeros(len(key), dtype=np.int64)
            own[here] = ordered[self.ptr[:-1][here] + place] + 1
            key = pd.factorize(key * (n_members + 1) + own)[0]
        return np.flatnonzero(pd.Series(key).duplicated())


def _keys_of_rows(token: np.ndarray, ptr: np.ndarray, base: int) -> np.ndarray:
    """Numbers that order rows of tokens [M] as words are ordered by their letters, int64 [n].

    Args:
        token: From 1 to ``base`` - 1; 0 stands for the end of a row.
        ptr: Row i is ``token[ptr[i]:ptr[i + 1]]``.
        base: Above all tokens.
    """
    sizes = np.diff(ptr)
    key, bound = np.zeros(len(sizes), dtype=np.int64), 1
    for position in range(sizes.max(initial=0)):
        if bound * base > np.iinfo(np.int64).max:
            different, key = np.unique(key, return_inverse=True)
            bound = len(different)
        bound, here = bound * base, sizes > position
        key *= base
        if here.all():
            key += token[ptr[:-1] + position]
        else:
            key[here] += token[ptr[:-1][here] + position]
    return key
