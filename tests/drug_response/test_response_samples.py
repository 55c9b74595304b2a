"""Batches of drug response: what they hold, what they never hold, and what the scoring gets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from torchcell.core.spec import Spec
from torchcell.drug_response.datamodule import ResponseBatch, ResponseDataModule, ResponseSamples, information_notes
from torchcell.drug_response.molecules import Annotation, Molecules, Morgan
from torchcell.drug_response.record import Response
from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.sources import l1000_level3, l1000_level5
from torchcell.drug_response.table import read_treatments
from torchcell.io.errors import InputError

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
    np.testing.assert_array_equal(batch.input_control.numpy(), record.control[[5, 3]])
    assert batch.basal is batch.input_control
    assert [record.molecules.id[i] for i in batch.drug.tolist()] == record.drug[[5, 3]].tolist()
    np.testing.assert_allclose(batch.log_dose.numpy(), np.log10(record.dose_value[[5, 3]]), rtol=1e-6)
    wide = max(tensor.shape[-1] for tensor in (batch.target, batch.input_control, batch.plate_mean))
    assert wide == len(record.genes)


def test_everything_fitted_is_blind_to_the_test_part() -> None:
    record = simulate_response(n_replicates=4).response
    data = module(record)
    spoilt = record.treated.copy()
    spoilt[data.split.index("test")] = 1e4
    again = module(replace(record, treated=spoilt))
    plain, other = data.spec.to_plain(), again.spec.to_plain()
    for name in ("line_control", "line_basal", "change_center", "change_scale"):
        assert torch.equal(plain[name], other[name]), name
    assert torch.equal(plain["center"], other["center"])
    np.testing.assert_array_equal(data.center, again.center)


INPUTS = [field.name for field in fields(ResponseBatch) if field.name not in ("target", "sample", "eval_center")]


def asked_of_predict(record: Response, spec: Spec, folder: Path) -> Response:
    """What ``predict`` reads of a file that holds the samples' treatments and own controls, and nothing else."""
    table = record.to_anndata()
    table.obs = table.obs[["perturbation", "cell_line", "dose_value", "time"]]
    table.X = np.zeros(table.shape, dtype=np.float32)
    table.write_h5ad(folder / "asked.h5ad")
    return read_treatments(str(folder / "asked.h5ad"), spec)


@pytest.mark.parametrize("part", ["val", "test"])
def test_what_is_scored_is_packed_as_predict_is_asked(part: str, tmp_path: Path) -> None:
    """Test samples had the treated training wells of their plate as input, which no request has."""
    data = module()
    scored = data.packed[torch.from_numpy(data.split.index(part))]
    request = asked_of_predict(data.record(part), data.spec, tmp_path)
    packed = data.pack(request, data.spec)[torch.arange(len(request))]
    for name in INPUTS:
        torch.testing.assert_close(getattr(packed, name), getattr(scored, name), equal_nan=True, msg=name)
    told = data.evaluation_inputs(part)[""]()
    for name in ("drug", "cell_line", "dose_value", "time", "control", "plate", "sample_id"):
        np.testing.assert_array_equal(getattr(told, name), getattr(request, name), err_msg=name)
    assert told.source is told.basal is told.inchikey is told.plate_mean is None
    assert not told.columns
    assert np.isnan(told.treated).all()


@pytest.mark.mirror
@pytest.mark.parametrize(("record", "molecules"), [(l1000_level3, Morgan), (l1000_level5, Annotation)])
def test_real_samples_are_packed_as_predict_is_asked(mirror: Path, record, molecules, tmp_path: Path) -> None:
    """Level 5 also has basal profiles, drugs without a vector, and plates that are lines."""
    split = SPLIT | {"method": "cold_drug"}
    data = ResponseDataModule(
        record(), split, molecules(), "learned", ["A375", "HT115"] if molecules is Morgan else None
    )
    request = asked_of_predict(data.record("test"), data.spec, tmp_path)
    packed, scored = data.pack(request, data.spec), data.packed[torch.from_numpy(data.split.index("test"))]
    for name in INPUTS:
        read = getattr(packed[torch.arange(len(request))], name)
        torch.testing.assert_close(read, getattr(scored, name), equal_nan=True, rtol=0, atol=0, msg=name)


def test_the_names_of_plates_play_no_part_in_what_is_read_of_a_scored_sample() -> None:
    record = simulate_response(n_replicates=4).response
    data = module(record)
    train = data.split.part == "train"
    other = np.where(train, np.random.default_rng(0).permutation(record.plate), record.plate)
    again = module(replace(record, plate=other, source=other))
    for part in ("val", "test"):
        index = torch.from_numpy(data.split.index(part))
        for name in INPUTS:
            left, right = (getattr(each.packed[index], name) for each in (data, again))
            torch.testing.assert_close(left, right, equal_nan=True, rtol=0, atol=0, msg=name)
        told, retold = (each.evaluation_inputs(part)[""]() for each in (data, again))
        np.testing.assert_array_equal(told.plate, retold.plate)
    assert not np.array_equal(data.center, again.center)  # what is scored knows its plate


def test_training_samples_know_the_others_of_their_plate_and_so_does_what_stands_beside_the_score() -> None:
    data = module()
    first = next(iter(data.training_loader(False, 0, 1, data.batch_size)))
    torch.testing.assert_close(first.plate_mean, torch.from_numpy(data.center[first.sample.numpy()]))
    record = data.evaluation_inputs("test")["plate_known"]()
    np.testing.assert_array_equal(record.plate, data.record("test").plate)
    packed = data.pack(record, data.spec)[torch.arange(len(record))]
    torch.testing.assert_close(packed.plate_mean, torch.from_numpy(data.center[data.split.index("test")]))
    assert torch.isnan(data.packed[torch.arange(5)].plate_mean).all()


