"""Checkpoints: a disk that is full, another version's file, a file that carries code."""

from __future__ import annotations

import os
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from outcome import Outcome, judged

from torchcell.io.errors import InputError
from torchcell.training import checkpoint


def full_disk(folder: Path, tries: int = 5) -> Outcome:
    """The kernel stops the write within the file, each time at another size; the one before it must stay."""
    path, writer = folder / "last.ckpt", checkpoint.AtomicCheckpointIO()
    state = {"epoch": 1, "weights": torch.arange(100_000.0)}
    writer.save_checkpoint(state, path)
    good, told = path.read_bytes(), []
    for number in range(tries):
        with no_file_above(len(good) * (number + 1) // (tries + 1)):
            told.append(refusal(lambda: writer.save_checkpoint(state | {"epoch": 2}, path)))
    checks = {
        "the last good one changed": path.read_bytes() == good,
        "a half file stayed": not list(folder.glob(".*.part*")),
        "the message does not say what to do": all("Make room" in text and "is whole" in text for text in told),
    }
    return judged("disk full while a checkpoint is written", tries, "the epochs since the last checkpoint", checks)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the kernel refuse to make any file of this process larger than ``size`` bytes, as a quota does."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def other_version(good: Path, folder: Path) -> Outcome:
    """A newer format, an older one that lacks parts, a model and an argument that this version does not have.

    Args:
        good: A checkpoint of this version.
        folder: To write to.
    """

    def config(about: dict[str, Any], key: str, value: Any) -> None:
        cfg = OmegaConf.create(about["config"])
        OmegaConf.update(cfg, key, value, force_add=True)
        about["config"] = OmegaConf.to_yaml(cfg)

    def older(about: dict[str, Any]) -> None:
        about["format"] = 1
        del about["spec"]

    told = [
        refusal(lambda: checkpoint.load(edited(good, folder, lambda about: about.update(format=99, version="9.9")))),
        refusal(lambda: checkpoint.load(edited(good, folder, older))),
        refusal(lambda: checkpoint.load(edited(good, folder, lambda about: about.pop("format")))),
        refusal(
            checkpoint.load(
                edited(good, folder, lambda about: config(about, "model._target_", "torchcell.screen.models.gone.Gone"))
            ).model
        ),
        refusal(checkpoint.load(edited(good, folder, lambda about: config(about, "model.knob_of_later", 3))).model),
    ]
    fine = ["upgrade torchcell" in told[0], *("install that version" in text for text in told[1:3])]
    fine += ["another version" in told[3], "this version's does not" in told[4]]
    checks = {f"file {i}: {text or 'loaded'}": good for i, (text, good) in enumerate(zip(told, fine, strict=True))}
    return judged("a checkpoint of a newer or an older version", len(told), "nothing: it loads or says why not", checks)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.trace,)


def carries_code(good: Path, folder: Path) -> Outcome:
    """Code in the weights, as a plain pickle, as target of the config or behind an interpolation, as a spec's class."""
    trace, path = folder / "trace", folder / "evil.ckpt"
    call = {"_target_": "os.mkdir", "path": str(trace)}

    def in_config(**more: Any) -> Callable[[dict[str, Any]], None]:
        def edit(about: dict[str, Any]) -> None:
            cfg = OmegaConf.to_container(OmegaConf.create(about["config"]))
            assert isinstance(cfg, dict)
            hidden = {"evil": call, "model": cfg["model"] | more}
            about["config"] = OmegaConf.to_yaml(OmegaConf.create(cfg | hidden))

        return edit

    torch.save({"state_dict": Bomb(trace)}, path)
    told = [refusal(lambda: checkpoint.load(path).model())]
    path.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}))
    told.append(refusal(lambda: checkpoint.load(path).model()))
    hiding = [
        in_config(optimizer=call),
        in_config(optimizer="${evil}"),
        in_config(optimizer={"_target_": "torch.optim.Adam", "_partial_": True, "lr": "${oc.env:HOME}"}),
        in_config(_target_="torchcell.io.cache.save_record"),
        in_config(_target_="torchcell.io.sources.os.system"),
    ]
    hiding += [
        lambda about, name=name: about["spec"].update({"class": name})
        for name in ("os.system", "torchcell.io.cache.save_record", "torchcell.io.sources.os.system")
    ]
    for edit in hiding:
        told.append(refusal(lambda edit=edit: checkpoint.load(edited(good, folder, edit)).model()))
    checks = {f"file {i} was not refused": bool(text) for i, text in enumerate(told)}
    checks |= {"code was run": not trace.exists()}
    return judged("a checkpoint that carries code", len(told), "nothing: refused before anything ran", checks)


def edited(good: Path, folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy whose description of itself was changed."""
    content = torch.load(good, weights_only=True)
    edit(content[checkpoint.KEY])
    path = folder / "edited.ckpt"
    torch.save(content, path)
    return path


def refusal(call: Callable[[], Any]) -> str:
    """The words of the ``InputError`` that ``call`` raises; empty where it raises none."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""
