# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four modules on real files: a key, what it signs, and the decision that is made of that."""

from __future__ import annotations

import base64
import datetime
import json
import os
import stat
import subprocess

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._consensus import signing
from ansible_collections.bitnet.devops.plugins.modules import approval, consensus, signing_key, verdict

from tests.unit import consensus_world as world

SAYS = {
    "environment": "staging",
    "release": world.RELEASE,
    "model": world.MODEL,
    "run": world.RUN,
    "binding": {"threads": 4},
    "gates": [{**world.GOOD_GATE, "kind": "compare", "seconds": 1.0, "changed": False, "failed": False}],
}


@pytest.fixture
def run(capsys):
    def call(module, check=False, **options):
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def key_file(tmp_path, run):
    path = tmp_path / "key"
    run(signing_key, path=str(path))
    return str(path)


@pytest.fixture
def approver_key_file(tmp_path, run):
    path = tmp_path / "approver-key"
    run(signing_key, path=str(path))
    return str(path)


# ---------------------------------------------------------------------------- signing_key


def test_a_key_is_made_once_for_its_owner_alone(run, tmp_path):
    path = tmp_path / "key"
    before = run(signing_key, check=True, path=str(path))
    assert before["changed"] and before["public_key"] == "known after the key is made"
    assert not list(tmp_path.iterdir())
    made = run(signing_key, path=str(path))
    assert made["changed"] and made["public_key"].startswith("ssh-ed25519 AAAA")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [left.name for left in tmp_path.iterdir()] == ["key"]
    text = path.read_text()
    for again in (run(signing_key, path=str(path)), run(signing_key, check=True, path=str(path))):
        assert not again["changed"]
        assert again["public_key"] == made["public_key"]
        assert again["diff"]["before"] == again["diff"]["after"]
    assert path.read_text() == text


def test_the_private_key_is_in_no_result(run, tmp_path):
    path = tmp_path / "key"
    said = json.dumps([run(signing_key, path=str(path)), run(verdict, **SAYS, key_file=str(path))])
    key = signing.read_key("path", str(path))
    secret = key.private_bytes_raw()
    for text in (base64.b64encode(secret).decode(), secret.hex(), *path.read_text().splitlines()[1:-1]):
        assert text not in said


def test_ssh_keygen_reads_the_key_and_makes_one(run, tmp_path):
    path = tmp_path / "key"
    made = run(signing_key, path=str(path))["public_key"]
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == made.split()
    theirs = tmp_path / "theirs"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", theirs], check=True)
    found = run(signing_key, path=str(theirs))
    assert not found["changed"]
    assert found["public_key"].split() == (tmp_path / "theirs.pub").read_text().split()[:2]


def test_files_that_hold_no_key_are_refused_and_left(run, tmp_path):
    path = tmp_path / "key"
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    path.chmod(0o600)
    assert "holds no Ed25519 key" in run(signing_key, path=str(path))["msg"]
    assert "secret" in path.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "long enough", "-f", tmp_path / "closed"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa"], check=True)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("closed", "ecdsa", "pipe"):
        assert "holds no Ed25519 key" in run(signing_key, path=str(tmp_path / name))["msg"], name
    path = tmp_path / "open"
    run(signing_key, path=str(path))
    path.chmod(0o640)
    assert f"others may read {path} (mode 0640); chmod 0600" in run(signing_key, path=str(path))["msg"]
    assert "cannot be written (No such file" in run(signing_key, path=str(tmp_path / "no" / "key"))["msg"]
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert "cannot be read (No such file" in run(signing_key, path=str(tmp_path / "dangling"))["msg"]


def test_who_comes_second_takes_the_key_that_is_there(tmp_path):
    path = tmp_path / "key"
    assert signing.make_key(str(path))
    text = path.read_text()
    assert not signing.make_key(str(path))
    assert path.read_text() == text


# ---------------------------------------------------------------------------- verdict and approval


@pytest.mark.parametrize(
    ("change", "decides", "why"),
    [
        ({}, "promote", []),
        ({"gates": []}, "refuse", ["no required gate has judged it"]),
        ({"gates": [world.BAD_GATE]}, "refuse", ["gate compare: fail (3 of 20 requests failed)"]),
        ({"gates": [{**world.BAD_GATE, "required": False}]}, "refuse", ["no required gate has judged it"]),
        ({"gates": [world.GOOD_GATE, {**world.BAD_GATE, "required": False}]}, "promote", []),
        ({"gates": [{"name": "g", "verdict": "inconclusive"}]}, "refuse", ["gate g: inconclusive"]),
        ({"gates": [{"name": "g", "verdict": "skipped in check mode"}]}, "refuse", ["gate g: skipped in check mode"]),
        ({"failure": "no memory"}, "refuse", ["it failed: no memory"]),
    ],
)
def test_a_verdict_follows_from_what_was_measured(run, key_file, change, decides, why):
    said = run(verdict, **{**SAYS, **change}, key_file=key_file)
    assert (said["decision"], said["reasons"], said["changed"]) == (decides, why, False)
    assert json.loads(base64.b64decode(said["verdict"]["payload"])) == said["statement"]


