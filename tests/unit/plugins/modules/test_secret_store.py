# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store on a manager's disk: what a run writes, what check mode says, and two that write at once."""

from __future__ import annotations

import fcntl
import json
import stat

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.modules import secret_store

GIVEN = "a-password-of-our-own"
BROKEN = "{"
DECLARED = {"postgresql": {}, "smtp": {"kind": "password"}}


@pytest.fixture
def run(tmp_path, capsys):
    def module(declared=None, fails=False, check=False, folder="one", **options):
        path = tmp_path / folder
        if not check:
            for below in ("secrets", "database"):
                (path / below).mkdir(parents=True, exist_ok=True)
        arguments = {"path": str(path), "environment": "test", "declared": declared or DECLARED}
        arguments["_ansible_check_mode"] = check
        with patch_module_args({**arguments, **options}), pytest.raises(SystemExit):
            secret_store.main()
        out = capsys.readouterr().out
        said = json.loads(out)
        assert bool(said.get("failed")) == fails, said
        held = path / "secrets/store.json"
        if held.exists() and held.read_text() != BROKEN:
            store = json.loads(held.read_text())
            values = [one["value"] for entry in store["secrets"].values() for one in entry["versions"]]
            assert not [value for value in [*values, store["key"]] if value in out]
        return said

    module.folder = tmp_path
    return module


def held(run, folder="one"):
    return (run.folder / folder / "secrets/store.json").read_text()


