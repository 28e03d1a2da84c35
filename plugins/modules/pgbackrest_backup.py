#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_backup
short_description: Takes a backup of PostgreSQL with pgBackRest when one is due
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Looks at the backups that a repository has, decides which type is due, takes it and says what it cost.
  - A backup that was cut off leaves nothing that counts as one, and the next run begins anew.
  - While another pgBackRest works on the stanza it waits, and then looks again whether anything is due.
  - When a backup has succeeded, and no page in it has a wrong checksum, pgBackRest removes what its configuration does
    not
    keep (C(repo1-retention-full)).
  - A new backup with pages that have a wrong checksum is an error. It is there, and nothing is removed, since an
    earlier one may be the last that is sound.
extends_documentation_fragment:
  - bitnet.devops.pgbackrest
attributes:
  check_mode:
    support: full
    description: Says which backup would be taken and why.
  diff_mode:
    support: full
    description: Shows the backups of the repository and the one that comes.
  idempotent:
    support: full
    description: Nothing is done while what there is is younger than the limits.
options:
  type:
    description:
      - With V(auto) it is a full one when the newest full one is as old as O(full_every), a differential one when
        the newest
        of both is as old as O(diff_every), and else an incremental one when the newest of all is as old as O(max_age).
      - Another type is taken when the newest of that type or a better one is as old as O(max_age). V(0) takes it now.
    type: str
    choices: [auto, full, diff, incr]
    default: auto
  full_every:
    description: A number and C(s), C(m), C(h), C(d) or C(w).
    type: str
    default: 7d
  diff_every:
    description: A number and C(s), C(m), C(h), C(d) or C(w).
    type: str
    default: 1d
  max_age:
    description: A number and C(s), C(m), C(h), C(d) or C(w).
    type: str
    default: 1h
  repo:
    description: The repository by its number. Each has backups of its own, so a second one needs a run of its own.
    type: int
    default: 1
  timeout:
    description:
      - Seconds for all of it, and for the wait for another pgBackRest. A backup that takes longer is ended cleanly.
    type: int
    default: 14400
seealso:
  - module: bitnet.devops.pgbackrest_info
  - module: bitnet.devops.pgbackrest_verify
"""

EXAMPLES = r"""
- name: Take the backup that is due, into each repository
  bitnet.devops.pgbackrest_backup:
    repo: "{{ item }}"
  loop: [1, 2]
  become: true
  become_user: postgres

- name: Take a full one before an upgrade, unless there is one from today
  bitnet.devops.pgbackrest_backup:
    type: full
    max_age: 12h
  become: true
  become_user: postgres

- name: Take it where PostgreSQL runs in a container
  bitnet.devops.pgbackrest_backup:
    inside: [docker, exec, --interactive, postgresql]
"""

RETURN = r"""
due:
  description: Type that was due, and why; empty where nothing was.
  returned: success
  type: dict
  contains:
    type:
      description: Type that was due.
      type: str
      sample: diff
    why:
      description: The reason.
      type: str
      sample: the newest full or differential backup, 20261127-030004F, is 1.0 d old (1.0 d are allowed)
backup:
  description: The backup that was taken, or without one the newest. Times are seconds since 1970, sizes are bytes.
  returned: when there is one
  type: dict
  contains:
    label:
      description: Its name.
      type: str
      sample: 20261127-030004F_20261128-030003D
    type:
      description: V(full), V(diff) or V(incr).
      type: str
    repo:
      description: Its repository.
      type: int
    start:
      description: When it began.
      type: int
    stop:
      description: When it ended.
      type: int
    seconds:
      description: How long it took.
      type: int
    wal_start:
      description: First segment that it needs.
      type: str
    wal_stop:
      description: Last segment that it needs.
      type: str
    size:
      description: Size of the cluster.
      type: int
    copied:
      description: What of it was copied.
      type: int
    repo_size:
      description: What it and those that it needs take in the repository. Null where pgBackRest does not say it.
      type: int
    repo_copied:
      description: What it alone takes.
      type: int
    references:
      description: Backups that it needs.
      type: list
      elements: str
    page_errors:
      description: Whether pages of the cluster have a wrong checksum.
      type: bool
