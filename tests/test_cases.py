"""Inputs of users that were misread or refused without a usable word, each with the right answer, by their numbers.

Their siblings are elsewhere: tables in ``data/test_tables.py``, values and units in ``test_cases_matrices.py``. The cases
that are no files are with what they are of: 14 in ``run/test_lock.py``, 15 in ``run/test_entry.py``, 16 in
``run/test_unwritable.py``, 17 in ``run/test_resume_elsewhere.py``.
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.table import MatrixOptions, cells_file
from torchcell.drug_response.import_gct import import_gct
from torchcell.drug_response.table import response_file
from torchcell.io.errors import InputError
from torchcell.screen.table import read_perturbations, read_screen
from torchcell.screen.yeast_cell import read_network

NAMES = [f"YAL{i:03d}W" for i in range(30)]
PAIRS = [(NAMES[i], NAMES[i + step]) for i in range(24) for step in (1, 3)]
VALUES = np.random.default_rng(0).normal(1, 0.2, len(PAIRS)).round(3)
GENES = ["AHR", "KLF1", "MAP2K6", "TP53", *(f"GENE{i}" for i in range(8))]


def table(folder: Path, header: str, rows: list[str]) -> Path:
    path = folder / "file.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    rows = [f"s{i},{a}|{b},{y}" for i, ((a, b), y) in enumerate(zip(PAIRS, VALUES, strict=True))]
    path = table(tmp_path, "sample_id,genes,fitness", rows)
    return path.rename(tmp_path / "screen.csv")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    rows = [f"{a},{b},{y}" for (a, b), y in zip(PAIRS, VALUES, strict=True)]
    return table(tmp_path, "source,target,weight", rows).rename(tmp_path / "net.csv")


def cells(folder: Path, labels: list[object] | np.ndarray, each: int = 30) -> Path:
    """An h5ad file of counts with ``each`` cells of every label."""
    column = pd.Series(labels).repeat(each).reset_index(drop=True)
    counts = np.random.default_rng(1).poisson(3, (len(column), len(GENES))).astype(np.float32)
    obs = pd.DataFrame({"perturbation": column.to_numpy()}, index=[f"c{i}" for i in range(len(column))])
    path = folder / f"cells{len(list(folder.glob('*.h5ad')))}.h5ad"
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


def sizes(found: Pseudobulk) -> dict[str, int]:
    return dict(zip(found.perturbation.tolist(), found.sizes.tolist(), strict=True))


def test_01a_trailing_commas_move_no_column(tmp_path: Path) -> None:
    """The columns moved one to the left: genes named 0.81 and the phenotype 0.01."""
    rows = [f"{a}|{b},{y},{y / 10:.4f}," for (a, b), y in zip(PAIRS, VALUES, strict=True)]
    found = read_screen(table(tmp_path, "genes,fitness,sd", rows))
    assert found.phenotype_names == ("fitness", "sd")
    assert found.sets() == PAIRS
    np.testing.assert_array_equal(found.phenotype[:, 0], VALUES.astype(np.float32))
    full = [row + "x" if i in (1, 4) else row for i, row in enumerate(rows)]
    with pytest.raises(InputError, match=r"2 of 48 rows .* header, which has 3 .*: 'line 3: 4', 'line 6: 4'"):
        read_screen(table(tmp_path, "genes,fitness,sd", full))


def test_01b_a_network_whose_header_lacks_the_weight_is_refused(tmp_path: Path, net: Path) -> None:
    """A graph of 89 genes, 59 of them called 0.5 and the like, trained with exit 0."""
    _, *rows = net.read_text().splitlines()
    said = r"48 of 48 rows .* header, which has 2 \(source, target\): 'line 2: 3', .* and 43 more; name every column"
    with pytest.raises(InputError, match=said):
        read_network(table(tmp_path, "source,target", rows), "net")


def test_02_the_row_number_of_pandas_is_no_phenotype(tmp_path: Path, screen: Path) -> None:
    """The row number was learned and scored, and weighed half of the validation score."""
    pd.read_csv(screen).to_csv(tmp_path / "index.csv")
    for _ in range(2):
        for read in (read_screen, read_perturbations):
            with pytest.warns(UserWarning, match=r"index.csv: the first column has no name and counts the rows"):
                found = read(tmp_path / "index.csv")
        pd.read_csv(tmp_path / "index.csv").to_csv(tmp_path / "index.csv")  # 'Unnamed: 0' beside a new one
    assert read_screen(screen).phenotype_names == ("fitness",)
    assert list(found.columns) == ["fitness"]


def test_03_blanks_after_commas_make_no_second_gene(tmp_path: Path, net: Path) -> None:
    """60 genes, each twice, once with a blank before it: the screen's genes lost half of their edges."""
    plain = read_network(net, "net")
    spaced = read_network(
        table(tmp_path, "source, target, weight", net.read_text().replace(",", ", ").splitlines()[1:]), "net"
    )
    for name in ("source", "target", "weight"):
        np.testing.assert_array_equal(getattr(spaced, name), getattr(plain, name))