def test_a_run_and_another(run):
    said = run(check=True)
    assert said["changed"] and said["secrets"]["smtp"]["version"] == "known after it is made"
    assert not (run.folder / "one").exists()
    said = run(given={"postgresql": GIVEN}, given_by={"postgresql": "sops"})
    assert said["changed"] and said["actions"][:2] == ["postgresql: sops", "smtp: generated"] and said["serial"] == 1
    assert said["secrets"]["postgresql"]["source"] == "sops"
    assert said["diff"]["after"]["files"] == ["database/logins", "database/postgresql", "secrets/store.json"]
    for path in (run.folder / "one").glob("*/*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run(given={"postgresql": GIVEN})
    assert not again["changed"] and again["actions"] == [] and again["serial"] == 1
    base = "bitnet-test-secret-smtp"
    assert again["in_swarm"] == {base: f"{base}-" + again["secrets"]["smtp"]["version"]}
    assert again["forgotten"] == {base: []} and again["index"]["serial"] == 1


def test_a_file_that_somebody_changed_or_opened_is_mended(run):
    run(given={"postgresql": GIVEN})
    file = run.folder / "one/database/postgresql"
    file.write_text("something else\n")
    (run.folder / "one/secrets/store.json").chmod(0o644)
    said = run(check=True)
    assert said["changed"] and "database/postgresql: written" in said["actions"]
    assert file.read_text() == "something else\n"
    run()
    assert (
        file.read_text() == GIVEN + "\n"
        and stat.S_IMODE((run.folder / "one/secrets/store.json").stat().st_mode) == 0o600
    )


def test_another_manager_takes_the_newest(run):
    run()
    one = held(run)
    run(folder="two", state="copied", others={"one": one})
    assert held(run, "two") == one
    run(state="rotating", name="smtp", phase="prepared", folder="two")
    said = run(folder="two", state="copied", others={"one": one}, fails=True)
    assert "is newer (serial 2) than what it was to take" in said["msg"]
    # And where the lead was away meanwhile.
    said = run(others={"two": held(run, "two")})
    assert said["changed"] and held(run) == held(run, "two")
    assert said["actions"] == ["store: taken from another manager (serial 2)"]


def test_a_rotation(run):
    run()
    assert run(state="rotating", name="smtp", phase="prepared", check=True)["phase"] == "prepared"
    assert run()["serial"] == 1
    for phase in ("prepared", "both_valid", "moving", "verified", "withdrawn"):
        said = run(state="rotating", name="smtp", phase=phase)
        assert (said["phase"], said["changed"], said["actions"]) == (phase, True, [f"smtp: the rotation is {phase}"])
        assert not run(state="rotating", name="smtp", phase=phase)["changed"]
    assert run(state="rotated", name="smtp")["phase"] == ""
    said = run(state="rotating", name="smtp", phase="moving", fails=True)
    assert "smtp is not being rotated" in said["msg"]
    said = run(state="rotating", name="nobody", phase="prepared", fails=True)
    assert "name: 'nobody' is not declared; bitnet_secrets has postgresql, smtp" in said["msg"]


def test_no_store_and_a_broken_one(run):
    assert "there is no store of secrets in" in run(state="rotated", name="smtp", fails=True)["msg"]
    (run.folder / "one/secrets/store.json").write_text(BROKEN)
    assert "secrets/store.json of this manager is no store of secrets" in run(fails=True)["msg"]
    assert held(run) == BROKEN


def test_one_writer_at_a_time(run):
    run()
    with (run.folder / "one/secrets/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        said = run(state="rotating", name="smtp", phase="prepared", wait_seconds=0, fails=True)
        assert "another run has held" in said["msg"] and "run again" in said["msg"]
    assert run(state="rotating", name="smtp", phase="prepared", wait_seconds=0)["changed"]


def test_a_disk_that_is_full_leaves_what_there_was(run, monkeypatch):
    run()
    before = held(run)

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(secret_store.keeping.os, "fsync", full)
    said = run(state="rotating", name="smtp", phase="prepared", fails=True)
    assert "cannot be written (No space left on device); what was there is still there" in said["msg"]
    assert held(run) == before and sorted(path.name for path in (run.folder / "one/secrets").iterdir()) == [
        ".lock",
        "store.json",
    ]


def test_what_a_run_that_was_killed_has_left_is_used_up(run):
    """Killed while it wrote: its file is neither kept for ever, nor readable, nor followed to somewhere else."""
    run()
    left = run.folder / "one/secrets/.store.json.new"
    left.write_text("x" * 100_000)
    left.chmod(0o644)
    assert run(state="rotating", name="smtp", phase="prepared")["changed"]
    path = run.folder / "one/secrets/store.json"
    assert sorted(one.name for one in path.parent.iterdir()) == [".lock", "store.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and json.loads(path.read_text())["serial"] == 2
    left.symlink_to(run.folder / "elsewhere")
    assert "cannot be written" in run(state="rotating", name="smtp", phase="both_valid", fails=True)["msg"]
    assert not (run.folder / "elsewhere").exists()


def test_check_mode_looks_at_the_stores_of_others(run):
    """A manager that has nothing yet, as a new one that leads."""
    first = run()
    said = run(folder="new", check=True, others={"one": held(run)}, index=first["index"])
    assert said["changed"] and said["secrets"] == first["secrets"] and not (run.folder / "new").exists()
    assert said["actions"][0] == "store: taken from another manager (serial 1)"
    said = run(folder="new", check=True, others={"one": held(run)}, state="revealed", name="smtp", by="a", reason="b")
    assert said["actions"][0] == "smtp: revealed to a"


def test_the_index_decides_whether_a_store_goes_on(run):
    first = run()
    rotation = [{"state": "rotating", "phase": phase} for phase in secret_store.store.PHASES]
    old = held(run)
    for step in [*rotation, {"state": "rotated"}]:
        last = run(name="smtp", **step)
    (run.folder / "one/secrets/store.json").write_text(old)
    before = {path: path.read_text() for path in (run.folder / "one").rglob("*") if path.is_file()}
    assert "is older than what the Swarm knows (serial 7)" in run(index=last["index"], fails=True)["msg"]
    assert before == {path: path.read_text() for path in (run.folder / "one").rglob("*") if path.is_file()}
    said = run(index=last["index"], make_anew="true")
    assert said["serial"] == 8 and said["actions"][:2] == ["store: made the newest, without smtp", "smtp: generated"]
    assert said["secrets"]["smtp"]["version"] not in (
        first["secrets"]["smtp"]["version"], last["secrets"]["smtp"]["version"],
    )  # fmt: skip
    # With nothing to make, it is the newest all the same, and once.
    said = run(index={**said["index"], "serial": 20, "digest": "of-one-that-is-lost"}, make_anew="yes")
    assert said["serial"] == 21
    assert not run(index=said["index"], make_anew="yes")["changed"]


def test_a_name_that_is_too_long_for_the_swarm(run):
    said = run(declared={"a" * 32: {"kind": "key"}}, environment="prove", fails=True)
    assert "has 65 characters, and a secret of the Swarm up to 64; give it a shorter name" in said["msg"]
    run(declared={"a" * 31: {"kind": "key"}}, environment="prove")


def test_revealed(run):
    run()
    run(state="revealed", name="smtp", by="alice", reason="the mailer is down")
    assert [(one["name"], one["overdue"]) for one in run()["due"]] == [("smtp", True)]
