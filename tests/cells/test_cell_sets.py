"""Sets of cells: every cell once an epoch, controls of the same group and of the right half, lists and features."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from torchcell.cells.batch import SetOrder, TrainingSets
from torchcell.cells.datamodule import UNKNOWN, CellSetDataModule, GeneOptions, SetOptions
from torchcell.cells.gene_neighbors import GeneNeighbors
from torchcell.cells.gene_selection import GeneSelection, Perturbed
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_perturbseq
from torchcell.cells.spec import PhaseSources
from torchcell.core.batch import PackedLoader
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import network_features
from torchcell.graph.network import Network
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.io.matrices import dense

SPLIT = {"method": "unseen_perturbation", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    """23 cells a condition, so that sets of 4 don't come out even; 115 controls a line."""
    made = simulate_perturbseq(n_genes=40, n_regulators=20, n_doubles=4, n_lines=2, cells_per_condition=23)
    return Pseudobulk.from_cells(made.cells.lognorm(), ("cell_line",))


def module(record: Pseudobulk, **changes) -> CellSetDataModule:
    """Of small sets; changes of ``sets`` and ``genes`` by their own names."""
    sets, genes = ({one.name for one in fields(kind)} & set(changes) for kind in (SetOptions, GeneOptions))
    sizes = SetOptions(**({"size": 4} | {name: changes.pop(name) for name in sets}))
    options = GeneOptions(**{name: changes.pop(name) for name in genes})
    return CellSetDataModule(record, SPLIT, sets=sizes, genes=options, **({"batch_size": 7} | changes))


def training_sets(data: CellSetDataModule) -> TrainingSets:
    sets = data.train_dataloader().packed
    assert isinstance(sets, TrainingSets)
    return sets


def test_every_cell_of_a_condition_comes_once_an_epoch_and_fills_the_last_set(record):
    data = module(record)
    train, sets = data.record("train"), training_sets(data)
    for epoch in range(2):
        sets.assign_folds(epoch)
        for i in range(len(train)):
            own, drawn = train.members(i), sets.cells[sets.condition.numpy() == i].ravel()
            assert len(drawn) == 24
            assert set(drawn) == set(own)
            assert np.sort(np.unique(drawn, return_counts=True)[1]).tolist() == [1] * 22 + [2]


def test_controls_are_of_the_sets_group_and_never_of_the_truths_half(record):
    data = module(record)
    sets = training_sets(data)
    assert not record.control_half[sets.controls].any()
    line = record.cells.covariates["cell_line"]
    assert (line[sets.controls] == line[sets.cells[:, :1]]).all()
    assert record.cells.is_control[sets.controls].all()
    assert all(len(set(row)) == 4 for row in sets.controls.tolist())


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_the_truths_half_of_the_controls_shows_never_enters_a_batch(record, part):
    """Those cells are overwritten with other numbers: a batch is the same, scores are not."""
    X = record.cells.X.toarray()
    X[record.control_half] += 3.0
    twin = replace(record, cells=replace(record.cells, X=X, counts=None))
    one, other = module(record), module(twin)
    assert not np.allclose(one.eval_control(one.record(part)), other.eval_control(other.record(part)))
    loaders = [each.train_dataloader() if part == "train" else each.val_dataloader() for each in (one, other)]
    for batch, again in zip(*loaders, strict=True):
        for name in ("input_cells", "perturbed"):
            assert torch.equal(getattr(batch, name).dense(), getattr(again, name).dense()), name
        torch.testing.assert_close(batch.target, again.target)
        for name in ("gene", "group"):
            assert torch.equal(getattr(batch, name), getattr(again, name)), name
        assert torch.equal(batch.input_controls["control"], again.input_controls["control"])


def test_a_set_holds_its_own_cells_targets_and_number(record):
    data = module(record)
    train, sets = data.record("train"), training_sets(data)
    batch = sets[torch.tensor([3, 20, 50])]
    for row, at in enumerate((3, 20, 50)):
        i = int(sets.condition[at])
        assert data.sample_id[batch.sample[row]] == train.sample_id[i]
        names = [data.genes[g] for g in batch.gene[batch.ptr[row] : batch.ptr[row + 1]].tolist()]
        assert tuple(names) == train.targets[i]
        assert data.spec.groups[batch.group[row]] == train.group[i]
        np.testing.assert_array_equal(batch.perturbed.dense()[row].numpy(), dense(record.cells.X[sets.cells[at]]))
        np.testing.assert_array_equal(batch.input_cells.dense()[row].numpy(), dense(record.cells.X[sets.controls[at]]))
        np.testing.assert_allclose(batch.target[row].numpy(), batch.perturbed.dense()[row].mean(0).numpy(), rtol=1e-5)


