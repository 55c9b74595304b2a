"""``Split``: a hashed table that says which samples are for train, validation and test; assignment to folds."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from torchcell.io.errors import InputError, some
from torchcell.io.file_facts import known_by
from torchcell.io.fingerprint import may_repeat, text_hashes
from torchcell.io.paths import located
from torchcell.io.tables import plain_parquet, read_table, require_columns, text_column
from torchcell.io.text_arrays import arrow_texts, sorted_lines_hash


def assign_folds(names: np.ndarray, n_folds: int, fold: int, seed: int) -> dict[str, str]:
    """Assign distinct ``names`` to parts by a seeded shuffle of their sorted order.

    Returns:
        name -> ``test`` for fold ``fold``, ``val`` for the next, else ``train``.
    """
    names = np.unique(names)
    return dict(zip(map(str, names.tolist()), parts_of_keys(names, n_folds, fold, seed).tolist(), strict=True))


def parts_of_keys(keys: np.ndarray, n_folds: int, fold: int, seed: int) -> np.ndarray:
    """The same for keys [n] that may stand several times, texts or numbers: the part of each [n]."""
    distinct, number = np.unique(keys, return_inverse=True)
    part = np.full(n_folds, "train")
    part[fold], part[(fold + 1) % n_folds] = "test", "val"
    part_of = np.empty(len(distinct), dtype=part.dtype)
    part_of[np.random.default_rng(seed).permutation(len(distinct))] = part[np.arange(len(distinct)) % n_folds]
    return part_of[number]


def padded(clusters: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Names of each sample's clusters [n, K], padded by empty texts; [n] where every sample has one cluster.

    Args:
        clusters: Names of each sample's clusters; they are sorted here, so that their order plays no part.
    """
    sizes = np.array([len(names) for names in clusters], dtype=np.int64)
    return padded_rows(np.array([name for names in clusters for name in names], dtype=str), sizes)


def padded_rows(names: np.ndarray, sizes: np.ndarray, number: np.ndarray | None = None) -> np.ndarray:
    """The same for names that stand in a row.

    Args:
        names: Of the clusters of all samples one after the other [M]; with ``number`` those that it refers to [N].
        sizes: How many clusters each sample has [n].
        number: Of each name [M].
    """
    names, place = np.unique(names, return_inverse=True)
    number = place if number is None else place[number]
    table = np.full((len(sizes), max(sizes.max(initial=0), 1)), len(names), dtype=np.int32)
    table[np.arange(table.shape[1]) < sizes[:, None]] = number
    table.sort(axis=1)
    texts = np.append(names, "").astype(names.dtype).take(table)
    return texts[:, 0] if table.shape[1] == 1 else texts


PARTS = ("train", "val", "test", "unused")
OPTIONAL = {"name": "file", "assignment_hash": "", "data_fingerprint": ""}
"""Attributes that the metadata of a file may lack, and their values then."""


