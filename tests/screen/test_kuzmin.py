from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from torchcell.io.errors import InputError
from torchcell.io.gene_names import GeneNames, yeast_gene_names, yeast_symbols
from torchcell.screen import sources as kuzmin
from torchcell.screen.sources import Triples, kuzmin2018, read_triples, sample_negatives, strain_names

mirror = pytest.mark.mirror


@pytest.fixture(scope="module")
def triples(mirror) -> Triples:
    return read_triples()


@mirror
def test_counts_of_the_file(triples):
    lost = triples.dropped
    assert lost["digenic control rows"] == 14_090
    mapped = len(triples.positives) + lost["trigenic rows that name a triple again"]
    assert mapped == 3_191
    assert mapped + lost["trigenic rows with an allele of no known ORF"] == 3_195
    assert len(triples.positives) == 3_188
    # the data's README says 1,090; the next test shows why it is 1,094
    assert len({gene for triple in triples.positives for gene in triple}) == 1_094


@mirror
def test_names_taken_in_file_order_give_1090_genes_and_17_wrong_ones(triples, monkeypatch):
    # RPS28B is the symbol of YLR264W and an alias of YPR132W, which stands earlier in the table
    first: dict[str, list[str]] = {}
    for symbols, orf in yeast_symbols():
        for symbol in symbols:
            first.setdefault(symbol.upper(), [orf])
    strains = strain_names()
    guessed, ours = GeneNames([first, strains]), yeast_gene_names(strains)
    monkeypatch.setattr(kuzmin, "yeast_gene_names", lambda _: guessed)
    by_order = read_triples()
    assert len(by_order.positives) == 3_188
    assert len({gene for triple in by_order.positives for gene in triple}) == 1_090
    lines = kuzmin.fetch("kuzmin2018")[kuzmin.KUZMIN_FILE].read_text(encoding="utf-8").splitlines()[1:]
    alleles = {a for line in lines if kuzmin.CONTROL not in line for a in line.split()[0].split("_")}
    differ = {a for a in alleles if guessed.resolve_allele(a) != ours.resolve_allele(a)}
    assert len(differ) == 17
    stated = {a: strains.get(a.removesuffix("Δ").upper()) for a in differ}
    assert sum(orfs is not None for orfs in stated.values()) == 16
    assert all(orfs is None or orfs == {ours.resolve_allele(a)} for a, orfs in stated.items())


@mirror
def test_query_pairs_recur_and_array_genes_do_not(triples):
    pairs = Counter(roles[:2] for roles in triples.positives.values())
    assert len(pairs) == 169
    assert triples.by_controls == 15
    assert sum(count for _, count in pairs.most_common(100)) > 0.9 * len(triples.positives)


@mirror
def test_labels_and_columns_fit_the_sets(mirror, triples):
    screen = kuzmin2018("matched", negatives_per_positive=2, seed=3).validate()
    unlabeled = screen.columns["unlabeled"]
    assert (~unlabeled).sum() == 3_188
    assert unlabeled.sum() == 2 * 3_188
    assert screen.task == "binary"
    assert screen.phenotype[:, 0].tolist() == (~unlabeled).astype(float).tolist()
    roles = [f"{q}|{a}".split("|") for q, a in zip(screen.columns["query"], screen.columns["array"], strict=True)]
    assert all(sorted(role) == list(genes) for role, genes in zip(roles, screen.sets(), strict=True))
    assert all(screen.sample_id == np.array(["|".join(genes) for genes in screen.sets()]))
    sampled = {frozenset(genes) for genes, u in zip(screen.sets(), unlabeled, strict=True) if u}
    assert not sampled & set(triples.positives)


def _auroc_of_query_pair_frequency(triples: Triples, how: str, seed: int) -> float:
    positives = [triples.positives[key] for key in sorted(triples.positives, key=sorted)]
    negatives = sample_negatives(positives, how, len(positives), seed)
    pairs = [roles[:2] for roles in positives + negatives]
    label = np.repeat([1, 0], len(positives))
    order = np.random.default_rng(seed).permutation(len(pairs))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    count = Counter(pairs[i] for i in train if label[i])
    return float(roc_auc_score(label[test], [count[pairs[i]] for i in test]))


@mirror
def test_uniform_negatives_are_told_by_query_pair_frequency_and_matched_ones_are_not(triples):
    uniform = np.mean([_auroc_of_query_pair_frequency(triples, "uniform", seed) for seed in range(3)])
    matched = np.mean([_auroc_of_query_pair_frequency(triples, "matched", seed) for seed in range(3)])
    assert 0.75 < uniform < 0.80
    assert 0.48 < matched < 0.58


@mirror
def test_a_rule_about_digenic_controls_would_tell_the_label(triples):
    # why negatives with a digenic interaction are not left out: more than half of the positives have one
    share = np.mean([any(frozenset(p) in triples.controls for p in combinations(t, 2)) for t in triples.positives])
    assert 0.55 < share < 0.58


POSITIVES = [("A", "B", "x"), ("A", "B", "y"), ("A", "B", "z"), ("C", "D", "x")]


@pytest.mark.parametrize("how", ["uniform", "matched"])
def test_sampled_triples_are_new_seeded_and_from_query_pairs_and_array_genes(how):
    drawn = sample_negatives(POSITIVES, how, 2, seed=1)
    assert drawn == sample_negatives(POSITIVES, how, 2, seed=1)
    assert {frozenset(t) for t in drawn} == {frozenset("CDy"), frozenset("CDz")}  # all that is left


def test_an_array_gene_of_the_query_pair_is_never_drawn():
    positives = [("A", "B", "x"), ("x", "y", "A"), ("x", "y", "w")]
    assert sample_negatives(positives, "uniform", 1, seed=0) == [("A", "B", "w")]  # the only one: A, B, A is no triple


def test_more_negatives_than_triples_is_an_error():
    with pytest.raises(InputError, match="3 negatives asked for, 2 triples"):
        sample_negatives(POSITIVES, "matched", 3, seed=0)


def test_an_unknown_way_of_sampling_is_an_error():
    with pytest.raises(InputError, match="choose 'uniform' or 'matched'"):
        kuzmin2018("equal")


def test_roles_on_a_planted_screen():
    # two query pairs that recur, and a lone triple that only the digenic controls can tell
    planted = [("q1", "q2", "a1"), ("q1", "q2", "a2"), ("q3", "q4", "a1"), ("q3", "q4", "a3"), ("q5", "q6", "a2")]
    controls = [("q1", "a2"), ("q3", "a2"), ("q5", "a9"), ("q6", "a2")]
    roles, by_controls = kuzmin._kuzmin_roles({frozenset(t) for t in planted}, [frozenset(c) for c in controls])
    assert set(roles.values()) == set(planted)
    assert by_controls == 1