def test_check_mode_signs_nothing(run, key_file):
    said = run(verdict, check=True, **SAYS, key_file=key_file)
    assert said["decision"] == "promote"
    assert "verdict" not in said
    allows = {"approver": "alice", "release": world.RELEASE, "environment": "production", "key_file": key_file}
    assert "approval" in run(approval, **allows)
    assert "approval" not in run(approval, check=True, **allows)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"environment": "Staging"}, "environment: 'Staging' is no name"),
        ({"release": "latest"}, "release: 'latest' is no release id"),
        ({"model": "bitnet"}, "model: 'bitnet' is no SHA-256"),
        ({"run": "7"}, "run: '7' is no id of a run"),
        ({"binding": {}}, "binding: it is empty"),
        ({"gates": [{"name": "g", "verdict": "good"}]}, "gates: entry 1 is no result of bitnet.devops.traffic_gate"),
        ({"gates": [{"verdict": "pass"}]}, "It says name None, verdict 'pass'"),
        ({"gates": [{**world.GOOD_GATE, "required": "no"}]}, "has required 'no'; give true or false"),
        ({"figures": {"text": "x" * 300000}}, "larger than 262144; give figures"),
        ({"figures": json.loads('{"a":' * 30 + "1" + "}" * 30)}, "a verdict of more than 20 levels; give figures"),
        ({"key_file": "/nowhere/key"}, "key_file: /nowhere/key cannot be read (No such file"),
    ],
)
def test_bad_options_of_a_verdict_are_refused(run, key_file, change, says):
    said = run(verdict, **{**SAYS, "key_file": key_file, **change})
    assert said["failed"] and says in said["msg"]


@pytest.mark.parametrize("hours", [0, -1, 9000, "nan"])
def test_an_approval_ends(run, key_file, hours):
    allows = {"approver": "alice", "release": world.RELEASE, "environment": "production", "key_file": key_file}
    assert f"valid_hours: {hours} is not between" in run(approval, **allows, valid_hours=hours)["msg"]


def test_text_that_is_half_a_surrogate_pair_still_makes_a_verdict():
    """Not through the module's arguments, which Ansible may refuse then, depending on its configuration."""
    sealed = signing.seal("verdict", {"reason": "bytes \udcff of a command"}, world.key("staging"))
    assert json.loads(base64.b64decode(sealed["payload"]))["reason"] == "bytes ? of a command"


# ---------------------------------------------------------------------------- consensus


@pytest.fixture
def question(run, key_file, approver_key_file):
    """The options, for the environment and the approver of these keys, and a run that began just now."""
    began = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=1)
    options = world.params({"staging": True}, 1, began_at=began.isoformat(), approvals_required=1)
    options["environments"][0]["keys"] = [run(signing_key, path=key_file)["public_key"]]
    options["approvers"] = [{"name": "alice", "keys": [run(signing_key, path=approver_key_file)["public_key"]]}]
    return options


@pytest.mark.parametrize("check", [False, True])
def test_from_key_to_decision(run, question, key_file, approver_key_file, check):
    said = run(verdict, **SAYS, key_file=key_file)["verdict"]
    allows = {"approver": "alice", "release": world.RELEASE, "environment": "production"}
    approved = run(approval, **allows, key_file=approver_key_file)["approval"]
    assert run(consensus, check, **question)["outcome"] == "undecided"
    assert run(consensus, check, **question, verdicts=[said])["waiting_for"] == ["approvals"]
    decided = run(consensus, check, **question, verdicts=[said, "rubbish", None, 7], approvals=[approved])
    assert (decided["outcome"], decided["changed"]) == ("promote", False)
    assert decided["comparison"]["bindings"]["staging"]["binding"] == {"threads": 4}
    assert [each["reason"] for each in decided["ignored"]] == ["unreadable"] * 3
    assert [each["approver"] for each in decided["approvals"]] == ["alice"]
    always = {"name": "always", "from": "2020-01-01 00:00", "until": "2999-01-01 00:00", "timezone": "UTC"}
    decided = run(consensus, check, **{**question, "freeze_windows": [always]}, verdicts=[said], approvals=[approved])
    assert (decided["outcome"], decided["waiting_for"]) == ("undecided", ["the end of a freeze"])
    assert decided["frozen"] == [{"name": "always", "until": "2999-01-01T00:00:00.000000Z"}]


def test_bad_options_of_the_consensus_are_refused(run, question):
    assert "quorum: 2 is not between 1 and 1" in run(consensus, **{**question, "quorum": 2})["msg"]
    future = {**question, "began_at": "2999-01-01T00:00:00Z"}
    assert "began_at: 2999-01-01T00:00:00.000000Z is still to come" in run(consensus, **future)["msg"]


@pytest.mark.parametrize("module", [approval, consensus, signing_key, verdict])
def test_a_host_without_the_library_is_told_which(run, monkeypatch, question, module, key_file):
    monkeypatch.setattr(module, "HAS_CRYPTOGRAPHY", False)
    options = {
        approval: {"approver": "a", "release": "r", "environment": "e", "key_file": key_file},
        consensus: question,
        signing_key: {"path": key_file},
        verdict: {**SAYS, "key_file": key_file},
    }[module]
    assert "Failed to import the required Python library (cryptography)" in run(module, **options)["msg"]
