# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A leak is planted in every place and in every form, and found; where there is none, none is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.lab import leaks
from tests.lab.leaks import Needles, ProcessWatch

VALUE = 'p/+ss~ö"word&of=the%run'
OTHER = "another-secret-of-this-run"
NEEDLES = Needles({"postgresql": VALUE, "redis": OTHER})
AROUND = ["", "a", "ab", "abc", "user:"]


def names(found: list[leaks.Leak]) -> set[str]:
    assert not any(VALUE in str(leak) or OTHER in str(leak) for leak in found)  # it says where, and not what
    return {leak.secret for leak in found}


def tar(name: str, data: bytes, mode: str = "w", **member: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in member.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("before", AROUND)
@pytest.mark.parametrize("after", AROUND)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_whatever_it_is_embedded_in(before, after, encode):
    text = encode(f"{before}{VALUE}{after}".encode())
    assert names(leaks.in_text(NEEDLES, "a diff", b"x=" + text)) == {"postgresql"}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("as it is", VALUE),
        ("hexadecimal", VALUE.encode().hex()),
        ("hexadecimal", VALUE.encode().hex().upper()),
        ("URL-encoded", urllib.parse.quote(VALUE)),
        ("URL-encoded", urllib.parse.quote(VALUE, safe="")),
        ("URL-encoded", urllib.parse.quote_plus(VALUE)),
        ("URL-encoded", "".join(f"%{byte:02x}" for byte in VALUE.encode())),
        ("JSON-escaped", json.dumps(VALUE)),
        ("JSON-escaped", json.dumps(VALUE, ensure_ascii=False)),
    ],
)
def test_each_form(form, text):
    [leak] = leaks.in_text(NEEDLES, "a log", f"2026-11-27 url={text} end")
    assert (leak.secret, leak.form, leak.place) == ("postgresql", form, "a log")


def test_nothing_is_found_where_nothing_is():
    text = base64.b64encode(b"harmless" * 999) + b"password: ********" + VALUE[:-1].encode() + VALUE[1:].encode()
    assert leaks.in_text(NEEDLES, "a log", text) == []


def test_across_the_pieces_that_are_read(monkeypatch):
    monkeypatch.setattr(leaks, "CHUNK", 1000)
    for before in range(960, 1040):
        assert names(leaks.in_text(NEEDLES, "a log", b"x" * before + OTHER.encode() + b"x" * 900)) == {"redis"}


def test_files_names_links_and_the_fact_cache(tmp_path):
    for name, plant in {
        "logs/ansible.log": lambda path: path.write_text(f'TASK [x] {{"password": {json.dumps(VALUE)}}}'),
        "facts/one": lambda path: path.write_text(json.dumps({"database_kept": {"postgresql": VALUE}})),
        "tmp/ansible-local-1/AnsiballZ_copy.py": lambda path: path.write_bytes(base64.b64encode(VALUE.encode())),
        "journals/system.journal.gz": lambda path: path.write_bytes(gzip.compress(VALUE.encode())),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        plant(path)
        found = leaks.in_files(NEEDLES, [tmp_path / name.split("/", maxsplit=1)[0]])
        assert names(found) == {"postgresql"} and {leak.place for leak in found} == {str(path)}
    (tmp_path / "link").symlink_to(OTHER)
    (tmp_path / f"core.{OTHER}").touch()
    places = {leak.place for leak in leaks.in_files(NEEDLES, [tmp_path]) if leak.secret == "redis"}
    assert places == {f"{tmp_path / 'link'} (a link)", f"the name of a file in {tmp_path}"}


def test_where_a_secret_is_kept_is_allowed_and_nothing_beside_it(tmp_path):
    kept = tmp_path / "secrets"
    kept.mkdir()
    (kept / "store.json").write_text(VALUE)
    assert leaks.in_files(NEEDLES, [tmp_path], allowed=[kept]) == []
    (tmp_path / "secrets.bak").write_text(VALUE)
    assert names(leaks.in_files(NEEDLES, [tmp_path], allowed=[kept])) == {"postgresql"}


def test_a_folder_that_is_not_there_is_no_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        leaks.in_files(NEEDLES, [tmp_path / "log"])


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bytes])
def test_the_layers_of_an_image(tmp_path, compress):
    """As `docker save` writes them: an archive of archives, of which newer ones are compressed."""
    image = tmp_path / "image.tar"

    def save(layer: bytes) -> list[leaks.Leak]:
        image.write_bytes(tar("abc/layer.tar", compress(layer)))
        stand_in = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write(open({str(image)!r}, 'rb').read())"]
        return leaks.in_image(NEEDLES, "it@sha256:1", docker=stand_in)

    leak = save(tar("root/.pgpass", b"*:*:*:bitnet:" + VALUE.encode()))[-1]
    assert str(leak) == "postgresql (as it is) in image it@sha256:1:abc/layer.tar:root/.pgpass"
    assert names(save(tar(f"tmp/{OTHER}", b""))) == {"redis"}
    assert save(tar("root/.pgpass", b"nothing")) == []


