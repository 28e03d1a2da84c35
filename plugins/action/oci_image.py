# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the controller's part of a build context to the target, and only when an image has to be built."""

from __future__ import annotations

import tempfile
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import merge_hash
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci

display = Display()


class ActionModule(ActionBase):
    _supports_check_mode = True
    _task: Any

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        context = self._task.args.get("context")
        if not isinstance(context, list) or not all(isinstance(item, dict) for item in context):
            return merge_hash(result, self._execute_module(task_vars=task_vars))  # the module says what is wrong
        try:
            local: list[oci.Entry] = []
            items = [self._hashed(item, local) for item in context]
            arguments = {**self._task.args, "context": items}
            look = self._look(arguments, task_vars)
            if self._task.check_mode or look.get("failed") or not look.get("changed"):
                return merge_hash(result, look)
            if local:
                arguments["archive"] = self._send(local)
            display.display(f"oci_image: building {look['image']}; with nothing cached this takes a few minutes")
            return merge_hash(result, self._execute_module(module_args=arguments, task_vars=task_vars))
        except (oci.ImageError, AnsibleError, OSError) as error:
            return merge_hash(result, {"failed": True, "msg": str(error)})
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _hashed(self, item: dict[str, Any], local: list[oci.Entry]) -> dict[str, Any]:
        """The item as the module takes it; entries of the controller are added to the list."""
        if boolean(item.get("remote_src", False), strict=False) or "src" not in item or "dest" not in item:
            return item
        source = self._find_needle("files", item["src"])
        found = oci.entries_of({**item, "src": source})
        local.extend(found)
        return {**item, "src": source, "digest": oci.digest(found)}

    def _look(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module in check mode. Where there is nothing to do this is already the answer."""
        task = self._task
        self._task = task.copy()
        self._task.check_mode = True
        try:
            return self._execute_module(module_args=arguments, task_vars=task_vars)
        finally:
            self._task = task

    def _send(self, local: list[oci.Entry]) -> str:
        remote = self._connection._shell.join_path(self._make_tmp_path(), "context.tar")
        with tempfile.NamedTemporaryFile(suffix=".tar") as packed:
            oci.write_tar(packed, local)
            packed.flush()
            self._transfer_file(packed.name, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote
