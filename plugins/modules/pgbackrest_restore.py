#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore
short_description: Restores a PostgreSQL with pgBackRest, beside the old data or over it
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Works out from which backup the target can be reached and which WAL that takes, and refuses before the first byte
    when
    a segment of it is missing, naming it.
  - Restores into a folder beside the data of the database. The copy archives nothing, its tablespaces are below
    C(PATH.tablespaces), and it leaves the spool alone, so that it and the database do not get in each other's way.
  - Starts nothing. PostgreSQL recovers when it is started on the folder.
  - A restore that was cut off is gone on with by the next run.
extends_documentation_fragment:
  - bitnet.devops.pgbackrest
attributes:
  check_mode:
    support: full
    description: Says which backup and which WAL would be taken, and refuses what a run would refuse.
  diff_mode:
    support: full
    description: Shows what is in the folder, and what comes.
  idempotent:
    support: partial
    description: What was restored to the same target before is left as it is. With O(delta=true) it is restored anew.
options:
  path:
    description:
      - The folder. Left out, it is the one of the database (C(pg1-path)) with C(.restored) at its end.
      - The folder of the database itself restores in place, with its archiving and its tablespaces. PostgreSQL has
        to be
        stopped, and O(overwrite_data) has to be said unless the folder is empty.
    type: str
  target_time:
    description:
      - Recovery ends at this moment. Date, time and zone, such as V(2026-11-27 09:30:00+00), in quotes.
      - Without it and O(target_name) all that is archived is recovered.
    type: str
  target_name:
    description: Recovery ends at this restore point, which C(pg_create_restore_point) has made.
    type: str
  target_timeline:
    description:
      - Number of the timeline to follow. After an earlier recovery the newest one is another than that of before.
    type: str
    default: latest
  target_action:
    description:
      - What PostgreSQL does at the target. With V(pause) it can be read, and C(pg_wal_replay_resume()) ends recovery.
    type: str
    choices: [pause, promote, shutdown]
    default: promote
  set:
    description: Backup to take. Left out, it is the newest from which the target can be reached.
    type: str
  repo:
    description: Repository whose backup is taken. Left out, it is any.
    type: int
  databases:
    description:
      - Databases to restore, by name. The others are there as empty files and can only be dropped.
      - Left out, all are restored.
    type: list
    elements: str
    default: []
  delta:
    description: Goes on from what lies in O(path), keeps the files that match, and replaces or removes the others.
    type: bool
    default: false
  overwrite_data:
    description:
      - Data of the database itself, or of another cluster, may be overwritten. What is there and in no backup is lost.
      - A running PostgreSQL is never restored over.
    type: bool
    default: false
  timeout:
    description: Seconds for all of it.
    type: int
    default: 14400
seealso:
  - module: bitnet.devops.pgbackrest_verify
  - module: bitnet.devops.pgbackrest_info
"""

EXAMPLES = r"""
- name: Look at what restoring to a moment would take
  bitnet.devops.pgbackrest_restore:
    target_time: "2026-11-27 09:30:00+00"
  check_mode: true
  become: true
  become_user: postgres

- name: Restore one database beside the living one
  bitnet.devops.pgbackrest_restore:
    databases: [bitnet]
    path: /var/lib/postgresql/15/looked-at
    target_time: "2026-11-27 09:30:00+00"
  become: true
  become_user: postgres

- name: Restore in place, after PostgreSQL was stopped, and lose what is there
  bitnet.devops.pgbackrest_restore:
    path: /var/lib/postgresql/15/main
    delta: true
    overwrite_data: true
  become: true
  become_user: postgres
"""

RETURN = r"""
path:
  description: Where it was restored, or in check mode would be.
  returned: success
  type: str
plan:
  description: What it takes.
  returned: when something was restored, or would be
  type: dict
  contains:
    label:
      description: The backup.
      type: str
    repo:
      description: Its repository.
      type: int
    target:
      description: Where recovery ends.
      type: str
    wal_first:
      description: First segment that is needed.
      type: str
    wal_last:
      description: Last one that may be.
      type: str
    segments:
      description: How many those are.
      type: int
    lines:
      description: The same for a person.
      type: list
      elements: str
size:
  description: Size of the restored cluster in bytes, of all its databases.
  returned: when something was restored, or would be
  type: int
seconds:
  description: How long the restore of the files took.
  returned: when it was restored
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._recovery import plan as planning
from ..module_utils._recovery import restoring
from ..module_utils._recovery.client import OPTIONS, Pgbackrest, Place
from ..module_utils._recovery.errors import RecoveryError


def run(client: Pgbackrest, options: t.Mapping[str, t.Any], act: bool) -> dict[str, t.Any]:
    target = planning.target(options["target_time"], options["target_name"], options["target_timeline"])
    request = restoring.Request(client.stanza, target, options["set"], options["repo"], tuple(options["databases"]))
    data_path = client.cluster().path
    path = restoring.checked_path(options["path"] or restoring.beside(data_path))
    seen, data = client.place.look(path), client.place.look(data_path)
    if restoring.is_done(seen, request, options["delta"]):
        return {
            "changed": False,
            "path": path,
            "msg": f"it was restored to {path} before ({restoring.describe(seen.mark)})",
        }
    told = restoring.permit(path, seen, data, options["delta"], options["overwrite_data"])
    stanza = client.info()
    plan = planning.restore(stanza, client.archives(stanza), target, options["set"], options["repo"])
    restoring.require_room(path, seen, plan, options["databases"])
    result: dict[str, t.Any] = {
        "changed": True,
        "path": path,
        "size": plan.backup.size,
        "plan": {
            "label": plan.backup.label,
            "repo": plan.backup.repo,
            "target": target.text(),
            "wal_first": plan.first,
            "wal_last": plan.last,
            "segments": plan.segments,
            "lines": plan.lines(),
        },
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": f"{found(seen, data)}\n",
            "after": "".join(f"{line}\n" for line in plan.lines()),
        },
    }
    if act:
        in_place = seen.real == data.real if seen.folder else path == data_path
        told += restoring.options(
            client,
            plan,
            path,
            in_place=in_place,
            databases=options["databases"],
            action=options["target_action"],
        )
        result["seconds"] = restoring.restore(client, told, path)
        restoring.write_mark(client, path, request, plan)
    return result


def found(seen: restoring.Seen, data: restoring.Seen) -> str:
    if not seen.full:
        return "(nothing)"
    if seen.unfinished:
        return "a restore that was cut off"
    if seen.mark is not None and seen.real != data.real:
        return restoring.describe(seen.mark)
    return "data of a cluster, which will be overwritten"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "path": {"type": "str"},
            "target_time": {"type": "str"},
            "target_name": {"type": "str"},
            "target_timeline": {"type": "str", "default": "latest"},
            "target_action": {"type": "str", "choices": ["pause", "promote", "shutdown"], "default": "promote"},
            "set": {"type": "str"},
            "repo": {"type": "int"},
            "databases": {"type": "list", "elements": "str", "default": []},
            "delta": {"type": "bool", "default": False},
            "overwrite_data": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 14400},
        },
        mutually_exclusive=[("target_time", "target_name")],
        supports_check_mode=True,
    )
    options = module.params
    try:
        client = Pgbackrest(Place(options["inside"], options["timeout"]), options["stanza"], options["config_path"])
        result = run(client, options, not module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
