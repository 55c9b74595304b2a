"""What holds for all baselines of ``conf/baselines/cells.yaml``, and the truth that each is made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from torchcell.cells.baselines import change, training_center
from torchcell.cells.metrics import pearson_delta_perturbed
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.core.predictor import Predictor
from torchcell.evaluation.metrics import ProfileContext, Profiles, pearson_delta
from torchcell.io.errors import InputError

CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/cells.yaml")
NAMES = [str(name) for name in CONFIGS]
GENES, MODULES = 60, 4


def planted(noise: float = 0.3, n_singles: int = 24, seed: int = 0, cells: int = 30) -> Pseudobulk:
    """Singles and eight doubles in two lines; genes of one module move together, whichever of them is knocked down."""
    rng = np.random.default_rng(seed)
    basal = rng.uniform(4.0, 8.0, (2, GENES))
    module = np.arange(GENES) % MODULES
    program = rng.normal(0.0, 0.7, (MODULES, GENES)) + rng.normal(0.0, 0.7, (MODULES, MODULES))[:, module]
    labels = [f"G{i:02d}" for i in range(n_singles)] + [f"G{i:02d}+G{i + 1:02d}" for i in range(8)]
    labels += ["unmeasured"]
    effects = [program[[int(name[1:]) % MODULES for name in label.split("+")]].sum(0) for label in labels[:-1]]
    effects = np.stack([*effects, program.mean(0)]) - 0.5
    condition = np.concatenate([np.full(8 * cells, -1), np.repeat(np.arange(len(labels)), cells)])
    condition, line = np.tile(condition, 2), np.repeat([0, 1], len(condition))
    level = basal[line] + np.vstack([effects, np.zeros(GENES)])[condition]
    X = np.maximum(level + rng.normal(0.0, noise, level.shape), 0).astype(np.float32)
    table = CellExpression(
        name="planted",
        X=X,
        perturbation=np.array([*labels, "control"])[condition],
        is_control=condition < 0,
        genes=np.array([f"G{i:02d}" for i in range(GENES)]),
        sample_id=np.array([f"cell{i:05d}" for i in range(len(X))]),
        scale="lognorm",
        covariates={"cell_line": np.array(["L1", "L2"])[line]},
    )
    return Pseudobulk.from_cells(table, covariates=("cell_line",)).validate()


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    return planted()


def assign_folds(record: Pseudobulk, seed: int = 0) -> tuple[Pseudobulk, Pseudobulk, Pseudobulk]:
    """Train, val and test of 60, 20 and 20 percent of the perturbations."""
    labels = np.unique(record.perturbation)
    order = np.random.default_rng(seed).permutation(labels)
    a, b = int(0.6 * len(order)), int(0.8 * len(order))
    return tuple(record.subset(np.isin(record.perturbation, part)) for part in np.split(order, [a, b]))  # type: ignore[return-value]


def fitted(name: str, train: Pseudobulk, val: Pseudobulk | None = None) -> Predictor:
    return instantiate(CONFIGS[name]).fit(train, train if val is None else val, None)


def scored(record: Pseudobulk, prediction: np.ndarray, center: np.ndarray | None = None) -> Profiles:
    return Profiles(
        record.target.astype(float),
        prediction.astype(float),
        ProfileContext(record.eval_control, record.input_control, center),
    )


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_that_of_the_config(name):
    assert instantiate(CONFIGS[name]).name == name


@pytest.mark.parametrize("name", NAMES)
def test_test_cells_are_not_looked_at(name, record):
    train, val, test = assign_folds(record)
    baseline = fitted(name, train, val)
    first = baseline.predict(test.blind())
    assert first.dtype == np.float32
    assert first.shape == test.target.shape
    np.testing.assert_array_equal(first, baseline.predict(test))


@pytest.mark.parametrize("name", NAMES)
def test_the_truths_half_of_the_controls_is_not_looked_at(name, record):
    """Noise that truth and prediction share passes for skill."""
    X = record.cells.X.copy()
    X[record.control_half] = 3.0
    spoilt = replace(record, cells=replace(record.cells, X=X))
    (train, val, test), (other_train, other_val, other_test) = assign_folds(record), assign_folds(spoilt)
    found = fitted(name, other_train, other_val).predict(other_test.blind())
    np.testing.assert_array_equal(found, fitted(name, train, val).predict(test.blind()))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_conditions_changes_nothing(name, record):
    train, val, test = assign_folds(record)
    order = np.random.default_rng(2).permutation(len(test))
    expected = fitted(name, train, val).predict(test.blind())
    np.testing.assert_allclose(fitted(name, train, val).predict(test.subset(order).blind()), expected[order], atol=1e-5)
    turned = train.subset(np.random.default_rng(3).permutation(len(train)))
    np.testing.assert_allclose(fitted(name, turned, val).predict(test), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "no_change"])
def test_a_record_over_other_genes_is_refused(name, record):
    baseline = fitted(name, record)
    with pytest.raises(InputError, match="gene list"):
        baseline.predict(record.on_genes(record.genes[::-1]))


@pytest.mark.parametrize("name", ["no_change", "perturbed_mean", "pca_ridge", "fake_perturbation"])
def test_unseen_lines_and_unmeasured_targets_get_a_prediction(name, record):
    train = record.subset((record.group == "L1") & (record.perturbation != "unmeasured"))
    assert np.isfinite(fitted(name, train).predict(record.blind())).all()


def test_no_change_is_undefined_as_a_change_and_the_mean_of_perturbations_against_itself(record):
    train, _, test = assign_folds(record)
    center = training_center(train, test)
    for line in ("L1", "L2"):
        rows = train.group == line
        np.testing.assert_allclose(center[test.group == line][0], train.target[rows].mean(0), atol=1e-4)
    found = {name: scored(test, fitted(name, train).predict(test.blind()), center) for name in NAMES}
    assert np.isnan(pearson_delta(found["no_change"])).all()
    assert (pearson_delta_perturbed(found["perturbed_mean"]) == 0).all()


def test_the_mean_change_of_other_lines_is_added_to_the_controls_of_a_new_one(record):
    train, test = record.subset(record.group == "L1"), record.subset(record.group == "L2")
    found = fitted("perturbed_mean", train).predict(test.blind())
    np.testing.assert_allclose(found, test.input_control + change(train).mean(0), atol=1e-4)


def test_a_perturbation_of_another_line_has_the_same_change(record):
    train, test = record.subset(record.group == "L1"), record.subset(record.group == "L2")
    found = fitted("same_perturbation", train.subset(train.perturbation != "G00")).predict(test.blind())
    assert np.isnan(found[test.perturbation == "G00"]).all()
    known = test.perturbation != "G00"
    assert pearson_delta(scored(test, found))[known].min() > 0.95


def test_doubles_are_the_sum_of_their_singles(record):
    doubles = np.array([len(targets) == 2 for targets in record.targets])
    train, test = record.subset(~doubles & (record.perturbation != "G01")), record.subset(doubles)
    found = fitted("additive", train).predict(test.blind())
    own = {(label, line): row for label, line, row in zip(train.perturbation, train.group, change(train), strict=True)}
    for i, (targets, line) in enumerate(zip(test.targets, test.group, strict=True)):
        if "G01" in targets:  # adds what singles do on average
            mean = change(train)[train.group == line].mean(0)
            (other,) = [gene for gene in targets if gene != "G01"]
            expected = own[other, line] + mean
        else:
            expected = own[targets[0], line] + own[targets[1], line]
        np.testing.assert_allclose(found[i], test.input_control[i] + expected, atol=1e-4)


def test_a_single_of_another_line_stands_in_and_nothing_is_said_of_unseen_genes(record):
    single = np.array([len(targets) == 1 for targets in record.targets])
    train = record.subset(single & (record.group == "L1") & ~np.isin(record.perturbation, ["G03", "G04"]))
    found = fitted("additive", train).predict(record.blind())
    assert np.isnan(found[np.isin(record.perturbation, ["G03", "G04", "G03+G04"])]).all()
    row = int(np.flatnonzero((record.perturbation == "G05") & (record.group == "L2"))[0])
    expected = record.input_control[row] + change(train)[train.perturbation == "G05"][0]
    np.testing.assert_allclose(found[row], expected, atol=1e-4)
    assert np.isnan(fitted("additive", record.subset(~single)).predict(record.blind())).all()


def test_genes_that_move_together_predict_what_their_unseen_knock_down_does(record):
    train, val, test = assign_folds(record)
    center = training_center(train, test)
    measured = test.perturbation != "unmeasured"
    ridge = scored(test, fitted("pca_ridge", train, val).predict(test.blind()), center)
    mean = scored(test, fitted("perturbed_mean", train, val).predict(test.blind()), center)
    assert pearson_delta(ridge)[measured].mean() > pearson_delta(mean)[measured].mean() + 0.2
    assert pearson_delta_perturbed(ridge)[measured].mean() > 0.65


def test_the_ridge_is_that_of_its_formula(record):
    train = record.subset(record.group == "L1")
    model = instantiate(CONFIGS["pca_ridge"], k=3, penalty=2.0).fit(train, train, None)
    Z, P, Y = model.score_GK, model.vectors(train), (change(train) - change(train).mean(0)).T
    inverse = [np.linalg.inv(each.T @ each + 2.0 * np.eye(3)) for each in (Z, P)]
    expected = change(train).mean(0)[:, None] + Z @ (inverse[0] @ Z.T @ Y @ P @ inverse[1]) @ P.T
    np.testing.assert_allclose(model.predict(train), train.input_control + expected.T, atol=1e-4)
    level = np.concatenate([train.target, train.input_control[:1]]).astype(float)
    values = np.linalg.svd((level - level.mean(1, keepdims=True)).T, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(Z, axis=0), values[:3], rtol=1e-6)


def test_fake_perturbations_have_no_skill_unless_truth_and_prediction_share_controls():
    # Few cells and next to no effect: where shared controls look best.
    record = planted(noise=3.0, cells=12)
    halves = scored(record, fitted("fake_perturbation", record).predict(record.blind()))
    shared = replace(halves, context=replace(halves.context, input_control=None))
    assert abs(pearson_delta(halves).mean()) < 0.1
    assert pearson_delta(shared).mean() > pearson_delta(halves).mean() + 0.1


def test_fake_perturbations_are_means_of_as_many_control_cells_as_a_condition_has(record):
    found = fitted("fake_perturbation", record).predict(record.blind())
    assert (found - record.input_control).std() == pytest.approx(0.3 / np.sqrt(30), rel=0.15)
    other = instantiate(CONFIGS["fake_perturbation"], seed=1).fit(record, record, None).predict(record.blind())
    assert not np.allclose(found, other)


def test_a_single_control_cell_leaves_nothing_to_draw_a_fake_perturbation_from(record):
    """The row was that of no_change under another name."""
    lone = record.group == "L1"
    first = 2 * int(record.controls[lone][0])
    ptr = record.control_ptr.copy()
    ptr[first + 1] = ptr[first] + 1
    left = replace(record, control_ptr=ptr, known=None)
    found = fitted("fake_perturbation", left).predict(left.blind())
    assert np.isnan(found[lone]).all()
    assert np.isfinite(found[~lone]).all()
    assert np.isfinite(fitted("no_change", left).predict(left.blind())).all()
