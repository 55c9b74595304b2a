"""Cells become conditions beside the controls of their group, and what is hidden stays hidden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from torchcell.cells.metrics import own_columns
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.simulate import simulate_cells
from torchcell.io.errors import InputError
from torchcell.io.gene_names import alias_table


@pytest.fixture(scope="module")
def cells() -> CellExpression:
    return simulate_cells().cells.lognorm()


@pytest.fixture(scope="module")
def conditions(cells: CellExpression) -> Pseudobulk:
    return Pseudobulk.from_cells(cells, ["cell_line"]).validate()


def test_means_are_those_of_a_loop_over_labels_and_lines(cells: CellExpression, conditions: Pseudobulk) -> None:
    assert len(conditions) == 16
    line, dense = cells.covariates["cell_line"], cells.target
    for i, (label, group) in enumerate(zip(conditions.perturbation, conditions.group, strict=True)):
        assert conditions.sample_id[i] == f"{label}|{group}"
        own = (cells.perturbation == label) & (line == group)
        np.testing.assert_allclose(conditions.target[i], dense[own].mean(0), atol=1e-5)
        assert set(conditions.members(i)) == set(np.flatnonzero(own))
        truth = cells.is_control & (line == group) & conditions.control_half
        np.testing.assert_allclose(conditions.eval_control[i], dense[truth].mean(0), atol=1e-5)
        other = cells.is_control & (line == group) & ~conditions.control_half
        np.testing.assert_allclose(conditions.input_control[i], dense[other].mean(0), atol=1e-5)
        assert set(conditions.input_cells(i)) == set(np.flatnonzero(other))
        assert abs(int(truth.sum()) - int(other.sum())) <= 1
    assert conditions.targets[conditions.perturbation.tolist().index("G0001+G0002")] == ("G0001", "G0002")
    assert len(conditions.control_cells()) == cells.is_control.sum()
    assert not conditions.control_half[~cells.is_control].any()


def test_the_order_of_cells_and_other_groups_do_not_move_the_means(
    cells: CellExpression, conditions: Pseudobulk
) -> None:
    order = np.random.default_rng(1).permutation(len(cells))
    turned = Pseudobulk.from_cells(cells.subset(order), ["cell_line"])
    np.testing.assert_array_equal(turned.sample_id, conditions.sample_id)
    np.testing.assert_allclose(turned.target, conditions.target, atol=1e-5)
    first = cells.covariates["cell_line"] == "LINE1"
    alone = Pseudobulk.from_cells(cells.subset(first), ["cell_line"])
    np.testing.assert_array_equal(alone.eval_control, conditions.eval_control[conditions.group == "LINE1"])


def test_controls_stand_once_a_group_however_many_conditions_have_them(
    cells: CellExpression, conditions: Pseudobulk
) -> None:
    """Each condition had a copy of its group's: 4.6 GB for a million cells."""
    assert len(conditions.control_member) == cells.is_control.sum()
    assert sorted(conditions.control_member) == np.flatnonzero(cells.is_control).tolist()
    for part in (conditions, conditions.subset(np.array([9, 3])), conditions.subset(np.array([9, 3])).reachable()):
        for i in range(len(part)):
            X, own = part.cells.X, (part.input_cells(i), part.eval_cells(i))
            for at, mean in zip(own, (part.input_control, part.eval_control), strict=True):
                np.testing.assert_allclose(mean[i], X[at].mean(0).A1, rtol=1e-5, atol=1e-7)
            center, variance, n = part.control_moments(np.array([i]))
            every = X[np.concatenate(own)].toarray().astype(np.float64)
            np.testing.assert_allclose(center, every.mean(0), rtol=1e-9)
            np.testing.assert_allclose(variance, every.var(0), rtol=1e-6, atol=1e-9)
            assert n == len(every)


def test_cells_that_take_the_place_of_others_have_sums_of_their_own(conditions: Pseudobulk) -> None:
    before = conditions.target
    twin = replace(conditions, cells=replace(conditions.cells, X=conditions.cells.X * 2))
    np.testing.assert_allclose(twin.target, 2 * before, rtol=1e-6)
    np.testing.assert_allclose(twin.subset(np.array([4])).target, 2 * before[[4]], rtol=1e-6)