def test_epochs_differ_and_a_seed_gives_the_same_again(record):
    first, second = (training_sets(module(record, seed=3)) for _ in range(2))
    for sets in (first, second):
        sets.assign_folds(5)
    assert np.array_equal(first.cells, second.cells)
    assert np.array_equal(first.controls, second.controls)
    second.assign_folds(6)
    assert not np.array_equal(first.cells, second.cells)
    other = training_sets(module(record, seed=4))
    other.assign_folds(5)
    assert not np.array_equal(first.cells, other.cells)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_one_deal_without_overlap_and_miss_no_set(record, world):
    data = module(record)
    seen = []
    for rank in range(world):
        sets = training_sets(data)
        order = SetOrder(sets, True, 0, rank, world)
        loader = PackedLoader(sets, order, 5)
        order.set_epoch(2)  # as the trainer does
        drawn = order.draw()
        assert sum(len(batch) for batch in loader) == len(drawn)
        seen.append((sets.cells, drawn))
    assert all(np.array_equal(cells, seen[0][0]) for cells, _ in seen)
    together = torch.cat([drawn for _, drawn in seen])
    counts = together.bincount()
    assert (counts >= 1).all()
    assert int((counts - 1).sum()) < world  # what pads the last round
    assert not set(seen[0][1].tolist()[:-1]) & set(seen[1][1].tolist()[:-1])


def test_a_set_carries_its_cells_and_nothing_that_sets_share(record):
    """Features, neighbors and the vocabulary don't enter a batch; a part of a batch is a view of it."""
    plain = training_sets(module(record))[torch.arange(8)]
    full = module(record, graph=graph_of(record), features=network_features, neighbors=GeneNeighbors(k=5))
    batch = training_sets(full)[torch.arange(8)]
    assert batch.nbytes == plain.nbytes
    part = batch.narrow(2, 5)
    for get in (lambda b: b.input_cells.values, lambda b: b.perturbed.indices, lambda b: b.gene):
        assert get(part).untyped_storage().data_ptr() == get(batch).untyped_storage().data_ptr()


def test_a_pseudobulk_target_is_the_mean_of_the_whole_condition(record):
    data = module(record, pseudobulk=True)
    batch = training_sets(data)[torch.arange(12)]
    wanted = data.record_whole.target[batch.sample.numpy()]
    np.testing.assert_allclose(batch.target.numpy(), wanted, rtol=1e-6)
    assert not torch.allclose(batch.target, training_sets(module(record))[torch.arange(12)].target)


def test_a_condition_is_predicted_from_the_same_controls_whoever_asks(record):
    data = module(record, eval_sets=3)
    alone, whole = data.packed[torch.tensor([5])], data.packed[torch.arange(len(record))]
    assert alone.input_cells.shape[1] == 12
    assert torch.equal(alone.input_cells.dense()[0], whole.input_cells.dense()[5])
    assert whole.perturbed.shape == (len(record), 0, 40)


def test_predicted_and_measured_changes_are_taken_from_different_halves_of_the_controls(record):
    data = module(record)
    for batch in (data.packed[torch.arange(len(record))], training_sets(data)[torch.arange(30)]):
        at = batch.sample.numpy()
        np.testing.assert_array_equal(batch.input_controls["control"].numpy(), record.input_control[at])
        np.testing.assert_array_equal(batch.eval_controls["control"].numpy(), record.eval_control[at])
    part = batch.narrow(4, 9)
    assert torch.equal(part.input_controls["control"], batch.input_controls["control"][4:9])


def test_references_of_a_batch_are_positions_until_they_are_read(record):
    sets = training_sets(module(record))
    batch = sets[torch.arange(30)]
    assert batch.input_control.table is sets.sets.input_control, "a copy"
    assert batch.input_control.to("cpu") is batch.input_control
    moved = batch.input_control.to("meta")
    assert len(moved.table) == len(batch.sample.unique()) < len(batch) == len(moved), "each row goes once"
    assert batch.input_control.nbytes == moved.table.nbytes + moved.row.nbytes


