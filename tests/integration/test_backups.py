# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of backup and restore on a real PostgreSQL with a real pgBackRest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import scratch
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.client import Place
from data_lab import PROGRAMS

from tests.integration.backup_lab import S3, Failed, Lab

ROWS = 60_000


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One cluster for all: a table with a tablespace of its own, and a second database."""
    made = Lab()
    try:
        made.run("mkdir", made.folder / "space")
        made.sql(f"CREATE TABLESPACE aside LOCATION '{made.folder}/space'")
        made.sql("CREATE DATABASE ledger")
        made.sql(
            f"CREATE TABLE entry AS SELECT n, md5(n::text) AS what FROM generate_series(1, {ROWS}) n;ALTER TABLE entry "
            "ADD PRIMARY KEY (n); CREATE TABLE mark (what text) TABLESPACE aside",
            "ledger",
        )
        made.sql("CREATE TABLE other (n int); INSERT INTO other VALUES (1)")
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def full(lab: Lab) -> str:
    """The label of a full backup that all later ones may be based on."""
    return lab.module("backup", type="full", max_age="7d")["backup"]["label"]


def mark(lab: Lab, what: str) -> None:
    lab.sql(f"INSERT INTO mark VALUES ('{what}')", "ledger")


def marks(lab: Lab, port: int = 5432) -> set[str]:
    return set(lab.sql("SELECT what FROM mark", "ledger", port).split())


def now(lab: Lab) -> str:
    """The database's time between two transactions: a second of distance to both, since files have whole seconds."""
    time.sleep(1.1)
    moment = lab.sql("SELECT now()")
    time.sleep(1.1)
    return moment


def test_each_type_is_taken_when_it_is_due_and_only_then(lab, full):
    first = lab.module("backup")
    assert not first["changed"] and first["due"] == {} and first["backup"]["label"] == full
    assert first["backup"]["type"] == "full" and first["backup"]["size"] > 20_000_000

    planned = lab.module("backup", check=True, diff_every="0")
    assert planned["changed"] and planned["due"]["type"] == "diff" and planned["backup"]["label"] == full
    assert planned["diff"]["after"] == f"{full} full\n(now) diff\n"

    differential = lab.module("backup", diff_every="0")
    assert differential["changed"] and differential["backup"]["type"] == "diff"
    assert differential["backup"]["references"] == [full]

    lab.sql("UPDATE entry SET what = 'changed' WHERE n <= 100", "ledger")
    incremental = lab.module("backup", max_age="0")
    assert incremental["backup"]["type"] == "incr" and incremental["due"]["why"].startswith("the newest backup, ")
    assert 0 < incremental["backup"]["copied"] * 3 < first["backup"]["copied"]
    assert not lab.module("backup")["changed"]


def test_the_archive_is_proven_and_an_old_one_is_said(lab, full):
    well = lab.module("info", probe=True)
    assert well["problems"] == [] and well["archive"]["missing"] == [] and well["archive"]["age"] < 60
    assert well["archive"]["probe_seconds"] > 0 and well["repositories"][0]["cipher"] == "aes-256-cbc"
    time.sleep(2.1)
    late = lab.module("info", rpo="1s", backup_max_age="1s")
    assert [
        problem for problem in late["problems"] if "the newest WAL, 0000" in problem and "1 s are allowed" in problem
    ]
    assert [
        problem for problem in late["problems"] if "the newest backup, " in problem and "(backup_max_age)" in problem
    ]


