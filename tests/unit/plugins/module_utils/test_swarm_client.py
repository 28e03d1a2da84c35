# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's calls and what it makes of Docker's refusals; the API is a stand-in that answers as it is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import client as module
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict, DockerFailed, SwarmClient
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused

docker = pytest.importorskip("docker")
requests = pytest.importorskip("requests")

SPEC = {
    "Name": "web",
    "Labels": {"a": "b"},
    "Mode": {"Replicated": {"Replicas": 1}},
    "TaskTemplate": {"ContainerSpec": {"Image": "i"}},
    "UpdateConfig": {"Order": "stop-first"},
    "RollbackConfig": {},
    "EndpointSpec": {"Mode": "dnsrr"},
}


def refused(status: int, text: str) -> Exception:
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("refused", SimpleNamespace(status_code=status, reason="", url=""), explanation=text)


class Api:
    """Answers each call with what it was given, or raises it, and writes the call down."""

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def client(monkeypatch):
    """A client with an API that answers so."""

    def made(**answers):
        api = Api(**answers)
        monkeypatch.setattr(module.docker, "APIClient", lambda **options: api)
        return SwarmClient("unix:///it.sock")

    return made


def named(name, **more):
    return {"ID": f"id-{name}", "Spec": {"Name": name}, **more}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (docker.errors.DockerException("('Connection aborted.', PermissionError(13, 'Permission denied'))"), "denies"),
        (docker.errors.DockerException("FileNotFoundError"), "no Docker answers at unix:///it.sock"),
        (requests.exceptions.ConnectionError("no route"), "no Docker answers at unix:///it.sock"),
    ],
    ids=["denied", "missing", "unreachable"],
)
def test_a_docker_that_cannot_be_had_is_a_sentence(monkeypatch, error, says):
    def fail(**_options):
        raise error

    monkeypatch.setattr(module.docker, "APIClient", fail)
    with pytest.raises(DockerFailed, match=says):
        SwarmClient("unix:///it.sock")


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (refused(500, "rpc error: update out of sequence"), Conflict, "out of sequence"),
        (refused(409, "name conflicts with an existing object: service web"), Conflict, "conflicts"),
        (refused(503, "This node is not a swarm manager. Use ..."), DockerFailed, "is no manager of a Swarm"),
        (refused(400, "invalid mount config"), DockerFailed, "refused to update the service web: invalid mount config"),
        (requests.exceptions.ReadTimeout("60 s"), DockerFailed, "did not update the service web: 60 s"),
        (refused(404, "service web not found"), Conflict, "was removed"),
    ],
    ids=["sequence", "name", "worker", "refused", "timeout", "gone"],
)
def test_what_a_refusal_of_a_write_means(client, answer, expected, says):
    with pytest.raises(expected, match=says):
        client(update_service=answer).update(named("web", Version={"Index": 7}), SPEC)


def test_an_update_is_bound_to_the_version_that_was_looked_at(client):
    made = client(update_service={})
    made.update(named("web", Version={"Index": 7}), SPEC)
    name, args, options = made.api.calls[0]
    assert (name, args) == ("update_service", ("id-web", 7, SPEC["TaskTemplate"]))
    assert options["labels"] == {"a": "b"} and options["endpoint_spec"] == {"Mode": "dnsrr"}


def test_a_service_is_found_by_its_whole_name(client):
    made = client(services=[named("web-blue"), named("web")])
    assert made.service("web")["ID"] == "id-web"
    assert made.service("we") is None


def test_only_the_tasks_of_this_service(client):
    made = client(tasks=[{"ID": "1", "ServiceID": "a"}, {"ID": "2", "ServiceID": "b"}, {"ID": "3"}])
    assert [task["ID"] for task in made.tasks("a")] == ["1"]
    assert made.api.calls == [("tasks", (), {})], "Docker refuses to be asked by a service that is gone"


@pytest.mark.parametrize("option", ["networks", "secrets", "configs"])
def test_what_a_service_refers_to_must_be_there(client, option):
    there = {
        "networks": [{"Id": "n1", "Name": "inside", "Scope": "swarm"}, {"Id": "n2", "Name": "local", "Scope": "local"}],
        "inspect_network": {"Id": "n3", "Name": "host", "Scope": "swarm"},
        "secrets": [named("s")],
        "configs": [named("c")],
    }
    fields = {"networks": ["inside"], "secrets": [{"source": "s"}], "configs": [{"source": "c"}]}
    ids = client(**there).ids(fields)
    assert (ids.networks, ids.secrets, ids.configs) == ({"inside": "n1", "host": "n3"}, {"s": "id-s"}, {"c": "id-c"})
    fields[option] = ["local"] if option == "networks" else [{"source": "none"}]
    with pytest.raises(Refused, match=f"{option}: the Swarm has no {option[:-1]}"):
        client(**there).ids(fields)


def test_removing_what_is_gone_is_no_error(client):
    made = client(remove_service=refused(404, "gone"), remove_secret=refused(404, "gone"), remove_config=None)
    made.remove(named("web"))
    made.remove_content("secret", "x")
    made.remove_content("config", "y")
    assert [call[0] for call in made.api.calls] == ["remove_service", "remove_secret", "remove_config"]
    with pytest.raises(DockerFailed, match="refused to remove an old secret: in use"):
        client(remove_secret=refused(400, "in use")).remove_content("secret", "x")


def test_a_secret_and_a_config_are_made_by_their_own_calls(client):
    made = client(create_secret={}, create_config={})
    made.create_content("secret", "s-1", b"x", {"l": "1"})
    made.create_content("config", "c-1", b"y", {"l": "2"})
    assert made.api.calls == [
        ("create_secret", ("s-1", b"x"), {"labels": {"l": "1"}}),
        ("create_config", ("c-1", b"y"), {"labels": {"l": "2"}}),
    ]


def test_a_log_comes_from_the_engine_or_else_from_swarm_and_is_never_an_error(client):
    here = client(containers=[{"Id": "c"}], logs=b"one\ntwo \xff\n")
    assert here.logs("s", "t", 20) == ["one", "two \ufffd"]

    lines = [b"com.docker.swarm.task.id=t,x=y mine\n", b"com.docker.swarm.task.id=other,x=y theirs\n"]
    elsewhere = client(containers=[], service_logs=lines)
    assert elsewhere.logs("s", "t", 20) == ["mine"]

    assert client(containers=refused(500, "no")).logs("s", "t", 20) == []
