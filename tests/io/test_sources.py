from __future__ import annotations

import csv
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from torchcell.io import file_facts, sources
from torchcell.io.errors import InputError
from torchcell.io.sources import Source, SourceFile, fetch, registry

CONTENT = b"gene\tvalue\nYAL001C\t1\n" * 50


@dataclass
class Server:
    """A file server on this machine; ``pages`` maps a path to its answer, ``asked`` counts requests."""

    port: int = 0
    pages: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    asked: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@pytest.fixture
def server(data_folder) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked += 1
            body = state.pages.get(self.path.strip("/"))
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - state.cut])

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = running.server_address[1]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def register(monkeypatch):
    def add(url: str = "", **entry: str) -> SourceFile:
        file = SourceFile("folder/small.tsv", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), url)
        source = Source("small", "a table", "CC0", (file,), **entry)
        monkeypatch.setattr(sources, "registry", lambda: {"small": source})
        return file

    return add


def nothing_kept(data_folder) -> bool:
    return not [path for path in data_folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_download_is_checked_kept_and_not_repeated(server, register, data_folder):
    server.pages["small.tsv"] = CONTENT
    register(server.url("small.tsv"))
    paths = fetch("small")
    assert paths == {"small.tsv": data_folder.resolve() / "sources/folder/small.tsv"}
    assert paths["small.tsv"].read_bytes() == CONTENT
    assert fetch("small") == paths
    assert server.asked == 1


def test_the_mirror_comes_first_and_is_used_in_place(server, register, tmp_path, monkeypatch, data_folder):
    register(server.url("small.tsv"))
    (tmp_path / "mirror/folder").mkdir(parents=True)
    (tmp_path / "mirror/folder/small.tsv").write_bytes(CONTENT)
    monkeypatch.setenv("TORCHCELL_MIRROR", str(tmp_path / "mirror"))
    assert fetch("small")["small.tsv"] == (tmp_path / "mirror/folder/small.tsv").resolve()
    assert server.asked == 0
    assert not (data_folder / "sources").exists()


def test_a_file_missing_in_the_mirror_is_downloaded(server, register, tmp_path, monkeypatch):
    server.pages["small.tsv"] = CONTENT
    register(server.url("small.tsv"))
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("TORCHCELL_MIRROR", str(tmp_path / "mirror"))
    assert fetch("small")["small.tsv"].read_bytes() == CONTENT


def test_a_file_found_whole_is_not_read_again_until_it_changes(register, tmp_path, monkeypatch, data_folder):
    register()
    path = tmp_path / "mirror/folder/small.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("TORCHCELL_MIRROR", str(tmp_path / "mirror"))
    looked = []
    monkeypatch.setattr(file_facts, "SETTLED_NS", 0)
    damage = sources._damage
    monkeypatch.setattr(sources, "_damage", lambda *args: looked.append(1) or damage(*args))
    fetch("small")
    fetch("small")
    assert len(looked) == 1
    path.write_bytes(CONTENT[:-1] + b"X")
    with pytest.raises(InputError, match="wrong checksum"):
        fetch("small")


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (CONTENT[:-1] + b"X", "wrong checksum"),
        (CONTENT[:100], f"truncated: 100 of {len(CONTENT):,} bytes"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (b"", "truncated: 0 of"),
    ],
)
def test_damage_in_mirror_download_and_cache_names_file_and_remedy(
    server, register, tmp_path, monkeypatch, data_folder, damaged, what
):
    server.pages["small.tsv"] = damaged
    register(server.url("small.tsv"))
    with pytest.raises(InputError, match=rf"small\.tsv .*{what}.*nothing was kept.*TORCHCELL_MIRROR"):
        fetch("small")
    assert nothing_kept(data_folder)

    cached = data_folder / "sources/folder/small.tsv"
    cached.write_bytes(damaged)
    with pytest.raises(InputError, match=rf"small\.tsv .*{what}.*delete it, then fetch it again"):
        fetch("small")

    mirrored = tmp_path / "mirror/folder/small.tsv"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(damaged)
    monkeypatch.setenv("TORCHCELL_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(InputError, match=rf"small\.tsv .*{what}.*unset TORCHCELL_MIRROR"):
        fetch("small")


def test_a_connection_that_breaks_off_keeps_nothing(server, register, data_folder):
    server.pages["small.tsv"] = CONTENT
    server.cut = 100
    register(server.url("small.tsv"))
    with pytest.raises(InputError, match=r"folder/small\.tsv"):
        fetch("small")
    assert nothing_kept(data_folder)


def test_a_page_that_is_gone_says_what_was_tried(server, register, data_folder):
    register(server.url("small.tsv"))
    with pytest.raises(InputError, match=r"cannot get folder/small\.tsv; tried: no mirror .*404") as caught:
        fetch("small")
    assert "\n" not in str(caught.value)
    assert nothing_kept(data_folder)


def test_no_network_and_no_mirror_is_one_clear_error(register, data_folder):
    register("http://127.0.0.1:9/small.tsv")  # nobody listens there
    with pytest.raises(InputError, match=r"cannot get folder/small\.tsv.*refused.*Set TORCHCELL_MIRROR"):
        fetch("small")


def test_a_source_without_url_says_where_it_comes_from(register, data_folder):
    register(rebuild="two lists of genes, joined")
    with pytest.raises(InputError, match=r"mirror only.*TORCHCELL_MIRROR is not set.*two lists of genes, joined"):
        fetch("small")


def test_a_mirror_that_is_no_folder_is_named(register, tmp_path, monkeypatch, data_folder):
    register()
    monkeypatch.setenv("TORCHCELL_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"TORCHCELL_MIRROR names .*nowhere, which is no folder"):
        fetch("small")


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(InputError, match="no source named 'costanzo'; the nearest are: costanzo2010"):
        fetch("costanzo")


def test_every_source_without_url_tells_how_it_is_rebuilt():
    for entry in registry().values():
        assert entry.licence
        assert entry.content
        assert all(file.url for file in entry.files) or entry.rebuild


@pytest.mark.mirror
def test_the_registry_agrees_with_the_mirrors_own_list(mirror):
    with (mirror / "SOURCES.tsv").open() as handle:
        listed = {row["file"]: row for row in csv.DictReader(handle, delimiter="\t")}
    files = {file.path: file for entry in registry().values() for file in entry.files}
    assert set(files) == set(listed)
    for path, row in listed.items():
        assert (files[path].bytes, files[path].sha256, files[path].url) == (
            int(row["bytes"]),
            row["sha256"],
            row["url"],
        )


@pytest.mark.mirror
def test_all_files_of_the_mirror_are_whole(mirror):
    assert sum(len(fetch(name)) for name in registry()) == 40
