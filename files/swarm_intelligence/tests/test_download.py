# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The download against a server on the loopback interface that misbehaves in the ways servers do."""

from __future__ import annotations

import hashlib
import re
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from download_lab import Server
from swarm_intelligence import download
from swarm_intelligence.download import CATALOGUE, fetch
from swarm_intelligence.gguf_file import ModelError

CONTENT = hashlib.shake_256(b"a model").digest(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(CONTENT)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.gguf"


def get(server: Server, output: Path, **keywords: Any) -> bool:
    return fetch(server.url, keywords.pop("sha256", SHA256), output, **{"backoff": 0.01, "stall": 5, **keywords})


def leftovers(output: Path) -> list[str]:
    return sorted(
        path.name for path in output.parent.iterdir() if path.name not in (output.name, f".{output.name}.lock")
    )


def test_download_and_nothing_the_second_time(server: Server, output: Path) -> None:
    assert get(server, output) is True
    assert output.read_bytes() == CONTENT
    assert leftovers(output) == []
    assert get(server, output) is False
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "faults",
    [
        ["drop at once", "drop at once"],
        ["503", "429", "500"],
        ["cut", "cut", "cut"],
        ["cut", "ignore range"],
        ["cut", "wrong place"],
        ["promise more"],
        ["cut", "promise more"],
        ["no etag", ""],
        ["wrong file"],
        ["promise less"],
    ],
)
def test_overcome(server: Server, output: Path, faults: list[str]) -> None:
    server.faults = list(faults)
    assert get(server, output) is True
    assert output.read_bytes() == CONTENT
    assert leftovers(output) == []


def test_resumes_where_it_was(server: Server, output: Path) -> None:
    server.faults = ["cut"]
    get(server, output)
    assert [request.get("range") for request in server.requests] == [None, "bytes=1000000-"]
    assert server.requests[1]["if-range"] == '"one"'


def test_next_run_resumes(server: Server, output: Path) -> None:
    server.faults = ["cut", "503", "503"]
    with pytest.raises(ModelError, match=r"1000000 bytes are kept, run the same command to continue\.$"):
        get(server, output, retries=1)
    assert not output.exists()
    assert get(server, output) is True
    assert server.requests[-1]["range"] == "bytes=1000000-"
    assert output.read_bytes() == CONTENT


def test_file_that_changed_on_the_server_starts_again(server: Server, output: Path) -> None:
    server.faults = ["cut", "503", "503"]
    with pytest.raises(ModelError):
        get(server, output, retries=1)
    server.content = CONTENT[::-1]
    server.etag = '"two"'
    assert get(server, output, sha256=hashlib.sha256(server.content).hexdigest()) is True
    assert output.read_bytes() == server.content


def test_wrong_file_never_gets_the_name(server: Server, output: Path) -> None:
    server.always = "wrong file"
    with pytest.raises(ModelError, match=r"has the sha256 .*, not .*check that address and sha256 belong together"):
        get(server, output)
    assert not output.exists()
    assert leftovers(output) == []


def test_wrong_file_leaves_the_old_one(server: Server, output: Path) -> None:
    output.parent.mkdir()
    output.write_bytes(b"the old one")
    server.always = "wrong file"
    with pytest.raises(ModelError):
        get(server, output)
    assert output.read_bytes() == b"the old one"


@pytest.mark.parametrize("fault", ["503", "drop at once"])
def test_gives_up_in_the_end(server: Server, output: Path, fault: str) -> None:
    server.always = fault
    with pytest.raises(ModelError, match="given up after 3 attempts in a row without progress"):
        get(server, output, retries=2)


def test_cut_at_the_same_place_for_ever(server: Server, output: Path) -> None:
    """A server that ignores ranges and always breaks off: progress is counted from the furthest byte ever reached."""
    server.always = "no etag"
    with pytest.raises(ModelError, match="given up after"):
        get(server, output, retries=3)


def test_deadline(server: Server, output: Path) -> None:
    server.always = "503"
    with pytest.raises(ModelError, match=r"within the deadline \(the server answered 503\)"):
        get(server, output, deadline=0.3, backoff=0.2, retries=100)


@pytest.mark.parametrize("status", ["401", "403", "404", "410"])
def test_refused_at_once(server: Server, output: Path, status: str) -> None:
    server.always = status
    with pytest.raises(ModelError, match=f"answered {status}; check the address"):
        get(server, output)
    assert len(server.requests) == 1


def test_redirects(server: Server, output: Path) -> None:
    server.faults = ["redirect /other.gguf", f"redirect {server.url}"]
    assert get(server, output) is True
    server.always = "redirect /again"
    with pytest.raises(ModelError, match="redirects more than 10 times"):
        get(server, output.with_name("b"))
    server.always = "redirect file:///etc/passwd"
    with pytest.raises(ModelError, match="no http address"):
        get(server, output.with_name("c"))


def test_redirect_from_https_to_http_is_refused(monkeypatch: pytest.MonkeyPatch, output: Path) -> None:
    import httpx

    transport = httpx.MockTransport(lambda _unused: httpx.Response(302, headers={"location": "http://example.test/x"}))
    real = httpx.Client
    monkeypatch.setattr(download.httpx, "Client", lambda **keywords: real(transport=transport, **keywords))
    with pytest.raises(ModelError, match="from https to http"):
        fetch("https://example.test/x", SHA256, output)


def test_unreachable(output: Path) -> None:
    with pytest.raises(ModelError, match="given up after 2 attempts"):
        fetch("http://127.0.0.1:9/x", SHA256, output, retries=1, backoff=0.01)


def test_secrets_of_an_address_are_not_shown(output: Path) -> None:
    with pytest.raises(ModelError) as caught:
        fetch("http://user:pass@127.0.0.1:9/x?token=hidden", SHA256, output, retries=0)
    assert "pass" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("http://127.0.0.1/x", "abc", "sha256='abc' is no SHA-256"),
        ("ftp://127.0.0.1/x", SHA256, "neither an http nor an https"),
        ("/x", SHA256, "neither an http nor an https"),
    ],
)
def test_bad_options(output: Path, url: str, sha256: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fetch(url, sha256, output)
    assert not output.parent.exists()


def test_no_room(server: Server, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _unused: usage)
    with pytest.raises(ModelError, match=r"3000000 bytes are to come, 1000 are free; make room"):
        get(server, output)


def test_write_fails_on_the_way(server: Server, output: Path) -> None:
    """What a full disk does, made by the limit on file sizes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    try:
        with pytest.raises(ModelError, match=r"cannot be written \(.*\); make room"):
            get(server, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not output.exists()
    assert get(server, output) is True
    assert server.requests[-1]["range"] == "bytes=1500000-"


def test_two_at_once_download_once(server: Server, output: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(get(server, output))) for _unused in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    assert len(server.requests) == 1


def test_catalogue_is_pinned() -> None:
    for published in CATALOGUE.values():
        assert download.SHA256.fullmatch(published.sha256)
        assert published.url.startswith("https://")
        assert re.search(r"/[0-9a-f]{40}/", published.url), "an address whose content may change"
