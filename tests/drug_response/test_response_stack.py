"""The stack of drug response: honest columns, plain state, no gain from shuffled structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torchcell.core.profile_prior import ProfileColumns, fit_profiles
from torchcell.drug_response.baselines import MeanDeltaLine, change_score
from torchcell.drug_response.experts import LEVEL, Experts, Near, learn
from torchcell.drug_response.molecules import Molecules
from torchcell.drug_response.record import Response
from torchcell.drug_response.splits import SPLITS
from torchcell.drug_response.stack import Stack
from torchcell.io.errors import InputError
from torchcell.io.state import read_state, write_state
from torchcell.report.sections import contribution_sections

SMALL = {"penalties": (1e-2, 1.0), "weighed": 60}
DRUGS, GENES = 40, 12


def planted(shuffled: bool = False) -> Response:
    """Forty drugs of eight families on two lines and four plates; a family's drugs are alike, and so is what they do."""
    rng = np.random.default_rng(0)
    family = np.arange(DRUGS) % 8
    bits = (rng.random((8, 30)) < 0.3)[family] ^ (rng.random((DRUGS, 30)) < 0.03)
    bits[:, 0] = True
    effect = rng.normal(size=(8, GENES))[family]
    drug, line, well = (grid.ravel() for grid in np.indices((DRUGS, 2, 2)))
    plate = 2 * line + (drug + well) % 2
    control = rng.normal(8, 2, size=(2, GENES))[line] + rng.normal(0, 0.4, size=(4, GENES))[plate]
    on_plate = rng.normal(0, 0.5, size=(4, GENES))[plate]
    treated = control + on_plate + effect[drug] + rng.normal(0, 0.5, control.shape)
    names = np.array([f"d{i:02d}" for i in range(DRUGS)])
    order = rng.permutation(DRUGS) if shuffled else np.arange(DRUGS)
    table = Molecules(names, np.full(DRUGS, ""), bits[order].astype(np.float32), np.ones(DRUGS, dtype=bool))
    return Response(
        name="planted",
        treated=treated.astype(np.float32),
        control=control.astype(np.float32),
        drug=names[drug],
        dose_value=np.full(len(drug), 10, dtype=np.float32),
        time=np.full(len(drug), 24, dtype=np.float32),
        cell_line=np.array(["L0", "L1"])[line],
        plate=np.array(["P0", "P1", "P2", "P3"])[plate],
        genes=np.array([f"G{i}" for i in range(GENES)]),
        sample_id=np.array([f"s{i}" for i in range(len(drug))]),
        molecules=table,
    ).validate()


def inner(train: Response):
    for fold in range(4):
        part = SPLITS.make(train, "cold_drug", 4, fold, seed=1).part
        yield np.isin(part, ("train", "val")), part == "test"


def parts(record: Response) -> tuple[Response, Response, Response]:
    split = SPLITS.make(record, "cold_drug", 5, 0, seed=0)
    train, val, test = (record.subset(split.index(part)) for part in ("train", "val", "test"))
    return train, val, test


def fitted(record: Response) -> Stack:
    train, val, _ = parts(record)
    return Stack(**SMALL).with_folds(inner).fit(train, val, None)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return fitted(planted())


def test_no_training_sample_meets_experts_that_were_fitted_to_it():
    train, _, _ = parts(planted())
    folds = list(inner(train))
    held = folds[1][1]
    other = train.treated.copy()
    other[held] += np.random.default_rng(1).normal(size=other[held].shape).astype(np.float32)
    seen = []
    for record in (train, replace(train, treated=other)):
        experts = Stack(**SMALL)
        experts.dosed, experts.several = False, True
        seen.append(experts._experts(record.subset(folds[1][0])).columns(record.subset(held).blind()))
    assert all(seen[0][name].tobytes() == seen[1][name].tobytes() for name in seen[0])
    assert any(np.ptp(column) > 0 for column in seen[0].values())


def test_what_it_says_of_training_samples_is_out_of_fold(stack):
    train, val, _ = parts(planted())
    folds = list(inner(train))
    held = folds[0][1]
    other = train.treated.copy()
    other[held] = 2 * train.control[held] - other[held]  # what its own turned values would turn round
    again = Stack(**{**SMALL, "penalties": (1e-2,)}).with_folds(inner).fit(replace(train, treated=other), val, None)
    assert np.isfinite(stack.out_of_fold()).all()
    found = again.out_of_fold()[held]
    assert change_score(train.subset(held), found) > 0.1


