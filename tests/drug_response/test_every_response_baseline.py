"""What holds for all baselines of ``conf/baselines/response.yaml``, and the truth that each is made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from torchcell.core.predictor import Predictor
from torchcell.drug_response.baselines import FakePerturbation, NearestDrug, change, change_score
from torchcell.drug_response.baselines_fitted import LineMeanRidge, RidgeChange
from torchcell.drug_response.molecules import Molecules
from torchcell.drug_response.record import Response
from torchcell.io.errors import InputError

CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/response.yaml")
NAMES = [str(name) for name in CONFIGS]
DRUGS = [f"d{i:02d}" for i in range(20)]


def planted(seed: int = 0, unknown: tuple[str, ...] = ()) -> Response:
    """Twenty drugs, two lines, three doses, two replicates; effects are linear in 12 bits of the drug and in log dose."""
    rng = np.random.default_rng(seed)
    bits = (rng.random((20, 12)) < 0.5).astype(np.float32)
    bits[10:] = bits[:10]  # a twin of each of the first ten, and as effective
    bits[:, 0] = 1
    effect = bits @ rng.normal(size=(12, 15))
    drug, line, dose, _ = (grid.ravel() for grid in np.indices((20, 2, 3, 2)))
    basal = rng.normal(8, 2, size=(2, 15))
    control = basal[line] + rng.normal(0, 0.05, size=(len(drug), 15))
    treated = control + effect[drug] * (0.5 + 0.25 * dose[:, None]) * np.array([1.0, 1.2])[line, None]
    known = ~np.isin(DRUGS, unknown)
    table = Molecules(np.array(DRUGS), np.full(20, ""), bits * known[:, None], known)
    return Response(
        name="planted",
        treated=(treated + rng.normal(0, 0.1, treated.shape)).astype(np.float32),
        control=control.astype(np.float32),
        drug=np.array(DRUGS)[drug],
        dose_value=np.array([0.1, 1, 10], dtype=np.float32)[dose],
        time=np.full(len(drug), 24, dtype=np.float32),
        cell_line=np.array(["L0", "L1"])[line],
        plate=np.array(["P0", "P1"])[line],
        genes=np.array([f"G{i}" for i in range(15)]),
        sample_id=np.array([f"s{i}" for i in range(len(drug))]),
        molecules=table,
    ).validate()


def assign_folds(record: Response, seed: int = 0) -> tuple[Response, Response, Response]:
    order = np.random.default_rng(seed).permutation(len(record))
    a, b = int(0.6 * len(order)), int(0.8 * len(order))
    return record.subset(order[:a]), record.subset(order[a:b]), record.subset(order[b:])


def fitted(name: str, train: Response, val: Response) -> Predictor:
    few = {"weighed": 40} if name == "stack" else {}  # it is fitted five times
    return instantiate(CONFIGS[name], **few).fit(train, val, None)


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_that_of_the_config(name):
    assert instantiate(CONFIGS[name]).name == name


@pytest.mark.parametrize("name", NAMES)
def test_test_values_change_nothing(name):
    train, val, test = assign_folds(planted())
    baseline = fitted(name, train, val)
    first = baseline.predict(test.blind())
    assert first.dtype == np.float32
    assert first.shape == test.treated.shape
    assert np.isfinite(first).all()
    assert first.tobytes() == baseline.predict(test).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_samples_changes_nothing(name):
    train, val, test = assign_folds(planted())
    order = np.random.default_rng(2).permutation(len(test))
    expected = fitted(name, train, val).predict(test.blind())
    np.testing.assert_allclose(fitted(name, train, val).predict(test.subset(order)), expected[order], atol=1e-5)
    turned = train.subset(np.random.default_rng(3).permutation(len(train)))
    np.testing.assert_allclose(fitted(name, turned, val).predict(test), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fake_perturbation"])
def test_unseen_lines_drugs_and_drugs_without_a_vector_get_a_prediction(name):
    record = planted(unknown=("d03", "d04"))
    new = np.isin(record.drug, ["d03", "d05"]) | (record.cell_line == "L1")
    train, val, _ = assign_folds(record.subset(~new))
    assert np.isfinite(fitted(name, train, val).predict(record.subset(new).blind())).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("constant", "no_change")])
def test_a_record_over_other_genes_is_refused(name):
    train, val, test = assign_folds(planted())
    baseline = fitted(name, train, val)
    with pytest.raises(InputError, match="gene list"):
        baseline.predict(replace(test, genes=test.genes[::-1]))


def test_means_are_those_of_the_training_part():
    train, val, test = assign_folds(planted())
    found = {name: fitted(name, train, val).predict(test.blind()) for name in NAMES}
    line, drug = test.cell_line[0], test.drug[0]
    assert found["constant"][0, 0] == pytest.approx(train.treated.mean(), rel=1e-5)
    np.testing.assert_allclose(found["gene_mean"][0], train.treated.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["line_gene_mean"][0], train.treated[train.cell_line == line].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(found["no_change"], test.control)
    for name, rows in (("line", train.cell_line == line), ("drug", train.drug == drug)):
        expected = test.control[0] + change(train)[rows].mean(0)
        np.testing.assert_allclose(found[f"mean_delta_{name}"][0], expected, rtol=1e-4)


def test_an_unseen_line_or_drug_gets_the_mean_of_all():
    record = planted()
    train, rest = record.subset(record.cell_line == "L0"), record.subset(record.cell_line == "L1")
    np.testing.assert_allclose(
        fitted("line_gene_mean", train, train).predict(rest)[0], train.treated.mean(0), rtol=1e-5
    )
    expected = rest.control[0] + change(train).mean(0)
    np.testing.assert_allclose(fitted("mean_delta_line", train, train).predict(rest)[0], expected, rtol=1e-4)
    train, rest = record.subset(record.drug != "d01"), record.subset(record.drug == "d01")
    expected = rest.control[0] + change(train).mean(0)
    np.testing.assert_allclose(fitted("mean_delta_drug", train, train).predict(rest)[0], expected, rtol=1e-4)


def test_the_mean_of_a_plate_falls_back_to_source_line_and_all():
    record = planted()
    plate = np.array([f"{line}-{i % 4}" for i, line in enumerate(record.cell_line)])
    record = replace(record, plate=plate, source=np.array([name[-1] in "01" for name in plate]).astype(str))
    train = record.subset((record.cell_line == "L0") & (plate != "L0-1"))
    found = fitted("plate_gene_mean", train, train).predict(record)
    expected = {
        "L0-0": train.treated[train.plate == "L0-0"].mean(0),
        "L0-1": train.treated[train.source == "True"].mean(0),
        "L1-0": train.treated.mean(0),
    }
    for name, mean in expected.items():
        np.testing.assert_allclose(found[plate == name][0], mean, rtol=1e-5)
    no_source = fitted("plate_gene_mean", replace(train, source=None), train).predict(replace(record, source=None))
    np.testing.assert_allclose(no_source[plate == "L0-1"][0], train.treated.mean(0), rtol=1e-5)


def cold_twins() -> tuple[Response, Response, Response]:
    """Training drugs and, in the test part, twins of ten of them."""
    record = planted()
    number = np.array([int(name[1:]) for name in record.drug])
    return (
        record.subset(number < 8),
        record.subset((number == 8) | (number == 9)),
        record.subset((number >= 10) & (number < 18)),
    )


@pytest.mark.parametrize("name", ["ridge_change", "ridge_level", "line_mean_ridge", "plate_mean_ridge", "nearest_drug"])
def test_structures_predict_drugs_that_were_never_seen(name):
    train, val, test = cold_twins()
    baseline = fitted(name, train, val).predict(test.blind())
    without = fitted("mean_delta_line", train, val).predict(test.blind())
    assert change_score(test, baseline.astype(float)) > 0.9 > change_score(test, without.astype(float)) + 0.1


def test_the_nearest_drug_is_itself_at_the_nearest_dose_on_its_line():
    record = planted()
    row = int(np.flatnonzero((record.drug == "d02") & (record.cell_line == "L1") & (record.dose_value == 10))[0])
    same = (record.drug == "d02") & (record.cell_line == "L1")
    train = record.subset(~(same & (record.dose_value == 10)))
    found = NearestDrug().fit(train, train, None).predict(record.subset(np.array([row])))[0]
    near = same & (record.dose_value == 1)
    np.testing.assert_allclose(found, record.control[row] + change(record)[near].mean(0), rtol=1e-4)


def test_an_unseen_drug_without_a_vector_has_no_nearest_one():
    record = planted(unknown=("d02",))
    train, test = record.subset(record.drug != "d02"), record.subset(record.drug == "d02")
    expected = fitted("mean_delta_line", train, train).predict(test)
    np.testing.assert_allclose(NearestDrug().fit(train, train, None).predict(test), expected, rtol=1e-5)


def test_the_penalty_is_chosen_by_the_change_on_val():
    train, val, _ = cold_twins()
    for baseline in (RidgeChange, LineMeanRidge):
        alone = {a: baseline(alphas=(a,)).fit(train, val, None).predict(val) for a in (0.01, 1.0, 30.0)}
        scores = {a: change_score(val, found.astype(float)) for a, found in alone.items()}
        best = alone[max(scores, key=scores.get)]
        assert baseline(alphas=(0.01, 1.0, 30.0)).fit(train, val, None).predict(val).tobytes() == best.tobytes()


def test_the_score_is_the_mean_correlation_of_changes():
    record = planted().subset(np.arange(4))
    assert change_score(record, record.treated.astype(float)) == pytest.approx(1)
    assert change_score(record, 2 * record.control - record.treated.astype(float)) == pytest.approx(-1, abs=1e-5)
    assert change_score(record, record.control.astype(float)) == -np.inf


def test_a_fake_perturbation_is_aninput_control_of_the_plate():
    train, val, test = assign_folds(planted())
    found = FakePerturbation().fit(train, val, None).predict(test.blind())
    for row in range(len(test)):
        assert not (found[row] == test.control[row]).all()
        same = (train.control == found[row]).all(1)
        assert set(train.plate[same]) == {test.plate[row]}
    one = replace(planted(), control=np.tile(planted().control[:1], (len(planted()), 1)))
    train, val, test = assign_folds(one)
    assert np.isnan(FakePerturbation().fit(train, val, None).predict(test)).all()


NEED_A_PLATE = ["plate_gene_mean", "plate_mean_ridge", "fake_perturbation"]
KNOWS_PLATES = ["gaussian_process", "stack"]
"""They predict a known plate by its mean, and another without."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KNOWS_PLATES])
def test_what_needs_the_plate_has_nothing_to_say_of_a_request_and_the_others_say_the_same(name):
    """Without a plate they would be the rows of the line's means under other names."""
    train, val, test = assign_folds(planted())
    baseline = fitted(name, train, val)
    found, known = baseline.predict(test.as_request()), baseline.predict(test.blind())
    if name in NEED_A_PLATE:
        assert np.isnan(found).all()
    else:
        assert found.tobytes() == known.tobytes()