waited:
  description: Seconds of waiting for another pgBackRest.
  returned: success
  type: int
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._recovery import info, plan
from ..module_utils._recovery.client import LOCKED, OPTIONS, PAUSE, Done, Pgbackrest, Place
from ..module_utils._recovery.errors import RecoveryError, seconds


def look(client: Pgbackrest, options: t.Mapping[str, t.Any]) -> tuple[info.Stanza, plan.Due]:
    rules = plan.Rules(*(seconds(name, options[name]) for name in ("full_every", "diff_every", "max_age")))
    if options["type"] != "auto":
        rules = plan.Rules(rules.any, rules.any, rules.any)
    stanza = client.info()
    problem = stanza.repository(options["repo"]).problem(stanza.name)
    if problem:
        raise RecoveryError(problem)
    return stanza, plan.due(stanza.current(options["repo"]), options["type"], rules, time.time())


def wait(client: Pgbackrest, last: str) -> None:
    if client.place.late():
        raise client.place.timed_out("the end of another pgBackRest on this stanza", last)
    time.sleep(PAUSE)


def backup(client: Pgbackrest, options: t.Mapping[str, t.Any], act: bool) -> dict[str, t.Any]:
    """Waits for others, looks, and takes what is still due then."""
    began = time.monotonic()
    while True:
        stanza, due = look(client, options)
        before = stanza.current(options["repo"])
        if due.type is None or not act:
            return report(before, before, due, 0)
        if stanza.locked:
            wait(client, "pgbackrest info says that a backup or expire is running")
            continue
        waited = int(time.monotonic() - began)
        repo = f"--repo={options['repo']}"
        # What is to be removed is known when the new one has been looked at.
        done: Done = client.run("backup", f"--type={due.type}", repo, "--no-expire-auto")
        if done.rc == LOCKED:
            wait(client, done.said())
            continue
        if done.rc != 0:
            raise client.failed("backup", done)
        after = client.info().current(options["repo"])
        if not after or after[-1].label in {old.label for old in before}:
            raise RecoveryError(
                f"pgbackrest backup ended well, and 'pgbackrest info' shows no new backup: {done.said()}"
            )
        if not after[-1].page_errors:
            expire(client, repo)
        return report(before, client.info().current(options["repo"]), due, waited)


def expire(client: Pgbackrest, repo: str) -> None:
    while (done := client.run("expire", repo)).rc == LOCKED:
        wait(client, done.said())
    if done.rc != 0:
        raise client.failed("expire", done)


def report(before: list[info.Backup], after: list[info.Backup], due: plan.Due, waited: int) -> dict[str, t.Any]:
    labels = [f"{old.label} {old.type}" for old in before]
    coming = [f"{new.label} {new.type}" for new in after] if after is not before else [*labels, f"(now) {due.type}"]
    result: dict[str, t.Any] = {
        "changed": due.type is not None,
        "due": {"type": due.type, "why": due.why} if due.type else {},
        "waited": waited,
        "msg": due.why,
    }
    if due.type:
        result["diff"] = {
            "before_header": "backups",
            "after_header": "backups",
            "before": "".join(f"{line}\n" for line in labels),
            "after": "".join(f"{line}\n" for line in coming),
        }
    if after:
        result["backup"] = after[-1].result()
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "type": {"type": "str", "choices": ["auto", "full", "diff", "incr"], "default": "auto"},
            "full_every": {"type": "str", "default": "7d"},
            "diff_every": {"type": "str", "default": "1d"},
            "max_age": {"type": "str", "default": "1h"},
            "repo": {"type": "int", "default": 1},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        client = Pgbackrest(Place(options["inside"], options["timeout"]), options["stanza"], options["config_path"])
        result = backup(client, options, not module.check_mode)
    except RecoveryError as error:
        module.fail_json(msg=str(error))
    if result.get("backup", {}).get("page_errors"):
        damaged = (
            f"{result['backup']['label']}: pages of the cluster have a wrong checksum, so the database itself is "
            "damaged. Restore beside it from an earlier backup, and look at its disk"
        )
        if result["changed"] and not module.check_mode:
            module.fail_json(**{**result, "msg": f"{damaged}. No backup was removed"})
        module.warn(damaged)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
