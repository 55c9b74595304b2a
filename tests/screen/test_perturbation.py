"""Batches of indices: what is in them, in what order, on how many processes, and what they weigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.core.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationDataModule, PerturbationSets

RANDOM = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def test_a_batch_holds_each_set_with_its_own_genes_target_and_number(make_screen):
    screen = make_screen(["A|B", "C", "A|C|D"])
    batch = PerturbationSets(screen, ("D", "C", "B", "A"))[torch.tensor([2, 0])]
    assert batch.gene.tolist() == [3, 1, 0, 3, 2]
    assert batch.ptr.tolist() == [0, 3, 5]
    assert batch.owner.tolist() == [0, 0, 0, 1, 1]
    assert batch.target[:, 0].tolist() == [2, 0]
    assert batch.sample.tolist() == [2, 0]


def test_batches_sliced_from_a_gathered_stretch_equal_batches_gathered_alone(make_screen):
    screen = make_screen(["A|B", "C", "A|C|D", "D", "B|D", "A|D", "B"])
    sets = PerturbationSets(screen, ("A", "B", "C", "D"))
    order = BatchOrder(torch.arange(7), shuffle=True)
    for batch in PackedLoader(sets, order, batch_size=3):
        alone = sets[batch.sample]
        for name in ("gene", "ptr", "kind", "target", "sample"):
            assert torch.equal(getattr(batch, name), getattr(alone, name)), name


def test_nothing_that_samples_share_is_in_a_batch(pairs, ring):
    """A batch grows with its sets only: the graph and the vocabulary don't enter it."""
    small = PerturbationSets(pairs, tuple(pairs.genes.tolist()))[torch.arange(64)]
    large = PerturbationSets(pairs, (*pairs.genes.tolist(), *map(str, range(10_000))))[torch.arange(64)]
    assert small.nbytes == large.nbytes < 64 * 100


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_processes_together_see_each_sample_once_but_for_the_padding(world):
    index = torch.arange(100, 120)
    seen = [BatchOrder(index, True, 0, rank, world).draw() for rank in range(world)]
    assert len({len(samples) for samples in seen}) == 1
    flat = torch.cat(seen)
    assert set(flat.tolist()) == set(index.tolist())
    assert len(flat) - len(index) < world


@pytest.mark.parametrize("world", [2, 3])
def test_without_padding_each_sample_comes_once_over_all_processes(world):
    orders = [BatchOrder(torch.arange(20), False, rank=rank, world=world, pad=False) for rank in range(world)]
    assert sorted(torch.cat([order.draw() for order in orders]).tolist()) == list(range(20))
    assert [len(order) for order in orders] == [len(order.draw()) for order in orders]


def test_a_pass_that_scores_takes_batches_of_evaluation_for_every_part(pairs):
    data = PerturbationDataModule(pairs, RANDOM, batch_size=3, eval_batch_size=8)
    assert [data.loader(part, whole=True).batch_size for part in ("train", "val", "test")] == [8, 8, 8]
    assert data.loader("train").batch_size == 3


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        order = BatchOrder(torch.arange(50), True, seed)
        order.set_epoch(epoch)
        return order.draw().tolist()

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_the_scaler_is_fitted_on_train_only(pairs):
    before = PerturbationDataModule(pairs, RANDOM).spec
    held = PerturbationDataModule(pairs, RANDOM).split.index("test")
    pairs.phenotype[held] = 1e6
    after = PerturbationDataModule(pairs, RANDOM).spec
    assert torch.equal(before.center, after.center)
    assert torch.equal(before.scale, after.scale)
    assert before.center.item() != 0


def test_a_gene_outside_the_graph_is_named_with_its_nearest_and_can_be_dropped(make_screen, ring):
    screen = make_screen(["A01|A02", "A01|a-07", *(f"Q{i:02d}|A{j:02d}" for i in range(8) for j in range(5))])
    graph = CellGraph.from_networks(ring)
    with pytest.raises(InputError, match=r"1 gene\(s\).*'a-07'.*did you mean a-07 -> A07.*unknown_genes=drop"):
        PerturbationDataModule(screen, RANDOM, graph)
    module = PerturbationDataModule(screen, RANDOM, graph, unknown_genes="drop")
    assert len(module.sample_id) == len(screen) - 1
    assert module.dropped == {"samples with a gene outside the graph": 1}


def test_shuffling_moves_perturbations_among_the_given_samples_only(pairs):
    module = PerturbationDataModule(pairs, RANDOM)
    sets, index = module.packed, torch.arange(0, 600, 3)
    shuffled = module.shuffled("perturbation", index, torch.Generator().manual_seed(0))
    others = torch.tensor([i for i in range(600) if i % 3])
    everyone = torch.arange(600)
    assert torch.equal(shuffled[everyone].target, sets[everyone].target)
    assert torch.equal(shuffled[others].gene, sets[others].gene)
    moved = (shuffled[index].gene.view(-1, 2) != sets[index].gene.view(-1, 2)).any(1)
    assert moved.all()
    assert sorted(shuffled[index].gene.tolist()) == sorted(sets[index].gene.tolist())


def test_a_subset_is_a_seeded_sample(pairs):
    a = PerturbationDataModule(pairs, RANDOM, subset=100, seed=1)
    b = PerturbationDataModule(pairs, RANDOM, subset=100, seed=1)
    assert len(a.sample_id) == 100
    assert np.array_equal(a.sample_id, b.sample_id)


def test_the_spec_survives_a_checkpoint_file(pairs, ring, tmp_path):
    graph = CellGraph.from_networks(ring, genes=np.union1d(pairs.genes, ring[0].source).tolist())
    spec = PerturbationDataModule(pairs, RANDOM, graph).spec
    torch.save(spec.to_plain(), tmp_path / "spec.pt")
    loaded = Spec.from_plain(torch.load(tmp_path / "spec.pt", weights_only=True))
    assert loaded.genes == spec.genes
    assert loaded.graph is not None
    assert loaded.graph.hash == graph.hash
    assert torch.equal(loaded.scale, spec.scale)
