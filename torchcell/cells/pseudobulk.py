"""``Pseudobulk``: one row per perturbation and group of cells, paired with the controls of its group."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from torchcell.cells.record import CellExpression, sums
from torchcell.cells.sums import LazySums, SetSums, set_of_rows
from torchcell.cells.values import CHUNK
from torchcell.io.categorical import Categorical
from torchcell.io.errors import InputError, as_positions, near, refuse, refuse_repeats, some
from torchcell.io.fingerprint import record_fingerprint
from torchcell.io.labels import genes_of, ordered

BAR = "|"
"""Between the values of a group's covariates."""
EVERYWHERE = "all"
"""The one group where controls are not paired."""


def groups_of(cells: CellExpression, covariates: Sequence[str]) -> Categorical:
    """Values of the covariates of each cell joined by ``|`` [n], or ``all``.

    Raises:
        InputError: An unknown covariate, or a value that itself holds ``|``.
    """
    unknown = [name for name in covariates if name not in cells.covariates]
    if unknown:
        hint = near(unknown[0], list(cells.covariates)) or list(cells.covariates)
        raise InputError(f"{cells.name}: no covariate {some(unknown)} to pair controls by; the nearest are {hint}")
    for name in covariates:
        if barred := [value for value in cells.covariates[name].names.tolist() if BAR in value]:
            raise InputError(
                f"{cells.name}: {len(barred)} value(s) of the covariate {name} hold '{BAR}', which joins the values of "
                f"a group: {some(barred)}; rename them in obs"
            )
    if not covariates:
        return Categorical(np.array([EVERYWHERE]), np.zeros(len(cells), dtype=np.int32))
    first, *rest = (cells.covariates[name] for name in covariates)
    for values in rest:
        first = joined(first, values)
    return first


def joined(first: Categorical, second: Categorical) -> Categorical:
    """Two texts of each cell with ``|`` between them [n]."""
    pair = first.codes.astype(np.int64) * len(second.names) + second.codes
    different, codes = np.unique(pair, return_inverse=True)
    one, other = np.divmod(different, max(len(second.names), 1))
    texts = [f"{a}{BAR}{b}" for a, b in zip(first.names[one].tolist(), second.names[other].tolist(), strict=True)]
    return Categorical.coded(texts, codes)


def refuse_lone_groups(
    name: str, own: np.ndarray, of_group: Mapping[str, np.ndarray], covariates: Sequence[str]
) -> None:
    """Raise if a group has no control cells, or one only, which can't be split into two halves."""
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


def halved(of_group: Mapping[str, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each group's control cells in two halves: pointer [2m + 1] and members, the half for predictions before the
    truth's; cells of a half stay in their order.
    """
    parts = []
    for group, at in of_group.items():
        rng = np.random.default_rng([seed, zlib.crc32(group.encode())])
        truth = np.zeros(len(at), dtype=bool)
        truth[rng.permutation(len(at))[: (len(at) + 1) // 2]] = True
        parts += [at[~truth], at[truth]]
    return np.cumsum([0, *map(len, parts)]).astype(np.int64), np.concatenate([np.empty(0, np.int64), *parts])


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
    count = np.diff(ptr)[at]
    new_ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    place = np.repeat(ptr[:-1][at] - new_ptr[:-1], count) + np.arange(new_ptr[-1])
    return new_ptr, member[place].astype(np.int64)


def keep_members(ptr: np.ndarray, member: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointer and members of a ragged table without the members that are not ``kept`` (bool per cell)."""
    stays = kept[member]
    return np.concatenate([[0], np.cumsum(stays)])[ptr].astype(np.int64), member[stays]


@dataclass(frozen=True, eq=False)
class KnownSums:
    """Sums, and which of them are whose.

    Attributes:
        sums: Of all sets.
        condition: The set of each condition, -1 for one without cells [n].
        half: The set of each half of the controls [2m].
    """

    sums: LazySums
    condition: np.ndarray
    half: np.ndarray


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
        controls: Set of control cells that each condition is paired with, int64 [n].
        control_ptr: Set j has two halves: ``control_member[control_ptr[2 * j]:control_ptr[2 * j + 1]]``, which a
            prediction starts from, and from there to ``control_ptr[2 * j + 2]`` those that the truth's change is taken
            against; int64 [2m + 1].
        control_member: Positions in ``cells``, int64.
        covariates: The pairing covariates.
        dropped: What was left out and how many of each.
        known: Sums of a record that this one was taken from; not of other cells.
    """

    name: str
    cells: CellExpression
    sample_id: np.ndarray
    perturbation: np.ndarray
    group: np.ndarray
    ptr: np.ndarray
    member: np.ndarray
    controls: np.ndarray
    control_ptr: np.ndarray
    control_member: np.ndarray
    covariates: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    known: KnownSums | None = field(default=None, repr=False)

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

    @property
    def sums(self) -> SetSums:
        """Sums over the conditions' cells and either half of the controls, over all records of the same cells once."""
        return self.own_sums.sums.get()

    @property
    def own_sums(self) -> KnownSums:
        """What is known of these cells; were other ones put in their place, nothing is."""
        if self.known is None or self.known.sums.X is not self.cells.X:
            n, halves = len(self), len(self.control_ptr) - 1
            set_of = set_of_rows(len(self.cells), self.ptr, self.member)
            of_control = set_of_rows(len(self.cells), self.control_ptr, self.control_member, n)
            set_of = np.where(of_control >= 0, of_control, set_of)
            lazy = LazySums(self.cells.X, set_of, n + halves)
            object.__setattr__(self, "known", KnownSums(lazy, np.arange(n), np.arange(n, n + halves)))
        assert self.known is not None
        return self.known

    @cached_property
    def target(self) -> np.ndarray:
        """Mean expression of each condition's cells, float32 [n, G]; NaN in a blind record."""
        return self.sums.mean(self.own_sums.condition).astype(np.float32)

    @cached_property
    def eval_control(self) -> np.ndarray:
        """Mean of the truth's half of the group's control cells, which its change is taken from, float32 [n, G]."""
        return self._control_mean(1)

    @cached_property
    def input_control(self) -> np.ndarray:
        """Mean of the other half of the group's control cells, which predictions start from, float32 [n, G]."""
        return self._control_mean(0)

    def _control_mean(self, half: int) -> np.ndarray:
        return self.sums.mean(self.own_sums.half[half::2]).astype(np.float32)[self.controls]

    def moments(self, condition: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean and variance over the cells of one condition, float64 [G] each, and how many they are."""
        return self.sums.moments(self.own_sums.condition[condition : condition + 1])

    def control_moments(self, conditions: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, int]:
        """The same over all control cells of these conditions' groups, each once; none: of all conditions."""
        used = np.unique(self.controls if conditions is None else self.controls[conditions])
        return self.sums.moments(self.own_sums.half[np.stack([2 * used, 2 * used + 1], 1).ravel()])

    def members(self, condition: int) -> np.ndarray:
        """Positions of one condition's cells, int64."""
        return self.member[self.ptr[condition] : self.ptr[condition + 1]]

    def input_cells(self, condition: int) -> np.ndarray:
        """Positions of the control cells that a prediction starts from: the half that truth is not taken against."""
        return self._half(2 * int(self.controls[condition]))

    def eval_cells(self, condition: int) -> np.ndarray:
        """Positions of the control cells that the truth's change is taken against."""
        return self._half(2 * int(self.controls[condition]) + 1)

    def _half(self, row: int) -> np.ndarray:
        return self.control_member[self.control_ptr[row] : self.control_ptr[row + 1]]

    @property
    def control_half(self) -> np.ndarray:
        """Whether a cell is a control that the truth's change is taken against, bool [n_cells]."""
        found = np.zeros(len(self.cells), dtype=bool)
        halves = np.arange(1, len(self.control_ptr) - 1, 2)
        found[take_rows(self.control_ptr, self.control_member, halves)[1]] = True
        return found

    def control_cells(self) -> np.ndarray:
        """Positions of all control cells of these conditions' groups, sorted, each once, int64."""
        return np.sort(self._used_controls()[2])

    def _used_controls(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``controls``, ``control_ptr`` and ``control_member`` of used sets; rows of their halves."""
        used, controls = np.unique(self.controls, return_inverse=True)
        halves = np.stack([2 * used, 2 * used + 1], 1).ravel()
        return controls.astype(np.int64), *take_rows(self.control_ptr, self.control_member, halves), halves

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
        known = self.own_sums
        return replace(
            self,
            sample_id=self.sample_id[at],
            perturbation=self.perturbation[at],
            group=self.group[at],
            ptr=ptr,
            member=member,
            controls=self.controls[at],
            known=replace(known, condition=known.condition[at]),
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
        return replace(self, group=self.group[order], controls=self.controls[order])

    def blind(self) -> Pseudobulk:
        """The same conditions with nothing but control cells: what was measured after perturbation is not there."""
        return replace(self, ptr=np.zeros_like(self.ptr), member=self.member[:0]).reachable(blind=True)

    def reachable(self, blind: bool = False) -> Pseudobulk:
        """The same conditions over the cells that they name, their own and their controls; all others are gone.

        Args:
            blind: Whether to forget what is known of the conditions' own cells.
        """
        controls, control_ptr, control_member, halves = self._used_controls()
        kept = np.unique(np.concatenate([self.member, control_member]))
        cells, known = self.cells.subset(kept), self.own_sums
        condition = np.full_like(known.condition, -1) if blind else known.condition
        return replace(
            self,
            cells=cells,
            member=np.searchsorted(kept, self.member),
            controls=controls,
            control_ptr=control_ptr,
            control_member=np.searchsorted(kept, control_member),
            known=KnownSums(known.sums.on(cells.X), condition, known.half[halves]),
        )

    def limited(self, max_cells: int, seed: int = 0) -> Pseudobulk:
        """The same conditions with so many cells in all, drawn at random; each keeps its share, and so do controls."""
        group = np.full(len(self.control_ptr) // 2, "", dtype=object)
        group[self.controls] = self.group
        halves = [text for name in group for text in (f"control|{name}", f"control|{name}|half")]
        controls, ptr, member, used_halves = self._used_controls()
        owner = set_of_rows(len(self.cells), self.ptr, self.member)
        of_control = set_of_rows(len(self.cells), ptr, member, len(self))
        owner = np.where(of_control >= 0, of_control, owner)
        used = np.flatnonzero(owner >= 0)
        if max_cells >= len(used):
            return self
        names = [*self.sample_id.tolist(), *(halves[i] for i in used_halves.tolist())]
        kept = np.zeros(len(owner), dtype=bool)
        kept[used[stratified(Categorical.coded(names, owner[used]).codes, max_cells, seed)]] = True
        own = keep_members(self.ptr, self.member, kept)
        control_ptr, control_member = keep_members(ptr, member, kept)
        if (few := (np.diff(own[0]) < 2) | (np.diff(control_ptr[::2])[controls] < 2)).any():
            raise InputError(
                f"{self.name}: {max_cells} cells leave less than two for {some(self.sample_id[few])}; set "
                "data.max_cells higher"
            )
        few_controls = {"controls": controls, "control_ptr": control_ptr, "control_member": control_member}
        return replace(self, ptr=own[0], member=own[1], **few_controls, known=None).reachable()  # type: ignore[arg-type]

    def on_genes(self, genes: Sequence[str] | np.ndarray) -> Pseudobulk:
        """The same conditions over ``genes`` in that order; a gene that is not measured is an error."""
        cells, known = self.cells.on_genes(genes), self.own_sums
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        at = np.array([place[gene] for gene in cells.genes.tolist()], dtype=np.int64)
        return replace(self, cells=cells, known=replace(known, sums=known.sums.on(cells.X, at)))

    def column(self, covariate: str) -> np.ndarray:
        """Value of one pairing covariate for each condition [n]."""
        if covariate not in self.covariates:
            hint = near(covariate, list(self.covariates)) or list(self.covariates)
            raise InputError(f"{self.name}: controls are not paired by {covariate!r}; the covariates are {hint}")
        place = self.covariates.index(covariate)
        return np.array([text.split(BAR)[place] for text in self.group.tolist()])

    def duplicate_keys(self) -> np.ndarray:
        """A text per condition [n], the same for two that perturb the same genes in the same group."""
        return np.char.add(np.char.add(np.asarray(ordered(self.perturbation)), BAR), self.group.astype(str))

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
        empty = (np.diff(self.control_ptr).reshape(-1, 2) == 0).any(1)[self.controls]
        refuse(self.name, self.sample_id[empty], "no control cells in a half", "pair by fewer covariates")
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
        return cls.grouped(cells.validate().named_as_measured(), covariates, min_cells, few_cells, seed)

    @classmethod
    def grouped(
        cls,
        cells: CellExpression,
        covariates: Sequence[str],
        min_cells: int,
        few_cells: Literal["error", "drop"],
        seed: int,
    ) -> Pseudobulk:
        """The same of cells whose names are valid, without a look at their values."""
        if few_cells not in ("error", "drop"):
            raise InputError(f"few_cells={few_cells!r}: must be error or drop")
        min_cells = max(min_cells, 2)
        group = groups_of(cells, covariates)
        label = Categorical.coded(["", *cells.perturbation.names], (cells.perturbation.codes + 1) * ~cells.is_control)
        keys = joined(label, group)
        first, count = np.empty(len(keys.names), dtype=np.int64), np.bincount(keys.codes, minlength=len(keys.names))
        first[keys.codes[::-1]] = np.arange(len(cells))[::-1]
        perturbed = ~cells.is_control[first]
        few = perturbed & (count < min_cells)
        lost = dict(cells.dropped)
        if few.any() and few_cells == "error":
            refuse_few(cells.name, keys.names[few], count[few], min_cells)
        if few.any():
            lost[f"conditions with fewer than {min_cells} cells"] = int(few.sum())
        kept = np.flatnonzero(perturbed & ~few)
        if not len(kept):
            raise InputError(f"{cells.name}: no perturbed cells to make conditions of: all labels are the control's")
        order = np.argsort(keys.codes, kind="stable")
        start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        idle = np.flatnonzero(~perturbed).tolist()
        of_group = {str(group[int(first[i])]): order[start[i] : start[i + 1]] for i in idle}
        own = group[first[kept]].astype(str)
        refuse_lone_groups(cells.name, own, of_group, covariates)
        paired = {name: of_group[name] for name in np.unique(own).tolist()}
        ptr, member = take_rows(start, order, kept)
        control_ptr, control_member = halved(paired, seed)
        return cls(
            name=cells.name,
            cells=cells,
            sample_id=keys.names[kept],
            perturbation=cells.perturbation[first[kept]].astype(str),
            group=own,
            ptr=ptr,
            member=member,
            controls=np.searchsorted(np.array(list(paired)), own).astype(np.int64),
            control_ptr=control_ptr,
            control_member=control_member,
            covariates=tuple(covariates),
            dropped=lost,
        )