def test_04_blanks_in_labels_mean_nothing(tmp_path: Path) -> None:
    """'ctrl ', which is control cells, was a perturbation, and 'AHR + ctrl' was perturbed in 'AHR ' and ' ctrl'."""
    labels = ["ctrl", "ctrl ", "Ctrl", "KLF1+ctrl", "KLF1+ctrl ", "AHR + ctrl", "TP53+ctrl", "GENE1+ctrl"]
    found = cells_file(cells(tmp_path, labels), "counts", "ctrl")
    assert sizes(found) == {"AHR": 30, "GENE1": 30, "KLF1": 60, "TP53": 30}
    assert found.cells.is_control.sum() == 90


def wells(folder: Path, X: np.ndarray | None, **layers: np.ndarray) -> Path:
    """An h5ad file of nine treated wells and three control wells, doses in nM."""
    obs = pd.DataFrame(
        {
            "perturbation": [*np.repeat(["a", "b", "c"], 3), *["DMSO"] * 3], "cell_line": "A375", "plate": "P1",
            "dose_value": [*[10.0, 1000.0, 10000.0] * 3, 0.0, 0.0, 0.0], "dose_unit": "nM", "time": 24.0,
            "is_control": [False] * 9 + [True] * 3,
        },
        index=[f"w{i}" for i in range(12)],
    )  # fmt: skip
    adata = anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=GENES), layers=layers)
    adata.write_h5ad(folder / "wells.h5ad")
    return folder / "wells.h5ad"


EXPRESSION = np.random.default_rng(2).normal(8, 1, (12, len(GENES))).astype(np.float32)


def test_05_a_dose_in_nM_is_read_as_that(tmp_path: Path) -> None:
    """``dose_unit`` was not read: 10 to 10,000 µM, in silence."""
    found = response_file(wells(tmp_path, EXPRESSION))
    np.testing.assert_allclose(found.dose_value, [0.01, 1, 10] * 3, rtol=1e-6)


def test_06_a_sign_within_a_name_joins_nothing(tmp_path: Path) -> None:
    """(+)-JQ1 was the genes '(' and ')-JQ1', CD3+ was CD3 and a gene without a name."""
    names = ["(+)-JQ1", "(+|-)-thing", "CD3+", "Vorinostat"]
    found = cells_file(cells(tmp_path, ["ctrl", *names, "CD3++ctrl"]), "counts", "ctrl")
    assert found.perturbation.tolist() == sorted(names)
    assert found.targets == [(name,) for name in sorted(names)]
    assert sizes(found)["CD3+"] == 60


def test_07_both_orders_of_a_pair_are_one_condition(tmp_path: Path) -> None:
    """90 conditions for 45 pairs, of which 13 had one order in train and the other in test."""
    pairs = ["AHR+KLF1", "KLF1+AHR", "TP53 + AHR", "AHR|TP53", "KLF1", "AHR+ctrl"]
    found = cells_file(cells(tmp_path, ["ctrl", *pairs]), "counts", "ctrl")
    assert sizes(found) == {"AHR": 30, "AHR+KLF1": 60, "AHR+TP53": 60, "KLF1": 30}


@pytest.mark.parametrize("control", ["0", "'0'", "[0]", "[0, 3]", "['0', NT]"])
def test_08_numbered_labels_and_several_controls(tmp_path: Path, control: str) -> None:
    """``data.record.control=0`` was ``AttributeError: 'int' object has no attribute 'split'``."""
    path = cells(tmp_path, np.arange(4))
    config = {"_target_": "torchcell.cells.table.cells_file", "path": str(path), "scale": "counts"}
    found = instantiate(
        OmegaConf.from_dotlist([f"{key}={value}" for key, value in config.items()] + [f"control={control}"])
    )
    left = {"1": 30, "2": 30} if "3" in control else {"1": 30, "2": 30, "3": 30}
    assert sizes(found) == left
    with pytest.raises(InputError, match="no control cells; the labels are '0', '1', '2', '3': name the control's"):
        cells_file(path, "counts", "ctrl")