def test_a_point_in_time_is_restored_beside_the_living_data(lab, full):
    mark(lab, "before")
    moment = now(lab)
    mark(lab, "after")
    with pytest.raises(Failed, match=r"target_time: no WAL is archived from after .*pg_switch_wal"):
        lab.module("restore", target_time=moment)
    lab.switch()

    planned = lab.module("restore", check=True, target_time=moment)
    beside = Path(planned["path"])
    assert beside == Path(f"{lab.data}.restored") and not beside.exists() and planned["changed"]
    waiting = lab.folder / "spool/archive/main/out/of-the-living-database"
    lab.run("mkdir", "-p", waiting.parent)
    lab.run("touch", waiting)
    restored = lab.module("restore", target_time=moment)
    assert waiting.exists()
    waiting.unlink()
    assert restored["plan"] == planned["plan"] and restored["plan"]["label"].startswith(full)
    again = lab.module("restore", target_time=moment)
    assert not again["changed"]
    with lab.copy(beside) as port:
        assert "before" in marks(lab, port) and "after" not in marks(lab, port)
        assert lab.sql("SELECT count(*) FROM entry", "ledger", port) == str(ROWS)
        # Its WAL and its tablespace are its own.
        assert lab.sql("SHOW archive_mode", port=port) == "off"
        assert "--no-archive-async" in lab.sql("SHOW restore_command", port=port)
        assert lab.sql(
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'aside'", port=port
        ).startswith(f"{beside}.tablespaces/")
        with pytest.raises(Failed, match=r"a PostgreSQL runs on .*main.restored.*\(postmaster.pid names process \d+\)"):
            lab.module("restore", delta=True)
    assert marks(lab) >= {"before", "after"}

    # The same folder, brought to the end of the archive.
    with pytest.raises(Failed, match=r"holds what was restored before .*delta: true"):
        lab.module("restore")
    (beside / "postmaster.pid").unlink(missing_ok=True)
    assert lab.module("restore", delta=True)["changed"]
    with lab.copy(beside) as port:
        assert "after" in marks(lab, port)


def test_a_moment_before_all_backups_and_one_without_a_zone_are_refused(lab, full):
    with pytest.raises(Failed, match=r"is before the end of the oldest backup .*Give a later moment"):
        lab.module("restore", target_time="2001-01-01 00:00:00Z", path=f"{lab.folder}/copies/old")
    with pytest.raises(Failed, match=r"target_time: '2026-11-27 09:30:00' is no date, time and zone"):
        lab.module("restore", target_time="2026-11-27 09:30:00", path=f"{lab.folder}/copies/old")
    assert not (lab.folder / "copies/old").exists()


def test_one_database_alone(lab, full):
    path = lab.folder / "copies/one"
    lab.module("restore", databases=["ledger"], path=str(path))
    with lab.copy(path) as port:
        assert lab.sql("SELECT count(*) FROM entry", "ledger", port) == str(ROWS)
    assert lab.sql("SELECT count(*) FROM entry", "ledger") == str(ROWS)


def test_live_data_is_never_overwritten_without_a_word(lab, full):
    mark(lab, "kept")
    lab.switch()
    with pytest.raises(Failed, match="a PostgreSQL runs on"):
        lab.module("restore", path=str(lab.data), delta=True, overwrite_data=True)
    lab.stop()
    try:
        for options in ({}, {"delta": True}):
            with pytest.raises(Failed, match=r"holds the database's own data.*overwrite_data: true"):
                lab.module("restore", path=str(lab.data), **options)
        (lab.data / "base/damaged").write_text("what does not belong here")
        (lab.data / "global/pg_control").unlink()
        # By another name, it is the same place.
        (lab.folder / "link").symlink_to(lab.folder)
        for _unused in range(2):
            assert lab.module("restore", path=f"{lab.folder}/link/main", overwrite_data=True)["changed"]
        assert not (lab.data / "base/damaged").exists()
    finally:
        lab.start()
    assert "kept" in marks(lab)
    # A new timeline, archived as the one before; the next restore follows it.
    assert lab.sql("SHOW archive_mode") == "on"
    mark(lab, "on-the-second-timeline")
    assert lab.switch().startswith("00000002")
    assert lab.module("info", probe=True)["problems"] == []
    path = lab.folder / "copies/second"
    planned = lab.module("restore", path=str(path))["plan"]
    assert planned["wal_first"].startswith("00000001") and planned["wal_last"].startswith("00000002")
    with lab.copy(path) as port:
        assert "on-the-second-timeline" in marks(lab, port)


