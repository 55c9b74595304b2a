"""Genes by sources and quotas: priority, fills, aliases, phases, and nothing learned from test conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from scipy import sparse

from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError
from torchcell.data.gene_lists import GeneList
from torchcell.data.gene_rankings import HighlyVariable, Perturbed, Responsive
from torchcell.data.gene_selection import GeneSelection
from torchcell.data.kang import kang2018
from torchcell.data.simulate_perturbseq import simulated_perturbseq
from torchcell.splits.methods import make_split

MakeList = Callable[..., GeneList]


@pytest.fixture(scope="module")
def record() -> Conditions:
    return simulated_perturbseq(n_genes=80, n_regulators=16, n_doubles=6, n_lines=2, cells_per_condition=12)


@pytest.fixture
def make_list(tmp_path: Path) -> MakeList:
    def make(name: str, genes: list[str], quota: int | None = None, order: str = "listed") -> GeneList:
        (tmp_path / f"{name}.txt").write_text("\n".join(genes))
        return GeneList(name, quota, tmp_path / f"{name}.txt", order=order)  # type: ignore[arg-type]

    return make


def test_a_gene_goes_to_the_first_source_and_the_later_takes_its_next(record: Conditions, make_list: MakeList) -> None:
    first = make_list("first", ["G0005", "G0007", "XIST", "G0006"], 2)
    second = make_list("second", ["G0007", "G0006", "G0001"], 2)
    chosen = GeneSelection([first, second, HighlyVariable(3)])(record)
    assert chosen.genes[:4].tolist() == ["G0005", "G0007", "G0006", "G0001"]
    assert chosen.counts() == {"first": 2, "second": 2, "highly_variable": 3}
    assert chosen.rank[:4].tolist() == [1, 2, 2, 3]
    assert not chosen.notes
    assert len(set(chosen.genes.tolist())) == len(chosen) == 7


def test_an_open_quota_is_noted_and_filled_in_its_place_without_robbing_later_lists(
    record: Conditions, make_list: MakeList
) -> None:
    variable = HighlyVariable().symbols(record)
    short = make_list("short", ["G0005", "XIST"], 3)
    later = make_list("later", variable[:2], 2)
    chosen = GeneSelection([short, later], n_genes=8)(record)
    assert chosen.source.tolist() == [
        "short", *["highly_variable for short"] * 2, "later", "later", *["highly_variable"] * 3,
    ]  # fmt: skip
    assert chosen.genes[3:5].tolist() == variable[:2]
    assert chosen.notes == ["short: 1 of 3 genes; 2 highly variable genes fill its quota"]


def test_more_than_is_measured_takes_all_and_says_so(record: Conditions) -> None:
    chosen = GeneSelection(n_genes=200)(record)
    assert sorted(chosen.genes.tolist()) == record.genes.tolist()
    assert "200 genes were asked for, and only 80 are measured" in chosen.notes


def test_a_list_of_more_genes_gives_the_most_variable(record: Conditions, make_list: MakeList) -> None:
    names = record.genes[::2].tolist()
    variable = [gene for gene in HighlyVariable().symbols(record) if gene in names]
    chosen = GeneSelection([make_list("even", names, 5, "variable")])(record)
    assert chosen.genes.tolist() == variable[:5]


def test_case_and_aliases_meet_but_an_ambiguous_name_is_not_guessed(
    record: Conditions, make_list: MakeList, tmp_path: Path
) -> None:
    (tmp_path / "names.csv").write_text("alias,gene\nOLD5;LAST5,G0005\nTWIN,G0006\nTWIN,G0007\nHERE,NEW8\nG0008,NEW8\n")
    source = make_list("mixed", ["g0001", "last5", "TWIN", "HERE", "G0005"])
    found = GeneSelection([source], aliases=tmp_path / "names.csv")(record)
    assert found.genes.tolist() == ["G0001", "G0005", "G0008"]
    assert found.symbol.tolist() == ["g0001", "last5", "HERE"]
    assert GeneSelection([source])(record).genes.tolist() == ["G0001", "G0005"]


def test_phases_are_the_first_genes_and_nested(record: Conditions, tmp_path: Path) -> None:
    phases = {"core": 5, "regulatory": 12, "all": None}
    chosen = GeneSelection([Perturbed(10)], 20, phases)(record)
    assert chosen.phase_sizes() == {"core": 5, "regulatory": 12, "all": 20}
    assert (np.diff(chosen.phase) >= 0).all()
    chosen.save(tmp_path / "genes.csv")
    table = pd.read_csv(tmp_path / "genes.csv")
    assert table.columns.tolist() == ["gene", "source", "rank", "symbol", "phase"]
    assert table["phase"].value_counts().to_dict() == {"core": 5, "regulatory": 7, "all": 8}
    again = GeneSelection([GeneList("own", path=tmp_path / "genes.csv", order="listed")])(record)
    np.testing.assert_array_equal(again.genes, chosen.genes)
    over = GeneSelection(n_genes=20, phases={"core": 5, "large": 100})(record)
    assert over.phase_sizes() == {"core": 5, "large": 20}
    assert over.notes == ["phase 'large' asks for 100 genes and gets 20"]


def test_perturbed_and_responsive_genes_lead(record: Conditions) -> None:
    singles = record.subset(np.array(["+" not in label for label in record.perturbation]))
    assert Perturbed().symbols(singles) == [f"G{i + 1:04d}" for i in range(16)]
    assert GeneSelection([Perturbed()])(singles).counts() == {"perturbed": 16}
    change = np.abs(record.target - record.control).mean(0)
    ranked = Responsive().symbols(record)
    place = {gene: i for i, gene in enumerate(record.genes.tolist())}
    assert change[[place[g] for g in ranked[:20]]].mean() > 1.5 * change[[place[g] for g in ranked[-20:]]].mean()


def test_nothing_of_the_test_conditions_is_read(record: Conditions) -> None:
    split = make_split(record, "unseen_perturbation")
    X = record.cells.X.tolil()
    for i in np.flatnonzero(split.part != "train").tolist():
        X[record.members(i)] = 3.5
    spoilt = replace(record, cells=replace(record.cells, X=sparse.csr_matrix(X)))
    choose = GeneSelection([Perturbed(8), Responsive(12), HighlyVariable(10)])
    clean, other = (choose(one.subset(split.index("train"))) for one in (record, spoilt))
    pd.testing.assert_frame_equal(clean.to_table(), other.to_table())
    assert not np.array_equal(choose(spoilt).genes, clean.genes)


def test_a_selection_comes_from_a_config(record: Conditions) -> None:
    room = "torchcell.data"
    sources = [{"_target_": f"{room}.gene_rankings.Perturbed", "quota": 4}]
    config = {"_target_": f"{room}.gene_selection.GeneSelection", "sources": sources, "n_genes": 6}
    assert instantiate(config | {"phases": {"a": 2, "b": None}})(record).phase_sizes() == {"a": 2, "b": 6}


def test_flavors_without_counts_or_packages_fail_loudly(record: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = replace(record, cells=replace(record.cells, counts=None))
    for flavor in ("seurat_v3", "seurat_v3_paper", "pearson_residuals"):
        with pytest.raises(InputError, match=f"flavor={flavor} needs raw counts, and simulated_perturbseq holds log"):
            HighlyVariable(flavor=flavor).symbols(lone)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package scikit-misc, which is not installed"):
        HighlyVariable(flavor="seurat_v3").symbols(record)
    with pytest.raises(InputError, match="no flavor 'seurat_v4'"):
        HighlyVariable(flavor="seurat_v4").symbols(record)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "pearson_residuals"])
def test_each_flavor_ranks_every_gene_once(record: Conditions, flavor: str) -> None:
    assert sorted(HighlyVariable(flavor=flavor).symbols(record)) == record.genes.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs sources, or n_genes"),
        ({"sources": [HighlyVariable(9)], "n_genes": 5}, "quotas of the gene sources sum to 9, more than n_genes=5"),
        ({"sources": [HighlyVariable(0)]}, "the quota of 'highly_variable' is 0"),
        (
            {"n_genes": 20, "phases": {"a": 10, "b": 10, "c": None}},
            "phase 'b' with 10 genes is no superset of phase 'a'",
        ),
        (
            {"n_genes": 20, "phases": {"a": 30, "b": None}},
            "phase 'b' with 20 genes is no superset of phase 'a' with 30",
        ),
        ({"n_genes": 20, "phases": {"a": 0, "b": None}}, "phase 'a' with 0 genes is no superset of nothing"),
        ({"n_genes": 20, "phases": {"a": 5}}, "the last phase 'a' has 5 of the 20 selected genes"),
        ({"n_genes": 20, "aliases": "none.csv"}, "no table of gene names none.csv"),
    ],
)
def test_what_can_not_be_selected_is_answered(record: Conditions, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeneSelection(**options)(record)


def test_a_list_whose_genes_are_all_absent_is_named(record: Conditions, make_list: MakeList) -> None:
    with pytest.raises(InputError, match="none of the 2 genes of 'mouse' is measured in .*the list has 'Xist', 'Actb'"):
        GeneSelection([make_list("mouse", ["Xist", "Actb"], 2)])(record)


def test_what_may_be_absent_is_told_by_the_source_and_not_by_its_name(record: Conditions, make_list: MakeList) -> None:
    unmeasured = record.on_genes(record.genes[16:])
    chosen = GeneSelection([Perturbed(4, name="targets")])(unmeasured)
    assert chosen.notes == ["targets: 0 of 4 genes; 4 highly variable genes fill its quota"]
    with pytest.raises(InputError, match="none of the 1 genes of 'perturbed' is measured"):
        GeneSelection([make_list("perturbed", ["Xist"], 2)])(record)


@pytest.mark.mirror
def test_the_500_gene_panel_of_the_real_data(mirror: Path) -> None:
    record = kang2018()
    quotas = {"transcription_factor": 46, "metabolic": 32, "cell_cycle": 40, "pluripotency": 22}
    sources = [*(GeneList(name, quota) for name, quota in quotas.items()), HighlyVariable(360)]
    train = record.subset(make_split(record, "cold_cell").index("train"))
    panel = GeneSelection(sources)(train)
    assert panel.counts() == {**quotas, "highly_variable": 360}
    assert not panel.notes
    phases = {"core": 100, "regulatory": 1200, "responsive": 2500, "all": None}
    whole = GeneSelection([*sources[:4], Responsive(2000)], 5000, phases)(train)
    assert list(whole.phase_sizes().values()) == [100, 1200, 2500, 5000]
