"""Splits are disjoint, complete, hashed, and tear no twins apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchcell.core.split import Split
from torchcell.io.errors import InputError
from torchcell.screen.splits import SPLITS, query_genes

METHODS = ("random", "query_disjoint", "gene_disjoint_any", "gene_disjoint_all")


@pytest.mark.parametrize("method", METHODS)
def test_each_sample_is_tested_in_at_most_one_fold_and_parts_are_disjoint(pairs, method):
    tested = np.zeros(len(pairs), dtype=int)
    for fold in range(5):
        split = SPLITS.make(pairs, method, fold=fold)
        tested += split.part == "test"
        assert sum(split.counts().values()) == len(pairs)
    if method == "random":
        assert (tested == 1).all()
    if method == "gene_disjoint_all":
        assert (tested <= 1).all()


def test_validation_is_the_next_fold(pairs):
    assert np.array_equal(
        SPLITS.make(pairs, "random", fold=2).index("test"), SPLITS.make(pairs, "random", fold=1).index("val")
    )


def test_no_held_out_query_gene_is_seen_in_training_in_whatever_role(pairs):
    split = SPLITS.make(pairs, "query_disjoint")
    genes = {part: {g for s in pairs.subset(split.index(part)).sets() for g in s} for part in ("train", "test")}
    queries = set(query_genes(pairs))
    assert not genes["train"] & genes["test"] & queries
    assert set(split.group[split.index("test")].ravel()) - {""} <= queries


def test_a_query_gene_held_out_counts_as_member_of_the_array_too(make_screen):
    sets = [f"Q{i}|Q{j}" for i in range(8) for j in range(i)]
    screen = make_screen(sets, columns={"query": np.array([s.split("|")[0] for s in sets])})
    split = SPLITS.make(screen, "query_disjoint")
    held = set(split.group[split.index("test")].ravel()) - {""}
    for i, members in enumerate(screen.sets()):
        assert (split.part[i] == "test") == bool(held & set(members))


def test_a_set_belongs_to_the_clusters_of_all_its_genes(make_screen, tmp_path):
    """A cluster of its own for each pair, or that of one gene, would count it as independent of pairs of the other."""
    screen = make_screen(["A|B", "A|C", "D|E", "A|D|F", "B|C", "C|D"])
    split = SPLITS.make(screen, "random", n_folds=3)
    assert split.group.tolist()[:4] == [["A", "B", ""], ["A", "C", ""], ["D", "E", ""], ["A", "D", "F"]]
    split.save(tmp_path / "split.parquet")
    np.testing.assert_array_equal(Split.load(tmp_path / "split.parquet").group, split.group)


def test_of_a_set_with_two_held_out_queries_both_are_its_clusters(make_screen):
    sets = [f"Q{i}|Q{j}" for i in range(8) for j in range(i)]
    screen = make_screen(sets, columns={"query": np.array([s.split("|")[0] for s in sets])})
    split = SPLITS.make(screen, "query_disjoint", n_folds=4)
    held = set(split.group[split.index("test")].ravel()) - {""}
    for i in split.index("test"):
        assert set(split.group[i]) - {""} == held & set(screen.sets()[i])


def test_a_split_file_without_clusters_gets_those_of_the_record(make_screen, tmp_path):
    """Each sample was a cluster of its own, which makes every difference look sure."""
    screen = make_screen(["A|B", "A|C", "B|C", "C|D"])
    table = pd.DataFrame({"sample_id": screen.sample_id, "part": ["train", "val", "test", "test"]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    split = SPLITS.make(screen, "file", file=tmp_path / "mine.csv")
    assert (split.key, split.group.tolist()) == ("gene", [["A", "B"], ["A", "C"], ["B", "C"], ["C", "D"]])


def test_gene_disjoint_all_leaves_mixed_sets_unused(pairs):
    split = SPLITS.make(pairs, "gene_disjoint_all")
    parts = {part: {g for s in pairs.subset(split.index(part)).sets() for g in s} for part in ("train", "val", "test")}
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["val"]
    assert split.counts()["unused"] > 0


def test_the_hash_ignores_row_order_and_notices_a_moved_sample(pairs):
    split = SPLITS.make(pairs, "random")
    shuffled = split.aligned(np.random.default_rng(0).permutation(pairs.sample_id))
    assert shuffled.hash == split.hash
    part = split.part.copy()
    part[0] = "val" if part[0] != "val" else "train"
    assert Split(split.sample_id, part, split.group, "random", 0, "sample").hash != split.hash
    assert SPLITS.make(pairs, "random").hash == split.hash != SPLITS.make(pairs, "random", seed=1).hash


def test_saved_split_loads_and_a_changed_file_is_refused(pairs, tmp_path):
    split = SPLITS.make(pairs, "random")
    split.save(tmp_path / "split.parquet")
    assert SPLITS.make(pairs, "file", file=tmp_path / "split.parquet").hash == split.hash
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "split.parquet")
    part = table.column("part").to_pylist()
    part[0] = "test" if part[0] != "test" else "train"
    changed = table.set_column(1, "part", [part])
    pq.write_table(changed, tmp_path / "changed.parquet")
    with pytest.raises(InputError, match="changed after it was written"):
        Split.load(tmp_path / "changed.parquet")


def test_a_file_by_hand_is_read_and_ids_that_do_not_fit_are_named(pairs, tmp_path):
    frame = pd.DataFrame({"sample_id": pairs.sample_id, "part": SPLITS.make(pairs, "random").part})
    frame.to_csv(tmp_path / "split.csv", index=False)
    assert SPLITS.make(pairs, "file", file=tmp_path / "split.csv").counts()["test"] > 0
    frame.iloc[1:].assign(sample_id=lambda f: f["sample_id"].replace("s1", "typo")).to_csv(
        tmp_path / "bad.csv", index=False
    )
    with pytest.raises(InputError, match=r"without a part: 's0', 's1'.*unknown sample\(s\): 'typo'"):
        SPLITS.make(pairs, "file", file=tmp_path / "bad.csv")


def test_a_twin_of_a_test_pair_in_train_is_an_error(make_screen, tmp_path):
    level = np.array([0.1, 0.1, 0.5, 0.5, 0, 0, 0, 0, 0, 0], dtype=np.float32)
    screen = make_screen(["A|B", "B|A", "A|C", "B|C", "C|D"], level=level).validate()
    parts = ["train", "test", "val", "train", "test"]
    pd.DataFrame({"sample_id": screen.sample_id, "part": parts}).to_csv(tmp_path / "leak.csv", index=False)
    with pytest.raises(InputError, match="leak: 2 samples have a duplicate.*'s0', 's1'"):
        SPLITS.make(screen, "file", file=tmp_path / "leak.csv")


def test_random_keeps_twins_together(make_screen):
    sets = [f"A{i}|B{i}" for i in range(20) for _ in range(2)]
    screen = make_screen(sets, level=np.tile([0.1, 0.1, 0.5, 0.5], 20).astype(np.float32)).validate()
    part = SPLITS.make(screen, "random").part
    assert np.array_equal(part[::2], part[1::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "queri_disjoint"}, "for a screen; split= takes random, query_disjoint"),
        ({"method": "random", "fold": 5}, "fold=5"),
        ({"method": "random", "n_folds": 2}, "at least 3"),
        ({"method": "file"}, "split.file=PATH"),
        ({"method": "file", "file": "nowhere.parquet"}, "no split file"),
    ],
)
def test_wrong_arguments_are_answered(pairs, arguments, message):
    with pytest.raises(InputError, match=message):
        SPLITS.make(pairs, **arguments)


def test_query_disjoint_without_queries_says_what_to_do(make_screen):
    with pytest.raises(InputError, match="no column 'query'.*gene_disjoint_any"):
        SPLITS.make(make_screen(["A|B", "C|D", "E|F"]), "query_disjoint")
