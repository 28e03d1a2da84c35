# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kernel_build so that its progress is seen: a look first, then the build in the background, followed."""

from __future__ import annotations

import secrets
import shlex
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import merge_hash

display = Display()

POLL_SECONDS = 2.0
# The job's own status costs a module's start; the lines are cheap. A module that dies silently is noticed in this time.
STATUS_SECONDS = 20.0
GRACE_SECONDS = 180
ASYNC_KEYS = {
    *("ansible_job_id", "results_file", "started", "finished"),
    *("stdout", "stderr", "stdout_lines", "stderr_lines"),
}


class ActionModule(ActionBase):
    _task: Any
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        try:
            if self._task.async_val:
                # Whoever asks for async polls, too.
                wrap = not self._connection.has_native_async
                return merge_hash(result, self._execute_module(task_vars=task_vars, wrap_async=wrap))
            look = self._look(task_vars)
            if self._task.check_mode or look.get("failed") or not look.get("changed"):
                return merge_hash(result, look)
            built = self._follow(task_vars)
            built.setdefault("diff", look.get("diff"))
            return merge_hash(result, built)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _look(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module in check mode. Where there is nothing to do this is already the answer."""
        task = self._task
        self._task = task.copy()
        self._task.check_mode = True
        try:
            return self._execute_module(task_vars=task_vars)
        finally:
            self._task = task

    def _follow(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        limit = int(self._task.args.get("timeout") or 3600) + GRACE_SECONDS
        async_dir = self._remote_expand_user(self.get_shell_option("async_dir", default="~/.ansible_async"))
        lines = f"{async_dir}/kernel_build.{secrets.token_hex(6)}"
        task = self._task
        self._task = task.copy()
        self._task.async_val = limit
        try:
            started = self._execute_module(
                module_args={**task.args, "progress_file": lines}, task_vars=task_vars, wrap_async=True
            )
        finally:
            self._task = task
        job = started.get("ansible_job_id")
        if not job:
            return started
        begin = asked = time.monotonic()
        offset = 0
        ended = False
        pause = 0.2
        while True:
            time.sleep(pause)
            pause = min(POLL_SECONDS, pause * 2)
            offset, ended = self._show(lines, offset)
            now = time.monotonic()
            if ended or now - asked >= STATUS_SECONDS:
                asked = now
                status = self._async_status("status", job, task_vars)
                if status.get("finished") or "finished" not in status:
                    break
            if now - begin > limit + GRACE_SECONDS:
                return {"failed": True, "msg": f"kernel_build: job {job} did not end within {limit} s", "job": job}
        self._show(lines, offset)
        self._async_status("cleanup", job, task_vars)
        self._low_level_execute_command(f"rm -f {shlex.quote(lines)}")
        return {key: value for key, value in status.items() if key not in ASYNC_KEYS}

    def _show(self, path: str, offset: int) -> tuple[int, bool]:
        """Displays what was appended since; whether the module said that it is at its end."""
        answer = self._low_level_execute_command(f"tail -c +{offset + 1} {shlex.quote(path)} 2>/dev/null || true")
        text = answer.get("stdout", "").replace("\r\n", "\n")
        whole = text[: text.rfind("\n") + 1]
        ended = False
        for line in whole.splitlines():
            if line == "end":
                ended = True
            else:
                display.display(f"kernel_build: {line}")
        return offset + len(whole.encode()), ended

    def _async_status(self, mode: str, job: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        task = self._task.copy()
        task.action = "ansible.builtin.async_status"
        task.args = {"jid": job, "mode": mode}
        task.async_val = 0
        action = self._shared_loader_obj.action_loader.get(
            task.action,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return action.run(task_vars=task_vars)
