# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How commands run, and what is found out by a shell: on this host, with programs that stand in for PostgreSQL's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import client, scratch
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.errors import RecoveryError


@pytest.fixture
def place():
    return client.Place([], 30)


def test_a_command_that_does_not_end_is_ended_where_it_runs():
    began = time.monotonic()
    with pytest.raises(RecoveryError, match="timeout: awaited the nap within 1 s; last seen: still asleep"):
        client.Place(["env"], 1).run(["sh", "-c", "echo still asleep >&2; exec sleep 37.25"], "the nap")
    assert time.monotonic() - began < 10
    assert "sleep 37.25" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_what_is_not_there_is_said(place):
    with pytest.raises(RecoveryError, match=r"pgbackrest-that-is-not is not there .*install it where PostgreSQL runs"):
        place.run(["pgbackrest-that-is-not"], "it")
    with pytest.raises(RecoveryError, match="inside: no-such-program is not there"):
        client.Place(["no-such-program"], 5).run(["true"], "it")
    with pytest.raises(RecoveryError, match="timeout: 0 is no number of seconds"):
        client.Place([], 0)


def test_what_is_at_a_path(place, tmp_path):
    odd = tmp_path / "a 'b' $(touch c)\\"
    absent = place.look(str(odd))
    assert absent == client.Seen(str(odd), free=absent.free) and absent.free > 0
    odd.mkdir()
    empty = place.look(str(odd))
    assert empty.folder and not empty.full and empty.real == str(odd)
    (odd / "PG_VERSION").touch()
    (odd / "postmaster.pid").write_text("4711\n/x\n")
    (odd / "bitnet-restore.json").write_text('{"label":\n "x"}\n')
    full = place.look(str(odd))
    assert (full.data, full.pid, full.mark, full.unfinished) == (True, "4711", {"label": "x"}, False)
    (odd / "recovery.signal").touch()
    (odd / "backup_label").touch()
    assert not place.look(str(odd)).unfinished
    (odd / "bitnet-restore.json").unlink()
    assert place.look(str(odd)).unfinished
    (odd / "bitnet-restore.json").write_text("{")
    assert place.look(str(odd)).mark is None
    (tmp_path / "file").touch()
    assert place.look(str(tmp_path / "file")).other
    link = tmp_path / "link"
    link.symlink_to(odd)
    assert place.look(str(link)).real == str(odd)


def test_what_waits_for_the_archive_is_counted(place, tmp_path):
    assert place.sh(client.WAITING, str(tmp_path), what="it") == ""
    status = tmp_path / "pg_wal/archive_status"
    status.mkdir(parents=True)
    assert place.sh(client.WAITING, str(tmp_path), what="it") == ""
    for number, name in enumerate(("2.ready", "1.ready", "3.done")):
        (status / name).touch()
        os.utime(status / name, (1000 + number, 1000 + number))
    assert place.sh(client.WAITING, str(tmp_path), what="it").split() == ["2", "1000"]


def test_the_configuration_is_read_with_its_conf_d(place, tmp_path):
    pgbackrest = client.Pgbackrest(place, "main", str(tmp_path))
    with pytest.raises(RecoveryError, match=r"nothing says where the stanza main lives \(pg1-path\)"):
        pgbackrest.cluster()
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "pgbackrest.conf").write_text(
        "[global]\nspool-path=/spool\nrepo1-cipher-pass=secret\n[main]\npg1-port=5999\n"
    )
    (tmp_path / "conf.d/more.conf").write_text("[main]\npg1-path=/data\n")
    assert pgbackrest.cluster() == client.Cluster("/data", "/var/run/postgresql", "5999", "/spool")


@pytest.mark.parametrize(
    "option, value", [("stanza", "a;b"), ("stanza", ""), ("config_path", "etc"), ("config_path", "/a b")]
)
def test_names_that_cannot_be_are_refused(place, option, value):
    with pytest.raises(RecoveryError, match=f"{option}: "):
        client.Pgbackrest(place, **{"stanza": "main", "config_path": "/etc/pgbackrest", option: value})


def test_what_a_dead_run_left_goes_and_what_a_living_one_has_stays(place, tmp_path):
    short = Path(tempfile.gettempdir()) / f"bitnet-{os.getpid()}"  # the path of a socket is short
    short.symlink_to(tmp_path)
    try:
        mine = scratch.Scratch(place, str(short), "/usr/bin")
        mine.make()
        boot = mine.folder[-8:]
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait(30)
        left = [
            f"bitnet-verify.{ended.pid}-1-{boot}",
            f"bitnet-verify.{os.getpid()}-1-{boot}",
            "bitnet-verify.1-1-00000000",
        ]
        for name in [*left, "bitnet-verify.x", "other"]:
            (tmp_path / name / "data").mkdir(parents=True)
        assert sorted(mine.remove_dead()) == sorted(left)
        assert {path.name for path in tmp_path.iterdir()} == {Path(mine.folder).name, "bitnet-verify.x", "other"}
        mine.remove()
        assert not Path(mine.folder).exists()
    finally:
        short.unlink()


@pytest.mark.parametrize("parent", ["relative", "/a/../b", "/a b", "/" + "x" * 60])
def test_folders_that_cannot_hold_a_scratch(place, parent):
    with pytest.raises(RecoveryError, match="scratch: "):
        scratch.Scratch(place, parent, "/usr/bin")


def test_tables_are_quoted_and_nothing_else_is_taken():
    assert scratch.quoted("public.Ledger") == '"public"."Ledger"' and scratch.quoted("a b") == '"a b"'
    for table in ("", "a.", "a.b.c", 'a"b', "a\nb"):
        with pytest.raises(RecoveryError, match="tables: "):
            scratch.quoted(table)
