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
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import client, restoring, scratch
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.errors import RecoveryError
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.plan import Plan, Target


@pytest.fixture
def place():
    return client.Place([], 30)


def test_a_command_that_does_not_end_is_ended_where_it_runs(tmp_path):
    number = tmp_path / "pid"
    nap = f"echo $$ > {number}; echo still asleep >&2; exec sleep 37"
    began = time.monotonic()
    with pytest.raises(RecoveryError, match="timeout: awaited the nap within 1 s; last seen: still asleep"):
        client.Place(["env"], 1).run(["sh", "-c", nap], "the nap")
    while Path(f"/proc/{number.read_text().strip()}").exists():
        assert time.monotonic() - began < 20
        time.sleep(0.1)


def test_what_is_not_there_is_said(place):
    with pytest.raises(RecoveryError, match=r"pgbackrest-that-is-not is not there .*install it where PostgreSQL runs"):
        place.run(["pgbackrest-that-is-not"], "it")
    with pytest.raises(RecoveryError, match="inside: no-such-program is not there"):
        client.Place(["no-such-program"], 5).run(["true"], "it")
    with pytest.raises(RecoveryError, match="timeout: 0 is no number of seconds"):
        client.Place([], 0)


def test_what_is_at_a_path(place, tmp_path):
    odd = tmp_path / "a 'b' $(touch c)\\"
    assert replace(place.look(str(odd)), free=None) == client.Seen(str(odd))
    assert place.look(str(odd)).free > 0
    odd.mkdir()
    empty = place.look(str(odd))
    assert empty.folder and not empty.full and empty.real == str(odd) and empty.identity
    (odd / "base/1").mkdir(parents=True)  # what a restore leaves that was ended before its first file
    assert not place.look(str(odd)).full
    (odd / "PG_VERSION").touch()
    (odd / "postmaster.pid").write_text("4711\n/x\n")
    note = tmp_path / f"{odd.name}.restore.json"
    note.write_text('{"label":\n "x"}\n')
    full = place.look(str(odd))
    assert (full.full, full.data, full.pid, full.mark) == (True, True, "4711", {"label": "x"})
    assert not full.unfinished and not full.unstarted
    note.write_text("{")
    assert place.look(str(odd)).mark is None
    (odd / "global").mkdir()
    for name in ("recovery.signal", "global/pg_control"):
        (odd / name).touch()
    assert place.look(str(odd)).unstarted
    for name in ("backup.manifest", "global/pg_control.pgbackrest.tmp"):
        (odd / name).touch()
        assert place.look(str(odd)).unfinished
        (odd / name).unlink()
    (tmp_path / "file").touch()
    assert place.look(str(tmp_path / "file")).other
    link = tmp_path / "link"
    link.symlink_to(odd)
    assert place.look(str(link)).real == str(odd)
    # Links are followed to where it would be, and a slash at the end is none of its name.
    (tmp_path / "up").symlink_to(tmp_path)
    assert place.look(f"{tmp_path}/up/not/there/").real == f"{tmp_path}/not/there"
    assert place.look(f"{tmp_path}/up/").real == str(tmp_path)


def test_what_waits_for_the_archive_is_counted(place, tmp_path):
    assert place.sh(client.WAITING, f"{tmp_path}/not-there", what="it") == "absent\n"
    with pytest.raises(RecoveryError, match=r"the look at it failed: .*archive_status"):
        place.sh(client.WAITING, str(tmp_path), what="the look at it")
    (tmp_path / "file").touch()
    with pytest.raises(RecoveryError, match=r"the look at it failed: .*Not a directory"):
        place.sh(client.WAITING, f"{tmp_path}/file/x", what="the look at it")
    status = tmp_path / "pg_wal/archive_status"
    status.mkdir(parents=True)
    assert place.sh(client.WAITING, str(tmp_path), what="it").split() == ["0", "0"]
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

        # A link to a living database, as a folder of that name and in one.
        database = tmp_path / "other/data"
        (database / "postmaster.pid").write_text("1\n")
        (tmp_path / left[0]).symlink_to(tmp_path / "other")
        (tmp_path / left[1]).mkdir()
        (tmp_path / left[1] / "data").symlink_to(database)
        stop = tmp_path / "bin/pg_ctl"
        stop.parent.mkdir()
        stop.write_text(f"#!/bin/sh\ntouch {tmp_path}/stopped\n")
        stop.chmod(0o755)
        mine.bin_dir = str(stop.parent)
        assert mine.remove_dead() == [left[1]] and (database / "postmaster.pid").exists()
        assert not (tmp_path / "stopped").exists() and (tmp_path / left[0]).is_symlink()

        # Of another user.
        if os.geteuid() == 0:
            (tmp_path / left[2] / "data").mkdir(parents=True)
            os.chown(tmp_path / left[2], 65534, 65534)
            assert mine.remove_dead() == []
        tmp_path.chmod(0o770)
        with pytest.raises(RecoveryError, match=r"scratch.*others can write to"):
            mine.remove_dead()
        tmp_path.chmod(0o700)
        mine.remove()
        assert not Path(mine.folder).exists()
    finally:
        short.unlink()


