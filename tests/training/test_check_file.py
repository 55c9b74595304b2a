"""``data check``: what a file would be taken for, all that is wrong, and a command that works as printed."""

from __future__ import annotations

import shlex

import anndata
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from torchcell.check_file import check_files, given
from torchcell.data import main
from torchcell.drug_response.table import read_response_request
from torchcell.io.errors import InputError
from torchcell.training.entry import conf_dir

SCREEN = "sample_id,genes,fitness\n" + "".join(f"s{i}{j},G{i}|G{j},{i + j / 10}\n" for i in range(6) for j in range(i))


def cells(tmp_path, labels=("control", "A", "B"), column="perturbation", scale=1.0, name="cells.h5ad"):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({column: np.repeat(labels, 20)}, index=[f"c{i}" for i in range(20 * len(labels))])
    X = rng.poisson(3.0, (len(obs), 8)).astype(np.float32) * scale
    anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=[*"ABCDEFGH"])).write_h5ad(tmp_path / name)
    return tmp_path / name


def treated(tmp_path, **names):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "drug": ["d1", "d2", "d3"] * 4, "cell_line": ["L"] * 12, "dose": [10.0, 100.0, 1000.0] * 4,
            "dose_unit": ["nM"] * 12, "time": [24.0] * 12, "plate": ["P"] * 12,
        },
        index=[f"w{i}" for i in range(12)],
    ).rename(columns=names)  # fmt: skip
    X = rng.normal(size=(12, 5)).astype(np.float32)
    adata = anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=[*"ABCDE"]), layers={"control": X * 0})
    adata.write_h5ad(tmp_path / "response.h5ad")
    return tmp_path / "response.h5ad"


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def one(path):
    (finding,) = check_files([path])
    return finding


