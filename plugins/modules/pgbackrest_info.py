#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_info
short_description: Says what pgBackRest has of a PostgreSQL, and what is wrong with it
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Reads every repository, what it holds of backups and of WAL, and finds what would stand in the way of a recovery.
    That is
    a repository that cannot be read, an archive or a backup that is too old, a missing segment, a damaged page.
  - RV(problems) is empty where all is well. The module fails only where it cannot look.
extends_documentation_fragment:
  - bitnet.devops.pgbackrest
attributes:
  check_mode:
    support: full
    description: Looks as well, without O(probe).
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: It changes nothing.
options:
  rpo:
    description:
      - So old may the newest archived WAL be. A number and C(s), C(m), C(h), C(d) or C(w).
      - It has to be more than PostgreSQL's C(archive_timeout), after which a segment is archived that is not full.
    type: str
    default: 5m
  backup_max_age:
    description: So old may the newest backup be.
    type: str
    default: 26h
  probe:
    description:
      - Has pgBackRest end the current segment and wait until it is in every repository (C(pgbackrest check)). That
        proves
        the archive, also that of a database in which nothing is written. It is for a primary.
    type: bool
    default: false
  timeout:
    description: Seconds for all of it.
    type: int
    default: 300
seealso:
  - module: bitnet.devops.pgbackrest_backup
  - module: bitnet.devops.pgbackrest_verify
"""

EXAMPLES = r"""
- name: Prove the archive and look at the backups
  bitnet.devops.pgbackrest_info:
    probe: true
    rpo: 60s
  become: true
  become_user: postgres
  register: backups

- name: Refuse to go on without
  ansible.builtin.assert:
    that: backups.problems | length == 0
    fail_msg: "{{ backups.problems | join('; ') }}"
"""

RETURN = r"""
problems:
  description: What is wrong, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["repository 1: the newest WAL, 000000010000000000000007, came 9.5 m ago, and 5.0 m are allowed (rpo): ..."]
repositories:
  description: The repositories, each with C(key), C(cipher), C(usable) and the C(problem) of one that is not.
  returned: success
  type: list
  elements: dict
backups:
  description:
    - The backups of the cluster as it is now, the oldest first, as in
      RV(bitnet.devops.pgbackrest_backup#module:backup).
  returned: success
  type: list
  elements: dict
archive:
  description: The WAL in the repositories.
  returned: success
  type: dict
  contains:
    newest:
      description: Newest segment.
      type: str
    archived_at:
      description: When it came, in seconds since 1970.
      type: int
    age:
      description: Seconds since then. What is dated ahead of now is a problem of its own, and V(0) here.
      type: float
    missing:
      description: Segments that a backup, or the way from one to the newest WAL, lacks.
      type: list
      elements: str
    waiting:
      description: Segments that PostgreSQL has and the archive has not. Null where its data folder is not there.
      type: int
    waiting_seconds:
      description: How long the oldest of them has waited. Null as that.
      type: int
    probe_seconds:
      description: How long it took until a segment that was ended now was in every repository.
      type: float
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._recovery import plan
from ..module_utils._recovery.client import OPTIONS, WAITING, Pgbackrest, Place
from ..module_utils._recovery.errors import RecoveryError, seconds, spoken


def look(client: Pgbackrest, options: t.Mapping[str, t.Any], act: bool) -> dict[str, t.Any]:
    rpo, max_age = seconds("rpo", options["rpo"]), seconds("backup_max_age", options["backup_max_age"])
    problems: list[str] = []
    probed: float | None = None
    if options["probe"] and act:
        began = time.monotonic()
        done = client.run("check")
        if done.rc == 0:
            probed = round(time.monotonic() - began, 2)
        else:
            problems.append(str(client.failed("check", done)))
    stanza = client.info()
    state = plan.state(stanza, client.archives(stanza), rpo, max_age, time.time())
    data = client.cluster().path
    words = client.place.sh(WAITING, data, what=f"the look at what waits for the archive in {data}").split()
    waiting: int | None = None
    waited: int | None = None
    if words == ["absent"]:
        problems.append(f"{data} (pg1-path) is not there: nobody can say what waits for the archive")
    else:
        waiting = int(words[0])
        waited = int(time.time()) - int(words[1]) if waiting else 0
        if waited < -plan.SKEW:
            problems.append(f"what waits for the archive is dated {spoken(-waited)} ahead of now: a clock jumped")
    if waited is not None and waited > rpo:
        problems.append(
            f"{waiting} segments wait for the archive, the oldest for {spoken(waited)}: they are on the disk of the "
            f"database only: {client.push_error() or 'the log of PostgreSQL says why archive_command fails'}"
        )
    return {
        "problems": [*problems, *(problem for problem in state.problems if problem not in problems)],
        "repositories": [
            {
                "key": repo.key,
                "cipher": repo.cipher,
                "usable": not repo.problem(stanza.name),
                "problem": repo.problem(stanza.name),
            }
            for repo in stanza.repositories
        ],
        "backups": [backup.result() for backup in stanza.current()],
        "archive": {
            "newest": state.newest,
            "archived_at": state.archived_at,
            "age": state.age,
            "missing": state.missing,
            "waiting": waiting,
            "waiting_seconds": waited,
            "probe_seconds": probed,
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "rpo": {"type": "str", "default": "5m"},
            "backup_max_age": {"type": "str", "default": "26h"},
            "probe": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        client = Pgbackrest(Place(options["inside"], options["timeout"]), options["stanza"], options["config_path"])
        result = look(client, options, not module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