def test_a_gene_that_only_perturbed_cells_express_has_the_scale_of_its_changes(record):
    """Interferon's genes are silent in controls: in units of 1e-3 they were 100 % of the loss on Kang's cells."""
    X = record.cells.X.toarray()
    X[:, 25], X[:, 26] = 0.0, 0.0
    X[record.member, 25] = 2.0
    data = module(replace(record, cells=replace(record.cells, X=X, counts=None)))
    scale = data.spec.gene_scale
    assert float(scale[25]) == pytest.approx(2.0)
    rms = float(scale.square().mean().sqrt())
    assert 0.05 * rms < float(scale[26]) < 0.15 * rms  # neither cells nor changes: the floor
    train = data.record("train")
    wanted = np.sqrt(X[train.control_cells()].var(0) + np.square(_changes(data)).mean(0))
    np.testing.assert_allclose(scale[:20], wanted[:20], rtol=1e-4)


def test_scales_of_sparse_cells_are_those_of_dense_ones_which_are_never_made(record, monkeypatch):
    X = record.cells.X.toarray()
    flat = module(replace(record, cells=replace(record.cells, X=X, counts=None)))
    monkeypatch.setattr(sparse.csr_matrix, "toarray", lambda self: pytest.fail("dense"))
    monkeypatch.setattr("torchcell.cells.record.CHUNK", 30)
    found = module(record).spec
    for name in ("gene_center", "gene_scale", "change_scale"):
        torch.testing.assert_close(getattr(found, name), getattr(flat.spec, name), rtol=1e-5, atol=1e-6)
    controls = X[flat.record("train").control_cells()].astype(np.float64)
    np.testing.assert_allclose(found.gene_center, controls.mean(0), rtol=1e-5, atol=1e-6)
    assert found.gene_order.tolist() == flat.spec.gene_order.tolist()


def _changes(data: CellSetDataModule) -> np.ndarray:
    train = data.record("train")
    return train.target - train.input_control


def test_shuffled_perturbations_stay_among_the_chosen_conditions(record):
    data = module(record)
    index = torch.tensor([1, 4, 6, 9, 12])
    assert data.inputs() == ("perturbation",)
    twin = data.shuffled("perturbation", index, torch.Generator().manual_seed(1))
    before, after = ([sets.gene[i].tolist() for i in index.tolist()] for sets in (data.packed, twin))
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert sorted(before) == sorted(after)
    assert all(torch.equal(data.packed.gene[i], twin.gene[i]) for i in (0, 2, 3))


def graph_of(record: Pseudobulk) -> CellGraph:
    """A ring over all genes but the last two, and one that nobody measured."""
    genes = np.array([*record.genes[:-2].tolist(), "elsewhere"])
    ring = Network("ring", genes, np.roll(genes, 1), np.ones(len(genes), dtype=np.float32), directed=False)
    return CellGraph.from_networks([ring])


def test_features_are_of_the_vocabulary_and_say_which_gene_no_network_knows(record):
    data = module(record, graph=graph_of(record), features=network_features)
    features = data.spec.gene_features
    assert features.columns[-1] == UNKNOWN
    assert features.genes[features.values[:, -1] == 1].tolist() == record.genes[-2:].tolist()
    assert data.notes() == ["2 of 40 genes are in no network"]
    ring = network_features(graph_of(record).with_genes(record.genes[-2:].tolist()))
    np.testing.assert_array_equal(features.values[:, :-1], ring.aligned(data.genes))
    assert data.graph.genes.tolist() != list(data.genes)
    assert data.spec.graph is None


def test_a_perturbed_gene_without_a_network_is_named_and_tables_need_no_graph(record):
    cut = record.on_genes(record.genes[3:])  # three targets are not measured
    graph = CellGraph.from_networks([Network("one", *np.array([["G0004"], ["G0005"]]), np.ones(1), directed=False)])
    data = module(cut, graph=graph, features=network_features)
    unmeasured = "3 of 20 perturbed genes are not measured: 'G0001', 'G0002', 'G0003'"
    assert data.notes()[0] == unmeasured
    assert data.notes()[1].startswith("38 of 40 genes are in no network, the perturbed 'G0001', 'G0002', 'G0003'")
    table = GeneFeatures(record.genes, ("a",), np.arange(40, dtype=np.float32)[:, None])
    data = module(cut, features=lambda graph: GeneFeatures(graph.genes, ("a",), table.aligned(graph.genes.tolist())))
    assert data.spec.gene_features.columns == ("a",)
    assert data.notes() == [unmeasured]
    assert data.spec.gene_features.values[data.genes.index("G0002"), 0] == 1


