"""Config choices that are not files: splits, experiments, files of a model's folder, and the name of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig


REGISTERED = ("split", "experiment")
"""Groups whose choices are not files."""

SPLITS: dict[str, dict[str, Any]] = {
    "random": {},  # samples at random, duplicates together; never the primary split
    "query_disjoint": {},  # a perturbation is test if any of its genes, in any role, is a held-out query gene
    "gene_disjoint_any": {},  # a perturbation is test if any of its genes is held out
    "gene_disjoint_all": {},  # a perturbation is test if all of its genes are held out; mixed ones are unused
    "held_out_genes": {},  # gene_disjoint_any where that leaves enough genes to test, else random; a line says which
    "unseen_perturbation": {},  # genes are held out in all groups; conditions with genes of several parts are unused
    "combination": {},  # combinations are held out with none, some or all of their genes seen in training
    "condition": {},  # line, drug, dose and time together: replicates stay in one part, other doses do not
    "cold_drug": {},  # a drug is held out on all lines at all doses; told apart by the first block of the InChIKey
    "scaffold": {},  # all drugs of a Murcko scaffold are held out; one without a ring stands alone
    "cold_cell": {},  # a cell line is held out; needs at least as many lines as folds
    "cold_drug_cell": {},  # a held-out drug on a held-out line; where only one is held out: unused
    "edges": {"n_folds": 10},  # edges of each supervised edge type, negatives alike; of 755 CtD edges 603 / 76 / 76
    "file": {"file": "???"},  # a split.parquet of another run, or a table sample_id, part (train, val, test, unused)
}
"""``split=NAME`` -> keys besides ``method``; they overrule ``FOLDS``."""

FOLDS = {"n_folds": 5, "fold": 0, "seed": 0}
"""Test is fold ``fold``, validation the next one; ``seed`` is that of the split, not of the model."""


@functools.cache
def register(tree: Path) -> None:
    """Register these choices with Hydra.

    Args:
        tree: The folder ``conf`` of torchcell.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    # Hydra copies the store for each group that --help lists, which takes 1.4 s. It copies before it chooses, so that
    # entries of the last two functions would be missing from the copy.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    store = ConfigStore.instance().store
    for split, more in SPLITS.items():
        store(group="split", name=split, node={"method": split} | FOLDS | more)
    page: Any = OmegaConf.load(tree / "experiment.yaml")
    for name, entry in page.items():
        store(group="experiment", name=name, node=_experiment(name, entry), package="_global_")
    OmegaConf.register_new_resolver("beside", functools.partial(beside, tree), replace=True)
    OmegaConf.register_new_resolver("variant", functools.partial(_variant, tree), replace=True)
    OmegaConf.register_new_resolver("pair", _pair, replace=True)


def _experiment(name: str, entry: Mapping[str, Any]) -> DictConfig:
    """An experiment as a config of Hydra: its groups as a list of overrides, its dotted keys as values."""
    from omegaconf import OmegaConf

    groups = [{f"override /{group}": choice} for group, choice in entry.items() if "." not in group]
    config = OmegaConf.create({"defaults": ["_self_", *groups], "name": name})
    for key, value in entry.items():
        if "." in key:
            OmegaConf.update(config, key, value)
    return config


def beside(tree: Path, model: str, file: str | None) -> str:
    """The choice ``MODEL/file`` below ``conf/model`` of a model, or else of the nearest model that it starts from.

    ``file`` is ``search``, ``profile``, or a benchmark that the model was tuned on.
    """
    folders = model_folders(tree)
    return f"{_owner(folders, model, file) or model}/{file}"


def model_folders(tree: Path) -> list[Path]:
    """Folders with model files: in torchcell's config tree, and in the user's."""
    return [tree / "model", Path.cwd() / "conf" / "model"]


def lineage(folders: Sequence[Path], model: str) -> dict[str, dict[str, Any]]:
    """A model and those that it starts from, ``defaults: [NAME]`` -> content of their files, unresolved.

    A model that only takes values of another one names its whole path, ``/model/NAME``, and is no variant of it.
    """
    contents: dict[str, dict[str, Any]] = {}
    while model not in contents:
        paths = [path for folder in folders if (path := folder / f"{model}.yaml").is_file()]
        contents[model] = _content(paths[0], paths[0].stat().st_mtime_ns) if paths else {}
        starts = [name.partition("@")[0] for name in contents[model].get("defaults", []) if isinstance(name, str)]
        model = next((name for name in starts if name != "_self_" and not name.startswith("/")), model)
    return contents


@functools.lru_cache(maxsize=64)
def _content(path: Path, changed_ns: int) -> dict[str, Any]:
    """Content of a file; cached, since each composition needs it about ten times, and read again after a change."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return content or {}


def _owner(folders: Sequence[Path], model: str, file: str | None) -> str | None:
    """The nearest model in the lineage whose folder has ``file``."""
    for name in lineage(folders, model):
        if any((folder / name / f"{file}.yaml").is_file() for folder in folders):
            return name
    return None


def _variant(tree: Path, model: str, benchmark: str | None) -> str:
    """The choice of ``hydra/variant`` with the settings of a model beyond those of the model whose tuned settings it
    takes.

    It is set again after the tuned settings, so that a variant has the tuned settings of its base except its own lines.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    folders = model_folders(tree)
    owner = _owner(folders, model, benchmark)
    if owner is None or owner == model:
        return "none"
    files = lineage(folders, model)
    beyond = list(files)[: list(files).index(owner)]
    own = [{key: value for key, value in files[name].items() if key != "defaults"} for name in reversed(beyond)]
    ConfigStore.instance().store(group="hydra/variant", name=model, node=OmegaConf.merge(*own), package="model")
    return model


def _pair(benchmark: str | None, model: str) -> str:
    """The choice of ``hydra/pair`` that names a run ``benchmark_model``; without a benchmark there is none."""
    from hydra.core.config_store import ConfigStore

    if benchmark is None:
        return "none"
    name = f"{benchmark}_{model}"
    ConfigStore.instance().store(group="hydra/pair", name=name, node={"name": name}, package="_global_")
    return name