def test_a_backup_that_was_killed_is_made_anew(lab, full):
    victim = subprocess.Popen(backup_command(lab), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    folder = lab.folder / "repo1/backup/main"

    def began() -> list[Path]:
        return [path for path in folder.glob("*F/*") if not (path.parent / "backup.manifest").exists()]

    lab.wait(lambda: began() or victim.poll() is not None, "the first file of the backup")
    victim.kill()
    assert victim.wait(10) == -signal.SIGKILL and began()
    healed = lab.module("backup", type="full", max_age="0")
    assert healed["changed"] and healed["backup"]["type"] == "full" and not began()
    assert lab.module("verify")["label"] == healed["backup"]["label"]


def backup_command(lab: Lab) -> list[str]:
    return [*lab.as_user, "pgbackrest", f"--config-path={lab.folder}/etc", "--stanza=main", "--type=full", "backup"]


def test_a_running_one_is_waited_for(lab, full):
    with (
        lab_lock(lab),
        pytest.raises(Failed, match=r"awaited the end of another pgBackRest on this stanza within 12 s"),
    ):
        lab.module("backup", type="incr", max_age="0", timeout=12)


class lab_lock:
    """A backup that hangs: its database does not answer."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def __enter__(self) -> None:
        self.process = subprocess.Popen(
            backup_command(self.lab), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        self.lab.wait(lambda: list((self.lab.folder / "lock").glob("*backup.lock")), "the lock")
        self.process.send_signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)


def test_verify_compares_rows_and_leaves_nothing(lab, full):
    mark(lab, "verified")
    proof = lab.module("verify", database="ledger", tables=["entry", "public.mark"])
    assert {check["name"]: check["ok"] for check in proof["checks"]} == dict.fromkeys(
        ("recovery", "amcheck", "rows", "checksums"), True
    )
    assert proof["rows"]["entry"].startswith(f"{ROWS}:") and not proof["changed"] and proof["reached"]
    assert proof["seconds"]["restore"] > 0 and proof["seconds"]["recovery"] > 0
    assert scratches(lab) == []
    with pytest.raises(Failed, match=r"tables: .* is no table"):
        lab.module("verify", database="ledger", tables=['entry"; DROP TABLE entry'])


def scratches(lab: Lab) -> list[str]:
    return [path.name for path in lab.folder.glob("bitnet-verify.*")]


def test_a_hash_is_of_all_columns_and_a_lock_has_an_end(lab, full):
    lab.sql("CREATE TABLE lettered (r int, row_ int); INSERT INTO lettered VALUES (1, 1)")
    try:
        server = scratch.Server(Place(lab.as_user, 60), str(PROGRAMS), str(lab.folder), "5432", "postgres")
        seen = scratch.hashes(server, "postgres", ["lettered", "other"])
        lab.sql("UPDATE lettered SET row_ = 2")
        after = scratch.hashes(server, "postgres", ["lettered", "other"])
        assert after["lettered"] != seen["lettered"] and after["other"] == seen["other"]
        lab.sql("UPDATE lettered SET row_ = 1, r = 2")
        assert scratch.hashes(server, "postgres", ["lettered"])["lettered"] not in (seen["lettered"], after["lettered"])
        writer = [*lab.as_user, PROGRAMS / "psql", "-Xq", "-U", "postgres", "-h", lab.folder, "postgres"]
        with subprocess.Popen(writer, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            process.stdin.write("BEGIN; UPDATE lettered SET r = 3;\n\\echo locked\n")
            process.stdin.flush()
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(Failed, match="lock_seconds: the tables could not be read within 1 s"):
                lab.module("verify", tables=["lettered"], lock_seconds=1)
            process.stdin.close()
    finally:
        lab.sql("DROP TABLE lettered")


def pgbackrest_of(path: str) -> list[int]:
    """The restores into a folder, or, with a * at its end, into those whose names begin so."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text().split("\0")
        except OSError:
            continue
        if (
            words[0] == "pgbackrest"
            and "restore" in words
            and any(
                word == f"--pg1-path={path}" or (path.endswith("*") and word.startswith(f"--pg1-path={path[:-1]}"))
                for word in words
            )
        ):
            found.append(int(file.parent.name))
    return found


def stopped(lab: Lab, process: subprocess.Popen[str], path: str, when: str = "") -> int:
    """The module is killed while its pgBackRest restores; that is stopped, and goes on when somebody says so."""
    deadline = time.monotonic() + 60
    while not (found := pgbackrest_of(path)) or (when and not (Path(path) / when).exists()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    # In this order: a stopped process whose group has lost its parent gets a SIGHUP of the kernel.
    process.kill()
    process.wait(10)
    os.kill(found[0], signal.SIGSTOP)
    return found[0]


def test_what_a_killed_restore_has_begun_is_waited_for_and_gone_on_with(lab, full):
    # A moment, since more WAL may come meanwhile, and the end of the archive is then another one.
    moment = now(lab)
    mark(lab, "behind-the-moment")
    lab.switch()
    path = f"{lab.folder}/copies/killed"
    orphan = stopped(lab, lab.module_alone("restore", path=path, target_time=moment), path)
    try:
        with pytest.raises(Failed, match=f"another restore is at work in {path}, perhaps of a run that was killed"):
            lab.module("restore", path=path, target_time=moment)
    finally:
        os.kill(orphan, signal.SIGCONT)
    lab.wait(lambda: not pgbackrest_of(path), "the end of what the killed run began")
    # It came to its end, and there is nothing to go on with.
    assert not lab.module("restore", path=path, target_time=moment)["changed"]

    # Ended in the midst of it.
    path = f"{lab.folder}/copies/cut"
    orphan = stopped(lab, lab.module_alone("restore", path=path, target_time=moment), path, "backup.manifest")
    os.kill(orphan, signal.SIGKILL)
    lab.wait(lambda: not pgbackrest_of(path), "its end")
    assert (Path(path) / "backup.manifest").exists()
    assert (
        lab.module("restore", path=path, target_time=moment)["changed"]
        and not lab.module("restore", path=path, target_time=moment)["changed"]
    )
    with lab.copy(Path(path)) as port:
        assert lab.sql("SELECT count(*) FROM entry", "ledger", port) == str(ROWS)
    with pytest.raises(Failed, match=r"holds what was restored before .*remove this one and .*cut.tablespaces"):
        lab.module("restore", path=path, target_time=moment)
    # Folders without a file, where one was ended before its first.
    path = f"{lab.folder}/copies/begun"
    lab.run("mkdir", "-p", f"{path}/base/1", f"{path}.tablespaces/1")
    assert lab.module("restore", path=path)["changed"]


def test_a_verification_that_was_killed_in_its_restore_is_removed_when_that_has_ended(lab, full):
    path = f"{lab.folder}/bitnet-verify.*"
    orphan = stopped(lab, lab.module_alone("verify"), path)
    left = scratches(lab)
    try:
        with pytest.raises(Failed, match="what it began still works there"):
            lab.module("verify")
        assert scratches(lab) == left
    finally:
        os.kill(orphan, signal.SIGCONT)
    lab.wait(lambda: not pgbackrest_of(path), "the end of what the killed run began")
    assert lab.module("verify")["removed"] == left and scratches(lab) == []


def test_a_damaged_segment_is_no_end_of_the_archive(lab, full):
    names = []
    for number in range(3):
        mark(lab, f"segment-{number}")
        names.append(lab.switch())
    (file,) = lab.archived(names[1])
    flip(file, file.stat().st_size // 2)
    try:
        with pytest.raises(
            Failed, match=r"was restored and is not sound: recovery: WAL could not be fetched: .*ERROR: \["
        ):
            lab.module("verify")
        assert scratches(lab) == []
    finally:
        flip(file, file.stat().st_size // 2)
    assert lab.module("verify")["checks"][0] == {"name": "recovery", "ok": True, "said": ANY}


def test_a_gap_in_one_repository_is_not_filled_from_another_and_that_one_restores(lab, full):
    lab.repositories.append({"path": f"{lab.folder}/second", "cipher_pass": "a-pass-of-the-second-one"})
    lab.configure()
    try:
        lab.pgbackrest("stanza-create")
        assert lab.module("backup", repo=2)["changed"]
        lab.module("backup", type="incr", max_age="0")
        mark(lab, "in-the-gap-of-the-first")
        gap = lab.switch()
        mark(lab, "behind-it")
        lab.switch()
        (file,) = lab.archived(gap)
        aside = lab.folder / "aside"
        file.rename(aside)
        path = lab.folder / "copies/of-the-second"
        try:
            for name in ("verify", "restore"):
                with pytest.raises(Failed, match=f"the archive lacks {gap}"):
                    lab.module(name, repo=1, **({"path": str(path)} if name == "restore" else {}))
            taken = lab.module("restore", path=str(path))
            assert taken["plan"]["repo"] == 2 and f"lacks {gap}" in str(taken["plan"]["warnings"])
            with lab.copy(path) as port:
                assert {"in-the-gap-of-the-first", "behind-it"} <= marks(lab, port)
            assert "of repository 2" in lab.module("verify", database="ledger", tables=["mark"])["plan"][0]
        finally:
            aside.rename(file)
    finally:
        del lab.repositories[1]
        lab.configure()
        lab.archive_again()


@pytest.mark.parametrize(
    "number, when",
    [(signal.SIGTERM, "data"), (signal.SIGTERM, "data/postmaster.pid"), (signal.SIGKILL, "data/postmaster.pid")],
)
def test_what_a_killed_verification_leaves_is_removed(lab, full, number, when):
    process = lab.module_alone("verify")
    try:
        lab.wait(lambda: list(lab.folder.glob(f"bitnet-verify.*/{when}")) or process.poll() is not None, "the trial")
        process.send_signal(number)
        said, _unused = process.communicate(timeout=120)
    finally:
        process.kill()
    if number == signal.SIGTERM:
        assert "ended by SIGTERM" in said and scratches(lab) == []
    else:
        assert len(scratches(lab)) == 1
        left = scratches(lab)
        after = lab.module("verify")
        assert after["removed"] == left and after["changed"] and scratches(lab) == []
    assert (
        f"{lab.folder}/bitnet-verify"
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    )


def test_a_damaged_page_of_the_database_is_said_by_backup_and_verification(lab, full):
    lab.sql("CREATE TABLE spoilt AS SELECT n, repeat('x', 100) AS what FROM generate_series(1, 2000) n; CHECKPOINT")
    file = lab.data / lab.sql("SELECT pg_relation_filepath('spoilt')")
    lab.stop()
    flip(file, 8192 + 4000)
    lab.start()
    try:
        # With room for one full backup the damaged one would take the place of the last that is sound.
        lab.repositories[0]["retention_full"] = 1
        lab.configure()
        before = [backup["label"] for backup in lab.module("info")["backups"]]
        with pytest.raises(
            Failed, match=r"have a wrong checksum, so the database itself is damaged.*No backup"
        ) as failure:
            lab.module("backup", type="full", max_age="0")
        answer = failure.value.result
        assert answer["changed"] and answer["backup"]["page_errors"] and answer["backup"]["type"] == "full"
        assert [backup["label"] for backup in lab.module("info")["backups"]] == [*before, answer["backup"]["label"]]
        assert [problem for problem in lab.module("info")["problems"] if "the database itself is damaged" in problem]
        with pytest.raises(Failed, match=r"was restored and is not sound: .*checksums: .*checksum verification failed"):
            lab.module("verify", set=answer["backup"]["label"])
        # An earlier backup and WAL give the page back as it was.
        proof = lab.module("verify", tables=["other"])
        assert proof["label"] in before and "is newer and not taken: pages" in str(proof["warned"])
        assert scratches(lab) == []
    finally:
        lab.sql("DROP TABLE spoilt")
        # A sound one, and what is not kept goes.
        sound = lab.module("backup", type="full", max_age="0")["backup"]["label"]
        assert [backup["label"] for backup in lab.module("info")["backups"]] == [sound]
        lab.repositories[0]["retention_full"] = 9
        lab.configure()


def flip(path: Path, at: int) -> None:
    """One bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def test_a_flipped_bit_in_a_backup_is_found_and_named(lab, full):
    label = lab.module("backup")["backup"]["label"].partition("_")[0]
    bundle = max((lab.folder / f"repo1/backup/main/{label}/bundle").iterdir(), key=lambda path: path.stat().st_size)
    flip(bundle, bundle.stat().st_size // 2)
    try:
        with pytest.raises(
            Failed, match=r"pgbackrest restore failed: .*A file in the repository is damaged: restore from another"
        ):
            lab.module("verify", set=label)
        assert scratches(lab) == []
    finally:
        flip(bundle, bundle.stat().st_size // 2)
    assert lab.module("verify", set=label)["label"] == label


def test_a_missing_segment_is_named_before_anything_is_restored(lab, full):
    newest = lab.module("backup")["backup"]["label"]
    mark(lab, "before-the-gap")
    moment_before = now(lab)
    lab.switch()
    mark(lab, "in-the-gap")
    gap = lab.switch()
    mark(lab, "behind-the-gap")
    lab.switch()
    (file,) = lab.archived(gap)
    aside = lab.folder / "aside"
    file.rename(aside)
    path = lab.folder / "copies/gap"
    try:
        with pytest.raises(
            Failed, match=rf"the archive lacks {gap}: from the backup {newest} .*give a target_time before 2"
        ):
            lab.module("restore", path=str(path))
        assert not path.exists()
        assert [problem for problem in lab.module("info")["problems"] if f"lacks the WAL {gap}" in problem]
        # What is before the gap can be had.
        assert lab.module("restore", path=str(path), target_time=moment_before)["changed"]
        with lab.copy(path) as port:
            assert "before-the-gap" in marks(lab, port) and "in-the-gap" not in marks(lab, port)
        # A backup made now does without it.
        healed = lab.module("backup", type="incr", max_age="0")["backup"]["label"]
        assert lab.module("restore", check=True, path=f"{path}2")["plan"]["label"] == healed
    finally:
        aside.rename(file)
    assert lab.module("info")["problems"] == []


def test_a_wrong_pass_is_said_as_such_and_never_shown(lab, full):
    lab.repositories[0]["cipher_pass"] = "another-pass-of-the-tests"
    lab.configure()
    try:
        wrong = (
            r"repository 1 cannot be decrypted: the cipher pass \(repo1-cipher-pass\) is not the one that it was made"
        )
        for name in ("backup", "restore", "verify"):
            options = {"path": f"{lab.folder}/copies/wrong"} if name == "restore" else {}
            with pytest.raises(Failed, match=wrong) as failure:
                lab.module(name, **options)
            assert "another-pass" not in str(failure.value)
        assert re.search(wrong, lab.module("info")["problems"][0])
    finally:
        lab.repositories[0]["cipher_pass"] = "a-pass-of-the-tests-4c1f"
        lab.configure()
    assert lab.module("info")["problems"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root")
def test_a_full_repository_loses_nothing(lab, full):
    disk = lab.folder / "repo2"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,uid=postgres,gid=postgres", "bitnet-test", disk], check=True
    )
    try:
        lab.repositories.append({"path": str(disk), "cipher_pass": "a-pass-of-the-second-one"})
        lab.configure()
        lab.pgbackrest("stanza-create")
        lab.module("backup", repo=2)
        fill(disk, 2_000_000)
        with pytest.raises(
            Failed, match=r"backup failed: .*/repo2/.* has \d+ KiB free. The disk is full: give it room"
        ):
            lab.module("backup", repo=2, type="full", max_age="0")
        fill(disk, 40_000)
        lab.sql("INSERT INTO entry SELECT n, md5(n::text) FROM generate_series(1000001, 1060000) n", "ledger")
        lab.sql("SELECT pg_switch_wal()")
        state = lab.module("info", probe=True, rpo="1s")
        assert [problem for problem in state["problems"] if re.search("check failed: .*The disk is full", problem)]
        assert [problem for problem in state["problems"] if re.search("wait for the archive.*unable to write", problem)]
        assert state["archive"]["waiting"] > 0
        # The database goes on meanwhile.
        mark(lab, "while-it-was-full")

        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        lab.archive_again()
        lab.wait(lambda: lab.module("info")["archive"]["waiting"] == 0, "all WAL in the archive", 90)
        proof = lab.module("verify", repo=2, database="ledger", tables=["entry", "mark"])
        assert proof["rows"]["entry"].startswith(f"{ROWS + 60_000}:")
    finally:
        del lab.repositories[1]
        lab.configure()
        lab.archive_again()
        lab.wait(lambda: lab.module("info")["archive"]["waiting"] == 0, "an archive without the second repository", 90)
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path, leave: int) -> None:
    (disk / "fill").unlink(missing_ok=True)
    room = os.statvfs(disk)
    (disk / "fill").write_bytes(bytes(max(room.f_bavail * room.f_frsize - leave, 0)))


def test_a_bucket_of_s3_holds_a_second_repository(lab, full):
    with S3(lab) as store:
        lab.repositories.append(store.declared)
        lab.configure()
        try:
            lab.pgbackrest("stanza-create")
            mark(lab, "in-the-bucket")
            assert lab.module("backup", repo=2)["backup"]["type"] == "full"
            proof = lab.module("verify", repo=2, database="ledger", tables=["entry", "mark"])
            assert proof["plan"][0].startswith("full backup") and "of repository 2" in proof["plan"][0]
            state = lab.module("info")
            assert state["problems"] == [] and [repo["usable"] for repo in state["repositories"]] == [True, True]

            # It is away: said, and the first repository gives everything back.
            store.stop()
            state = lab.module("info")
            assert [problem for problem in state["problems"] if problem.startswith("repository 2 cannot be used: ")]
            proof = lab.module("verify")
            assert "of repository 1" in proof["plan"][0] and proof["seconds"]["recovery"] < 40
        finally:
            del lab.repositories[1]
            lab.configure()
            lab.archive_again()


RUNBOOK = Path(__file__).resolve().parents[2] / "docs/runbooks/restore.md"


@pytest.mark.full  # a minute of Ansible's starts
def test_each_command_of_the_runbook_works_in_its_order(lab, full):
    """As it is written there, but for names of places, the moment and what is small here."""
    mark(lab, "before-the-runbook")
    moment = now(lab)
    mark(lab, "in-the-runbook")
    lab.switch()
    beside = Path(f"{lab.data}.restored")
    if beside.exists():
        shutil.rmtree(beside)
        with pytest.raises(Failed, match=rf"path: {beside}.tablespaces is not empty.*Remove what an earlier restore"):
            lab.module("restore")
        shutil.rmtree(f"{beside}.tablespaces")
    hosts = lab.folder / "hosts"
    hosts.write_text("db ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n")
    Path(f"{hosts}.cfg").write_text("[defaults]\nhost_key_checking = false\n")
    said = []
    for command in re.findall(r"```console\n(.*)\n```", RUNBOOK.read_text()):
        local = command.replace("/tmp/", f"{lab.folder}/log/").replace("/var/lib/postgresql/15/main", str(lab.data))
        local = local.replace("2026-11-27 09:30:00+00", moment).replace(
            "database=bitnet tables=ledger", "database=ledger tables=entry"
        )
        local = local.replace("psql ", f"psql --host {lab.folder} ")
        if "bitnet.devops" in local:
            local = local if " -a " in local else f"{local} -a ''"
            local = re.sub(r" -a ('?)([^' ]*)", rf" -a \1config_path={lab.folder}/etc \2", local, count=1)
            local = re.sub(r" -a (config_path=\S+ \S+)", r" -a '\1'", local)
        if os.geteuid() != 0:
            local = local.replace("-b --become-user postgres ", "")
        said.append(ansible(local, hosts))
        if local.endswith("start'"):
            port = 5433 if "port=5433" in local else 5432
            lab.wait(lambda port=port: lab.sql("SELECT pg_is_in_recovery()", port=port) == "f", "the end of recovery")
            assert ("in-the-runbook" in marks(lab, port)) == (port == 5432) and "before-the-runbook" in marks(lab, port)
    assert len(said) == 13 and '"problems": []' in said[-3]
    assert [text for text in said if "CHANGED" in text and "last transaction" in text] == []


def ansible(command: str, hosts: Path) -> str:
    collections = Path(__file__).resolve().parents[2] / ".cache/collections"
    variables = {
        "ANSIBLE_INVENTORY": str(hosts), "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_BECOME_METHOD": "su",
        "ANSIBLE_CONFIG": f"{hosts}.cfg", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=180,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
