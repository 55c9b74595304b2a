from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from torchcell.data import main
from torchcell.io.embeddings import convert_embeddings
from torchcell.io.errors import InputError

VECTORS = {"CCO": [0.5, 1.0, -2.0], "C": [1.0, 2.0, 3.0]}
FORMS = {
    "lists": VECTORS,
    "arrays": {name: np.array(row) for name, row in VECTORS.items()},
    "half": {name: np.array(row, dtype=np.float16) for name, row in VECTORS.items()},
    "numbers": {name: [np.float64(value) for value in row] for name, row in VECTORS.items()},
    "rows": {name: np.array([row]) for name, row in VECTORS.items()},
    "fortran": {name: np.asfortranarray(np.array([row]).T) for name, row in VECTORS.items()},
    "tensors": {name: torch.tensor(row) for name, row in VECTORS.items()},
    "table": {"ids": list(VECTORS), "vectors": np.array(list(VECTORS.values()))},
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("form", FORMS)
def test_dictionaries_of_plain_data_become_npz(tmp_path, form, protocol):
    (tmp_path / "in.pkl").write_bytes(pickle.dumps(FORMS[form], protocol=protocol))
    assert convert_embeddings(tmp_path / "in.pkl", tmp_path / "out.npz") == (2, 3)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as held:
        assert held["ids"].tolist() == list(VECTORS)
        np.testing.assert_allclose(held["vectors"], list(VECTORS.values()))
        assert held["vectors"].dtype == np.float32


def test_a_torch_file_is_read_as_weights_only(tmp_path, capsys):
    torch.save(FORMS["tensors"], tmp_path / "in.pt")
    assert main(["convert-embeddings", str(tmp_path / "in.pt"), str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out.splitlines() == ["2 vectors of 3 numbers", str(tmp_path / "out.npz")]


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Nested:
    """Hides the attack in the bytes of a tensor's storage."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return torch.storage._load_from_bytes, (pickle.dumps(Evil(self.mark)),)


@pytest.mark.parametrize("attack", [Evil, Nested])
@pytest.mark.parametrize("ending", [".pkl", ".pt"])
def test_a_malicious_pickle_does_not_run(tmp_path, attack, ending):
    mark = tmp_path / "mark"
    (tmp_path / f"in{ending}").write_bytes(pickle.dumps({"CCO": attack(mark)}))
    with pytest.raises(InputError):
        convert_embeddings(tmp_path / f"in{ending}", tmp_path / "out.npz")
    assert not mark.exists()
    assert not (tmp_path / "out.npz").exists()
    pickle.loads(pickle.dumps(attack(mark))) if attack is Evil else None
    assert mark.exists() == (attack is Evil)  # the attack works where nobody guards


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"CCO": pd.Series([1.0])}, "asks for pandas"),
        ({"CCO": Path("x")}, r"asks for pathlib\.\w+.*not on the list of plain data"),
        ({"CCO": print}, r"asks for builtins\.print"),
        ({"CCO": np.array([1.0, None], dtype=object)}, "'CCO' is a ndarray of object, not a vector"),
        ({"CCO": "text"}, "'CCO' is a str"),
        ({"CCO": [1.0], "C": [1.0, 2.0]}, r"vectors of \[1, 2\] numbers; these differ from the first: 'C'"),
        ({"CCO": [1.0], "C": [np.nan]}, "not finite: 'C'"),
        ({3: [1.0]}, "names that are no text: '3'"),
        ({}, "holds a dict, not a dictionary of name -> vector"),
        ([1.0], "holds a list"),
        ({"ids": ["a", "a"], "vectors": np.ones((2, 2))}, "ids stand twice"),
        ({"ids": ["a"], "vectors": np.ones((2, 2))}, "1 ids and 2 vectors"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused(tmp_path, held, said):
    (tmp_path / "in.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(InputError, match=said):
        convert_embeddings(tmp_path / "in.pkl", tmp_path / "out.npz")


def test_damaged_and_absent_files_are_one_line(tmp_path, capsys):
    (tmp_path / "in.pkl").write_bytes(pickle.dumps(VECTORS)[:-5])
    assert main(["convert-embeddings", str(tmp_path / "in.pkl"), str(tmp_path / "out.npz")]) == 1
    assert "can't be read as a pickle of plain data" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        convert_embeddings(tmp_path / "none.pkl", tmp_path / "out.npz")
    with pytest.raises(InputError, match="must end in .npz"):
        convert_embeddings(tmp_path / "in.pkl", tmp_path / "out.txt")