def test_with_the_plate_known_the_same_samples_are_scored_beside() -> None:
    data = module()
    truth = data.record("test").treated
    asked = {"": {"model": truth + 1, "ceiling": truth}, "plate_known": {"model": truth + 2}}
    samples, conditions, known = data.results("test", asked, "model", "ceiling")
    assert [each.level for each in (samples, conditions, known)] == ["", "condition", "plate_known"]
    np.testing.assert_array_equal(samples.systems["model"], truth + 1)
    np.testing.assert_array_equal(known.systems["model"], truth + 2)
    np.testing.assert_array_equal(known.systems["ceiling"], truth)
    np.testing.assert_array_equal(known.measured, samples.measured)
    for name in ("eval_control", "center", "replicate"):
        np.testing.assert_array_equal(getattr(known.context, name), getattr(samples.context, name))


def test_plates_that_are_lines_with_one_control_each_tell_nothing_that_the_line_does_not() -> None:
    """On level 5 all rows would stand twice."""
    record = simulate_response(n_replicates=1).response
    data = module(record)
    assert [*data.evaluation_inputs("test")] == [""]
    assert not any("plate_known" in note for note in data.notes())
    control = record.control.copy()
    control[0] += 1
    paired = module(replace(record, control=control))
    for each in (module(), paired):
        assert [*each.evaluation_inputs("test")] == ["", "plate_known"]


def test_it_is_said_as_what_test_samples_are_scored() -> None:
    data = module()
    said, n = " ".join(data.notes()), (data.split.part == "test").sum()
    for sentence in (
        "Test samples are scored as predict would answer: their own control is known, no treated well of their plate.",
        "Metrics headed plate_known/ stand beside: the same samples, the mean of the treated training wells of their "
        "plate being known. They are no part of the verdict.",
        f"{n:,} of {n:,} test samples lie on plates of the training part",
        "the row fake_perturbation of plate_known/pearson_delta",
    ):
        assert sentence in said
    away = replace(data.record_whole, plate=np.where(data.split.part == "test", "elsewhere", data.record_whole.plate))
    assert f"0 of {n:,} test samples lie on plates" in " ".join(information_notes(away, data.split.part))


def test_the_spec_survives_a_round_trip() -> None:
    spec = module().spec
    again = Spec.from_plain(spec.to_plain())
    assert again.lines == spec.lines
    assert torch.equal(again.molecules.vectors, spec.molecules.vectors)


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


def test_what_the_split_holds_out_is_shuffled_together_and_each_input_alone() -> None:
    data = module()
    index = torch.from_numpy(data.split.index("test"))
    assert data.inputs() == ("drug_with_dose", "drug", "basal", "dose", "line")
    plain = data.packed
    shuffled, both = (
        data.shuffled(name, index, torch.Generator().manual_seed(0)) for name in ("drug", "drug_with_dose")
    )
    assert (plain.drug[index] != shuffled.drug[index]).all()
    assert torch.equal(plain.drug[index].sort().values, shuffled.drug[index].sort().values)
    assert torch.equal(plain.log_dose, shuffled.log_dose)
    kept = (plain.drug[index] == both.drug[index]) & (plain.log_dose[index] == both.log_dose[index])
    assert not kept.any()
    assert data.constant("dose", index).log_dose.unique().numel() == 1
    cold = module(split={"method": "cold_cell", "n_folds": 3, "fold": 0, "seed": 0})
    assert cold.inputs()[0] == "line_with_basal"


def test_drugs_without_a_vector_are_refused_dropped_or_learned() -> None:
    record = simulate_response(n_replicates=4).response
    names, counts = np.unique(record.drug, return_counts=True)
    first, second = names[:2].tolist()
    with pytest.raises(InputError, match=f"2 of {len(names)} drugs have no vector: '{first}', '{second}'"):
        module(record, lacking=(first, second))
    dropped = module(record, lacking=(first,), missing_molecules="drop")
    assert all(dropped.spec.molecules.known)
    assert first not in dropped.record_whole.drug
    assert dropped.dropped["samples of drugs without a vector"] == counts[0]
    learned = module(record, lacking=(first,), missing_molecules="learned")
    assert not learned.spec.molecules.known[0]
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
        assert data.split.assignment_hash == whole.split.hash != data.split.hash
    drug = record.drug[0]
    dropped = module(record, lacking=(drug,), missing_molecules="drop", split=split)
    assert dropped.split.part.tolist() == [part[name] for name in dropped.sample_id.tolist()]


def test_an_input_that_is_the_same_for_all_samples_cannot_be_spoilt() -> None:
    data = module(simulate_response(n_drugs=30, n_genes=8).response, cell_line="A375")
    index, generator = torch.from_numpy(data.split.index("test")), torch.Generator().manual_seed(0)
    assert [name for name in data.inputs() if data.shuffled(name, index, generator) is None] == ["line"]
    assert [name for name in data.inputs() if data.constant(name, index) is None] == ["drug_with_dose", "line"]


def test_a_runs_own_samples_are_packed_once_with_their_centers(monkeypatch):
    """All samples were packed as a request is, thrown away, and packed again with the plates' centers."""
    made = []
    monkeypatch.setattr(ResponseDataModule, "pack", staticmethod(lambda *known: made.append(known)))
    data = module()
    assert not made
    held = torch.from_numpy(data.center).float()
    assert torch.equal(data.packed.eval_center.isnan(), held.isnan())
    assert torch.equal(data.packed.eval_center.nan_to_num(), held.nan_to_num())
