"""Values that somebody sent are numbers that a model was trained to, and caches that others write to are not believed."""

from __future__ import annotations

import codecs
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from attacks import Config, edited_checkpoint
from test_configs_of_others import nothing

from torchcell.io import paths
from torchcell.io.cache import read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.hetero_data import read_hetero_data
from torchcell.io.tables import formulas, write_table
from torchcell.training import baselines, checkpoint


def changed(run: Path, folder: Path, change: Any) -> Path:
    path = edited_checkpoint(run, folder, nothing, folder / "marker")
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def spoil_weights(content: dict[str, Any]) -> None:
    next(value for value in content["state_dict"].values() if value.is_floating_point())[:1] = float("nan")


def spoil_scale(content: dict[str, Any]) -> None:
    content["torchcell"]["spec"]["scale"][:] = float("inf")


def drop_format(content: dict[str, Any]) -> None:
    del content["torchcell"]["format"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil_weights, "weights of .* are not finite: '.*'"),
        (spoil_scale, "center or scale is not finite"),
        (drop_format, "in format None, and this version reads format 3 only"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "embed"])
def test_a_checkpoint_that_can_answer_no_number_is_refused(change, said, verb, verbs, finished, tmp_path, monkeypatch):
    path = changed(finished, tmp_path / "run", change)
    with pytest.raises(InputError, match=said):
        verbs[verb](path)
    if change is drop_format:
        monkeypatch.setattr(checkpoint, "FORMAT", None)
    else:
        monkeypatch.setattr(checkpoint.torch.Tensor, "isfinite", lambda one: checkpoint.torch.ones_like(one).bool())
        monkeypatch.setattr(checkpoint.torch, "isfinite", lambda one: checkpoint.torch.ones_like(one).bool())
    if verb == "predict":
        numbers = verbs[verb](path).select_dtypes("number").to_numpy()
        assert np.isfinite(numbers).all() == (change is drop_format), "the payload is stale"


def without_dropout(config: Config, marker: Path) -> None:
    del config["model"]["readout"]["dropout"]


def test_an_argument_that_was_taken_out_is_named_and_a_default_that_changed_too(verbs, finished, tmp_path, monkeypatch):
    path = edited_checkpoint(finished, tmp_path / "gone", without_dropout, tmp_path / "marker")
    with pytest.raises(InputError, match="taken out 'readout.dropout', defaults that changed none"):
        verbs["predict"](path)

    def older(content: dict[str, Any]) -> None:
        content["torchcell"]["config"] = content["torchcell"]["config"].replace("    dropout: 0.0\n", "")
        content["torchcell"]["arguments"]["readout.dropout"] = "0.5"
        content["torchcell"]["arguments"].pop("readout.heads")

    with pytest.raises(
        InputError, match=r"taken out none, defaults that changed 'readout.dropout \(0.5 then, 0.0 now\)'"
    ):
        verbs["predict"](changed(finished, tmp_path / "older", older))

    def before(content: dict[str, Any]) -> None:
        del content["torchcell"]["arguments"]

    verbs["predict"](changed(finished, tmp_path / "before", before))
    monkeypatch.setattr(checkpoint.Checkpoint, "_check_arguments", lambda *_: None)
    verbs["predict"](path)  # by the default: the payload is stale else


def test_cells_that_a_spreadsheet_would_run_are_named_and_stay_as_they_are(tmp_path):
    table = pd.DataFrame({"id": ["=1+1", "+cmd", "-1.5", "b"], "@x": [-1.0, 2.0, 3.0, 4.0]})
    assert formulas(table) == ["+cmd", "=1+1", "@x"]
    with pytest.warns(UserWarning, match=r"3 cell\(s\) of text begin as a formula: '\+cmd', '=1\+1', '@x'.*as text"):
        write_table(table, tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv").equals(pd.read_csv(tmp_path / "a.csv").assign(id=table["id"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_table(table, tmp_path / "a.parquet")
        write_table(table.iloc[2:].drop(columns="@x"), tmp_path / "b.csv")


def test_a_cache_that_others_write_to_changes_no_verdict(verbs, finished, tmp_path, monkeypatch):
    """A rewritten fit in a shared folder was believed, and changed the line of the verdict."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    monkeypatch.setenv("TORCHCELL_DATA", str(shared))
    monkeypatch.setattr(paths, "_user_cache", lambda: str(own))
    shared.mkdir()

    def scored() -> tuple[dict[str, float], dict[str, str]]:
        folder = verbs["evaluate"](finished / "checkpoints" / "best.ckpt").files[0].parent
        table = pd.read_csv(folder / "metrics.csv")
        mean = table[(table["system"] == "mean") & table["metric"].str.endswith("rmse")]
        return dict(zip(mean["metric"], mean["value"], strict=True)), json.loads((folder / "metrics.json").read_text())[
            "content"
        ]

    before, content = scored()
    (made,) = (shared / "baselines").glob("mean-*.npz")
    write_arrays(made, **{name: np.full_like(value, 1e3) for name, value in read_arrays(made).items()})
    believed, other = scored()
    assert believed != before, "the payload is stale"
    assert {name for name in content if content[name] != other[name]} == {"system mean"}, "the hash tells"
    shared.chmod(0o775)
    assert paths.own_home() == own
    shared.chmod(0o777)
    assert scored() == (before, content)
    assert list((own / "baselines").glob("mean-*.npz"))


def test_what_we_make_is_ours_whatever_the_umask(tmp_path, monkeypatch):
    import os

    before = os.umask(0)
    try:
        paths.make_own(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
    assert baselines.cache_file("fitted", "mean", "x").name.startswith("mean-")


class Doubled:
    """A text that doubles each time it is encoded; 33 times make 8 GB."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __reduce__(self):
        return codecs.encode, (Doubled(self.times - 1) if self.times else b"a", "hex")


class Zeros:
    """Memory without content: the number alone says how much."""

    def __reduce__(self):
        return bytearray, (2**20,)


@pytest.mark.parametrize("payload", [Doubled(20), Zeros()], ids=["doubled", "zeros"])
def test_a_checkpoint_makes_nothing_out_of_numbers(payload, finished, tmp_path):
    path = changed(finished, tmp_path / "run", lambda content: content.update(more=payload))
    with pytest.raises(InputError, match="holds a pickled object, which is never loaded"):
        checkpoint.load(path)
    assert len(torch.load(path, weights_only=True)["more"]) >= 2**20, "the payload is stale"
    (tmp_path / "graph.pt").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="holds a pickled object, which is never loaded"):
        read_hetero_data(tmp_path / "graph.pt")


def test_a_pickle_before_the_zip_is_not_read(finished, tmp_path):
    """Torch reads from the first byte on, and other readers of zip from the last."""
    path = tmp_path / "both.ckpt"
    torch.save({"more": Zeros()}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + (finished / "checkpoints" / "best.ckpt").read_bytes())
    with pytest.raises(InputError, match="no zip from its first byte on"):
        checkpoint.load(path)
    assert len(torch.load(path, weights_only=True)["more"]) == 2**20, "the payload is stale"
