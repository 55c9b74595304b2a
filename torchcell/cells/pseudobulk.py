"""``Pseudobulk``: one row per perturbation and group of cells, paired with the controls of its group."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from torchcell.cells.record import CHUNK, CellExpression, sums
from torchcell.io.errors import InputError, as_positions, near, refuse, refuse_repeats, some
from torchcell.io.fingerprint import record_fingerprint
from torchcell.io.labels import genes_of, ordered

BAR = "|"
"""Between the values of a group's covariates."""
EVERYWHERE = "all"
"""The one group where controls are not paired."""


def groups_of(cells: CellExpression, covariates: Sequence[str]) -> np.ndarray:
    """Values of the covariates of each cell joined by ``|`` [n], or ``all``.

    Raises:
        InputError: An unknown covariate, or a value that itself holds ``|``.
    """
    unknown = [name for name in covariates if name not in cells.covariates]
    if unknown:
        hint = near(unknown[0], list(cells.covariates)) or list(cells.covariates)
        raise InputError(f"{cells.name}: no covariate {some(unknown)} to pair controls by; the nearest are {hint}")
    if not covariates:
        return np.full(len(cells), EVERYWHERE)
    columns = {name: cells.covariates[name].astype(str).tolist() for name in covariates}
    for name, values in columns.items():
        if barred := sorted({value for value in values if BAR in value}):
            raise InputError(
                f"{cells.name}: {len(barred)} value(s) of the covariate {name} hold '{BAR}', which joins the values of "
                f"a group: {some(barred)}; rename them in obs"
            )
    return np.array([BAR.join(values) for values in zip(*columns.values(), strict=True)])


def refuse_lone_groups(
    name: str, own: np.ndarray, of_group: Mapping[str, np.ndarray], covariates: Sequence[str]
) -> None:
    """Raise if a group has no control cells, or one only, which can't be dealt to two halves."""
    lone = [group for group in np.unique(own).tolist() if len(of_group.get(group, ())) < 2]
    if lone:
        by = ", ".join(covariates) or "nothing"
        raise InputError(
            f"{name}: {len(lone)} group(s) with fewer than 2 control cells when paired by {by}: {some(lone)}; pair by "
            "fewer covariates, or leave these groups out"
        )


def refuse_few(name: str, conditions: np.ndarray, count: np.ndarray, min_cells: int) -> None:
    """Raise, naming the conditions and how many cells each has."""
    each = [f"{one} ({n})" for one, n in zip(conditions.tolist(), count.tolist(), strict=True)]
    raise InputError(
        f"{name}: {len(each)} condition(s) with fewer than {min_cells} cells: {some(each)}; set few_cells=drop to "
        "leave them out, or min_cells lower, or pair by fewer covariates"
    )


