# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expressions of roles that decide about secrets, worked out by Ansible's templates with the variables of a case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

ROLES = Path(__file__).resolve().parents[3] / "roles"
ONE, TWO = "the-first-password", "the-second-password"


def read(path: str) -> Any:
    return DataLoader().load_from_file(str(ROLES / path), trusted_as_template=True)


def tasks(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in found:
        yield task
        yield from tasks(task.get("block", []))


def task(path: str, name: str) -> dict[str, Any]:
    [found] = [one for one in tasks(read(path)) if one["name"] == name]
    return found


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    init_plugin_loader()


def templates(variables: dict[str, Any]) -> Templar:
    return Templar(loader=DataLoader(), variables=variables)


def runs(found: dict[str, Any], **variables: Any) -> bool:
    when = found["when"] if isinstance(found["when"], list) else [found["when"]]
    work = templates({**found.get("vars", {}), **variables})
    return all(work.evaluate_conditional(one) for one in when)


# ---------------------------------------------------------------------------- words of a command line


@pytest.mark.parametrize(("said", "waits"), [("false", False), ("no", False), ("true", True), (False, False)])
def test_whether_clients_are_waited_for_may_be_said_on_a_command_line(said: Any, waits: bool) -> None:
    """-e secrets_wait_for_clients=false is a text: as a condition it is an error, or true."""
    asked = task("secrets/tasks/rotate.yml", "Require that nobody uses the old login")
    assert runs(asked, secrets_rotates_login=True, secrets_wait_for_clients=said) == waits


# ---------------------------------------------------------------------------- the database


def database(**more: Any) -> dict[str, Any]:
    """The role's variables on a host that leads, with the facts that its tasks would have set."""
    kept = {"postgresql": ONE, "redis": "r", "pgbouncer": "p", **more.pop("kept", {})}
    facts = {
        **read("database/defaults/main.yml"), **read("database/vars/main.yml"),
        "inventory_hostname": "north", "database_lead": "north", "database_members": ["north"],
        "database_kept": kept, "hostvars": {"north": {"database_kept": kept}},
        "database_addresses": {"north": "10.0.0.1"},
        "database_port": {"pgbouncer": 6432, "redis": 6379}, "database_ca": "CA", "database_user": "app",
        "database_name": "app", "database_environment": "test",
    }  # fmt: skip
    return {**facts, **more}


def work_out(name: str, **more: Any) -> Any:
    variables = database(**more)
    return templates(variables).template(variables[name])


def logins(current: int, *passwords: str) -> dict[str, str]:
    return {"logins": json.dumps({"current": current, "passwords": list(passwords)})}


MANAGED = {"host": "db.example.org", "ca": "THEIRS"}


@pytest.mark.parametrize(
    ("kept", "login", "holding", "withdrawn"),
    [
        ({}, "app", {"app": ONE}, []),  # nothing is declared: nobody is withdrawn
        (logins(0, ONE, ""), "app", {"app": ONE}, ["app_2"]),
        (logins(1, TWO, ONE), "app_2", {"app": TWO, "app_2": ONE}, []),
        (logins(1, "", ONE), "app_2", {"app_2": ONE}, ["app"]),
    ],
)
def test_who_may_log_in(kept: dict[str, str], login: str, holding: dict[str, str], withdrawn: list[str]) -> None:
    assert work_out("database_login", kept=kept) == login
    assert work_out("database_logins", kept=kept) == holding
    assert work_out("database_logins_withdrawn", kept=kept) == withdrawn
    assert work_out("database_url", kept=kept) == f"postgresql://{login}:{ONE}@10.0.0.1:6432/app"


def test_a_managed_server_has_no_second_login_whatever_ours_had() -> None:
    kept = logins(1, "", TWO)
    assert work_out("database_login", kept=kept, database_managed_postgresql=MANAGED) == "app"
    url = work_out("database_url", kept=kept, database_managed_postgresql=MANAGED)
    assert url == f"postgresql://app:{ONE}@db.example.org:5432/app"


def test_addresses_of_ipv6_are_in_brackets() -> None:
    several = {"north": "fd00::1", "south": "10.0.0.2"}
    assert work_out("database_url", database_addresses=several).endswith("@[fd00::1]:6432,10.0.0.2:6432/app")
    assert work_out("database_redis_url", database_addresses=several) == "rediss://:r@[fd00::1]:6379/0"
    url = work_out("database_url", database_managed_postgresql={"host": "2001:db8::7", "port": 6000})
    assert url.endswith("@[2001:db8::7]:6000/app")
    url = work_out("database_redis_url", database_managed_redis={"host": "2001:db8::7"})
    assert url == "rediss://:r@[2001:db8::7]:6379/0"


def test_without_a_ca_there_is_no_secret_of_it() -> None:
    """In check mode before there is an authority: a secret of the Swarm is never empty."""
    gather = task("database/tasks/secrets.yml", "Gather what is secret")
    for authority, there in (("", False), ("CA", True)):
        work = templates({**database(database_ca=authority), **gather["vars"]})
        found = work.template(gather["ansible.builtin.set_fact"]["database_secret_contents"])
        assert ("redis-ca" in found, "database-ca" in found) == (there, there)
        assert all(found.values())


def test_sessions_that_are_left_are_refused_however_idle() -> None:
    require = task("database/tasks/clients.yml", "Require that none uses another login than {{ database_login }}")
    fine = {"rc": 0, "stdout": "", "stdout_lines": []}
    left = {"rc": 0, "stdout": "app||10.0.0.9|4000 s ago", "stdout_lines": ["app||10.0.0.9|4000 s ago"]}
    names = ("database_sessions", "database_clients", "database_reconnected", "database_sessions_left")
    assert not runs(require, **database(), **dict.fromkeys(names, fine))
    assert runs(require, **database(), **{**dict.fromkeys(names, fine), "database_sessions_left": left})
    for name in names:
        assert runs(require, **database(), **{**dict.fromkeys(names, fine), name: {**fine, "rc": 1}})
    recent = task("database/tasks/clients.yml", "Ask PostgreSQL who has used another login within the last 20 s")
    variables = {**database(kept=logins(1, ONE, TWO)), **recent["vars"]}
    query = " ".join(templates(variables).template(recent["vars"]["database_clients_query"]).split())
    assert "usename IN ('app') AND (state <> 'idle' OR state_change > now() - interval '20 s')" in query


# ---------------------------------------------------------------------------- the service


@pytest.mark.parametrize(
    ("slot", "stale"), [("", ["bitnet_database_url", "bitnet_tokens"]), ("green", ["bitnet_tokens"])]
)
def test_a_slot_that_was_named_keeps_its_database(slot: str, stale: list[str]) -> None:
    give = task("swarm_rollout/tasks/tokens.yml", "Give the idle slot the secrets that hold now")
    held = [["bitnet_tokens t-2", "/run/secrets/bitnet_database_url u-2", "bitnet_redis_url r-1"],
            ["/run/secrets/bitnet_tokens t-1", "bitnet_database_url u-1", "bitnet_redis_url r-1"]]  # fmt: skip
    results = {"results": [{"stdout_lines": lines} for lines in held]}
    variables = {**give["vars"], "swarm_rollout_versions": results, "swarm_rollout_slot": slot}
    assert templates(variables).template(give["vars"]["swarm_rollout_stale"]) == stale


@pytest.mark.parametrize(("expected", "refused"), [("", False), ("1c7ff3ec1f0c", False), ("another", True)])
def test_a_rotation_releases_nothing(expected: str, refused: bool) -> None:
    refuse = task("swarm_rollout/tasks/prepare.yml", "Refuse another release than the one that was asked for")
    assert runs(refuse, swarm_rollout_expected=expected, swarm_rollout_release="1c7ff3ec1f0c") == refused
    roll = task("secrets/tasks/rotate_service.yml", "Roll it out with the new URL")
    routed = {"routing": {"active": "green"}, "slots": {"green": {"release": "1c7ff3ec1f0c"}, "blue": {"release": "b"}}}
    work = templates({"secrets_lead": "north", "hostvars": {"north": {"secrets_traffic": routed}}})
    assert work.template(roll["vars"]["swarm_rollout_expected"]) == "1c7ff3ec1f0c"


@pytest.mark.parametrize(("limited", "refused"), [(["north", "south"], False), (["north"], True)])
def test_a_rotation_needs_all_managers_of_the_inventory(limited: list[str], refused: bool) -> None:
    hosts = {
        "north": {"bitnet_environment": "test"}, "south": {"bitnet_environment": "test"},
        "other": {"bitnet_environment": "else"}, "far": {"bitnet_environment": "test", "bitnet_cluster": "far"},
    }  # fmt: skip
    variables = {
        **read("secrets/vars/main.yml"), "hostvars": hosts, "groups": {"swarm_managers": list(hosts)},
        "bitnet_environment": "test", "ansible_play_hosts": limited, "ansible_play_hosts_all": limited,
    }  # fmt: skip
    for name in ("Refuse to rotate with less than all managers", "Refuse to withdraw the old value with less than all"):
        assert runs(task("secrets/tasks/rotate.yml", name), **variables) == refused
