"""Gene rules: what suffices, what is redundant, and errors that show the place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchcell.graph import network as gene_rule
from torchcell.graph.network import GeneRules, parse_rule, rule_genes
from torchcell.io.errors import InputError

GENES = ["A", "B", "C", "D", "E"]


def nested(depth: int = 3) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(GENES)
    if not depth:
        return leaf
    inner = nested(depth - 1)
    joined = st.builds(lambda word, parts: "(" + f" {word} ".join(parts) + ")", st.sampled_from(["and", "or", "AND"]),
                       st.lists(inner, min_size=2, max_size=3))  # fmt: skip
    return st.one_of(leaf, joined)


def holds(rule: str, present: set[str]) -> bool:
    """The rule as Python reads it."""
    return bool(eval(rule.lower(), {}, {gene.lower(): gene in present for gene in GENES}))


@given(nested(), st.sets(st.sampled_from(GENES)))
def test_a_rule_holds_exactly_where_one_of_its_sets_is_present(rule, present):
    assert any(conjunct <= present for conjunct in parse_rule(rule)) == holds(rule, present)


def test_and_binds_more_tightly_than_or_and_supersets_are_left_out():
    assert parse_rule("A and B or C") == [frozenset("AB"), frozenset("C")]
    assert parse_rule("(A and B) or A") == [frozenset("A")]
    assert rule_genes("(A AND B) or A") == ["A", "B"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("A and", r"at its end: expected a gene or '\('"),
        ("(A or B", r"at its end: expected '\)'"),
        ("A B", r"at character 3, before 'B': expected 'and', 'or'"),
        ("or A", r"at character 1, before 'or'"),
        ("A and ()", r"at character 8, before '\)'"),
    ],
)
def test_a_rule_that_does_not_parse_is_shown_with_the_place(rule, said):
    with pytest.raises(InputError, match=rf"reaction r_1 does not parse {said}.*it reads"):
        GeneRules.parse("reaction", {"r_1": rule})


def test_a_rule_that_explodes_is_refused(monkeypatch):
    monkeypatch.setattr(gene_rule, "MOST_CONJUNCTS", 20)
    with pytest.raises(InputError, match="multiplies out to over 20"):
        parse_rule(" and ".join(f"(A{i} or B{i})" for i in range(6)))


def test_a_node_without_a_rule_is_left_out_and_the_rules_survive_a_checkpoint():
    rules = GeneRules.parse("reaction", {"r1": "A and B", "r2": "", "r3": "C or D"})
    assert rules.target.tolist() == ["r1", "r3"]
    assert rules.owner.tolist() == [0, 1, 1]
    again = GeneRules.from_plain(rules.to_plain())
    assert all(np.array_equal(getattr(again, n), getattr(rules, n)) for n in ("target", "owner", "ptr", "gene"))
