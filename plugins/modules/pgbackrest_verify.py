#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_verify
short_description: Proves a backup of PostgreSQL by restoring it
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Restores into a folder of its own, starts PostgreSQL there on a private socket, lets it recover, and checks it.
    C(pg_amcheck) compares every table with every index. C(pg_checksums) reads every page. The rows of O(tables) are
    compared with
    those of the living database.
  - Recovery has to come to the end of what is archived, or to the target. PostgreSQL takes a segment that is damaged in
    the
    repository for the end of the archive, and starts; here that is an error.
  - Says how long restore and recovery took, which is what they will take when it matters.
  - Stops and removes what it made, whatever happens. What a run has left that was killed, the next one removes. It
    refuses as long as the pgBackRest of the killed one works there.
  - Fails when a check does. A file that was damaged in the repository fails the restore, and the message names it.
extends_documentation_fragment:
  - bitnet.devops.pgbackrest
attributes:
  check_mode:
    support: full
    description: Works out what would be restored, and refuses what a run would refuse. Restores nothing.
  diff_mode:
    support: none
    description: Nothing stays that was changed.
  idempotent:
    support: full
    description: It leaves nothing behind, and says C(changed) only where a killed run had left something.
options:
  scratch:
    description:
      - Folder in which the cluster is restored for the time being. It needs room for it, and neither its group nor
        others may
        write to it.
      - Left out, it is the folder in which the data of the database lies.
    type: str
  target_time:
    description: Restore to this moment, as in M(bitnet.devops.pgbackrest_restore). Left out, all that is archived.
    type: str
  set:
    description:
      - Backup to take. Left out, the newest from which the target can be reached. One that is newer and passed over,
        since pages in it have a wrong checksum or WAL is missing behind it, is a warning.
    type: str
  repo:
    description: Repository to prove, its backup and its WAL. Left out, any that has both.
    type: int
  database:
    description: Database of O(tables).
    type: str
    default: postgres
  tables:
    description:
      - Tables, as C(name) or C(schema.name), whose rows are hashed.
      - Without O(target_time) they are compared with the living database. There they are locked against writes while
        they
        are read (O(lock_seconds)), and a restore point is made that the restore goes to, so that both have to be equal.
    type: list
    elements: str
    default: []
  lock_seconds:
    description: So long may the tables of the living database be read, and nobody write to them. Then it gives up.
    type: int
    default: 30
  user:
    description: Superuser of PostgreSQL.
    type: str
    default: postgres
  bin_dir:
    description: Folder of PostgreSQL's programs.
    type: str
    default: /usr/lib/postgresql/15/bin
  timeout:
    description: Seconds for all of it. Removing what was made may take a minute more.
    type: int
    default: 14400
seealso:
  - module: bitnet.devops.pgbackrest_restore
  - module: bitnet.devops.pgbackrest_info
"""

EXAMPLES = r"""
- name: Prove that the newest backup and the archive give the database back
  bitnet.devops.pgbackrest_verify:
    database: bitnet
    tables: [api_keys, ledger]
  become: true
  become_user: postgres
  register: proof

- name: Say how long a real one would take
  ansible.builtin.debug:
    msg: "restored in {{ proof.seconds.restore }} s, recovered in {{ proof.seconds.recovery }} s"

- name: Prove the second repository
  bitnet.devops.pgbackrest_verify:
    repo: 2
    scratch: /srv/scratch
  become: true
  become_user: postgres
"""

RETURN = r"""
plan:
  description: What was restored, one thing a line.
  returned: when it got so far
  type: list
  elements: str
warned:
  description: What does not stand in the way, and has to be known, as a newer backup that is damaged. Also warnings.
  returned: when it got so far
  type: list
  elements: str
label:
  description: The backup.
  returned: when it got so far
  type: str
checks:
  description: What was checked.
  returned: when it got so far
  type: list
  elements: dict
  contains:
    name:
      description: V(recovery), V(amcheck), V(rows) or V(checksums).
      type: str
    ok:
      description: Whether it is well. It is null for checksums of a cluster that has none.
      type: bool
    said:
      description: What was found.
      type: str
rows:
  description: For each of the tables how many rows it has, and a hash of them.
  returned: when it got so far
  type: dict
  sample: {"ledger": "20000:-1534218733019282913"}
reached:
  description: When the last transaction was committed that came back from WAL. Null where there was none.
  returned: when it got so far
  type: str
seconds:
  description: How long C(restore), C(recovery) and C(checks) took.
  returned: when it got so far
  type: dict
removed:
  description: What killed runs had left.
  returned: success
  type: list
  elements: str