def test_families_of_drugs_carry_it_and_shuffled_structures_give_no_gain(stack):
    plain = {}
    for shuffled, model in ((False, stack), (True, fitted(planted(shuffled=True)))):
        train, val, test = parts(planted(shuffled))
        mean = MeanDeltaLine().fit(train, val, None).predict(test.as_request())
        center = np.stack([train.treated[train.plate == plate].mean(0) for plate in test.plate.tolist()])
        found = model.predict(test.as_request())
        beyond = [np.corrcoef((a - center).ravel(), (test.treated - center).ravel())[0, 1] for a in (mean, found)]
        plain[shuffled] = beyond[1]
    assert plain[False] > 0.5
    assert abs(plain[True]) < 0.2


def test_a_known_plate_stands_in_place_of_the_level(stack):
    _, _, test = parts(planted())
    known, request = stack.predict(test.blind()), stack.predict(test.as_request())
    columns = stack.experts.columns(test)
    treatment = [source for source in stack.prior.sources if source not in LEVEL]
    said = stack.prior.predict(np.stack([columns[name] for name in stack.prior.names]), treatment)
    np.testing.assert_allclose(known, stack.learned.plates(test) + said, atol=1e-4)
    assert np.abs(known - request).mean() > 1e-3


def test_its_state_is_a_file_of_plain_arrays_that_predicts_the_same(stack, tmp_path):
    _, _, test = parts(planted())
    write_state(tmp_path / "stack.npz", stack.state_dict())
    again = Stack(**SMALL).load_state_dict(read_state(tmp_path / "stack.npz"))
    assert again.predict(test.as_request()).tobytes() == stack.predict(test.as_request()).tobytes()
    assert again.out_of_fold().tobytes() == stack.out_of_fold().tobytes()
    assert again.contributions() == stack.contributions()


def test_without_folds_that_hold_samples_it_says_what_to_do():
    train, val, _ = parts(planted())
    nobody = np.zeros(len(train), dtype=bool)
    stack = Stack(**SMALL).with_folds(lambda _: iter([(~nobody, nobody), (nobody, ~nobody)]))
    with pytest.raises(InputError, match=r"no inner fold of planted has samples .*baselines.stack=null"):
        stack.fit(train, val, None)


def test_votes_are_the_means_that_a_loop_gives():
    train, _, test = parts(planted())
    learned = learn(train, np.arange(0, len(train), 3))
    near = Near.of(learned, test, np.arange(len(train)))
    experts = Experts(learned, None, False, True)  # type: ignore[arg-type]
    found = dict(experts._votes(near))["like drugs, line: like drugs^2"]
    vectors = {name: train.molecules.vectors[i] for i, name in enumerate(train.molecules.id.tolist())}
    for row in range(0, len(test), 7):
        total, weights = np.zeros(GENES), 1.0
        for other in range(len(train)):
            if train.cell_line[other] == test.cell_line[row]:
                a, b = vectors[test.drug[row]], vectors[train.drug[other]]
                weight = (float(a @ b) / float(a @ a + b @ b - a @ b)) ** 2
                total, weights = total + weight * learned.departure[other], weights + weight
        np.testing.assert_allclose(found[row], total / weights, atol=1e-4)


def test_the_weights_of_profiles_are_those_of_a_weighted_ridge():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(3, 90, 5)).astype(np.float32)
    columns[2] = 0
    target = (2 * columns[0] - columns[1] + 0.1 * rng.normal(size=(90, 5))).astype(np.float32)
    target[3, 2] = np.nan
    weight = rng.random(90)
    folds = [ProfileColumns(columns[:, at], target[at], weight[at]) for at in (slice(0, 70), slice(70, 80))]
    val = ProfileColumns(columns[:, 80:], target[80:], weight[80:])
    prior, without = fit_profiles(["a: x", "a: y", "b: z"], folds, val, (1e-6, 10.0))
    assert prior.penalty == 1e-6
    np.testing.assert_allclose(prior.weight_F, [2, -1, 0], atol=0.05)
    assert prior.weight_F[2] == 0
    assert prior.contributions()["b"] == 0
    for part, at in zip(without, (slice(70, 80), slice(0, 70)), strict=True):
        x, y = columns[:2, at].reshape(2, -1).astype(float), target[at].ravel().astype(float)
        root = np.sqrt(np.repeat(weight[at], 5))
        x, y = (x * root)[:, ~np.isnan(y)], (y * root)[~np.isnan(y)]
        np.testing.assert_allclose(part.weight_F[:2], np.linalg.lstsq(x.T, y, rcond=None)[0], atol=1e-4)


def test_the_report_draws_its_sources_once_for_all_genes(stack):
    (section,) = contribution_sections("stack", stack.contributions(), ["G0", "G1"])
    assert section.title == "What carries stack"