def test_what_a_killed_run_still_works_in_stays(place, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "LONGEST", 200)
    monkeypatch.setattr(scratch, "REMOVE", scratch.REMOVE.replace("--timeout 20", "--timeout 0.2"))
    mine = scratch.Scratch(place, str(tmp_path), "/usr/bin")
    data = tmp_path / "bitnet-verify.1-1-00000000/data"
    data.mkdir(parents=True)
    with subprocess.Popen(["flock", data, "sh", "-c", "echo held; read x"], stdin=-1, stdout=-1, text=True) as orphan:
        assert orphan.stdout.readline() == "held\n"
        with pytest.raises(RecoveryError, match="what it began still works there: wait for its end"):
            mine.remove_dead()
        assert data.exists()
        pgbackrest = client.Pgbackrest(place, "main", str(tmp_path))
        assert place.look(str(data)).held
        with pytest.raises(RecoveryError, match="another restore is at work in"):
            restoring.restore(pgbackrest, [], str(data))
        orphan.stdin.close()
    assert not place.look(str(data)).held
    assert mine.remove_dead() == [data.parent.name] and not data.exists()


@pytest.mark.parametrize(
    "said, way_out",
    [
        ("[027] x", "configuration is wrong"),
        ("[031] x", "configuration is wrong"),
        ("[029] x", "restore from another backup"),
        ("[026] x", "restore from another backup"),
        ("[040] unable to restore to path '/x'", "'/x'. The folder that it names is not empty"),
        ("[046] x", "does not know that version of PostgreSQL"),
        ("[051] x", "Compare 'Database system identifier'"),
        ("[028] backup and archive info files exist but do not match the database", "Compare 'Database system"),
        ("[105] x", "Run as the user that owns"),
        ("[049] x", "look at its address and keys"),
    ],
)
def test_errors_have_their_own_ways_out(place, said, way_out):
    error = client.Pgbackrest(place, "main", "/x").failed(
        "restore", client.Done(1, "", f"ERROR: {said[:5]}: {said[6:]}")
    )
    assert way_out in str(error)


def test_the_full_disk_is_named(place, monkeypatch, tmp_path):
    monkeypatch.setattr(client, "FULL", 1 << 60)
    done = client.Done(1, "", f"ERROR: [064]: unable to write '{tmp_path}/base/x'")
    error = client.Pgbackrest(place, "main", "/x").failed("restore", done)
    assert f"{tmp_path}/base has " in str(error) and "The disk is full" in str(error)


def test_recovery_that_ended_early_is_no_recovery(place, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "LONGEST", 200)
    trial = scratch.Scratch(place, str(tmp_path), "/usr/bin")
    trial.make()
    end = Target(), Target(name="x", position=0x6000000)
    latest, point = (Plan(None, target, "1", "00000001000000000000000A", 1, 0xA000000) for target in end)
    log = Path(trial.folder) / "log"
    for text, plan, wrong in [
        ("LOG:  redo done at 0/A000028 system usage: CPU", latest, ""),
        ("LOG:  redo done at 0/9FFFF28 system usage: CPU", latest, "it ended at 0/9FFFF28, before 00000001"),
        ("LOG:  redo done at 0/5000028 system usage: CPU", point, ""),
        ("ERROR: [029]: damaged\nLOG:  redo done at 0/A000028", latest, "could not be fetched: ERROR: [029]: damaged"),
        ("LOG:  ready", latest, "does not say how far"),
    ]:
        log.write_text(text)
        assert (wrong in trial.wrong_with_recovery(plan)) and bool(wrong) == bool(trial.wrong_with_recovery(plan))


@pytest.mark.parametrize("parent", ["relative", "/a/../b", "/a b", "/" + "x" * 60])
def test_folders_that_cannot_hold_a_scratch(place, parent):
    with pytest.raises(RecoveryError, match="scratch: "):
        scratch.Scratch(place, parent, "/usr/bin")


def test_tables_are_quoted_and_nothing_else_is_taken():
    assert scratch.quoted("public.Ledger") == '"public"."Ledger"' and scratch.quoted("a b") == '"a b"'
    for table in ("", "a.", "a.b.c", 'a"b', "a\nb"):
        with pytest.raises(RecoveryError, match="tables: "):
            scratch.quoted(table)