def halves(n: int, of_group: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """Deal each group's control cells to two halves, bool [n]: true for the truth's."""
    half = np.zeros(n, dtype=bool)
    for group, at in of_group.items():
        rng = np.random.default_rng([seed, zlib.crc32(group.encode())])
        half[at[rng.permutation(len(at))[: (len(at) + 1) // 2]]] = True
    return half


def stratified(keys: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` cells drawn at random, sorted; cells that share a key keep their share, to a cell.

    Args:
        keys: What a cell is counted with [n_cells].
        n: At least 1; all cells where there are no more.
        seed: Of the draw.
    """
    if n < 1:
        raise InputError(f"data.max_cells={n}: must be 1 or more")
    _, row, count = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(keys))
    order = order[np.argsort(row[order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    share = (np.arange(len(keys)) - first[row[order]] + 0.5) / count[row[order]]
    return np.sort(order[np.argsort(share, kind="stable")[:n]])


def take_rows(ptr: np.ndarray, member: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointer and members of the rows ``at`` of a ragged table."""
    rows = [member[ptr[i] : ptr[i + 1]] for i in at.tolist()]
    new_ptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return new_ptr, np.concatenate([np.empty(0, dtype=np.int64), *rows]).astype(np.int64)


def keep_members(ptr: np.ndarray, member: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointer and members of a ragged table without the members that are not ``kept`` (bool per cell)."""
    stays = kept[member]
    return np.concatenate([[0], np.cumsum(stays)])[ptr].astype(np.int64), member[stays]


@dataclass(frozen=True, eq=False)
class Pseudobulk:
    """n conditions over G genes; a condition is what is split, trained on and scored.

    Attributes:
        name: Short name.
        cells: The cells, log-normalized.
        sample_id: ``perturbation|group`` [n].
        perturbation: Label of each condition [n]; ``A+B`` perturbs two genes, which stand in the order of the alphabet.
        group: Values of the pairing covariates joined by ``|``, or ``all`` [n].
        ptr: Condition i has the cells ``member[ptr[i]:ptr[i + 1]]``, int64 [n + 1].
        member: Positions in ``cells``, int64.
        control_ptr: The same for the control cells of its group, int64 [n + 1].
        control_member: Positions in ``cells``, int64.
        control_half: Whether a cell is a control of the half that the truth's change is taken against, bool
            [n_cells]; the prediction's change is taken against the other half.
        covariates: The pairing covariates.
        dropped: What was left out and how many of each.
    """

    name: str
    cells: CellExpression
    sample_id: np.ndarray
    perturbation: np.ndarray
    group: np.ndarray
    ptr: np.ndarray
    member: np.ndarray
    control_ptr: np.ndarray
    control_member: np.ndarray
    control_half: np.ndarray
    covariates: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def task(self) -> str:
        """What the target is: one value per gene, the mean over cells."""
        return "cells"

    @property
    def contents(self) -> dict[str, int]:
        """What the samples hold, counts by a noun, for the report."""
        return {
            "cell": len(self.cells),
            "control cell": int(self.cells.is_control.sum()),
            "condition": len(self),
            "perturbation": len(np.unique(self.perturbation)),
            "gene": len(self.genes),
        }

    @property
    def genes(self) -> np.ndarray:
        """Names of the measured genes [G]."""
        return self.cells.genes

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns: the genes."""
        return tuple(self.genes.tolist())

    @property
    def targets(self) -> list[tuple[str, ...]]:
        """Genes that each condition perturbs."""
        return [genes_of(label) for label in self.perturbation.tolist()]

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each condition, int64 [n]."""
        return np.diff(self.ptr)

    @cached_property
    def target(self) -> np.ndarray:
        """Mean expression of each condition's cells, float32 [n, G]; NaN in a blind record."""
        return self.mean(self.ptr, self.member)

    @cached_property
    def eval_control(self) -> np.ndarray:
        """Mean of the truth's half of the group's control cells, which its change is taken from, float32 [n, G]."""
        return self.mean(*self.controls(True))

    @cached_property
    def input_control(self) -> np.ndarray:
        """Mean of the other half of the group's control cells, which predictions start from, float32 [n, G]."""
        return self.mean(*self.controls(False))

    def controls(self, half: bool) -> tuple[np.ndarray, np.ndarray]:
        """``ptr`` and ``member`` of the control cells of one half: the truth's, or the other."""
        return keep_members(self.control_ptr, self.control_member, self.control_half == half)

    def members(self, condition: int) -> np.ndarray:
        """Positions of one condition's cells, int64."""
        return self.member[self.ptr[condition] : self.ptr[condition + 1]]

    def input_cells(self, condition: int) -> np.ndarray:
        """Positions of the control cells that a prediction starts from: the half that truth is not taken against."""
        at = self.control_member[self.control_ptr[condition] : self.control_ptr[condition + 1]]
        return at[~self.control_half[at]]

    def control_cells(self) -> np.ndarray:
        """Positions of all control cells of these conditions' groups, sorted, each once, int64."""
        return np.unique(self.control_member)

    def mean(self, ptr: np.ndarray, member: np.ndarray) -> np.ndarray:
        """Mean expression of sets of cells, float32 [len(ptr) - 1, G]; NaN for an empty set.

        A set that several rows share, such as the controls of a group, is read once.
        """
        sets = np.split(member, ptr[1:-1])
        keys = {at.tobytes(): at for at in sets}
        means = np.stack([self._mean(at) for at in keys.values()]) if keys else np.empty((0, len(self.genes)))
        row = {key: i for i, key in enumerate(keys)}
        return means[[row[at.tobytes()] for at in sets]].astype(np.float32)

    def _mean(self, at: np.ndarray) -> np.ndarray:
        if not len(at):
            return np.full(len(self.genes), np.nan)
        at, total = np.sort(at), np.zeros(len(self.genes))
        for start in range(0, len(at), CHUNK):
            total += sums(self.cells.X[at[start : start + CHUNK]])
        return total / len(at)

    def subset(self, index: np.ndarray) -> Pseudobulk:
        """The conditions at ``index`` (integers or a mask), in that order; the cells stay whole."""
        at = as_positions(index)
        ptr, member = take_rows(self.ptr, self.member, at)
        control_ptr, control_member = take_rows(self.control_ptr, self.control_member, at)
        return replace(
            self,
            sample_id=self.sample_id[at],
            perturbation=self.perturbation[at],
            group=self.group[at],
            ptr=ptr,
            member=member,
            control_ptr=control_ptr,
            control_member=control_member,
        )

    def exchanged(self, what: str, order: np.ndarray) -> Pseudobulk:
        """The same conditions, but each perturbs what the one at its place of ``order`` does; with ``what`` a
        ``cell_line`` each has the group and the control cells of that one.

        Args:
            what: ``perturbation`` or ``cell_line``.
            order: Positions of conditions, int64 [n].
        """
        if what != "cell_line":
            return replace(self, perturbation=self.perturbation[order])
        ptr, member = take_rows(self.control_ptr, self.control_member, order)
        return replace(self, group=self.group[order], control_ptr=ptr, control_member=member)

    def blind(self) -> Pseudobulk:
        """The same conditions with nothing but control cells: what was measured after perturbation is not there."""
        kept, control_member = np.unique(self.control_member, return_inverse=True)
        return replace(
            self,
            cells=self.cells.subset(kept),
            ptr=np.zeros_like(self.ptr),
            member=np.empty(0, dtype=np.int64),
            control_member=control_member.astype(np.int64),
            control_half=self.control_half[kept],
        )

    def reachable(self) -> Pseudobulk:
        """The same conditions over the cells that they name, their own and their controls; all others are gone."""
        kept = np.unique(np.concatenate([self.member, self.control_member]))
        return replace(
            self,
            cells=self.cells.subset(kept),
            member=np.searchsorted(kept, self.member),
            control_member=np.searchsorted(kept, self.control_member),
            control_half=self.control_half[kept],
        )

    def limited(self, max_cells: int, seed: int = 0) -> Pseudobulk:
        """The same conditions with so many cells in all, drawn at random; each keeps its share, and so do controls."""
        owner = np.full(len(self.cells), "", dtype=object)
        owner[self.control_member] = np.char.add("control|", self.group.repeat(np.diff(self.control_ptr)).astype(str))
        owner[self.control_half & (owner != "")] += "|half"
        owner[self.member] = self.sample_id.repeat(self.sizes)
        used = np.flatnonzero(owner != "")
        if max_cells >= len(used):
            return self
        kept = np.zeros(len(owner), dtype=bool)
        kept[used[stratified(owner[used].astype(str), max_cells, seed)]] = True
        ptr, member = keep_members(self.ptr, self.member, kept)
        control_ptr, control_member = keep_members(self.control_ptr, self.control_member, kept)
        limits = {"ptr": ptr, "member": member, "control_ptr": control_ptr, "control_member": control_member}
        if (few := (np.diff(ptr) < 2) | (np.diff(control_ptr) < 2)).any():
            told = some(self.sample_id[few])
            raise InputError(
                f"{self.name}: {max_cells} cells leave less than two for {told}; set data.max_cells higher"
            )
        return replace(self, **limits).reachable()  # type: ignore[arg-type]

    def on_genes(self, genes: Sequence[str] | np.ndarray) -> Pseudobulk:
        """The same conditions over ``genes`` in that order; a gene that is not measured is an error."""
        return replace(self, cells=self.cells.on_genes(genes))

    def column(self, covariate: str) -> np.ndarray:
        """Value of one pairing covariate for each condition [n]."""
        if covariate not in self.covariates:
            hint = near(covariate, list(self.covariates)) or list(self.covariates)
            raise InputError(f"{self.name}: controls are not paired by {covariate!r}; the covariates are {hint}")
        place = self.covariates.index(covariate)
        return np.array([text.split(BAR)[place] for text in self.group.tolist()])

    def duplicate_keys(self) -> np.ndarray:
        """A text per condition [n], the same for two that perturb the same genes in the same group."""
        return np.char.add(np.char.add(ordered(self.perturbation), BAR), self.group.astype(str))

    def fingerprint(self) -> str:
        """A hash over the cells, their conditions and the halves of the controls, not over ``name`` and ``dropped``."""
        return record_fingerprint(self)

    def validate(self) -> Pseudobulk:
        """Return self, or raise one ``InputError`` that names the offending cells or conditions."""
        self.cells.validate()
        if self.cells.scale != "lognorm":
            raise InputError(f"{self.name}: the cells are {self.cells.scale}; log-normalize them first (library)")
        refuse_repeats(self.name, self.sample_id, "sample ids")
        refuse(self.name, self.sample_id[self.sizes == 0], "no cells", "drop them")
        for half in (True, False):
            empty = self.sample_id[np.diff(self.controls(half)[0]) == 0]
            refuse(self.name, empty, "no control cells in a half", "pair by fewer covariates")
        odd = self.cells.is_control[self.member] | ~np.isfinite(self.target).all(1).repeat(self.sizes)
        refuse(self.name, self.cells.sample_id[self.member[odd]], "control cells as perturbed", "mend is_control")
        return self

    @classmethod
    def from_cells(
        cls,
        cells: CellExpression,
        covariates: Sequence[str] = (),
        min_cells: int = 10,
        few_cells: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> Pseudobulk:
        """Group log-normalized cells by perturbation and covariates, and pair each with its group's controls.

        Args:
            cells: With controls.
            covariates: Names in ``cells.covariates`` whose values a condition and its controls share.
            min_cells: Cells that a condition needs, at least 2.
            few_cells: What to do with a condition of fewer cells: ``error``, or ``drop`` it and count it.
            seed: Of the halves; they depend on the group's name and size alone.

        Raises:
            InputError: Unknown covariates, groups without control cells, conditions with too few cells.
        """
        if few_cells not in ("error", "drop"):
            raise InputError(f"few_cells={few_cells!r}: must be error or drop")
        min_cells = max(min_cells, 2)
        cells = cells.validate().named_as_measured()
        group = groups_of(cells, covariates)
        label = np.where(cells.is_control, "", cells.perturbation.astype(str))
        keys = np.char.add(np.char.add(label, "|"), group)
        names, first, row, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        perturbed = ~cells.is_control[first]
        few = perturbed & (count < min_cells)
        lost = dict(cells.dropped)
        if few.any() and few_cells == "error":
            refuse_few(cells.name, names[few], count[few], min_cells)
        if few.any():
            lost[f"conditions with fewer than {min_cells} cells"] = int(few.sum())
        kept = np.flatnonzero(perturbed & ~few)
        if not len(kept):
            raise InputError(f"{cells.name}: no perturbed cells to make conditions of: all labels are the control's")
        order, start = np.argsort(row, kind="stable"), np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        of_group = {str(group[first[i]]): order[start[i] : start[i + 1]] for i in np.flatnonzero(~perturbed).tolist()}
        own = group[first[kept]]
        refuse_lone_groups(cells.name, own, of_group, covariates)
        ptr, member = take_rows(start, order, kept)
        controls = [of_group[name] for name in own.tolist()]
        return cls(
            name=cells.name,
            cells=cells,
            sample_id=names[kept],
            perturbation=cells.perturbation[first[kept]],
            group=own,
            ptr=ptr,
            member=member,
            control_ptr=np.cumsum([0, *map(len, controls)]).astype(np.int64),
            control_member=np.concatenate(controls).astype(np.int64),
            control_half=halves(len(cells), of_group, seed),
            covariates=tuple(covariates),
            dropped=lost,
        )