def loads(command: str) -> object:
    """What the command that was printed loads as its record."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "torchcell.train"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return instantiate(compose("config", words[3:]).data.record)


def test_a_screen_and_the_command_that_reads_it(tmp_path):
    finding = one(written(tmp_path, "my screen=1.csv", SCREEN))
    assert finding.kind == "a screen"
    assert "15 sets of 6 genes: 15 of 2 gene(s)" in finding.facts
    assert not finding.wrong
    assert len(loads(finding.use)) == 15


def test_columns_of_text_that_nothing_reads_are_listed(tmp_path):
    finding = one(written(tmp_path, "s.csv", "genes,note,y\nA,good,1\nB,bad,2\n"))
    assert "columns of text are not used: 'note'" in finding.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genes;y\nA;0,5\nB;1,5\n", "commas in its numbers"),
        ('genes,y\nA,"1,000"\nB,"2,000"\n', "commas in its numbers"),
        ("genes,y\nA,1\nB,n.d.\nC,3\n", "holds numbers but for 'row 3: n.d.'"),
        ('genes,y\nA,"1,000.5"\nB,"2,000,000"\n', "commas in its numbers"),
        ("genes,y\nA,yes\nB,no\n", "write 1 and 0"),
        ("genes,y\nA,80%\nB,75 %\n", "'y' holds no numbers but '75 %', '80%': leave out the %"),
        ("genes,y\nA,1\nB,1\n", "y has one value only (1)"),
    ],
)
def test_a_screen_that_training_refuses_is_no_request(tmp_path, text, said):
    """Check called these perturbation sets to predict, without an error."""
    finding = one(written(tmp_path, "s.csv", text))
    assert (finding.kind, finding.use) == ("a screen", "")
    assert said in finding.wrong[0]


@pytest.mark.parametrize(("values", "binary"), [("01", True), ("FALSE TRUE", True), ("12", False)])
def test_a_binary_task_is_proposed_where_both_0_and_1_occur(tmp_path, values, binary):
    first, second = values.split() if " " in values else values
    finding = one(written(tmp_path, "s.csv", f"genes,y\nA,{first}\nB,{second}\n"))
    assert ("data.record.task=binary" in finding.use) == binary
    assert len(loads(finding.use)) == 2


def test_sets_without_phenotypes_are_a_request(tmp_path):
    finding = one(written(tmp_path, "asked.csv", "genes\nA|B\nC\n"))
    assert finding.kind == "perturbation sets to predict"
    assert "torchcell.predict" in finding.use
    rows = "".join(f"{i},G{i}|H,\n" for i in range(12))
    assert one(written(tmp_path, "counted.csv", f"X,genes,y\n{rows}")).kind == "perturbation sets to predict"


def test_a_screen_and_its_network_are_compared(tmp_path, capsys):
    screen = written(tmp_path, "screen.csv", SCREEN)
    network = written(tmp_path, "net.csv", "source,target\nG0,G1\nG1,G2\nG2,G3\n")
    first, second = check_files([screen, network])
    assert "4 of its 6 genes are in net.csv" in first.facts
    assert any("genes without an edge in net.csv: 'G4', 'G5'" in note for note in first.notes)
    assert "every edge weighs 1" in second.notes[0]
    assert f"graph.networks.0.path={network}" in first.use
    other = written(tmp_path, "other.csv", "source,target\nENSG1,ENSG2\n")
    assert main(["check", str(screen), str(other)]) == 1
    assert "most of its genes are not in other.csv: 'G0'" in capsys.readouterr().out


def test_nodes_and_edges_are_read_as_one_graph(tmp_path):
    nodes = written(tmp_path, "nodes.csv", "id,name,type\nc1,x,Compound\nd1,y,Disease\n")
    edges = written(tmp_path, "edges.csv", "source,edge_type,target\nc1,CtD,d1\n")
    first, second = check_files([nodes, edges])
    assert not second.wrong
    assert "data.record.supervised=CtD data.batch_size=1" in first.use, "1,024 would hold all candidates at once"
    former = [
        written(tmp_path, "former_nodes.csv", nodes.read_text().replace("type", "kind")),
        written(tmp_path, "former_edges.csv", edges.read_text().replace("edge_type", "metaedge")),
    ]
    assert "'data.record.columns={type: kind,edge_type: metaedge}'" in check_files(former)[0].use
    stray = written(tmp_path, "stray.csv", "source,edge_type,target\nc1,CtD,nobody\n")
    assert "nobody" in check_files([nodes, stray])[1].wrong[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gnes,fitness\nA|B,1\n", "nearest is a screen: genes; rename 'gnes' for 'genes'"),
        ("Genes,fitness\nA|B,1\n", "nearest is a screen: genes; rename 'Genes' for 'genes'"),
        ("gene1,gene2,score\nA,B,1\n", "as A|B"),
        ("head,relation,tail\na,r,b\n", "'head' for 'source', 'relation' for 'edge_type', 'tail' for 'target'"),
        ("A|B,0.5\nA|C,1.5\n", "looks like data; write the names of the columns"),
        ("genes fitness\nA|B 1\n", "separated by blanks"),
        ("x,y\n1,2\n", "a screen needs a column genes"),
    ],
)
def test_a_table_that_is_none_says_what_is_nearest(tmp_path, text, said):
    """Every table and what it needs stood in one long line."""
    finding = one(written(tmp_path, "x.csv", text))
    assert finding.kind == ""
    assert said in finding.wrong[0]
    assert len(finding.wrong[0]) < 300


def test_treatments_under_other_names_print_the_columns_that_work(tmp_path):
    finding = one(written(tmp_path, "asked.csv", "compound,cell_line,conc_nM,hours\nd1,L,500,24\n"))
    assert (finding.kind, finding.wrong) == ("treatments to predict", [])
    assert "'columns={drug: compound,dose_value: conc_nM,time: hours}'" in finding.use
    assert any("doses 0.5 to 0.5 µM, times 24 h" in fact for fact in finding.facts)
    with pytest.raises(InputError, match=r"columns=\{drug: compound, dose_value: conc_nM, time: hours\}"):
        read_response_request(tmp_path / "asked.csv", ["A"])


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("t.csv", "drug,dose,time,cell_line\nd,500 nM,24,L\n", "treatments to predict"),
        ("p.csv", "perturbation\nKLF1+MAP2K6\n", "perturbations to predict"),
        ("f.csv", "gene,size\nA,1\nB,2\n", "features of genes"),
        ("a.csv", "alias,gene\nx,A\n", "gene aliases"),
        ("e.csv", "id,d0,d1\nA,1,2\nB,2,1\n", "embeddings"),
        ("s.csv", "sample_id,part\na,train\nb,val\nc,test\n", "a split"),
        ("d.csv", "pert_id,smiles\nBRD,C\n", "structures of compounds"),
    ],
)
def test_every_other_table_that_is_read_is_known_by_its_columns(tmp_path, name, text, kind):
    finding = one(written(tmp_path, name, text))
    assert (finding.kind, finding.wrong) == (kind, [])
    assert finding.use


def test_cells_tell_their_scale_their_controls_and_the_command(tmp_path):
    finding = one(cells(tmp_path))
    assert finding.kind == "single cells"
    assert "values: raw counts" in finding.facts
    assert any(
        fact.startswith("60 cells x 8 genes, 20 of them controls; 2 conditions of 20 to 20") for fact in finding.facts
    )
    assert any("very few" in note for note in finding.notes), "24 counts a cell"
    assert len(loads(finding.use)) == 2


def test_names_of_columns_and_controls_are_found_or_asked_for(tmp_path):
    finding = one(cells(tmp_path, ("NTC", "A", "B"), column="target_gene"))
    assert "column 'target_gene' is taken to be the perturbation" in finding.notes
    assert len(loads(finding.use)) == 2
    assert "data.record.control=LABEL" in one(cells(tmp_path, ("wild", "A", "B"), name="w.h5ad")).wrong[0]
    assert "data.record.columns={perturbation: NAME}" in one(cells(tmp_path, column="batch", name="b.h5ad")).wrong[0]


def test_values_that_are_no_counts_and_no_logs_are_one_error(tmp_path):
    finding = one(cells(tmp_path, scale=17.5))
    assert len(finding.wrong) == 1
    assert "neither counts nor logs" in finding.wrong[0]


def test_a_drug_response_tells_doses_in_one_unit_and_its_columns(tmp_path):
    finding = one(treated(tmp_path))
    assert finding.kind == "a drug response"
    assert any("3 drugs, 1 cell lines, doses 0.01 to 1 µM, times 24 h" in fact for fact in finding.facts)
    assert any("time has no unit: taken as h" in note for note in finding.notes)
    assert len(loads(finding.use)) == 12


def test_columns_of_public_data_sets_are_mapped_and_the_map_is_printed(tmp_path):
    finding = one(treated(tmp_path, drug="pert_iname", cell_line="cell_id", dose="dose_nM"))
    assert "column 'pert_iname' is taken to be the drug" in finding.notes
    assert len(loads(finding.use)) == 12


def test_what_must_be_mended_ends_with_1_and_a_missing_file_too(tmp_path, capsys):
    assert main(["check", str(written(tmp_path, "screen.csv", SCREEN))]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/screen.csv: a screen\n")
    assert "\n  use   python -m torchcell.train data=screen" in said
    assert main(["check", str(written(tmp_path, "bad.csv", "genes,y\nA|A,1\n"))]) == 1
    assert "  error " in capsys.readouterr().out
    assert main(["check", str(tmp_path / "no.csv")]) == 1
    assert "error: no such file" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        check_files([tmp_path / "no.csv"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b-1.csv", "k=a/b-1.csv"), ("a b.csv", "'k=\"a b.csv\"'"), ("k=v.csv", "'k=\"k=v.csv\"'")],
)
def test_a_path_is_printed_as_it_can_be_typed(path, expected):
    assert given("k", path) == expected


ALIASES = "alias,gene\n" + "".join(f"ENSG{i},G{i}\n" for i in range(6))
ENSG = "source,target\n" + "".join(f"ENSG{i},ENSG{i + 1}\n" for i in range(5))


def test_a_screen_meets_its_network_by_the_aliases(tmp_path):
    """The aliases were ignored: the check said that most genes are unknown, and printed a command after the error."""
    files = [written(tmp_path, name, text) for name, text in (("s.csv", SCREEN), ("n.csv", ENSG), ("a.csv", ALIASES))]
    screen, network, _ = check_files(files)
    assert not screen.wrong
    assert "6 of its 6 genes are in n.csv" in screen.facts
    assert f"data.aliases={files[2]}" in screen.use
    screen, network = check_files(files[:2])
    assert screen.wrong
    assert (screen.use, network.use) == ("", "")


def test_an_alias_of_two_genes_is_named(tmp_path):
    files = [written(tmp_path, name, text) for name, text in (("s.csv", SCREEN), ("n.csv", ENSG))]
    screen, *_ = check_files([*files, written(tmp_path, "a.csv", ALIASES + "ENSG0,G1\n")])
    assert any("a.csv: aliases of several genes are not used: 'ENSG0 = G0 or G1'" in note for note in screen.notes)


def test_names_that_differ_in_case_only_are_said_to(tmp_path):
    files = written(tmp_path, "s.csv", SCREEN), written(tmp_path, "n.csv", ENSG.replace("ENSG", "g"))
    assert "6 differ in case only" in check_files(files)[0].wrong[0]


def test_perturbed_genes_that_are_not_measured_are_noted_with_the_column_that_has_them(tmp_path):
    path = cells(tmp_path, ("control", "A", "X"))
    assert "1 of 2 perturbed genes are not measured: 'X'" in one(path).notes
    adata = anndata.read_h5ad(path)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("X", "B")
    adata.var["symbol"] = adata.var_names
    adata.var_names = [f"ENSG{i}" for i in range(8)]
    adata.write_h5ad(tmp_path / "ensg.h5ad")
    assert any("data.record.matrix.gene_column=symbol" in note for note in one(tmp_path / "ensg.h5ad").notes)


def test_a_drug_response_tells_all_that_is_wrong_and_which_wells_look_like_controls(tmp_path):
    path = treated(tmp_path)
    adata = anndata.read_h5ad(path)
    del adata.layers["control"]
    adata.obs["drug"] = adata.obs["drug"].astype(str).replace("d1", "DMSO")
    adata.obs["dose_unit"] = "mg/ml"
    adata.obs["time"] = "soon"
    adata.write_h5ad(tmp_path / "odd.h5ad")
    units, controls = one(tmp_path / "odd.h5ad").wrong
    assert "mg/ml" in units
    assert "soon" in units
    assert "adata.obs['is_control'] = adata.obs['drug'].isin(['DMSO'])" in controls


@pytest.mark.parametrize(("flag", "wrong"), [("True False", False), ("false TRUE", False), ("yes no", True)])
def test_a_flag_may_be_the_text_true_or_false(tmp_path, flag, wrong):
    """A column of texts was refused as 'True', which must be true or false."""
    adata = anndata.read_h5ad(treated(tmp_path))
    adata.obs["is_control"] = flag.split() * 6
    adata.write_h5ad(tmp_path / "text.h5ad")
    finding = one(tmp_path / "text.h5ad")
    assert ["write true and false, or 1 and 0" in said for said in finding.wrong] == [True] * wrong


def test_vehicle_wells_that_count_as_a_drug_are_noted(tmp_path):
    adata = anndata.read_h5ad(treated(tmp_path))
    adata.obs["drug"] = adata.obs["drug"].astype(str).replace("d1", "DMSO")
    adata.write_h5ad(tmp_path / "dmso.h5ad")
    assert "wells of 'DMSO' are no controls by is_control: they count as drugs" in one(tmp_path / "dmso.h5ad").notes
