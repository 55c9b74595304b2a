"""Files of a new model: a linear model of its task as a start, and its YAML."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path
from string import Template

from torchcell.io.errors import InputError, near
from torchcell.training.choices import model_folders
from torchcell.training.entry import conf_dir

PACKAGE = Path(__file__).parents[1]
TEMPLATES = {path.parent.name: path for path in sorted(PACKAGE.glob("*/new_model.py.txt"))}
"""Template of each task that has one."""
RESERVED = ("true", "false", "null", "none", "nan", "inf")
"""Texts that the command line would not read as a name."""


def new_model(name: str, task: str) -> tuple[Path, Path, str]:
    """Write a linear model of a task: into the checkout, or beside its ``conf`` into the working directory.

    Returns:
        The Python file, the YAML, and the command that trains them.

    Raises:
        InputError: A name that is taken or not allowed, an unknown task, a folder that can't be written.
    """
    tree, here = conf_dir(), Path.cwd()
    if task not in TEMPLATES:
        hint = f"did you mean {near(task, list(TEMPLATES))[0]}? Choose" if near(task, list(TEMPLATES)) else "choose"
        raise InputError(f"no task {task!r}; {hint} one of {', '.join(TEMPLATES)}")
    text, class_name = TEMPLATES[task].read_text(), "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    sound = name.isidentifier() and name.isascii() and class_name.isidentifier() and name.lower() not in RESERVED
    if not sound or keyword.iskeyword(name):
        raise InputError(f"{name!r} can't name a model: use lower-case letters, digits and _, e.g. linear_{task}")
    if keyword.iskeyword(class_name) or re.search(rf"\b{class_name}\b", text):
        raise InputError(f"{name!r}: the class would be {class_name}, a name that its file uses; try my_{name}")
    in_checkout = tree.parent != PACKAGE and here.is_relative_to(tree.parent)
    folder, package = (PACKAGE / task / "models", f"torchcell.{task}.models.") if in_checkout else (here, "")
    code, knobs = folder / f"{name}.py", (tree if in_checkout else here / "conf") / "model" / f"{name}.yaml"
    places = [folder, *model_folders(tree)]
    candidates = {place / f"{name}{end}" for place in places for end in ("", ".py", ".yaml")}
    taken = sorted(str(path) for path in candidates if path.exists())
    if not in_checkout and not taken and (module := importlib.util.find_spec(name)) is not None:
        taken = [str(module.origin or name)]
    if taken:
        raise InputError(f"{name} is taken: {', '.join(taken)}; choose another name, or remove these")
    words = {"NAME": name, "CLASS": class_name, "TARGET": f"{package}{name}.{class_name}"}
    config = Path(__file__).with_name("new_model.yaml.txt").read_text()
    _write_both({code: Template(text).substitute(words), knobs: Template(config).substitute(words)})
    command = re.search(r"``(python -m torchcell\.train .*)``", code.read_text())
    assert command is not None
    return code, knobs, command[1]


def _write_both(content: dict[Path, str]) -> None:
    """Write all of these new files, or none."""
    written = []
    try:
        for path, text in content.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for file_path in written:
            file_path.unlink()
        raise InputError(f"{path} can't be written ({error.strerror}); nothing was kept") from error