"""

import posixpath
import signal
import time
import typing as t
import uuid

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._recovery import plan as planning
from ..module_utils._recovery import restoring, scratch
from ..module_utils._recovery.client import OPTIONS, Pgbackrest, Place
from ..module_utils._recovery.errors import RecoveryError
from ..module_utils._recovery.info import printable

ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Trial:
    """One verification; the result grows with it, so that a failure shows how far it came."""

    def __init__(self, options: t.Mapping[str, t.Any], result: dict[str, t.Any]) -> None:
        self.options, self.result = options, result
        self.place = Place(options["inside"], options["timeout"])
        self.client = Pgbackrest(self.place, options["stanza"], options["config_path"])
        self.cluster = self.client.cluster()
        self.scratch = scratch.Scratch(
            self.place, options["scratch"] or posixpath.dirname(self.cluster.path), options["bin_dir"]
        )
        for table in options["tables"]:
            scratch.quoted(table)
        if options["lock_seconds"] < 1:
            raise RecoveryError(f"lock_seconds: {options['lock_seconds']} is no number of seconds from 1 on")
        self.living: dict[str, str] = {}

    def look(self) -> planning.Plan:
        """What the restore takes, of what is archived now."""
        self.scratch.dead()
        return self._plan(planning.target(self.options["target_time"], "latest"))

    def _plan(self, target: planning.Target) -> planning.Plan:
        stanza = self.client.info()
        plan = planning.restore(stanza, self.client.archives(stanza), target, self.options["set"], self.options["repo"])
        seen = self.place.look(self.scratch.folder)
        restoring.require_room(self.scratch.parent, seen, plan, [])
        self.result.update(plan=plan.lines(), label=plan.backup.label, warned=list(plan.warnings))
        return plan

    def run(self) -> None:
        plan = self.look()
        self.result["removed"] = self.scratch.remove_dead()
        self.result["changed"] = bool(self.result["removed"])
        if self.options["tables"] and not self.options["target_time"]:
            plan = self._point()
        try:
            self.scratch.make()
            self._restore(plan)
            began = time.monotonic()
            self._check()
            self.result["seconds"]["checks"] = round(time.monotonic() - began, 2)
        finally:
            for number in ENDS:
                signal.signal(number, signal.SIG_IGN)
            self.scratch.remove()

    def _point(self) -> planning.Plan:
        """The rows of the living database at a restore point, and the way to that."""
        point = f"bitnet-verify-{uuid.uuid4().hex[:12]}"
        options, at = self.options, self.cluster
        server = scratch.Server(self.place, options["bin_dir"], at.socket, at.port, options["user"])
        tables, seconds = options["tables"], options["lock_seconds"]
        self.living, position = scratch.hashes_at(server, options["database"], tables, point, seconds)
        self.client.must("check")  # ends the segment and waits until every repository has it
        return self._plan(planning.Target(name=point, position=position))

    def _restore(self, plan: planning.Plan) -> None:
        told = restoring.options(self.client, plan, self.scratch.data, in_place=False)
        seconds = self.result["seconds"] = {"restore": restoring.restore(self.client, told, self.scratch.data)}
        seconds["recovery"] = self.scratch.start()
        self.result["reached"] = self.scratch.reached()
        wrong = self.scratch.wrong_with_recovery(plan)
        well = f"up to {plan.target.text()}; last transaction {self.result['reached'] or 'in the backup itself'}"
        self._found("recovery", not wrong, wrong or well)

    def _found(self, name: str, ok: bool | None, said: str) -> None:
        self.result.setdefault("checks", []).append({"name": name, "ok": ok, "said": said})

    def _check(self) -> None:
        self._amcheck()
        if self.options["tables"]:
            self._rows()
        self.scratch.stop()
        if self.scratch.control().get("Data page checksum version", "0") == "0":
            self._found("checksums", None, "the cluster has none (initdb --data-checksums)")
            return
        done = self.place.run(
            [f"{self.options['bin_dir']}/pg_checksums", "--check", "-D", self.scratch.data], "pg_checksums"
        )
        self._found("checksums", done.rc == 0, printable(done.out if done.rc == 0 else f"{done.err} {done.out}"))

    def _amcheck(self) -> None:
        server = self.scratch.server(self.options["user"])
        command = server.command("postgres", "pg_amcheck", "--all", "--install-missing", "--heapallindexed")
        done = self.place.run(command, "pg_amcheck")
        self._found(
            "amcheck",
            done.rc == 0,
            "every table and index is sound" if done.rc == 0 else printable(f"{done.out} {done.err}"),
        )

    def _rows(self) -> None:
        tables = self.options["tables"]
        server = self.scratch.server(self.options["user"])
        rows = self.result["rows"] = scratch.hashes(server, self.options["database"], tables)
        if not self.living:
            self._found("rows", None, f"of {len(tables)} tables, compared with nothing since target_time is given")
            return
        other = [
            f"{table} has {rows[table]}, living {self.living[table]}"
            for table in tables
            if rows[table] != self.living[table]
        ]
        self._found(
            "rows", not other, "; ".join(other) or f"those of {len(tables)} tables are as in the living database"
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "scratch": {"type": "str"},
            "target_time": {"type": "str"},
            "set": {"type": "str"},
            "repo": {"type": "int"},
            "database": {"type": "str", "default": "postgres"},
            "tables": {"type": "list", "elements": "str", "default": []},
            "lock_seconds": {"type": "int", "default": 30},
            "user": {"type": "str", "default": "postgres"},
            "bin_dir": {"type": "str", "default": "/usr/lib/postgresql/15/bin"},
            "timeout": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    result: dict[str, t.Any] = {"changed": False, "removed": []}

    def end(number: int, _frame: object) -> None:
        raise RecoveryError(f"ended by {signal.Signals(number).name}; what was restored is removed")

    for number in ENDS:
        signal.signal(number, end)
    try:
        trial = Trial(module.params, result)
        if module.check_mode:
            trial.look()
        else:
            trial.run()
    except RecoveryError as error:
        module.fail_json(msg=str(error), **result)
    for warning in result.get("warned", []):
        module.warn(warning)
    bad = [f"{check['name']}: {check['said']}" for check in result.get("checks", []) if check["ok"] is False]
    if bad:
        module.fail_json(msg=f"{result['label']} was restored and is not sound: {'; '.join(bad)}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
