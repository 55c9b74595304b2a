"""One parser reads labels, of training and of requests: what is one name stays one, and no label is misread."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.io.gene_names import MeasuredGenes
from torchcell.io.labels import control_words, genes_of, in_order, label_texts, read_labels, read_request_labels


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("KLF1", ["KLF1"]),
        ("KLF1+MAP2K6", ["KLF1", "MAP2K6"]),
        (" KLF1 + MAP2K6 +AHR", ["KLF1", "MAP2K6", "AHR"]),
        ("KLF1|MAP2K6", ["KLF1", "MAP2K6"]),
        ("(+)-JQ1", ["(+)-JQ1"]),
        ("(+|-)-thing", ["(+|-)-thing"]),
        ("(+)-JQ1+KLF1", ["(+)-JQ1", "KLF1"]),
        ("KLF1+(+)-JQ1", ["KLF1", "(+)-JQ1"]),
        ("CD3+", ["CD3+"]),
        ("CD3++ctrl", ["CD3+", "ctrl"]),
        ("CD3+ + CD28+", ["CD3+", "CD28+"]),
        ("+A", ["+A"]),
        ("A(+B", ["A(+B"]),
        ("Na+/K+-ATPase", ["Na+/K+-ATPase"]),
        ("D-[+]-glucose + [x]", ["D-[+]-glucose", "[x]"]),
        ("NKX2-1+HLA-A", ["NKX2-1", "HLA-A"]),
        ("Ärger+ß", ["Ärger", "ß"]),
        ("A+1", ["A", "1"]),
        ("A+_B", ["A+_B"]),
        ("", [""]),
    ],
)
def test_a_sign_joins_where_it_stands_between_names_and_outside_brackets(label, names):
    assert list(genes_of(label)) == names
    assert sorted(genes_of(in_order(label))) == sorted(names)
    assert in_order(in_order(label)) == in_order(label)


def read(*labels: object, control: object = "ctrl") -> tuple[list[str], list[bool], dict[str, int]]:
    texts = label_texts(np.array(labels, dtype=object))
    ids = np.array([f"c{i}" for i in range(len(labels))])
    found, is_control, counts = read_labels("cells", ids, texts, control_words(control))
    return found.tolist(), is_control.tolist(), counts


def test_controls_go_whatever_their_case_and_blanks():
    """'ctrl ' made the controls a perturbation, and 'KLF1+ctrl ' a pair with it."""
    found, is_control, counts = read("ctrl", "ctrl ", "Ctrl", "ctrl+CTRL", "KLF1+ctrl ", "Ctrl + AHR", "KLF1")
    assert found[4:] == ["KLF1", "AHR", "KLF1"]
    assert is_control == [True] * 4 + [False] * 3
    assert counts == {
        "labels that name a control beside a gene": 2,
        "labels that write a control's in another case": 2,
    }


def test_a_control_may_have_several_labels_numbers_and_bytes():
    assert read("NT", "scramble", "A+nt", control=["NT", "Scramble"])[:2] == (
        ["NT", "scramble", "A"],
        [True, True, False],
    )
    assert read(0, 1, 2, control=0)[:2] == (["0", "1", "2"], [True, False, False])
    assert read(0.0, 1.0, control="0")[:2] == (["0", "1"], [True, False])
    assert read(b"ctrl", b"A", "b'B'", 'b"C"')[0] == ["ctrl", "A", "B", "C"]
    assert read("none", "A", control="none")[1] == [True, False]  # what some call their controls
    assert label_texts(np.array(["A", None, np.nan, " "], dtype=object)).tolist() == ["A", "", "", ""]


def test_labels_that_name_no_perturbation_are_refused_all_at_once():
    with pytest.raises(InputError) as refused:
        read("ctrl", "nan", "KLF1", "KLF1+KLF1", None, "klf1+KLF1+ctrl", "2-Sep", "None")
    assert str(refused.value) == (
        "cells: 3 sample(s) with no perturbation label, '', 'None', 'nan': 'c1', 'c4', 'c7'; "
        "1 sample(s) with what a spreadsheet made of a gene's name (SEPTIN2, MARCHF1, ...), '2-Sep': 'c6'; "
        "2 sample(s) with a label that names a gene twice, 'KLF1+KLF1', 'klf1+KLF1+ctrl': 'c3', 'c5'; "
        "correct the labels, or drop these samples"
    )


def test_a_request_is_read_as_the_cells_were():
    known, rows = MeasuredGenes(["KLF1", "AHR", "(+)-JQ1", "CD3+"]), np.array(["row 2", "row 3", "row 4", "row 5"])

    def asked(*labels: str) -> list[str]:
        return read_request_labels("list", rows[: len(labels)], label_texts(list(labels)), known)

    assert asked("klf1 + Ctrl", "klf1|ahr", "(+)-JQ1", "CD3++AHR") == ["KLF1", "AHR+KLF1", "(+)-JQ1", "AHR+CD3+"]
    with pytest.raises(InputError, match="1 sample.s. that perturb nothing: 'row 3'"):
        asked("KLF1", "ctrl")
    with pytest.raises(InputError, match="names a gene twice, 'KLF1.klf1': 'row 2'"):
        asked("KLF1+klf1")
    with pytest.raises(InputError, match="1 sample.s. with no perturbation label, 'nan': 'row 3'"):
        asked("KLF1", "nan")


def test_a_gene_that_is_called_as_a_control_is_asked_for_as_such():
    known = MeasuredGenes(["ctrl", "KLF1"])
    assert read_request_labels("list", np.array(["row 2"]), np.array(["KLF1+ctrl"]), known) == ["KLF1+ctrl"]


def test_a_control_of_training_beside_a_gene_stands_for_nothing_in_a_request_too():
    """'safe+KLF1' was refused as an unknown gene by a model whose controls were called NT1 and safe."""
    known, rows = MeasuredGenes(["KLF1", "AHR"]), np.array(["row 2", "row 3"])
    words = control_words(["NT1", "safe"])
    assert read_request_labels("list", rows, np.array(["Safe+KLF1", "AHR+ctrl"]), known, words) == ["KLF1", "AHR"]
    assert read_request_labels("list", rows[:1], np.array(["safe+KLF1"]), known) == ["KLF1+safe"]
    with pytest.raises(InputError, match="perturb nothing: 'row 2'"):
        read_request_labels("list", rows, np.array(["NT1", "KLF1"]), known, words)
