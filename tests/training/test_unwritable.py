"""A cache that can't be written costs time, an output that can't be written is refused before the work."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from torchcell.collect import main as collect
from torchcell.evaluate import evaluate
from torchcell.io import cache
from torchcell.io import cache as arrays
from torchcell.io import paths as homes
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.file_facts import remembered
from torchcell.io.paths import refuse_unwritable
from torchcell.predict import predict
from torchcell.train import train
from torchcell.training.entry import conf_dir, explain, is_plain
from torchcell.training.lock import FolderLock


@pytest.fixture
def closed(tmp_path) -> Path:
    """A place below which nothing can be made, by root neither: a file stands where a folder would have to be."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


@pytest.fixture(autouse=True)
def _first_word():
    homes._say.cache_clear()
    yield
    homes._say.cache_clear()


def composed(verb: str, *overrides: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, list(overrides))


def test_what_a_cache_can_not_keep_goes_on_in_memory_with_one_warning(closed, monkeypatch, caplog):
    monkeypatch.setenv("TORCHCELL_DATA", str(closed))
    content = {"x": np.arange(3)}
    for name in ("a", "b"):
        found = kept(closed / "parsed" / f"{name}.npz", read_arrays, lambda: content, lambda *_: pytest.fail("written"))
        assert found is content
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{closed} can't be written (Not a directory)" in said
    assert "TORCHCELL_DATA" in said


def test_a_disk_that_fills_while_the_cache_is_written_costs_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path))
    content, path = {"x": np.arange(3)}, tmp_path / "parsed" / "a.npz"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(arrays.np, "savez", full)
        assert kept(path, read_arrays, lambda: content, lambda file, made: write_arrays(file, **made)) is content
    assert "No space left on device" in caplog.text
    assert [one.name for one in path.parent.iterdir()] == ["a.npz.lock"]
    found = kept(path, read_arrays, lambda: content, lambda file, made: write_arrays(file, **made))
    assert found["x"].tolist() == [0, 1, 2]
    assert path.is_file()


def test_what_is_wrong_with_the_source_is_no_matter_of_the_cache(tmp_path):
    def gone() -> dict:
        raise FileNotFoundError("the source")

    with pytest.raises(FileNotFoundError, match="the source"):
        kept(tmp_path / "a.npz", read_arrays, gone, lambda *_: None)


def test_facts_of_files_are_found_again_where_they_can_not_be_kept(closed, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(closed))
    monkeypatch.setattr("torchcell.io.file_facts.SETTLED_NS", 0)
    (tmp_path / "data").write_text("x")
    assert remembered(tmp_path / "data", "what", lambda: "found") == "found"


def test_a_run_needs_no_cache(closed, tmp_path, monkeypatch):
    """It ended in a traceback without metrics after the whole training."""
    monkeypatch.setenv("TORCHCELL_DATA", str(closed))
    small = (
        "+experiment=kuzmin2018_dango", "data.subset=300", "trainer.max_epochs=1", "logger=csv", "evaluation.n_boot=10",
        "baselines.gradient_boosting=null", "baselines.embedding_sum_mlp=null", f"paths.runs={tmp_path}/runs",
    )  # fmt: skip
    trained = train(composed("config", *small))
    assert trained.scored is not None
    assert (trained.folder.path / "report.html").is_file()


@pytest.mark.parametrize("where", ["paths.runs", "out"])
def test_a_folder_that_can_not_be_made_is_refused_in_one_line(closed, where):
    if where == "paths.runs":
        with pytest.raises(InputError, match=f"{closed}/simulated_cell/.* can't be written: a file is in its way"):
            train(composed("config", f"paths.runs={closed}"))
    else:
        with pytest.raises(InputError, match=f"{closed} can't be written: a file is in its way"):
            FolderLock(closed)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "cell_eval", "embed", "profile", "collect", "import-gct"])
def test_every_verb_asks_before_its_work_whether_its_output_can_be_written(closed, verb, capsys, tmp_path):
    """The checkpoint that they name is not there: the output is looked at first."""
    from torchcell.data import main as data
    from torchcell.embed import embed
    from torchcell.profile import profile

    said = f"can't be written: {closed.parent}: Not a directory"
    out = closed / {"predict": "x.csv", "embed": "x.h5ad"}.get(verb, "x")
    if verb in ("collect", "import-gct"):
        arguments = {
            "collect": lambda: collect([str(tmp_path), "-o", str(closed / "x.csv")]),
            "import-gct": lambda: data(["import-gct", "no.gct", str(closed / "x.h5ad")]),
        }
        assert arguments[verb]() == 1
        assert said in capsys.readouterr().err
        return
    key = {"cell_eval": "cell_eval_out", "profile": "profile.out"}.get(verb, "out")
    ckpt = () if verb == "profile" else ("ckpt=no.ckpt",)
    run = {"predict": predict, "evaluate": evaluate, "cell_eval": evaluate, "embed": embed, "profile": profile}[verb]
    more = ("perturbations=pairs.csv",) if verb == "predict" else ()
    with pytest.raises(InputError, match=f"{key}={out} {said}"):
        run(composed("evaluate" if verb == "cell_eval" else verb, *ckpt, f"{key}={out}", *more))


