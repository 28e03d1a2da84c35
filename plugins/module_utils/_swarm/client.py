# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls to Docker that a service needs, on the Docker SDK for Python."""

from __future__ import annotations

import contextlib
import typing as t

try:
    import docker
    import docker.constants
    import docker.errors
    import docker.tls
    import requests.exceptions
except ImportError:
    HAS_DOCKER = False
else:
    HAS_DOCKER = True

from .plan import Refused
from .spec import Fields, Ids

Json = dict[str, t.Any]


class DockerFailed(Exception):
    """Docker could not be asked or said no; the text is for a person."""


class Conflict(Exception):
    """The service changed between our look and our write; nothing was written."""


def _fields(spec: Json) -> Json:
    """A service's specification as Docker's SDK takes it, beside the template of its tasks."""
    return {
        "name": spec["Name"],
        "labels": spec["Labels"],
        "mode": spec["Mode"],
        "update_config": spec.get("UpdateConfig"),
        "rollback_config": spec.get("RollbackConfig"),
        "endpoint_spec": spec.get("EndpointSpec"),
    }


class SwarmClient:
    """One manager's API. Every call has a deadline."""

    def __init__(self, docker_host: str, timeout: int = 60, tls: Json | None = None) -> None:
        """C(tls) may have ca_path, and client_cert with client_key; it is for a tcp address."""
        self.docker_host = docker_host
        options: Json = {"base_url": docker_host, "version": "auto", "timeout": timeout}
        try:
            if tls is not None:
                options.update(self._with_tls(options, tls))
            elif docker_host.startswith("ssh://"):
                options["use_ssh_client"] = True
            self.api = docker.APIClient(**options)
            self.api.trust_env = tls is None
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise DockerFailed(self._unreachable(error)) from error

    @staticmethod
    def _with_tls(options: Json, tls: Json) -> Json:
        """The version is asked beforehand: requests would trust the authorities of REQUESTS_CA_BUNDLE, and not ours."""
        pair = (tls["client_cert"], tls["client_key"]) if "client_cert" in tls else None
        config = docker.tls.TLSConfig(client_cert=pair, ca_cert=tls.get("ca_path"), verify=True)
        api = docker.APIClient(**{**options, "version": docker.constants.DEFAULT_DOCKER_API_VERSION, "tls": config})
        api.trust_env = False
        return {"version": api.version(api_version=False)["ApiVersion"], "tls": config}

    def _unreachable(self, error: Exception) -> str:
        text = str(error)
        if "Permission" in text:
            return f"docker_host: {self.docker_host} denies access. Use become, or a user of the group docker ({text})"
        return f"docker_host: no Docker answers at {self.docker_host}. Start it, or correct docker_host ({text})"

    def _call(self, what: str, call: t.Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return call(*args, **kwargs)
        except docker.errors.NotFound:
            raise
        except docker.errors.APIError as error:
            text = str(error.explanation or error)
            if "out of sequence" in text or "name conflicts with an existing object" in text:
                raise Conflict(text) from error
            if "not a swarm manager" in text:
                raise DockerFailed(
                    f"{self.docker_host} is no manager of a Swarm. Run the task on a manager, or make one "
                    "with the role bitnet.devops.swarm_cluster"
                ) from error
            raise DockerFailed(f"Docker refused to {what}: {text.strip()}") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise DockerFailed(f"Docker did not {what}: {error}") from error

    def service(self, name: str) -> Json | None:
        # A list asked by name also holds names that begin with it; asking for one would also take an id's beginning.
        services = self._call("list services", self.api.services, filters={"name": name})
        return next((service for service in services if service["Spec"]["Name"] == name), None)

    def tasks(self, service_id: str) -> list[Json]:
        # Not asked by service: Docker refuses that question once the service is gone and its tasks are still ending.
        return [task for task in self.all_tasks() if task.get("ServiceID") == service_id]

    def all_tasks(self) -> list[Json]:
        tasks: list[Json] = self._call("list tasks", self.api.tasks)
        return tasks

    def nodes(self) -> list[Json]:
        nodes: list[Json] = self._call("list nodes", self.api.nodes)
        return nodes

    def update_node(self, node: Json, spec: Json) -> None:
        """Writes only if the node still has the version that was looked at."""
        what = f"update the node {node['ID']}"
        try:
            self._call(what, self.api.update_node, node["ID"], node["Version"]["Index"], spec)
        except docker.errors.NotFound as error:
            raise DockerFailed(f"Docker did not {what}: {error.explanation}") from error

    def remove_node(self, node_id: str) -> None:
        """Removes it even while it lives; a manager is refused."""
        with contextlib.suppress(docker.errors.NotFound):
            self._call(f"remove the node {node_id}", self.api.remove_node, node_id, force=True)

    def tasks_on(self, node_id: str) -> list[Json]:
        tasks: list[Json] = self._call("list tasks", self.api.tasks, filters={"node": node_id})
        return tasks

    def swarm(self) -> Json:
        swarm: Json = self._call("describe its Swarm", self.api.inspect_swarm)
        return swarm

    def update_swarm(self, swarm: Json, spec: Json, rotate_tokens: bool) -> None:
        """Writes only if the Swarm still has the version that was looked at."""
        version, rotate = swarm["Version"]["Index"], {"rotate_worker_token": rotate_tokens}
        rotate["rotate_manager_token"] = rotate_tokens
        self._call("update its Swarm", self.api.update_swarm, version, spec, **rotate)

    def local_state(self) -> str:
        """Whether this daemon is in a Swarm: inactive, pending, active, error or locked."""
        return str(self._call("say whether it is in a Swarm", self.api.info)["Swarm"]["LocalNodeState"])

    def unlock(self, key: str) -> None:
        self._call("unlock its Swarm", self.api.unlock_swarm, key)

    def node_id(self) -> str:
        """The node that this daemon is."""
        return str(self._call("say which node it is", self.api.info)["Swarm"]["NodeID"])

    def network_names(self) -> dict[str, str]:
        networks = self._call("list networks", self.api.networks)
        names = {network["Id"]: network["Name"] for network in networks if network["Scope"] == "swarm"}
        # The Swarm has a network of its own for that of the node, which no list shows.
        with contextlib.suppress(docker.errors.NotFound):
            host = self._call("look up the network host", self.api.inspect_network, "host", scope="swarm")
            names[host["Id"]] = host["Name"]
        return names

    def ids(self, fields: Fields) -> Ids:
        """The ids of everything the service refers to; what is missing is said before anything is changed."""
        networks = {name: id for id, name in self.network_names().items()}
        secrets = {found["Spec"]["Name"]: found["ID"] for found in self._call("list secrets", self.api.secrets)}
        configs = {found["Spec"]["Name"]: found["ID"] for found in self._call("list configs", self.api.configs)}
        for option, known, names in (
            ("networks", networks, fields["networks"]),
            ("secrets", secrets, [file["source"] for file in fields["secrets"]]),
            ("configs", configs, [file["source"] for file in fields["configs"]]),
        ):
            for name in names:
                if name not in known:
                    raise Refused(
                        f"{option}: the Swarm has no {option[:-1]} {name!r}; create it first. Nothing was changed"
                    )
        return Ids(networks, secrets, configs)

    def create(self, spec: Json) -> str:
        try:
            created = self._call(
                f"create the service {spec['Name']}",
                self.api.create_service,
                spec["TaskTemplate"],
                **_fields(spec),
            )
        except docker.errors.NotFound as error:  # a network, for example
            raise DockerFailed(f"Docker did not create the service {spec['Name']}: {error.explanation}") from error
        return str(created["ID"])

    def update(self, service: Json, spec: Json) -> None:
        """Writes only if the service still has the version that was looked at."""
        try:
            self._call(
                f"update the service {spec['Name']}",
                self.api.update_service,
                service["ID"],
                service["Version"]["Index"],
                spec["TaskTemplate"],
                **_fields(spec),
            )
        except docker.errors.NotFound as error:
            raise Conflict("the service was removed") from error

    def remove(self, service: Json) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            self._call("remove the service", self.api.remove_service, service["ID"])

    def services(self) -> list[Json]:
        services: list[Json] = self._call("list services", self.api.services)
        return services

    def contents(self, kind: str) -> list[Json]:
        """All configs or secrets; a secret comes without its value."""
        list_all = self.api.secrets if kind == "secret" else self.api.configs
        found: list[Json] = self._call(f"list {kind}s", list_all)
        return found

    def create_content(self, kind: str, name: str, data: bytes, labels: dict[str, str]) -> None:
        create = self.api.create_secret if kind == "secret" else self.api.create_config
        self._call(f"create the {kind} {name}", create, name, data, labels=labels)

    def remove_content(self, kind: str, content_id: str) -> None:
        remove = self.api.remove_secret if kind == "secret" else self.api.remove_config
        with contextlib.suppress(docker.errors.NotFound):
            self._call(f"remove an old {kind}", remove, content_id)

    def logs(self, service_id: str, task_id: str, lines: int) -> list[str]:
        """The last lines of one task's container, or none where they cannot be had: a help, not a result."""
        try:
            return self._logs_here(task_id, lines) or self._logs_elsewhere(service_id, task_id, lines)
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return []

    def _logs_here(self, task_id: str, lines: int) -> list[str]:
        # Swarm gives no log of a task that is still starting, the engine does.
        containers = self.api.containers(all=True, filters={"label": f"com.docker.swarm.task.id={task_id}"})
        if not containers:
            return []
        text: bytes = self.api.logs(containers[0]["Id"], stdout=True, stderr=True, tail=lines)
        return text.decode("utf-8", "replace").splitlines()

    def _logs_elsewhere(self, service_id: str, task_id: str, lines: int) -> list[str]:
        chunks = self.api.service_logs(
            service_id, details=True, stdout=True, stderr=True, tail=str(lines), is_tty=False
        )
        text = b"".join(chunks).decode("utf-8", "replace")
        # With details, each line begins with its node, service and task.
        told = (line.partition(" ") for line in text.splitlines())
        return [line for whose, _space, line in told if f"com.docker.swarm.task.id={task_id}" in whose][-lines:]
