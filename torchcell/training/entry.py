"""Start of every Hydra entry point: where the config is, and errors that help."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torchcell.io.command import INTERRUPTED, say_interrupted
from torchcell.io.errors import InputError, near, one_line, readable
from torchcell.io.paths import unwritable
from torchcell.io.progress import say
from torchcell.training.choices import REGISTERED, register
from torchcell.training.renamed import new_names

PRIOR_KEYS = ("model.prior", "model.prior_use", "model.residual", "model.residual.hidden", "model.residual.dropout")
"""Taken by every model, and in the config of few, so they may be added: ``fit_prior`` says which data take none."""
TRAINING = ("config", "profile")
"""Configs with a model to train."""


def conf_dir() -> Path:
    """The config tree, inside an installed package or at the root of a checkout; Hydra knows its further choices."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    tree = inside if inside.is_dir() else package.parent / "conf"
    register(tree)
    return tree


def run_entry(task: Callable[..., Any], config_name: str) -> None:
    """Compose the config from the command line and call ``task`` with it; leave with 1 on failure.

    A folder ``conf`` in the working directory is searched too. Bad input is answered in one line;
    any other failure in one line before its traceback.
    """
    import hydra

    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back to us rather than ending in Hydra's own words
    _find_folders()
    failed: list[Exception] = []
    runs: list[str] = []

    @functools.wraps(task)
    def keeping_failures(cfg: Any) -> Any:
        """What fails is kept from Hydra, which would print a line of its own before ours."""
        say(loading(cfg, config_name))  # before the imports, which take seconds, on a busy machine half a minute
        try:
            refuse_missing(cfg)
            from torchcell.training.memory import memory_explained

            with memory_explained(cfg, command=config_name):
                return task(cfg)
        except Exception as error:
            if _returns_to_a_launcher():  # which hands the error on to a search or another process
                raise
            failed.append(error)
            if run := _run_of_many():  # the other runs may still do well
                runs.append(run)
                _say_error(error, config_name, sys.argv[1:], wants_traceback, f"{run}: ")
            return None

    prefer_own_choices()
    warnings.showwarning = _in_one_line(warnings.showwarning)
    sys.argv[1:] = [as_text(argument) for argument in sys.argv[1:]]
    if config_name in TRAINING:
        sys.argv[1:] = [f"++{one}" if one.partition("=")[0] in PRIOR_KEYS else one for one in sys.argv[1:]]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(keeping_failures)()
        if runs:
            which = ", ".join(run.partition(" (")[0] for run in runs)
            print(
                readable(f"error: {len(runs)} run(s) failed, see above: {which}; the others are done"), file=sys.stderr
            )
            sys.exit(1)
        if failed:
            raise failed[0]
    except KeyboardInterrupt:
        sys.exit(say_interrupted())
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt) and ended.code != INTERRUPTED:  # by the trainer, in silence
            sys.exit(say_interrupted())
        raise
    except Exception as failure:
        _say_error(failed[0] if failed else failure, config_name, sys.argv[1:], wants_traceback)
        sys.exit(1)


def _find_folders() -> None:
    """Make the folders of data absolute, and let Hydra search a folder ``conf`` here."""
    for variable in ("TORCHCELL_MIRROR", "TORCHCELL_DATA"):
        if os.environ.get(variable):
            os.environ[variable] = str(Path(os.environ[variable]).resolve())
    own = Path.cwd() / "conf"
    if own.is_dir() and own.resolve() != conf_dir() and "--config-dir" not in sys.argv:
        sys.argv += ["--config-dir", str(own)]


def _say_error(
    error: Exception, config_name: str, arguments: list[str], wants_traceback: bool, which: str = ""
) -> None:
    """Print the one line, and where it is not plain what was wrong, the traceback."""
    if not is_plain(error) and (odd := odd_values(config_name, arguments)):
        error = InputError("; ".join(odd))
    print(readable(f"error: {readable(which + explain(error, config_name, arguments))}"), file=sys.stderr)
    if wants_traceback or not is_plain(error):
        print(readable("".join(traceback.format_exception(error))), file=sys.stderr)


