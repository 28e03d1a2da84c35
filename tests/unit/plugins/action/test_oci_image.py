# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action: what lies on the controller is hashed always, and sent only when an image has to be built."""

from __future__ import annotations

import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible_collections.bitnet.devops.plugins.action import oci_image


class Task:
    def __init__(self, context, check_mode=False):
        self.args = {"name": "it", "context": context}
        self.check_mode = check_mode

    def copy(self):
        twin = Task(self.args["context"], self.check_mode)
        twin.args = dict(self.args)
        return twin


class Action(oci_image.ActionModule):
    """With a target that answers from a script."""

    def __init__(self, task, look, built=None):
        self._task = task
        shell = SimpleNamespace(tmpdir="/remote/tmp", join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell)
        self.look, self.built = look, built or {}
        self.calls, self.sent, self.removed = [], {}, []

    def _find_needle(self, dirname, needle):
        if not Path(needle).exists():
            raise AnsibleError(f"Unable to find '{needle}'")
        return needle

    def _make_tmp_path(self, remote_user=None):
        return "/remote/tmp"

    def _transfer_file(self, local_path, remote_path):
        with tarfile.open(local_path) as archive:
            self.sent[remote_path] = sorted(archive.getnames())

    def _fixup_perms2(self, remote_paths, remote_user=None, execute=True):
        pass

    def _remove_tmp_path(self, tmp_path, force=False):
        self.removed.append(tmp_path)

    def _execute_module(self, module_args=None, task_vars=None, **options):
        self.calls.append((self._task.check_mode, None if module_args is None else dict(module_args)))
        return dict(self.look if self._task.check_mode or not self.built else self.built)


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    lines = []
    monkeypatch.setattr(oci_image.display, "display", lines.append)
    monkeypatch.setattr(oci_image.ActionBase, "run", lambda self, tmp, task_vars: {})
    return lines


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1\n")
    return [
        {"src": str(tmp_path / "Dockerfile"), "dest": "Dockerfile"},
        {"src": str(tmp_path / "src"), "dest": "src"},
        {"src": "/on/the/target", "dest": "wheels", "remote_src": True, "digest": "abc"},
    ]


@pytest.mark.parametrize("look", [{"changed": False, "image": "it:1"}, {"failed": True, "msg": "no"}])
def test_a_look_with_nothing_to_do_is_the_answer_and_nothing_is_sent(context, look, shown):
    action = Action(Task(context), look)
    assert action.run(task_vars={}) == look
    assert [call[0] for call in action.calls] == [True]
    assert (action.sent, shown) == ({}, [])
    assert not action._task.check_mode
    assert action.removed == ["/remote/tmp"]


def test_check_mode_only_looks(context):
    action = Action(Task(context, check_mode=True), {"changed": True, "image": "it:1"})
    assert action.run(task_vars={})["changed"]
    assert (len(action.calls), action.sent) == (1, {})


def test_what_is_to_be_built_gets_the_files_of_the_controller_and_no_others(context, shown):
    action = Action(Task(context), {"changed": True, "image": "it:1"}, {"changed": True, "built": True})
    assert action.run(task_vars={})["built"]
    assert action.sent == {"/remote/tmp/context.tar": ["Dockerfile", "src", "src/a.py"]}
    look, build = action.calls
    assert (look[0], "archive" in look[1]) == (True, False)
    assert (build[0], build[1]["archive"]) == (False, "/remote/tmp/context.tar")
    assert build[1]["context"][2] == context[2], "what is on the target is the module's to read"
    assert "it:1" in shown[0]
    assert "archive" not in action._task.args


def test_the_hash_follows_the_content(context, tmp_path):
    def digests():
        action = Action(Task(context), {"changed": False})
        action.run(task_vars={})
        return [item["digest"] for item in action.calls[0][1]["context"]]

    before = digests()
    assert digests() == before
    (tmp_path / "src" / "a.py").write_text("2\n")
    after = digests()
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    (tmp_path / "src" / "a.pyc").write_text("left over")
    assert digests() == after


def test_all_on_the_target_sends_nothing(context):
    action = Action(Task(context[2:]), {"changed": True, "image": "it:1"}, {"changed": True, "built": True})
    assert action.run(task_vars={})["built"]
    assert action.sent == {}
    assert "archive" not in action.calls[1][1]


def test_a_file_that_is_not_there_is_a_sentence_before_anything_is_asked(context):
    context[0]["src"] = "/nowhere/Dockerfile"
    action = Action(Task(context), {"changed": True})
    result = action.run(task_vars={})
    assert result["failed"]
    assert "/nowhere/Dockerfile" in result["msg"]
    assert action.calls == []
    assert action.removed == ["/remote/tmp"]


@pytest.mark.parametrize("context", [None, "text", ["text"]])
def test_a_context_that_is_none_is_the_modules_to_refuse(context):
    action = Action(Task(context), {"failed": True, "msg": "context"})
    assert action.run(task_vars={})["failed"]
    assert action.calls == [(False, None)]
