from __future__ import annotations

import pytest

from torchcell.io.errors import InputError
from torchcell.io.gene_names import ORF, GeneNames, yeast_gene_names, yeast_symbols

TABLE = """symbol,orf
STS1;DBF8,YIR011C
PDR5;STS1;YDR1,YOR153W
NDC80;TID3,YIL144W
ABC1;TWICE,YAL001C
ABC2;TWICE,YAL002W
"""


@pytest.fixture
def names(tmp_path) -> GeneNames:
    (tmp_path / "names.csv").write_text(TABLE)
    return GeneNames.from_table(tmp_path / "names.csv", alias="symbol", name="orf")


def test_case_does_not_matter_and_a_name_stands_for_itself(names):
    assert names.resolve("ndc80") == names.resolve("TID3") == names.resolve("yil144w") == "YIL144W"


def test_a_standard_symbol_wins_over_anothers_alias(names):
    assert names.resolve("STS1") == "YIR011C"


def test_an_ambiguous_alias_is_not_guessed(names):
    assert names.candidates("TWICE") == {"YAL001C", "YAL002W"}
    assert names.resolve("TWICE") is None


def test_losses_count_symbols_not_rows(names):
    found, lost = names.resolve_all(["NDC80", "TWICE", "TWICE", "NOPE", "ABC1"])
    assert found.tolist() == ["YIL144W", "", "", "", "YAL001C"]
    assert lost == {"ambiguous symbols": 1, "unknown symbols": 1}


@pytest.mark.parametrize("allele", ["tid3-1", "ndc80Δ", "NDC80_damp", "ndc80-S-2", "NDC80-PH", "yil144wΔ"])
def test_allele_suffixes_are_taken_off(names, allele):
    assert names.resolve_allele(allele) == "YIL144W"


def test_a_hyphen_that_belongs_to_the_name_stays():
    names = GeneNames([{"YDR169C": ["YDR169C"]}], names=["YDR169C-A"])
    assert names.resolve_allele("ydr169c-aΔ") == "YDR169C-A"
    assert names.resolve_allele("ydr169c-1") == "YDR169C"


def test_an_earlier_table_is_trusted_more():
    names = GeneNames([{"AAD16": ["YFL057C"]}, {"AAD16": ["YPL088W"]}])
    assert names.resolve("AAD16") == "YFL057C"


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "names.tsv").write_text("gene\torf\nA\tB\n")
    with pytest.raises(InputError, match=r"no column 'symbol'.*'gene', 'orf'"):
        GeneNames.from_table(tmp_path / "names.tsv", alias="symbol", name="orf")


@pytest.mark.mirror
def test_the_yeast_table_gives_orfs_only(mirror):
    rows = yeast_symbols()
    orfs = {orf for _, orf in rows}
    assert len(orfs) == 6_724
    assert len(rows) == 6_726 - 2  # two rows name two ORFs in one cell
    assert all(ORF.fullmatch(orf) for orf in orfs)
    assert "YAR010C" in orfs  # a retrotransposon, whose columns are shifted by a stray separator


@pytest.mark.mirror
def test_yeast_symbols_that_are_also_aliases(mirror):
    names = yeast_gene_names()
    assert names.resolve("RPS28B") == "YLR264W"
    assert names.resolve("PMT1") == "YDL095W"
    assert names.resolve("tid3") == "YIL144W"
    standing_for: dict[str, set[str]] = {}
    for symbols, orf in yeast_symbols():
        for symbol in symbols:
            standing_for.setdefault(symbol.upper(), set()).add(orf)
    assert sum(len(orfs) > 1 for orfs in standing_for.values()) == 282