def test_halves_are_seeded(cells: CellExpression, conditions: Pseudobulk) -> None:
    again, other = (Pseudobulk.from_cells(cells, ["cell_line"], seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.control_half, conditions.control_half)
    assert (other.control_half != conditions.control_half).any()


def test_a_blind_record_has_no_perturbed_cell_left(cells: CellExpression, conditions: Pseudobulk) -> None:
    blind = conditions.subset([3, 9]).blind()
    assert np.isnan(blind.target).all()
    assert blind.cells.is_control.all()
    assert len(blind.member) == 0
    np.testing.assert_array_equal(blind.eval_control, conditions.eval_control[[3, 9]])
    np.testing.assert_array_equal(blind.input_control, conditions.input_control[[3, 9]])


def test_subsets_genes_and_reach_keep_the_values(conditions: Pseudobulk) -> None:
    at = np.array([5, 0, 11])
    part = conditions.subset(at)
    np.testing.assert_array_equal(part.target, conditions.target[at])
    small = part.reachable()
    assert len(small.cells) < len(conditions.cells)
    np.testing.assert_array_equal(small.target, part.target)
    np.testing.assert_array_equal(small.eval_control, part.eval_control)
    genes = ["G0007", "G0002"]
    np.testing.assert_array_equal(conditions.on_genes(genes).target, conditions.target[:, [6, 1]])
    assert conditions.on_genes(genes).phenotype_names == ("G0007", "G0002")
    assert conditions.column("cell_line").tolist() == conditions.group.tolist()
    with pytest.raises(InputError, match="controls are not paired by 'cellline'"):
        conditions.column("cellline")


def test_several_covariates_or_none_pair_the_controls(cells: CellExpression) -> None:
    both = Pseudobulk.from_cells(cells, ["cell_line", "batch"], min_cells=2)
    assert sorted(set(both.group.tolist())) == ["LINE1|B1", "LINE1|B2", "LINE2|B1", "LINE2|B2"]
    assert both.column("batch")[0] == "B1"
    none = Pseudobulk.from_cells(cells)
    assert set(none.group.tolist()) == {"all"}
    assert len(none) == 8


def test_fewer_cells_keep_every_condition_its_share(conditions: Pseudobulk) -> None:
    few = conditions.limited(400).validate()
    np.testing.assert_array_equal(few.sample_id, conditions.sample_id)
    assert len(few.cells) == 400
    assert set(np.abs(few.sizes - 400 * conditions.sizes / len(conditions.cells)) <= 1) == {True}
    assert conditions.limited(10**6) is conditions
    np.testing.assert_array_equal(conditions.limited(400).target, few.target)
    with pytest.raises(InputError, match="20 cells leave less than two for"):
        conditions.limited(20)
    with pytest.raises(InputError, match="max_cells=0: must be 1 or more"):
        conditions.limited(0)


def test_controls_that_no_condition_needs_take_no_place_among_fewer_cells(cells: CellExpression) -> None:
    """limited(400) gave 368 cells: half of the controls of a group without conditions had their share."""
    lone = cells.subset(cells.is_control | (cells.covariates["cell_line"] == "LINE1"))
    few = Pseudobulk.from_cells(lone, ["cell_line"]).limited(400)
    assert len(few.cells) == 400
    assert set(few.cells.covariates["cell_line"]) == {"LINE1"}


def test_a_label_with_one_cell_is_named_or_left_out(cells: CellExpression) -> None:
    label = cells.perturbation.copy()
    label[np.flatnonzero(label == "G0003")[0]] = "LONE"
    odd = replace(cells, perturbation=label)
    with pytest.raises(
        InputError, match=r"1 condition\(s\) with fewer than 10 cells: 'LONE\|all \(1\)'; set few_cells=drop"
    ):
        Pseudobulk.from_cells(odd)
    left = Pseudobulk.from_cells(odd, few_cells="drop")
    assert "LONE" not in left.perturbation
    assert left.dropped["conditions with fewer than 10 cells"] == 1


def test_perturbed_genes_bear_the_names_under_which_they_are_measured(
    cells: CellExpression, conditions: Pseudobulk, tmp_path: Path
) -> None:
    """Labels g0001 over measured G0001 were genes of their own: never left out of pds, which flattered all systems."""
    lower = replace(cells, perturbation=np.char.lower(cells.perturbation.astype(str)))
    found = Pseudobulk.from_cells(lower, ["cell_line"])
    assert found.sample_id.tolist() == conditions.sample_id.tolist()
    assert found.dropped == {"labels that gave way to the name of the measured gene": 8}
    np.testing.assert_array_equal(own_columns(found), own_columns(conditions))
    assert not conditions.dropped
    (tmp_path / "names.csv").write_text("alias,gene\nOLD1;G0001,G0001\n")
    label = np.where(cells.perturbation == "G0001+G0002", "OLD1+g0002", cells.perturbation)
    renamed = replace(cells, perturbation=label).named_as_measured(alias_table(tmp_path / "names.csv"))
    assert renamed.perturbation.tolist() == cells.perturbation.tolist()
    kept = replace(cells, perturbation=np.where(cells.perturbation == "G0003", "OLD1", cells.perturbation))
    assert "OLD1" in Pseudobulk.from_cells(kept).perturbation


def test_a_bar_in_a_covariate_is_refused(cells: CellExpression) -> None:
    """Groups join values by bars: line A|B read back as A, and (x|y, z) and (x, y|z) were one group."""
    line = np.where(cells.covariates["cell_line"] == "LINE1", "A|B", "A")
    barred = replace(cells, covariates={"cell_line": line, "batch": cells.covariates["batch"]})
    with pytest.raises(InputError, match=r"1 value.s. of the covariate cell_line hold '\|'.*: 'A\|B'; rename"):
        Pseudobulk.from_cells(barred, ["cell_line"])
    assert Pseudobulk.from_cells(barred, ["batch"]).column("batch")[0] == "B1"


def test_groups_without_controls_and_other_faults_are_named(cells: CellExpression) -> None:
    orphan = cells.subset(~(cells.is_control & (cells.covariates["cell_line"] == "LINE2")))
    with pytest.raises(
        InputError, match="1 group.s. with fewer than 2 control cells when paired by cell_line: 'LINE2'"
    ):
        Pseudobulk.from_cells(orphan, ["cell_line"])
    with pytest.raises(InputError, match="no covariate 'line' to pair controls by; the nearest are"):
        Pseudobulk.from_cells(cells, ["line"])
    with pytest.raises(InputError, match="few_cells='skip': must be error or drop"):
        Pseudobulk.from_cells(cells, few_cells="skip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no perturbed cells"):
        Pseudobulk.from_cells(cells.subset(cells.is_control))
    counts = Pseudobulk.from_cells(simulate_cells().cells)
    with pytest.raises(InputError, match="the cells are counts; log-normalize them first"):
        counts.validate()
