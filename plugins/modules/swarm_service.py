#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_service
short_description: Converges one labelled Docker Swarm service and waits until it runs
version_added: 0.1.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Compares what a service should be with what it is, field by field, shows the difference and brings it there.
  - Writes only if the service has not changed since it was looked at. After a conflict it looks and plans anew.
  - Waits until every task runs what the specification says, and is healthy if there is a health check.
    If that does not happen it says what it awaited, what it saw last, and the last lines of the log.
  - Touches only services with the label C(io.bitnet.owner=bitnet.devops), which it gives to those that it creates.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Makes the same plan and does not carry it out. Nothing is waited for.
  diff_mode:
    support: full
    description: Shows the fields that differ, before and after.
  idempotent:
    support: full
    description: A service that is as it should be is not written. One that is not running yet is waited for.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  state:
    description:
      - With V(present) the service runs as described.
      - With V(absent) the service and its tasks are gone.
    type: str
    choices: [present, absent]
    default: present
  image:
    description: Image of the containers, best with a digest. Required if O(state=present).
    type: str
  command:
    description: Replaces the entrypoint of the image.
    type: list
    elements: str
  args:
    description: Arguments of the entrypoint; replaces the command of the image.
    type: list
    elements: str
  env:
    description:
      - Environment of the containers. Swarm fills in its templates, as in V({{.Node.Hostname}}).
      - This is not for secrets. It is shown in diffs and by C(docker inspect).
    type: dict
  labels:
    description: Labels of the service. The labels of the owner and of the schema are added.
    type: dict
  container_labels:
    description: Labels of the containers.
    type: dict
  owned_elsewhere:
    description:
      - Fields which somebody else owns. They are set when the service is created and kept as found from then on.
      - V(replicas), or V(labels.NAME) for one label.
    type: list
    elements: str
    default: []
  user:
    description: User, and group after a colon, that the container runs as.
    type: str
  read_only:
    description: Makes the root of the container's file system read-only.
    type: bool
    default: false
  init:
    description: Runs Docker's small init as process 1, which reaps and forwards signals.
    type: bool
    default: false
  cap_add:
    description: Capabilities to add.
    type: list
    elements: str
  cap_drop:
    description: Capabilities to drop. V(ALL) drops all.
    type: list
    elements: str
  stop_grace_period:
    description: How long a container may take to stop before it is killed.
    type: str
    default: 10s
  mounts:
    description: What is mounted into the containers.
    type: list
    elements: dict
    suboptions:
      type:
        description: Kind of the mount.
        type: str
        choices: [bind, volume, tmpfs]
        default: bind
      source:
        description: Path on the node, or name of the volume. A tmpfs has none.
        type: str
      target:
        description: Path in the container.
        type: str
        required: true
      read_only:
        description: Mounts read-only.
        type: bool
        default: false
      tmpfs_size:
        description: Size of a tmpfs, as in V(64M).
        type: str
      tmpfs_mode:
        description: Mode of a tmpfs in octal, quoted, as in V("1777").
        type: str
  secrets:
    description: Secrets of the Swarm, by name. Their values never pass through this module.
    type: list
    elements: dict
    suboptions: &file
      source:
        description: Name in the Swarm.
        type: str
        required: true
      target:
        description: Path in the container. A relative one lies below C(/run/secrets) (secret) or C(/) (config).
        type: str
      uid:
        description: Owner of the file.
        type: str
        default: "0"
      gid:
        description: Group of the file.
        type: str
        default: "0"
      mode:
        description: Mode of the file in octal, quoted.
        type: str
        default: "0444"
  configs:
    description: Configs of the Swarm, by name.
    type: list
    elements: dict
    suboptions: *file
  healthcheck:
    description: Health check of the containers. Left out, it is the image's.
    type: dict
    suboptions:
      test:
        description: The command, beginning with V(CMD) or V(CMD-SHELL); or V(NONE) alone.
        type: list
        elements: str
        required: true
      interval:
        description: Time between two checks.
        type: str
        default: 10s
      timeout:
        description: Time that one check may take.
        type: str
        default: 5s
      retries:
        description: Failed checks in a row that make the container unhealthy.
        type: int
        default: 3
      start_period:
        description: Time after the start in which failed checks do not count.
        type: str
        default: 0s
  networks:
    description:
      - Overlay networks, by name.
      - V(host) alone is the network of the node itself. Then O(endpoint_mode=dnsrr) and no O(publish).
    type: list
    elements: str
  limits:
    description: What one container may use at most.
    type: dict
    suboptions: &resources
      cpus:
        description: Processors.
        type: float
      memory:
        description: Memory, as in V(512M) or V(2G).
        type: str
  reservations:
    description: What a node must have free for one container.
    type: dict
    suboptions: *resources
  constraints:
    description: Placement constraints, as in V(node.labels.zone==a).
    type: list
    elements: str
  platforms:
    description: Platforms that a node may have, as in V(linux/amd64). Left out, any will do.
    type: list
    elements: str
    version_added: 0.2.0
  preferences:
    description: Node labels over whose values the tasks are spread, as in V(node.labels.zone).
    type: list
    elements: str
  max_replicas_per_node:
    description: Tasks that one node may run at most. V(0) sets no limit.
    type: int
    default: 0
  restart_policy:
    description: What Swarm does when a task ends.
    type: dict
    suboptions:
      condition:
        description: When a task is replaced.
        type: str
        choices: [none, on-failure, any]
        default: any
      delay:
        description: Time before the replacement.
        type: str
        default: 5s
      max_attempts:
        description: Replacements within the window. V(0) sets no limit.
        type: int
        default: 0
      window:
        description: Time over which attempts are counted. V(0s) is for ever.
        type: str
        default: 0s
  update_config:
    description: How Swarm replaces tasks when the specification changes.
    type: dict
    suboptions:
      parallelism:
        description: Tasks replaced at once. V(0) replaces all.
        type: int
        default: 1
      delay:
        description: Time between two replacements.
        type: str
        default: 0s
      failure_action:
        description:
          - What Swarm does when a new task fails.
          - V(rollback) brings back the old specification with all labels, which undoes what others wrote in between.
        type: str
        choices: [pause, continue, rollback]
        default: pause
      monitor:
        description: How long a new task is watched.
        type: str
        default: 5s
      max_failure_ratio:
        description: Share of tasks that may fail.
        type: float
        default: 0
      order:
        description:
          - Whether the old task stops first or the new one starts first.
          - Start first cannot work with a port in host mode.
        type: str
        choices: [stop-first, start-first]
        default: stop-first
  rollback_config:
    description: How Swarm replaces tasks when somebody rolls the service back.
    type: dict
    suboptions:
      parallelism:
        description: Tasks replaced at once. V(0) replaces all.
        type: int
        default: 1
      delay:
        description: Time between two replacements.
        type: str
        default: 0s
      failure_action:
        description: What Swarm does when a task of the old specification fails.
        type: str
        choices: [pause, continue]
        default: pause
      monitor:
        description: How long a task is watched.
        type: str
        default: 5s
      max_failure_ratio:
        description: Share of tasks that may fail.
        type: float
        default: 0
      order:
        description: Whether the old task stops first or the new one starts first.
        type: str
        choices: [stop-first, start-first]
        default: stop-first
  logging:
    description: Where the containers' output goes. Left out, it is the daemon's choice.
    type: dict
    suboptions:
      driver:
        description: Name of the log driver.
        type: str
        required: true
      options:
        description: Options of the log driver.
        type: dict
  mode:
    description: V(replicated) runs O(replicas) tasks, V(global) one on every node that satisfies the constraints.
    type: str
    choices: [replicated, global]
    default: replicated
  replicas:
    description: Number of tasks with O(mode=replicated). Left out, it is one.
    type: int
  endpoint_mode:
    description:
      - How the service's name resolves in its networks.
      - V(dnsrr) gives the addresses of the tasks and works everywhere. V(vip) needs IPVS in the kernel.
    type: str
    choices: [dnsrr, vip]
    default: dnsrr
  publish:
    description: Ports of the node that lead to the service.
    type: list
    elements: dict
    suboptions:
      published:
        description: Port of the node.
        type: int
        required: true
      target:
        description: Port of the container.
        type: int
        required: true
      protocol:
        description: Transport.
        type: str
        choices: [tcp, udp, sctp]
        default: tcp
      mode:
        description:
          - V(host) is the port of the node that runs the task.
          - V(ingress) is one of every node and needs IPVS and O(endpoint_mode=vip).
        type: str
        choices: [host, ingress]
        default: host
  wait:
    description: Waits until the tasks run as described, or with O(state=absent) until they have ended.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait.
    type: int
    default: 300