def test_asking_leaves_nothing_behind(tmp_path):
    refuse_unwritable(tmp_path / "new" / "folder" / "x.csv", "out")
    refuse_unwritable("x.csv", "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_at_the_end_is_one_line_too(tmp_path, monkeypatch):
    with pytest.raises(OSError) as failed, cache.atomic_write(tmp_path / "x.csv") as temporary:  # noqa: PT011
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
    assert is_plain(failed.value)
    said = explain(failed.value, "predict", [])
    assert "can't be written: No space left on device; " in said
    assert "x.csv was not written; what stood there before is unchanged" in said
    assert not is_plain(FileNotFoundError(errno.ENOENT, "No such file", "x"))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "can't be written: No space left on device; make room there"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EROFS, "can't be written: Read-only file system; name a folder that you may write to"),
        (errno.EACCES, "can't be read or written: Permission denied; name a folder"),
        (errno.ENAMETOOLONG, "a name has at most 255 bytes: choose a shorter one"),
    ],
)
def test_the_advice_fits_the_case(number, said):
    error = OSError(number, os.strerror(number), "x.csv")
    assert is_plain(error)
    assert said in explain(error, "predict", [])
    assert "ckpt_path" not in explain(error, "predict", [])


def test_no_way_to_go_on_is_named_where_there_is_none(tmp_path, monkeypatch):
    """The first checkpoint met a full disk, and the advice was ``ckpt_path=last``, which then refused."""
    from torchcell.training import checkpoint
    from torchcell.training.distributed.processes import GO_ON

    def failing(number: int):
        def save(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return save

    for number, advice in ((errno.ENOSPC, "Make room"), (errno.EROFS, "Name a folder that you may write to")):
        monkeypatch.setattr(checkpoint.torch, "save", failing(number))
        with pytest.raises(InputError, match=f"there is none before it. {advice}.*ckpt_path=auto") as said:
            checkpoint.AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
        assert "ckpt_path=last" not in str(said.value)
    assert "ckpt_path=auto" in GO_ON


LONG = "n" * 300


@pytest.mark.parametrize(
    "verb", ["train", "predict", "evaluate", "embed", "profile", "collect", "import-gct", "validate"]
)
def test_a_name_of_300_letters_is_one_line(verb, tmp_path, monkeypatch, capsys):
    from torchcell.data import main as data
    from torchcell.embed import embed
    from torchcell.knowledge_graph.embed import main as validate
    from torchcell.profile import profile

    monkeypatch.chdir(tmp_path)
    plain = {
        "collect": lambda: collect([".", "-o", f"{LONG}.csv"]),
        "import-gct": lambda: data(["import-gct", "no.gct", f"{LONG}.h5ad"]),
        "validate": lambda: validate(["no.csv", "--out", f"{LONG}.html"]),
    }
    if verb in plain:
        assert plain[verb]() == 1
        said = capsys.readouterr().err
    else:
        of = {"train": (train, "config", [f"name={LONG}"]), "profile": (profile, "profile", [f"profile.out={LONG}"])}
        of["predict"] = (predict, "predict", ["ckpt=no", f"out={LONG}.csv", "perturbations=x.csv"])
        of["evaluate"] = (evaluate, "evaluate", ["ckpt=no", f"out={LONG}"])
        of["embed"] = (embed, "embed", ["ckpt=no", f"out={LONG}.h5ad"])
        run, name, overrides = of[verb]
        with pytest.raises((InputError, OSError)) as failed:
            run(composed(name, *overrides))
        assert is_plain(failed.value)
        said = explain(failed.value, name, [])
    assert "File name too long" in said
    assert "choose a shorter one" in said


def test_a_cache_of_another_user_is_not_believed_nor_written(tmp_path, monkeypatch, caplog):
    """As after ``sudo``, which keeps HOME: what stood there was believed, by root."""
    anothers, shared = tmp_path / "home", tmp_path / "shared"
    for folder in (anothers, shared):
        folder.mkdir()
    monkeypatch.setenv("TORCHCELL_DATA", str(shared))
    monkeypatch.setattr(homes, "_user_cache", lambda: str(anothers))
    assert homes.own_home() == shared
    owner = os.getuid()
    monkeypatch.setattr(homes.os, "getuid", lambda: owner + 1)
    homes._passing_home.cache_clear()
    home = homes.own_home()
    assert home not in (anothers, shared)
    assert home == homes.own_home(), "the same within a process"
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{anothers} can't be written (it is another user's): nothing is kept" in said
    homes._passing_home.cache_clear()
    home.rmdir()
