"""Arrays that are mapped are those that were written, and a damaged file is refused before it is mapped."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io import cache
from torchcell.io.cache import mapped_arrays, read_arrays, write_arrays
from torchcell.io.errors import InputError

ARRAYS = {
    "texts": np.array(["a", "Æg", ""]),
    "numbers": np.arange(6.0).reshape(2, 3),
    "small": np.arange(3, dtype=np.int8),
    "none": np.empty((0, 2), dtype=np.float32),
    "plain": np.array('{"a": 1}'),
}


@pytest.fixture(autouse=True)
def own_folder(data_folder) -> None:
    """Facts on files are kept in a folder of the test."""


def test_mapped_arrays_are_those_that_are_read_and_cannot_be_written(tmp_path):
    write_arrays(tmp_path / "a.npz", **ARRAYS)
    mapped, read = mapped_arrays(tmp_path / "a.npz"), read_arrays(tmp_path / "a.npz")
    assert mapped.keys() == read.keys() == ARRAYS.keys()
    for name, values in mapped.items():
        assert (values.dtype, values.shape, type(values)) == (read[name].dtype, read[name].shape, np.ndarray)
        np.testing.assert_array_equal(values, ARRAYS[name])
        assert not values.flags.writeable


def test_a_mapped_file_may_be_replaced(tmp_path):
    write_arrays(tmp_path / "a.npz", **ARRAYS)
    before = mapped_arrays(tmp_path / "a.npz")["numbers"]
    write_arrays(tmp_path / "a.npz", numbers=np.zeros((2, 3)))
    np.testing.assert_array_equal(before, ARRAYS["numbers"])


@pytest.mark.parametrize("at", ["middle", "end"])
def test_what_is_damaged_is_refused(tmp_path, at):
    write_arrays(tmp_path / "a.npz", values=np.zeros(5_000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    if at == "middle":
        content[20_000] ^= 1
    else:
        del content[-30:]
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz is damaged or no file of plain arrays .*; delete it"):
        mapped_arrays(tmp_path / "a.npz")


def test_compressed_members_and_objects_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", values=np.zeros(50))
    np.savez(tmp_path / "evil.npz", values=np.array([{"a": 1}], dtype=object))
    for name in ("small", "evil"):
        with pytest.raises(InputError, match="damaged or no file of plain arrays .*can't be mapped"):
            mapped_arrays(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="no such file"):
        mapped_arrays(tmp_path / "none.npz")


def test_checksums_are_compared_once_for_a_state_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("torchcell.io.file_facts.SETTLED_NS", -1)
    compared, right = [], cache._right_checksums
    monkeypatch.setattr(cache, "_right_checksums", lambda path: compared.append(path) or right(path))
    write_arrays(tmp_path / "a.npz", **ARRAYS)
    for _ in range(2):
        mapped_arrays(tmp_path / "a.npz")
    assert len(compared) == 1
    write_arrays(tmp_path / "a.npz", **ARRAYS)
    mapped_arrays(tmp_path / "a.npz")
    assert len(compared) == 2