@dataclass(frozen=True, eq=False)
class Split:
    """A table sample id -> part.

    Attributes:
        sample_id: Unique sample names [n].
        part: One of ``PARTS`` for each [n].
        group: The cluster of each sample that the bootstrap resamples, e.g. its query gene [n]; where samples have
            several clusters all of them, padded by empty texts [n, K].
        method: Method of the assignment.
        seed: Of that method.
        key: What the clusters are, e.g. ``query gene``.
        name: Method, fold, number of folds and seed in one word; or ``file``.
        assignment_hash: Hash of the whole assignment that these samples were taken from, the same for every choice of
            cell lines; empty: these are all samples.
        n_folds: Number of folds, which together test every cluster; 0: there are no folds.
        data_fingerprint: Of the data that the split was made for, see ``torchcell.io.fingerprint``; empty: unknown.
    """

    sample_id: np.ndarray
    part: np.ndarray
    group: np.ndarray
    method: str
    seed: int
    key: str
    name: str = ""
    assignment_hash: str = ""
    n_folds: int = 0
    data_fingerprint: str = ""

    @cached_property
    def hash(self) -> str:
        """sha256 over the sorted ids with their parts, whatever the order of the rows."""
        return sorted_lines_hash(self.sample_id, self.part)

    def index(self, part: str) -> np.ndarray:
        """Positions of the samples in ``part``, int64."""
        if part not in PARTS:
            raise InputError(f"no part {part!r}; the parts are {PARTS}")
        return np.flatnonzero(self.part == part)

    def counts(self) -> dict[str, int]:
        """Samples per part."""
        return {part: int((self.part == part).sum()) for part in PARTS}

    def validate(self, sample_id: Sequence[str] | np.ndarray, duplicates: np.ndarray | None = None) -> Split:
        """Return self, or raise one error if the split does not fit the samples it is used with.

        Args:
            sample_id: Ids of the record; the split must name each of them once, and no other.
            duplicates: A key per sample of the record; samples with the same key are the same measurement and must be
                in one part.
        """
        if may_repeat(text_hashes(self.sample_id)):
            unique, counts = np.unique(self.sample_id, return_counts=True)
            if (counts > 1).any():
                raise InputError(f"the split names samples more than once: {some(unique[counts > 1])}")
        known = np.logical_or.reduce([self.part == part for part in PARTS])
        if not known.all():
            odd = np.unique(self.part[~known]).tolist()
            raise InputError(f"the split has parts {some(odd)}; they must be among {PARTS}")
        if not np.array_equal(self.sample_id, sample_id):
            self._refuse_other_samples(np.asarray(sample_id))
        empty = [part for part in PARTS[:3] if not (self.part == part).any()]
        if empty:
            raise InputError(f"the split leaves {some(empty)} empty ({self.counts()}); use other folds or more data")
        if duplicates is not None:
            self._refuse_separated(np.asarray(sample_id), duplicates)
        return self

    def _refuse_other_samples(self, sample_id: np.ndarray) -> None:
        named, expected = set(self.sample_id.tolist()), set(sample_id.tolist())
        missing, extra = expected - named, named - expected
        if missing or extra:
            raise InputError(
                f"the split does not fit the data: {len(missing)} sample(s) without a part: "
                f"{some(sorted(missing))}; {len(extra)} unknown sample(s): {some(sorted(extra))}. "
                "Use the split of the same data, or make a new one"
            )

    def _refuse_separated(self, sample_id: np.ndarray, duplicates: np.ndarray) -> None:
        part = self.aligned(sample_id).part
        if not may_repeat(duplicates if duplicates.dtype.kind in "iu" else text_hashes(duplicates)):
            return
        used = np.flatnonzero(part != "unused")
        key = pd.factorize(duplicates[used])[0]
        first = part[used][np.unique(key, return_index=True)[1]]
        spread = np.isin(key, key[part[used] != first[key]])
        if spread.any():
            raise InputError(
                f"leak: {int(spread.sum())} samples have a duplicate (the same perturbation) in another part: "
                f"{some(sample_id[used][spread])}; put duplicates in one part, or merge them"
            )

    def aligned(self, sample_id: Sequence[str] | np.ndarray) -> Split:
        """The same split with its rows in the order of ``sample_id``."""
        if np.array_equal(self.sample_id, sample_id):
            return self
        position = {name: i for i, name in enumerate(self.sample_id.tolist())}
        order = np.array([position[name] for name in np.asarray(sample_id).tolist()], dtype=np.int64)
        arrays = (self.sample_id[order], self.part[order], self.group[order])
        return replace(self, sample_id=arrays[0], part=arrays[1], group=arrays[2])

    @property
    def holds_clusters_out(self) -> bool:
        """Whether most test samples have a cluster that no training sample has."""
        known = np.isin(self.group, self.group[self.index("train")]) | (self.group == "")
        return float(np.mean(~known.reshape(len(known), -1).all(1)[self.index("test")])) > 0.5

    def again(self, sample_id: np.ndarray, n_folds: int, fold: int) -> np.ndarray:
        """Which samples fold ``fold`` holds out when clusters are assigned again: any of theirs is in it [n]."""
        group = self.of(sample_id).group.reshape(len(sample_id), -1)
        part_of = assign_folds(group[group != ""], n_folds, fold, self.seed + 1)
        held_out: np.ndarray = np.asarray(
            np.isin(group, [name for name, part in part_of.items() if part == "test"]).any(1)
        )
        return held_out

    def of(self, sample_id: Sequence[str] | np.ndarray) -> Split:
        """The split of some of the samples, in their order, with its assignment hash; ``validate`` it afterwards."""
        return replace(self.aligned(sample_id), assignment_hash=self.assignment_hash or self.hash)

    def save(self, path: str | Path, data_fingerprint: str | None = None) -> None:
        """Write ``sample_id, part, group`` as parquet, hash, method and fingerprint in the file's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from torchcell.io.cache import atomic_write

        columns: dict[str, pa.Array] = {name: arrow_texts(getattr(self, name)) for name in ("sample_id", "part")}
        if self.group.ndim == 2:
            given = self.group != ""
            ends = np.concatenate([[0], np.cumsum(given.sum(1))]).astype(np.int32)
            columns["group"] = pa.ListArray.from_arrays(ends, arrow_texts(self.group[given]))
        else:
            columns["group"] = arrow_texts(self.group)
        table = pa.table(columns)
        known = self.data_fingerprint if data_fingerprint is None else data_fingerprint
        about = {"method": self.method, "seed": self.seed, "key": self.key, "hash": self.hash}
        about |= {"name": self.name, "assignment_hash": self.assignment_hash, "data_fingerprint": known}
        with atomic_write(Path(path)) as temporary:
            pq.write_table(table.replace_schema_metadata({"torchcell": json.dumps(about)}), temporary)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split from parquet, or from a text table with at least ``sample_id, part``.

        Raises:
            InputError: No such file, missing columns, or rows that do not fit the stored hash.
        """
        path = located(path, "no split file", "the run folder's split.parquet is one")
        about: dict[str, object] = {}
        if path.suffix != ".parquet":
            frame = read_table(path)
        else:
            import pyarrow as pa

            try:
                table = plain_parquet(path)
                about = dict(json.loads((table.schema.metadata or {}).get(b"torchcell", b"{}")))
            except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{path} can't be read as a split: {' '.join(str(error).split())[:200]}") from error
            frame = table.to_pandas(ignore_metadata=True)
        require_columns(path, frame, ("sample_id", "part"))
        group = frame["group"] if "group" in frame else frame["sample_id"]
        for name in ("sample_id", "part"):
            text_column(frame, name)  # refuses a text that would widen all
        ids, part = (frame[name].to_numpy(dtype=str) for name in ("sample_id", "part"))
        several = any(isinstance(cell, np.ndarray | list) for cell in group)
        groups = padded([tuple(cell) for cell in group]) if several else group.to_numpy(dtype=str)
        split = cls(ids, part, groups, "file", int(str(about.get("seed", 0))), str(about.get("key", "sample")))
        known: dict[str, Any] = {name: str(about.get(name, default)) for name, default in OPTIONAL.items()}
        split = replace(split, **known)
        if about and about.get("hash") != split.hash:
            raise InputError(
                f"{path} was changed after it was written: its hash is {split.hash}, not {about.get('hash')}"
            )
        return split