def _in_one_line(show: Callable[..., None]) -> Callable[..., None]:
    """What torchcell itself warns of is a note for the user; who warned is none of it."""

    def shown(message: Warning | str, category: type[Warning], filename: str, *more: Any, **rest: Any) -> None:
        if category is UserWarning and Path(filename).is_relative_to(Path(__file__).resolve().parents[1]):
            print(one_line(f"note: {message}"), file=sys.stderr)
        else:
            show(message, category, filename, *more, **rest)

    return shown


def odd_values(config_name: str, arguments: list[str]) -> list[str]:
    """Overrides that give a text where the default is a number or a truth value: the likely cause of a failure."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    given = [argument for argument in arguments if "=" in argument and not argument.startswith(("-", "+", "~"))]
    found = []
    for argument in given:
        (override,) = OverridesParser.create().parse_overrides([argument])
        key, value = override.key_or_group, override.value()
        if not isinstance(value, str):
            continue
        plain = _composed(
            config_name, [other for other in arguments if other != argument and not other.startswith("-")]
        )
        default = OmegaConf.select(plain, key, throw_on_missing=False)
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        if type(default) in kinds:
            found.append(f"{key}={value}: it must be {kinds[type(default)]}, as its default {default} is")
    return found


def as_text(argument: str) -> str:
    """An override whose value is meant as text though Hydra would take it for a number, in quotes: any ``name``, and
    digits in groups that are no thousands, such as ``2024_11_29``.
    """
    key, equals, value = argument.partition("=")
    number = re.fullmatch(r"[+-]?[0-9][0-9._eE+-]*", value)
    grouped = re.fullmatch(r"\d+(_\d+)+", value) and not re.fullmatch(r"\d{1,3}(_\d{3})+", value)
    return f"{key}={value!r}" if equals and (grouped or (key == "name" and number)) else argument


def refuse_missing(cfg: Any) -> None:
    """Name all keys that the command line must give.

    Raises:
        InputError: Keys without a value.
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"these keys have no value yet: give {' '.join(f'{key}=...' for key in missing)}; see --help")


def loading(cfg: Any, config_name: str) -> str:
    """The first line of a command: that it has begun, and with what."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = spec.name if spec is not None else f"torchcell ({config_name})"
    what = f"{cfg.name}, seed {cfg.seed}: " if "name" in cfg and "seed" in cfg else ""
    return f"{program}: {what}loading ..."


def prefer_own_choices() -> None:
    """Let ``conf/hydra/sweeper/optuna.yaml`` be the choice of that name.

    An earlier version installed hydra-optuna-sweeper, which registers choices of the same names; Hydra would hold its
    schema against our file and refuse it.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # loads the plugins, which register their choices; ours come after that one
    ConfigStore.instance().repo["hydra"]["sweeper"].pop("optuna.yaml", None)


def _run_of_many() -> str:
    """Which run of a multirun this is, or was the last; empty outside one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not (HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN):
        return ""
    job = HydraConfig.get().job
    return f"run {job.num} ({', '.join(HydraConfig.get().overrides.task)})"


def _returns_to_a_launcher() -> bool:
    """Whether a search or another process waits for the error of this run; Hydra's own launcher only prints it."""
    from hydra.core.hydra_config import HydraConfig

    if not _run_of_many():
        return False
    rooms = HydraConfig.get().sweeper, HydraConfig.get().launcher
    return any("hydra._internal.core_plugins" not in str(room["_target_"]) for room in rooms)


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str:
    """Say in one line what went wrong, with the nearest valid names where a name was wrong."""
    import hydra.errors

    if isinstance(error, hydra.errors.MissingConfigException) and error.missing_cfg_file:
        asked = str(error.missing_cfg_file)
        group, _, name = asked.rpartition("/")
        if group.startswith("hydra/"):
            return (
                f"no {group} {name!r}: install the plugins of clusters and searches by pip install 'torchcell[cluster]'"
            )
        valid = list(error.options or [])
        return f"no {group or 'config'} {name!r}; the nearest are {near(name, valid) or sorted(valid)}"
    for cause in _chain(error):
        if isinstance(cause, hydra.errors.OverrideParseException):
            return _explain_syntax(cause.override)
    if isinstance(error, hydra.errors.ConfigCompositionException):
        return _explain_override(error, config_name, arguments)
    for cause in _chain(error):
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, OSError) and (said := unwritable(cause)):
            return said
    speaking = [cause for cause in _chain(error) if str(cause)] or [error]
    return f"{type(speaking[-1]).__name__}: {' '.join(str(speaking[-1]).split())}"


def _explain_syntax(override: str) -> str:
    """How to write an override that Hydra can't read."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not of the form key=value; see --help"
    return f"{override!r} can't be read: quote its value, '{key}=\"{value}\"'"


def _explain_override(error: BaseException, config_name: str, arguments: list[str]) -> str:
    """Name the override that fits nothing and the keys and groups most like it."""
    text = " ".join(str(error).split())
    if comma := re.search(r"Ambiguous value for argument '(.*?)' 1\.", text):
        key, _, value = comma[1].partition("=")
        return (
            f"{comma[1]!r} holds a comma: as one text write '{key}=\"{value}\"', as a list '{key}=[{value}]'; -m runs "
            "one value after the other"
        )
    if there := re.search(r"An item is already at '(.*?)'", text):
        return f"{there[1]!r} is in the config already: leave out the + before it"
    unknown = re.search(r"Could not (?:override|delete from config\.|append to config\.) '~?(.*?)'", text)
    if unknown is None:
        return text
    name = unknown[1].partition("@")[0]
    others = [a for a in arguments if a.lstrip("+~").partition("=")[0] != name and not a.startswith("-")]
    valid = _valid_names(config_name, others)
    group, _, key = name.partition(".")
    if key and not any(other.startswith(f"{group}.") for other in valid) and (conf_dir() / group).is_dir():
        choices = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        return f"{name} has no effect without a {group}: choose one, {group}=NAME of {choices}"
    if new := new_names(name, valid):
        return f"{name} is called {' or '.join(new)} since torchcell 0.2: write that"
    hint = near(name, valid) or near(name.rpartition(".")[2], valid)
    return f"no config key or group {name!r}; the nearest are {hint or sorted({v.split('.')[0] for v in valid})}"


def _valid_names(config_name: str, overrides: list[str]) -> list[str]:
    """All dotted keys of the config that the other overrides compose, and all groups."""
    trees = [conf_dir(), Path.cwd() / "conf"]
    groups = [path.name for tree in trees if tree.is_dir() for path in tree.iterdir() if path.is_dir()]
    return [*groups, *REGISTERED, *_keys(_composed(config_name, overrides))]


def composed(config_name: str, overrides: Sequence[str]) -> Any:
    """The config that a command with these overrides would run; a folder ``conf`` here is searched as well.

    Raises:
        InputError: What does not compose, in the words of the commands.
    """
    from hydra.errors import HydraException

    own = Path.cwd() / "conf"
    given = [as_text(override) for override in overrides]
    search = [f"hydra.searchpath=[file://{own}]"] if own.is_dir() and own.resolve() != conf_dir() else []
    prefer_own_choices()
    try:
        return _compose(config_name, [*search, *given])
    except HydraException as error:
        raise InputError(explain(error, config_name, given)) from error


def _composed(config_name: str, overrides: list[str]) -> Any:
    """The config with these overrides, or without any where they don't compose."""
    from hydra.errors import HydraException

    try:
        return _compose(config_name, overrides)
    except HydraException:
        return _compose(config_name, [])


def _compose(config_name: str, overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config_name, overrides)


def _keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    for key in cfg:
        yield f"{prefix}{key}"
        node = None if OmegaConf.is_missing(cfg, key) else cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _keys(node, f"{prefix}{key}.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_plain(error: BaseException) -> bool:
    """Whether the message alone is enough to mend it."""
    from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException

    plain = (InputError, ConfigCompositionException, MissingConfigException, OverrideParseException)
    return any(
        isinstance(cause, plain) or (isinstance(cause, OSError) and bool(unwritable(cause))) for cause in _chain(error)
    )
