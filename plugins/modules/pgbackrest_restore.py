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
    a segment of it is missing, naming it. Both are of one repository.
  - Restores into a folder beside the data of the database. The copy archives nothing, and its tablespaces are below
    C(PATH.tablespaces), so that it and the database do not get in each other's way.
  - Starts nothing. PostgreSQL recovers when it is started on the folder.
  - A restore that was cut off is gone on with by the next run, which refuses to begin while the pgBackRest of a killed
    one still works. A very early end can leave links in the folder; then it says which one to empty.
  - Of each copy there is a note beside it, C(PATH.restore.json), by which it knows its own copies.
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
    description:
      - A copy of the same that nobody has started is left as it is, unless there is newer WAL to bring back.
      - In place, with O(delta) or O(overwrite_data), it is restored anew, always.
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
      - Without it all that is archived is recovered.
      - Which WAL that takes is told by when it came into the repository. Where the archive was behind on that day,
        a segment
        that is missing may not be seen. Each one that is missing later on is a warning, and PostgreSQL refuses to end
        recovery before the moment.
    type: str
  target_timeline:
    description:
      - Number of the timeline to follow. After an earlier recovery the newest one is another than that of before.
        Where a
        moment may be of either, it has to be given.
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
    description: Repository whose backup and WAL are taken. Left out, it is any that has both.
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
  description: What it takes, or, where nothing was done, would take.
  returned: success
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
    warnings:
      description: What does not stand in the way, and has to be known. Each is a warning of the task, too.
      type: list
      elements: str
size:
  description: Size of the restored cluster in bytes, of all its databases.
  returned: success
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
    target = planning.target(options["target_time"], options["target_timeline"])
    databases, action = tuple(options["databases"]), options["target_action"]
    request = restoring.Request(client.stanza, target, options["set"], options["repo"], databases, action)
    data_path = client.cluster().path
    path = restoring.checked_path(options["path"] or restoring.beside(data_path))
    seen, data = client.place.look(path), client.place.look(data_path)
    spaces = client.place.look(restoring.tablespaces(path))
    in_place = seen.real == data.real
    stanza = client.info()
    plan = planning.restore(stanza, client.archives(stanza), target, options["set"], options["repo"])
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
            "warnings": list(plan.warnings),
        },
    }
    anew = in_place or options["delta"] or options["overwrite_data"]
    if not anew and restoring.is_done(seen, request, plan):
        said = f"it was restored to {path} before ({restoring.describe(seen.mark)}), and not started since"
        return {**result, "changed": False, "msg": said}
    words = {"delta": options["delta"], "overwrite": options["overwrite_data"]}
    told = restoring.permit(path, seen, data, spaces, **words)
    restoring.require_room(path, seen, plan, options["databases"])
    result["diff"] = {
        "before_header": path,
        "after_header": path,
        "before": f"{found(seen, data)}\n",
        "after": "".join(f"{line}\n" for line in plan.lines()),
    }
    if act:
        made = restoring.make(client, path, seen, spaces)
        if not in_place:
            restoring.write_mark(client, made, request, plan)
        told += restoring.options(client, plan, path, in_place=in_place, databases=databases, action=action)
        result["seconds"] = restoring.restore(client, told, path)
    return result


def found(seen: restoring.Seen, data: restoring.Seen) -> str:
    if not seen.full:
        return "(nothing)"
    if seen.unfinished:
        return "a restore that was cut off"
    if restoring.own(seen) and seen.real != data.real:
        return restoring.describe(seen.mark)
    return "data of a cluster, which will be overwritten"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "path": {"type": "str"},
            "target_time": {"type": "str"},
            "target_timeline": {"type": "str", "default": "latest"},
            "target_action": {"type": "str", "choices": ["pause", "promote", "shutdown"], "default": "promote"},
            "set": {"type": "str"},
            "repo": {"type": "int"},
            "databases": {"type": "list", "elements": "str", "default": []},
            "delta": {"type": "bool", "default": False},
            "overwrite_data": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        client = Pgbackrest(Place(options["inside"], options["timeout"]), options["stanza"], options["config_path"])
        result = run(client, options, not module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=str(error))
    for warning in result["plan"]["warnings"]:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