Method = Callable[[Any, int, int, int], tuple[np.ndarray, np.ndarray, str]]
"""(record, n_folds, fold, seed) -> (part [n], cluster [n] or [n, K], name of such clusters)."""


@dataclass(frozen=True)
class SplitMethods:
    """How the samples of one task are assigned to train, validation and test. Fold f is test, f + 1 mod n validation.

    Attributes:
        samples: Name of such samples in messages, e.g. ``drug response``.
        clusters: Record -> clusters of each sample for ``random`` and ``file`` [n] or [n, K], and the name of such
            clusters.
        methods: Name as in ``split=NAME`` -> method. ``random`` and ``file`` exist for all tasks.
    """

    samples: str
    clusters: Callable[[Any], tuple[np.ndarray, str]]
    methods: Mapping[str, Method]

    def make(
        self, record: Any, method: str, n_folds: int = 5, fold: int = 0, seed: int = 0, file: str | Path | None = None
    ) -> Split:
        """Assign the samples of ``record`` to parts, and check the result.

        Args:
            record: The samples.
            method: ``random``, ``file`` or one of ``methods``.
            n_folds: Number of folds, at least 3.
            fold: The test fold; the next one validates.
            seed: Of the assignment.
            file: For ``method=file``: a split that was saved or written by hand.

        Raises:
            InputError: An unknown method or fold, or a split that does not fit the record.
        """
        if method == "file":
            return self._from_file(record, file)
        if method not in ("random", *self.methods):
            names = ["random", *self.methods, "file"]
            raise InputError(f"no split method {method!r} for {self.samples}; split= takes {', '.join(names)}")
        if n_folds < 3 or not 0 <= fold < n_folds:
            raise InputError(f"split.fold={fold} of split.n_folds={n_folds}: needs at least 3 folds, numbered from 0")
        made = self.methods.get(method, self._random)
        part, group, key = made(record, n_folds, fold, seed)
        name = f"{method}-{fold}of{n_folds}-s{seed}"
        split = Split(record.sample_id, part, group, method, seed, key, name, n_folds=n_folds)

        def checked() -> str:
            return split.validate(record.sample_id, _duplicates(record)).hash

        known = getattr(record, "known_as", "")
        if known:  # then its splits are checked and hashed once
            code = [Path(str(inspect.getsourcefile(code))).read_text() for code in (made, Split)]
            split.__dict__["hash"] = known_by("\n".join(["split", known, name, *code]), checked)
        else:
            checked()
        return split

    def _random(self, record: Any, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Assign samples at random, duplicates together."""
        duplicates = _duplicates(record)
        keys = record.sample_id if duplicates is None else duplicates
        part = parts_of_keys(keys, n_folds, fold, seed)
        return part, *self.clusters(record)

    def _from_file(self, record: Any, file: str | Path | None) -> Split:
        if file is None:
            raise InputError("split=file needs split.file=PATH, e.g. a run's split.parquet")
        split = Split.load(file).validate(record.sample_id, _duplicates(record)).aligned(record.sample_id)
        if not np.array_equal(split.group, split.sample_id):
            return split
        # The file names no clusters, and samples that share a gene are not independent.
        group, key = self.clusters(record)
        return replace(split, group=group, key=key)


def _duplicates(record: Any) -> np.ndarray | None:
    return record.duplicate_keys() if hasattr(record, "duplicate_keys") else None


def own_clusters(record: Any) -> tuple[np.ndarray, str]:
    """Each sample and its duplicates are a cluster."""
    duplicates = _duplicates(record)
    return (record.sample_id if duplicates is None else duplicates).astype(str), "sample"
