# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action: a look that may already be the answer, then a job that is followed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.bitnet.devops.plugins.action import kernel_build


class Task:
    def __init__(self, check_mode=False, async_val=0):
        self.args = {"variants": ["v3"], "timeout": 60}
        self.check_mode, self.async_val, self.action = check_mode, async_val, "bitnet.devops.kernel_build"

    def copy(self):
        twin = Task(self.check_mode, self.async_val)
        twin.args = dict(self.args)
        return twin


class Action(kernel_build.ActionModule):
    """With a target that answers from a script."""

    def __init__(self, task, look, lines=(), final=None):
        self._task = task
        self._connection = SimpleNamespace(has_native_async=False, _shell=SimpleNamespace(tmpdir=None))
        self.look, self.lines, self.final = look, list(lines), final or {}
        self.calls, self.commands, self.modes, self.sent = [], [], [], b""

    def get_shell_option(self, option, default=None):
        return default

    def _remote_expand_user(self, path, *args, **options):
        return path.replace("~", "/home/me")

    def _remove_tmp_path(self, tmp_path, force=False):
        pass

    def _execute_module(self, module_args=None, task_vars=None, wrap_async=False, **options):
        self.calls.append((self._task.check_mode, wrap_async, self._task.async_val, module_args))
        return {"ansible_job_id": "j1", "started": 1} if wrap_async else dict(self.look)

    def _low_level_execute_command(self, command, **options):
        self.commands.append(command)
        if not command.startswith("tail"):
            return {"stdout": ""}
        if self.lines:
            self.sent += self.lines.pop(0).encode()
        offset = int(command.split("+")[1].split()[0])
        return {"stdout": self.sent[offset - 1 :].decode()}

    def _async_status(self, mode, job, task_vars):
        self.modes.append(mode)
        return {"finished": 1, "started": 1, "ansible_job_id": job, "stdout": "", "results_file": "x", **self.final}


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    lines = []
    monkeypatch.setattr(kernel_build.display, "display", lines.append)
    monkeypatch.setattr(kernel_build.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(kernel_build.ActionBase, "run", lambda self, tmp, task_vars: {})
    return lines


@pytest.mark.parametrize("look", [{"changed": False, "path": "/p"}, {"failed": True, "msg": "no"}])
def test_a_look_with_nothing_to_do_is_the_answer(look):
    action = Action(Task(), look)
    assert action.run(task_vars={}) == look
    assert [call[:2] for call in action.calls] == [(True, False)]
    assert not action._task.check_mode


def test_check_mode_only_looks():
    action = Action(Task(check_mode=True), {"changed": True, "diff": {"after": "x"}})
    assert action.run(task_vars={})["changed"]
    assert len(action.calls) == 1


def test_a_build_is_followed_and_its_lines_are_shown_once(shown):
    final = {"changed": True, "path": "/p", "diff": {"after": "z"}}
    lines = ["v3 configure 1 s\nv3 [1", "", "/9] ünïcode 2 s\n", "v3 done 3 s\nend\n"]
    action = Action(Task(), {"changed": True, "diff": {"after": "x"}}, lines, final)
    assert action.run(task_vars={}) == final
    assert shown == [
        "kernel_build: v3 configure 1 s",
        "kernel_build: v3 [1/9] ünïcode 2 s",
        "kernel_build: v3 done 3 s",
    ]
    check_mode, wrap_async, async_val, arguments = action.calls[1]
    assert (check_mode, wrap_async) == (False, True)
    assert async_val > 60
    assert arguments["progress_file"].startswith("/home/me/.ansible_async/kernel_build.")
    assert action.modes == ["status", "cleanup"]
    assert action.commands[-1] == f"rm -f {arguments['progress_file']}"
    assert "progress_file" not in action._task.args
    assert action._task.async_val == 0


def test_a_failure_of_the_job_is_a_failure_of_the_task():
    action = Action(Task(), {"changed": True}, ["end\n"], {"failed": True, "msg": "the compiler crashed"})
    result = action.run(task_vars={})
    assert result["failed"]
    assert result["msg"] == "the compiler crashed"


def test_a_module_that_dies_without_a_word_is_noticed(monkeypatch):
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr(kernel_build.time, "monotonic", lambda: next(clock))
    action = Action(Task(), {"changed": True}, [], {"failed": True, "msg": "killed"})
    assert action.run(task_vars={})["msg"] == "killed"


def test_a_job_that_never_ends_is_given_up(monkeypatch):
    clock = iter(range(0, 10**6, 30))
    monkeypatch.setattr(kernel_build.time, "monotonic", lambda: next(clock))
    action = Action(Task(), {"changed": True}, [], {"finished": 0})
    result = action.run(task_vars={})
    assert result["failed"]
    assert "job j1 did not end" in result["msg"]


def test_who_asks_for_async_follows_alone():
    action = Action(Task(async_val=100), {"changed": True})
    assert action.run(task_vars={})["ansible_job_id"] == "j1"
    assert action.calls == [(False, True, 100, None)]