notes:
  - P(community.docker.docker_swarm_service#module) covers more of Swarm, and has check mode and diff. It does not
    wait for the tasks, so a service that crashes is a success to it. It changes services of any owner, sets all labels,
    also those that somebody else maintains, and where Swarm cannot update a field it removes the service and creates it
    anew.
  - A service whose update Swarm has paused is taken up again by a second run, and that is a change.
seealso:
  - module: community.docker.docker_swarm_service
"""

EXAMPLES = r"""
- name: Run a web server on the overlay network
  bitnet.devops.swarm_service:
    name: web
    image: registry.example.org/web@sha256:0f3c2f3a8d5a8e5d2f4d6b6d1f2d5ab54a7c1a9b6f8f4f5a1d3c7f0b2e9d8c7a
    networks: [inside]
    replicas: 2
    read_only: true
    cap_drop: [ALL]
    healthcheck:
      test: [CMD, curl, -fsS, "http://127.0.0.1:8080/ready"]
      start_period: 2m

- name: Change the image and leave the number of replicas to the autoscaler
  bitnet.devops.swarm_service:
    name: web
    image: registry.example.org/web@sha256:5d2f4d6b6d1f2d5ab54a7c1a9b6f8f4f5a1d3c7f0b2e9d8c7a0f3c2f3a8d5a8e
    networks: [inside]
    owned_elsewhere: [replicas]

- name: Remove it, tasks included
  bitnet.devops.swarm_service:
    name: web
    state: absent
"""

RETURN = r"""
plan:
  description: What was done, or in check mode what would be done.
  returned: always
  type: dict
  contains:
    action:
      description: One of V(none), V(create), V(update), V(resume), V(remove).
      type: str
    fields:
      description: Names of the fields that differ.
      type: list
      elements: str
  sample: {"action": "update", "fields": ["image"]}
service:
  description: The service as it was seen last. Empty if there is none.
  returned: always
  type: dict
  contains:
    id:
      description: Id of the service.
      type: str
    name:
      description: Name of the service.
      type: str
    version:
      description: Version of the service, for compare-and-set.
      type: int
    image:
      description: Image of the specification.
      type: str
    labels:
      description: Labels of the service.
      type: dict
    update_state:
      description: How far Swarm is with an update, empty if there was none.
      type: str
tasks:
  description: The tasks as they were seen last, newest first.
  returned: when O(wait=true) and not in check mode
  type: list
  elements: dict
  sample: [{"id": "0c5e1zpk8a3d", "slot": 1, "node": "one", "desired": "running", "state": "running"}]
waited:
  description: Seconds that were waited.
  returned: always
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient
from ..module_utils._swarm.plan import Refused
from ..module_utils._swarm.service import NotConverged, absent, present
from ..module_utils._swarm.spec import SpecError, from_options


def _file() -> dict[str, t.Any]:
    return {
        "source": {"type": "str", "required": True},
        "target": {"type": "str"},
        "uid": {"type": "str", "default": "0"},
        "gid": {"type": "str", "default": "0"},
        "mode": {"type": "str", "default": "0444"},
    }


def _resources() -> dict[str, t.Any]:
    return {"cpus": {"type": "float"}, "memory": {"type": "str"}}


def _update(*failure_actions: str) -> dict[str, t.Any]:
    return {
        "parallelism": {"type": "int", "default": 1},
        "delay": {"type": "str", "default": "0s"},
        "failure_action": {"type": "str", "choices": list(failure_actions), "default": "pause"},
        "monitor": {"type": "str", "default": "5s"},
        "max_failure_ratio": {"type": "float", "default": 0},
        "order": {"type": "str", "choices": ["stop-first", "start-first"], "default": "stop-first"},
    }


def argument_spec() -> dict[str, t.Any]:
    strings: dict[str, t.Any] = {"type": "list", "elements": "str"}
    return {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "image": {"type": "str"},
        "command": strings,
        "args": strings,
        "env": {"type": "dict"},
        "labels": {"type": "dict"},
        "container_labels": {"type": "dict"},
        "owned_elsewhere": {**strings, "default": []},
        "user": {"type": "str"},
        "read_only": {"type": "bool", "default": False},
        "init": {"type": "bool", "default": False},
        "cap_add": strings,
        "cap_drop": strings,
        "stop_grace_period": {"type": "str", "default": "10s"},
        "mounts": {
            "type": "list",
            "elements": "dict",
            "options": {
                "type": {"type": "str", "choices": ["bind", "volume", "tmpfs"], "default": "bind"},
                "source": {"type": "str"},
                "target": {"type": "str", "required": True},
                "read_only": {"type": "bool", "default": False},
                "tmpfs_size": {"type": "str"},
                "tmpfs_mode": {"type": "str"},
            },
        },
        # Names and paths, no values: nothing here has to be hidden.
        "secrets": {"type": "list", "elements": "dict", "options": _file(), "no_log": False},
        "configs": {"type": "list", "elements": "dict", "options": _file()},
        "healthcheck": {
            "type": "dict",
            "options": {
                "test": {**strings, "required": True},
                "interval": {"type": "str", "default": "10s"},
                "timeout": {"type": "str", "default": "5s"},
                "retries": {"type": "int", "default": 3},
                "start_period": {"type": "str", "default": "0s"},
            },
        },
        "networks": strings,
        "limits": {"type": "dict", "options": _resources()},
        "reservations": {"type": "dict", "options": _resources()},
        "constraints": strings,
        "platforms": strings,
        "preferences": strings,
        "max_replicas_per_node": {"type": "int", "default": 0},
        "restart_policy": {
            "type": "dict",
            "options": {
                "condition": {"type": "str", "choices": ["none", "on-failure", "any"], "default": "any"},
                "delay": {"type": "str", "default": "5s"},
                "max_attempts": {"type": "int", "default": 0},
                "window": {"type": "str", "default": "0s"},
            },
        },
        "update_config": {"type": "dict", "options": _update("pause", "continue", "rollback")},
        "rollback_config": {"type": "dict", "options": _update("pause", "continue")},
        "logging": {
            "type": "dict",
            "options": {"driver": {"type": "str", "required": True}, "options": {"type": "dict"}},
        },
        "mode": {"type": "str", "choices": ["replicated", "global"], "default": "replicated"},
        "replicas": {"type": "int"},
        "endpoint_mode": {"type": "str", "choices": ["dnsrr", "vip"], "default": "dnsrr"},
        "publish": {
            "type": "list",
            "elements": "dict",
            "options": {
                "published": {"type": "int", "required": True},
                "target": {"type": "int", "required": True},
                "protocol": {"type": "str", "choices": ["tcp", "udp", "sctp"], "default": "tcp"},
                "mode": {"type": "str", "choices": ["host", "ingress"], "default": "host"},
            },
        },
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 300},
        "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ["image"])],
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        how = {"act": not module.check_mode, "wait": options["wait"], "timeout": options["wait_timeout"]}
        if options["state"] == "absent":
            outcome = absent(client, options["name"], **how)
        else:
            wanted = from_options(options)
            outcome = present(client, options["name"], wanted, owned_elsewhere=options["owned_elsewhere"], **how)
    except NotConverged as error:
        module.fail_json(msg=str(error), **error.outcome.result())
    except (SpecError, Refused, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**outcome.result())


if __name__ == "__main__":
    main()