def test_08_labels_in_bytes(tmp_path: Path) -> None:
    found = cells_file(cells(tmp_path, ["b'ctrl'", "b'AHR'", "KLF1"]), "counts", "ctrl")
    assert sizes(found) == {"AHR": 30, "KLF1": 30}


@pytest.mark.parametrize("word", ["nan", "None", "", "NaN"])
def test_09_a_missing_label_is_no_perturbation(tmp_path: Path, word: str) -> None:
    """A perturbation called 'nan' of 30 cells was trained and scored."""
    said = (
        f"30 sample.s. with no perturbation label, '{word}': 'c30', 'c31', .* and 25 more; correct the labels, or drop"
    )
    with pytest.raises(InputError, match=said):
        cells_file(cells(tmp_path, ["ctrl", word, "AHR"]), "counts", "ctrl")
    if word:
        assert sizes(cells_file(cells(tmp_path, [word, "AHR"]), "counts", word)) == {"AHR": 30}


def test_10_a_response_without_X_names_its_layers(tmp_path: Path) -> None:
    """``IndexError: too many indices for array: array is 0-dimensional``."""
    path = wells(tmp_path, None, expr=EXPRESSION)
    with pytest.raises(InputError, match="holds no X; its layers are 'expr': choose one with layer=NAME"):
        response_file(path)
    np.testing.assert_array_equal(response_file(path, layer="expr").treated, EXPRESSION[:9])


@pytest.mark.parametrize("cell", ["#VALUE!", "#N/A", "N/A"])
def test_11_what_a_spreadsheet_writes_for_a_missing_value_leaves_the_well_out(tmp_path: Path, cell: str) -> None:
    """ "holds a cell that is no number: '#VALUE!'" ended the import of a plate of 384 wells."""
    about = {"pert_iname": "DMSO DMSO a b", "pert_type": "ctl_vehicle ctl_vehicle trt_cp trt_cp", "cell_id": "A A A A",
             "pert_dose": "-666 -666 10 10", "pert_time": "24 24 24 24", "det_plate": "P P P P"}  # fmt: skip
    lines = ["#1.3", f"2\t4\t0\t{len(about)}", "id\t" + "\t".join(f"P:A0{i}" for i in range(4))]
    lines += ["\t".join([name, *text.split()]) for name, text in about.items()]
    lines += [f"G1\t8.1\t8.2\t9.0\t{cell}", "G2\t7.1\t7.2\t6.0\t6.5"]
    (tmp_path / "plate.gct").write_text("\n".join(lines) + "\n")
    adata = import_gct(tmp_path / "plate.gct", drop_incomplete=True)
    assert adata.obs["perturbation"].tolist() == ["DMSO", "DMSO", "a"]
    assert list(adata.uns["lost"].values()) == [1]


def test_12_values_that_are_neither_counts_nor_logs_are_called_that(tmp_path: Path) -> None:
    """Each of the two settings was refused with the advice to take the other."""
    path = cells(tmp_path, ["ctrl", "AHR"])
    adata = anndata.read_h5ad(path)
    adata.X = adata.X / adata.X.sum(1, keepdims=True) * 1e4
    adata.write_h5ad(path)
    for scale in ("counts", "lognorm"):
        with pytest.raises(InputError, match=r"neither counts nor logs \(highest .*take the logarithm"):
            cells_file(path, scale, "ctrl")


def test_13_counts_in_raw_are_named_and_read(tmp_path: Path) -> None:
    path = cells(tmp_path, ["ctrl", "AHR"])
    adata = anndata.read_h5ad(path)
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X / adata.X.sum(1, keepdims=True) * 1e4)
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="this file holds counts too: layer=raw"):
        cells_file(path, "counts", "ctrl")
    assert sizes(cells_file(path, "counts", "ctrl", matrix=MatrixOptions(layer="raw"))) == {"AHR": 30}


def test_a_gene_that_a_label_names_twice_is_refused(tmp_path: Path) -> None:
    path = cells(tmp_path, ["ctrl", "KLF1+KLF1", "AHR"])
    with pytest.raises(InputError, match="30 sample.s. with a label that names a gene twice, 'KLF1.KLF1': 'c30'"):
        cells_file(path, "counts", "ctrl")
    (tmp_path / "aliases.csv").write_text("alias,gene\nEKLF,KLF1\n")
    path = cells(tmp_path, ["ctrl", "KLF1+EKLF", "AHR"])
    with pytest.raises(InputError, match=r"names a gene twice, 'EKLF.KLF1' \('KLF1.KLF1'\): 'c30'"):
        cells_file(path, "counts", "ctrl", matrix=MatrixOptions(aliases=tmp_path / "aliases.csv"))
