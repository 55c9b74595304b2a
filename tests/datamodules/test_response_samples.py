"""Batches of drug response: what they hold, what they never hold, and what the scoring gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from torchcell.data.errors import InputError
from torchcell.data.molecules import Molecules
from torchcell.data.response import Response
from torchcell.data.simulate import simulate_response
from torchcell.datamodules.response import ResponseDataModule
from torchcell.datamodules.response_samples import ResponseSamples
from torchcell.datamodules.spec import Spec

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


@dataclass(frozen=True)
class OneHot:
    """A unit vector a drug; drugs in ``lacking`` have none."""

    lacking: tuple[str, ...] = ()

    def __call__(self, response: Response) -> Molecules:
        names = np.unique(response.drug)
        known = ~np.isin(names, self.lacking)
        vectors = np.eye(len(names), dtype=np.float32) * known[:, None]
        return Molecules(names, np.full(len(names), ""), vectors, known)


def module(record: Response | None = None, lacking: tuple[str, ...] = (), **options) -> ResponseDataModule:
    record = simulate_response(n_replicates=4).response if record is None else record
    return ResponseDataModule(record, options.pop("split", SPLIT), OneHot(lacking), **options)


def test_a_batch_carries_numbers_and_profiles_and_no_molecule() -> None:
    data = module()
    batch = data.packed[torch.tensor([5, 3])]
    record = data.record_whole
    np.testing.assert_array_equal(batch.target.numpy(), record.treated[[5, 3]])
    np.testing.assert_array_equal(batch.control.numpy(), record.control[[5, 3]])
    assert batch.basal is batch.control
    assert [record.molecules.id[i] for i in batch.drug.tolist()] == record.drug[[5, 3]].tolist()
    np.testing.assert_allclose(batch.log_dose.numpy(), np.log10(record.dose_value[[5, 3]]), rtol=1e-6)
    wide = max(tensor.shape[-1] for tensor in (batch.target, batch.control, batch.centre))
    assert wide == len(record.genes)


def test_everything_fitted_is_blind_to_the_test_part() -> None:
    record = simulate_response(n_replicates=4).response
    data = module(record)
    spoilt = record.treated.copy()
    spoilt[data.split.index("test")] = 1e4
    again = module(replace(record, treated=spoilt))
    plain, other = data.spec.to_plain(), again.spec.to_plain()
    for name in ("line_control", "line_basal", "change_center", "change_scale"):
        assert torch.equal(plain["extras"][name], other["extras"][name]), name
    assert torch.equal(plain["center"], other["center"])
    np.testing.assert_array_equal(data.centre, again.centre)


def test_the_spec_survives_a_round_trip() -> None:
    spec = module().spec
    again = Spec.from_plain(spec.to_plain())
    assert again.extras["lines"] == spec.extras["lines"]
    assert torch.equal(again.extras["molecules"]["vectors"], spec.extras["molecules"]["vectors"])


def test_conditions_of_one_sample_each_are_no_level_of_their_own() -> None:
    """On level 5 the verdict counted three metrics twice."""
    data = module(simulate_response(n_replicates=1).response, split=SPLIT | {"method": "cold_drug"})
    record = data.record("test")
    (samples,) = data.results("test", {"": {"model": record.treated.copy()}}, "model", None)
    assert samples.level == ""
    assert "No condition has two samples in train, val, test: there is no level condition/ to score." in data.notes()
    assert "Metrics headed condition/ are of means over replicates." in module().notes()


def test_a_line_outside_training_has_no_number() -> None:
    record = simulate_response(n_replicates=4).response
    lines = np.unique(record.cell_line)
    data = module(record)
    away = record.cell_line.copy()
    away[0] = "ELSEWHERE"
    samples = ResponseSamples(replace(data.record_whole, cell_line=away), data.spec)
    assert samples.line[0] == -1
    assert samples.line.max() == len(lines) - 1


def test_replicates_are_the_other_samples_of_a_condition() -> None:
    data = module()
    record = data.record("test")
    change = data.replicates(record)
    whole = data.record_whole
    i = 0
    others = (whole.condition == record.condition[i]) & (whole.plate != record.plate[i])
    np.testing.assert_allclose(change[i], (whole.treated - whole.control)[others].mean(0), atol=1e-4)
    one_plate = replace(whole, plate=whole.cell_line, molecules=None)
    shared = module(one_plate)  # replicates that subtract one control are not independent
    assert np.isnan(shared.replicates(shared.record("test"))).all()
    alone = module(simulate_response(n_replicates=1).response)
    assert np.isnan(alone.replicates(alone.record("test"))).all()
    assert alone.ceiling(alone.record("test")) is None


def test_scoring_gets_samples_and_then_conditions() -> None:
    data = module()
    record = data.record("test")
    samples, conditions = data.results("test", {"": {"model": record.treated.copy()}}, "model", None)
    assert samples.level == ""
    assert conditions.level == "condition"
    assert len(conditions) == len(np.unique(record.condition))
    rows = record.condition == conditions.sample_id[0]
    np.testing.assert_allclose(conditions.measured[0], record.treated[rows].mean(0), rtol=1e-5)


def test_guards_spoil_one_input_at_a_time() -> None:
    data = module()
    index = torch.from_numpy(data.split.index("test"))
    spoilt = data.ablations(index, torch.Generator().manual_seed(0))
    assert set(spoilt) == {
        f"{what}_{how}" for what in ("drug", "basal", "dose", "line") for how in ("shuffled", "constant")
    }
    plain, shuffled = data.packed, spoilt["drug_shuffled"]
    assert not torch.equal(plain.drug[index], shuffled.drug[index])
    assert torch.equal(plain.drug[index].sort().values, shuffled.drug[index].sort().values)
    assert torch.equal(plain.log_dose, shuffled.log_dose)
    assert spoilt["dose_constant"].log_dose.unique().numel() == 1


def test_drugs_without_a_vector_are_refused_dropped_or_learned() -> None:
    record = simulate_response(n_replicates=4).response
    names, counts = np.unique(record.drug, return_counts=True)
    first, second = names[:2].tolist()
    with pytest.raises(InputError, match=f"2 of {len(names)} drugs have no vector: '{first}', '{second}'"):
        module(record, lacking=(first, second))
    dropped = module(record, lacking=(first,), missing_molecules="drop")
    assert all(dropped.spec.extras["molecules"]["known"])
    assert first not in dropped.record_whole.drug
    assert dropped.lost["samples of drugs without a vector"] == counts[0]
    learned = module(record, lacking=(first,), missing_molecules="learned")
    assert not learned.spec.extras["molecules"]["known"][0]
    assert "Drugs with a vector of their own: " in " ".join(learned.notes())
    with pytest.raises(InputError, match="must be error, drop or learned"):
        module(record, missing_molecules="guess")


@pytest.mark.parametrize("method", ["random", "condition", "cold_drug"])
def test_a_fold_holds_the_same_whichever_lines_are_loaded(method: str) -> None:
    """Folds were dealt over the drugs that were loaded: a drug tested on A375 could be trained on beside HT29."""
    record = simulate_response(n_drugs=30, n_genes=8).response
    split = {"method": method, "n_folds": 5, "fold": 1, "seed": 0}
    whole, one, two = (module(record, split=split, cell_line=lines) for lines in (None, "A375", ["A375", "HT29"]))
    part = dict(zip(whole.sample_id.tolist(), whole.split.part.tolist(), strict=True))
    for data in (one, two):
        assert data.split.part.tolist() == [part[name] for name in data.sample_id.tolist()]
        assert data.split.name == f"{method}-1of5-s0"
        assert data.split.dealt == whole.split.hash != data.split.hash
    drug = record.drug[0]
    dropped = module(record, lacking=(drug,), missing_molecules="drop", split=split)
    assert dropped.split.part.tolist() == [part[name] for name in dropped.sample_id.tolist()]


def test_an_input_that_is_the_same_for_all_samples_cannot_be_spoilt() -> None:
    data = module(simulate_response(n_drugs=30, n_genes=8).response, cell_line="A375")
    spoilt = data.ablations(torch.from_numpy(data.split.index("test")), torch.Generator().manual_seed(0))
    assert {name for name, packed in spoilt.items() if packed is None} == {"line_shuffled", "line_constant"}


def test_a_runs_own_samples_are_packed_once_with_their_centres(monkeypatch):
    """All samples were packed as a request is, thrown away, and packed again with the plates' centres."""
    made = []
    monkeypatch.setattr(ResponseDataModule, "pack", staticmethod(lambda *known: made.append(known)))
    data = module()
    assert not made
    held = torch.from_numpy(data.centre).float()
    assert torch.equal(data.packed.centre.isnan(), held.isnan())
    assert torch.equal(data.packed.centre.nan_to_num(), held.nan_to_num())