def test_selected_genes_are_written_with_their_source_beside_the_split(record, tmp_path: Path):
    data = module(record, selection=GeneSelection([Perturbed(quota=6)], n_genes=15), neighbors=GeneNeighbors(k=3))
    data.write(tmp_path)
    table = pd.read_csv(tmp_path / "genes.csv")
    assert table["gene"].tolist() == list(data.spec.outputs)
    assert table["source"].tolist() == ["perturbed"] * 6 + ["highly_variable"] * 9
    assert (tmp_path / "split.parquet").is_file()
    assert data.spec.neighbors.shape == (15, 3)
    assert data.spec.gene_order is None  # they stand in it
    trained = {gene for targets in data.record("train").targets for gene in targets}
    assert set(table["gene"][:6]) <= trained


def test_n_genes_is_the_budget_of_a_selection_that_names_none(record):
    """Asked for 30 genes beside a selection of 10 a run took 10, and said nothing."""
    assert len(module(record, selection=GeneSelection([Perturbed(quota=6)]), n_genes=30).spec.outputs) == 30
    assert len(module(record, selection=GeneSelection(n_genes=10), n_genes=10).spec.outputs) == 10
    with pytest.raises(InputError, match="data.n_genes=30 and data.genes.selection.n_genes=10 disagree"):
        module(record, selection=GeneSelection(n_genes=10), n_genes=30)


def test_few_cells_are_the_same_whatever_the_runs_seed(record):
    """One split hash stood for other test cells with each seed."""
    one, other = (module(record, max_cells=400, seed=seed) for seed in (0, 5))
    assert one.split.hash == other.split.hash
    np.testing.assert_array_equal(one.record_whole.cells.sample_id, other.record_whole.cells.sample_id)


def test_genes_of_a_few_conditions_are_chosen_on_the_training_part_of_these(record):
    """The whole record was dealt for the choice and the few again for the run, so that test conditions chose genes."""
    seen = []

    class Watched(Perturbed):
        def symbols(self, train):
            seen.extend(train.sample_id.tolist())
            return super().symbols(train)

    data = module(record, selection=GeneSelection([Watched(quota=6)]), subset=30)
    assert set(seen) == set(data.record("train").sample_id.tolist())


def test_a_curriculums_phases_are_told_with_where_their_genes_come_from(record):
    phases = [{"epoch": 0, "genes": 5}, {"epoch": 1, "genes": None}]
    data = module(record, selection=GeneSelection([Perturbed(quota=6)], n_genes=15), phases=phases)
    assert data.tables()["genes.csv"]["phase"].tolist() == [0] * 5 + [1] * 10
    first, second = data.spec.phases
    assert first == PhaseSources("perturbed", {"perturbed": 5})
    assert second == PhaseSources("highly_variable", {"highly_variable": 9, "perturbed": 1})
    assert module(record, phases=phases).spec.phases[0].name == ""
    assert module(record).spec.phases == ()


def test_without_a_selection_the_most_responsive_genes_come_first_and_no_table_is_written(record, tmp_path: Path):
    data = module(record)
    data.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["split.parquet"]
    order = data.spec.gene_order.numpy()
    assert sorted(order) == list(range(40))
    train = data.record("train")
    moved = np.square(train.target - train.input_control).mean(0)
    assert moved[order[:10]].mean() > 2 * moved[order[-10:]].mean()


def test_fewer_controls_than_perturbed_cells_make_a_cheaper_input(record):
    data = module(record, size=8, input_cells=2, eval_sets=5)
    sets = training_sets(data)
    batch = sets[torch.arange(4)]
    assert (batch.input_cells.shape[1], batch.perturbed.shape[1]) == (2, 8)
    assert data.packed[torch.tensor([0])].input_cells.shape[1] == 10
    assert len(sets) == 3 * len(data.record("train"))  # the perturbed cells are dealt as before


@pytest.mark.parametrize("changes", [{"size": 0}, {"eval_sets": 0}, {"input_cells": 0}])
def test_sizes_below_one_are_refused(record, changes):
    with pytest.raises(InputError, match="must be 1 or more"):
        module(record, **changes)