def test_a_process_stands_on_the_control_of_a_request_and_on_the_mean_of_a_known_plate():
    train, val, test = assign_folds(planted())
    process = fitted("gaussian_process", train, val)
    told = [each.numpy() for each in process.regression(process._wells(test))]
    delta, plate = (fitted(name, train, val).predict(test.blind()) for name in ("mean_delta_line", "plate_gene_mean"))
    np.testing.assert_allclose(process.predict(test.as_request()), delta + told[0] + told[1], atol=1e-4)
    np.testing.assert_allclose(process.predict(test.blind()), plate + told[0], atol=1e-4)
    found = process.predict(test.as_request())
    assert change_score(test, found.astype(float)) > 0.95 > change_score(test, delta.astype(float)) + 0.1


def test_a_process_takes_the_noise_of_controls_out():
    """A ridge that reads the control scored .41 where those that start from it and do not had .23 (level 3)."""
    record, rng = planted(), np.random.default_rng(1)
    drawn = rng.normal(0, 2, (12, 15))[rng.integers(12, size=len(record))]
    train, val, test = assign_folds(replace(record, control=(record.control + drawn).astype(np.float32)))
    scores = {
        name: change_score(test, fitted(name, train, val).predict(test.as_request()).astype(float))
        for name in ("gaussian_process", "ridge_change", "nearest_drug")
    }
    assert scores["gaussian_process"] > max(scores["ridge_change"], scores["nearest_drug"]) + 0.1