def test_an_image_that_cannot_be_saved_is_no_pass():
    with pytest.raises(OSError, match="ended with 3"):
        leaks.in_image(NEEDLES, "gone", docker=[sys.executable, "-c", "raise SystemExit(3)"])


def test_what_is_cut_off_is_searched_as_far_as_it_goes():
    noise = os.urandom(300_000)
    whole = gzip.compress(OTHER.encode() + noise)
    assert names(leaks.in_text(NEEDLES, "a log", whole[:200_000])) == {"redis"}
    assert names(leaks.in_text(NEEDLES, "an archive", tar("a", OTHER.encode() + noise)[:100_000])) == {"redis"}
    assert names(leaks.in_text(NEEDLES, "a log", b"\x1f\x8bno gzip " + OTHER.encode())) == {"redis"}


def test_what_a_command_prints():
    say = [sys.executable, "-c", f"import sys; print('journal'); print({OTHER!r}, file=sys.stderr)"]
    assert [str(leak) for leak in leaks.in_output(NEEDLES, "the journal", say)] == ["redis (as it is) in the journal"]
    with pytest.raises(OSError, match="says nothing"):
        leaks.in_output(NEEDLES, "the journal", [sys.executable, "-c", "raise SystemExit(1)"])


@pytest.mark.parametrize("place", ["command line", "environment"])
def test_processes(place):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    environment = {"PATH": os.environ["PATH"]}
    if place == "command line":
        command.append(f"--url=postgresql://bitnet:{urllib.parse.quote(VALUE, safe='')}@db")
    else:
        environment["PGPASSWORD"] = VALUE
    watch = ProcessWatch(NEEDLES)
    with watch:
        process = subprocess.Popen(command, env=environment)
        try:
            until = time.monotonic() + 30
            while not watch.found() if watch.looks else True:
                assert time.monotonic() < until
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    [leak] = watch.found()
    assert (leak.secret, leak.place.split(" of ")[0]) == ("postgresql", f"the {place}")
    assert f"({process.pid})" in leak.place


def test_a_watch_that_saw_nothing_is_no_pass():
    with pytest.raises(RuntimeError, match="no process was looked at"):
        ProcessWatch(NEEDLES).found()
    with ProcessWatch(NEEDLES) as watch:
        while not watch.looks:
            time.sleep(0.01)
    assert watch.found() == []


def test_a_private_key_is_found_by_each_of_its_lines():
    lines = ["MC4CAQAwBQYDK2VwBCIEIAqkjVBAmqPXgBxuOLD5Kqdq", "Nd2bUSL0PPq6HyPfjvhfoBxuOLD5KqjVBAmqPXgBxuOL"]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    needles = Needles({"edge": key})
    assert names(leaks.in_text(needles, "a diff", f"+{lines[0]}\n+{lines[1]}\n")) == {"edge"}
    assert leaks.in_text(needles, "a diff", "-----BEGIN PRIVATE KEY-----") == []


@pytest.mark.parametrize("values", [{}, {"short": "hunter2"}])
def test_what_would_find_nothing_or_everything_is_refused(values):
    with pytest.raises(leaks.BadNeedle):
        Needles(values)


def test_the_path_of_a_file_is_not_its_name(tmp_path):
    folder = tmp_path / OTHER
    folder.mkdir()
    (folder / "empty").touch()
    assert [leak.place for leak in leaks.in_files(NEEDLES, [tmp_path])] == [f"the name of a file in {Path(tmp_path)}"]
