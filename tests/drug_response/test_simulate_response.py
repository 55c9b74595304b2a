"""What was planted in the simulated response can be found in it."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.drug_response.simulate import LINES, SimulatedResponse, simulate_response, simulated_response
from torchcell.drug_response.structures import inchikey, scaffold
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def simulated() -> SimulatedResponse:
    return simulate_response()


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def test_the_default_has_nine_lines_and_its_ceiling_leaves_room(simulated: SimulatedResponse) -> None:
    record = simulated.response
    assert np.unique(record.cell_line).tolist() == list(LINES)
    assert record.treated.shape == (4018, 200)
    assert len(np.unique(record.drug)) == 120
    change = record.treated - record.control
    first, second = change[0::2], change[1::2]  # replicates stand side by side
    assert (record.condition[0::2] == record.condition[1::2]).all()
    assert (record.plate[0::2] != record.plate[1::2]).all()
    assert 0.75 < correlation(first, second).mean() < 0.85


def test_structures_are_distinct_and_a_scaffold_shares_one_target(simulated: SimulatedResponse) -> None:
    record = simulated.response
    assert record.smiles is not None
    pairs = sorted(set(zip(record.drug.tolist(), record.smiles.tolist(), strict=True)))
    assert len({inchikey(smiles)[:14] for _, smiles in pairs}) == len(pairs) == 120
    target_of: dict[str, set[int]] = {}
    for (_, smiles), target in zip(pairs, simulated.target.tolist(), strict=True):
        target_of.setdefault(scaffold(smiles), set()).add(target)
    assert len(target_of) == 30
    assert all(len(targets) == 1 for targets in target_of.values())
    assert np.bincount(simulated.target).min() >= 8


def test_the_measured_change_recovers_the_planted_one(simulated: SimulatedResponse) -> None:
    record = simulated.response
    error = record.treated - record.control - simulated.effect
    assert error.std() == pytest.approx(0.15 * np.sqrt(1 + 1 / 16), rel=0.05)
    high = record.dose_value == 10
    drugs = np.unique(record.drug)
    change = record.treated - record.control
    mean = np.stack([change[high & (record.drug == drug)].mean(0) for drug in drugs])
    nearest = [np.corrcoef(row, simulated.program)[0, 1:].argmax() for row in mean]
    assert nearest == simulated.target.tolist()


def test_targets_of_a_pathway_share_half_their_program(simulated: SimulatedResponse) -> None:
    alike = np.corrcoef(simulated.program)
    same = simulated.pathway[:, None] == simulated.pathway[None]
    np.fill_diagonal(same, False)
    assert alike[same].mean() == pytest.approx(0.5, abs=0.1)
    assert abs(alike[~same & ~np.eye(len(alike), dtype=bool)].mean()) < 0.1


def test_the_effect_grows_with_the_dose_and_is_half_at_the_ec50(simulated: SimulatedResponse) -> None:
    whole = simulate_response(n_drugs=8, n_lines=2, coverage=1)
    size = np.abs(whole.effect).sum(1)
    by_dose = [size[whole.response.dose_value == np.float32(dose)] for dose in (0.1, 1.0, 10.0)]
    assert (by_dose[0] < by_dose[1]).all()
    assert (by_dose[1] < by_dose[2]).all()
    at = simulate_response(n_drugs=1, n_lines=1, doses=[float(whole.ec50[0])], coverage=1, n_replicates=1)
    again = simulate_response(n_drugs=1, n_lines=1, doses=[float(at.ec50[0])], coverage=1, n_replicates=1)
    np.testing.assert_allclose(again.effect[0], 0.5 * again.sensitivity[0, 0] * again.program[0], rtol=1e-4)


def test_basal_expression_tells_how_sensitive_a_line_is(simulated: SimulatedResponse) -> None:
    record = simulated.response
    basal = np.stack([record.control[record.cell_line == line].mean(0) for line in LINES])
    for target in range(12):
        told = np.corrcoef(np.log(simulated.sensitivity[:, target]), basal.T)[0, 1:]
        assert np.sort(told)[-2:].min() > 0.8


def test_samples_of_a_plate_share_its_control(simulated: SimulatedResponse) -> None:
    record = simulated.response
    for plate in np.unique(record.plate):
        assert len(np.unique(record.control[record.plate == plate], axis=0)) == 1
    assert len(np.unique(record.control, axis=0)) == 18


def test_lines_are_chosen_and_too_much_is_refused() -> None:
    assert set(simulated_response(["PC3", "HELA"], n_genes=20).cell_line) == {"PC3", "HELA"}
    with pytest.raises(InputError, match="no cell line 'K562'; the lines are A375, "):
        simulated_response("K562", n_genes=20)
    with pytest.raises(InputError, match="too many ring systems: there are 30"):
        simulate_response(n_drugs=121)
    with pytest.raises(InputError, match="n_lines=10: there are 9"):
        simulate_response(n_lines=10)
