"""A hint names what was meant, or says nothing."""

from __future__ import annotations

import pytest

from torchcell.io.errors import near


@pytest.mark.parametrize(
    ("word", "valid", "meant"),
    [
        ("FOXF1", ["FOXS1", "FOXF2", "FOXC1"], []),  # another gene each
        ("KLF1", ["KLF2", "KLF11", "KLF"], []),
        ("YAL001C", ["YAL001W", "YAL002C"], []),
        ("ENSG00000141510", ["ENSG00000141511", "ENSG00000145151"], []),
        ("AHR", ["AHRR", "APR"], []),
        ("Klf-1", ["KLF11", "KLF1"], ["KLF1"]),
        ("nkx2.5", ["NKX2-1", "NKX2-5"], ["NKX2-5"]),
        ("grwth", ["growth", "sample_id"], ["growth"]),
        ("gnee", ["genes", "gene", "kinds"], ["gene"]),
        ("neighborhood", ["neighborhood", "fusion"], ["neighborhood"]),
        ("max_epoch", ["trainer.max_epochs", "trainer.min_epochs"], ["trainer.max_epochs", "trainer.min_epochs"]),
        ("dose", ["time", "dose_value", "dose_unit"], ["dose_value", "dose_unit"]),
        ("dose_value", ["time", "dose_um", "dose"], ["dose_um", "dose"]),
        ("HLA-A", ["HLA-B", "HLA-DRA"], []),
        ("kuzmin", ["kuzmin2018", "kang2018"], ["kuzmin2018"]),
        ("papalexy2021", ["kang2018", "papalexi2021"], ["papalexi2021"]),
        ("Compound::9", ["Compound::3", "Compound::8"], []),
        ("data", ["loader", "graph"], []),
    ],
)
def test_a_near_name_is_one_slip_in_three_letters_away_and_no_other_gene(word, valid, meant):
    assert near(word, valid) == meant


def test_at_most_three_names_are_given():
    assert len(near("growth", [f"growth_{letter}" for letter in "abcdef"])) == 3
