# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Swarm service should be and what it is, in one vocabulary.

A service is described by *fields*, a flat dictionary that a person can read in a diff. `from_options` makes them from
module options, `from_spec` from what the Docker API says, and `to_spec` goes back to the API. Whatever the API says and
no field covers is collected in the field `other`, so that no drift stays unseen.
"""

from __future__ import annotations

import copy
import re
import typing as t

from .units import duration, nanoseconds, size

Fields = dict[str, t.Any]

OWNER_LABEL = "io.bitnet.owner"
OWNER = "bitnet.devops"
SCHEMA_LABEL = "io.bitnet.schema"
SCHEMA = "1"

_RESTART = {"condition": "any", "delay": "5s", "max_attempts": 0, "window": "0s"}
_UPDATE = {
    "parallelism": 1,
    "delay": "0s",
    "failure_action": "pause",
    "monitor": "5s",
    "max_failure_ratio": 0.0,
    "order": "stop-first",
}
# What Swarm adds by itself and what says nothing about the service.
_NEUTRAL = {"Isolation": "default", "Runtime": "container"}


class SpecError(Exception):
    """An option that cannot be turned into a service; the text names option, value and way out."""


def _convert(convert: t.Callable[[str], t.Any], option: str, value: t.Any) -> t.Any:
    try:
        return convert(value)
    except ValueError as error:
        raise SpecError(f"{option}: {error}") from error


def _seconds(option: str, value: t.Any) -> str:
    return duration(_convert(nanoseconds, option, value))


def _capability(name: str) -> str:
    name = name.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _present(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {key: value for key, value in values.items() if value is not None}


# ---------------------------------------------------------------------------- from options


def from_options(options: t.Mapping[str, t.Any]) -> Fields:
    """The fields of the service that the options ask for; every field is set."""
    labels = {str(key): str(value) for key, value in (options["labels"] or {}).items()}
    if labels.setdefault(OWNER_LABEL, OWNER) != OWNER:
        raise SpecError(
            f"labels: {OWNER_LABEL} is {labels[OWNER_LABEL]!r}, but it is always {OWNER!r} here: leave it out"
        )
    labels.setdefault(SCHEMA_LABEL, SCHEMA)
    replicated = options["mode"] == "replicated"
    if not replicated and options["replicas"] is not None:
        raise SpecError("replicas: a service with mode=global runs one task on each node; leave replicas out")
    logging = options["logging"]
    return {
        "image": options["image"],
        "command": list(options["command"] or []),
        "args": list(options["args"] or []),
        "env": {str(key): str(value) for key, value in (options["env"] or {}).items()},
        "labels": labels,
        "container_labels": {str(k): str(v) for k, v in (options["container_labels"] or {}).items()},
        "user": options["user"] or "",
        "read_only": options["read_only"],
        "init": options["init"],
        "cap_add": sorted(map(_capability, options["cap_add"] or [])),
        "cap_drop": sorted(map(_capability, options["cap_drop"] or [])),
        "stop_grace_period": _seconds("stop_grace_period", options["stop_grace_period"]),
        "mounts": sorted(map(_wanted_mount, options["mounts"] or []), key=lambda mount: mount["target"]),
        "secrets": _wanted_files(options["secrets"], "/run/secrets/"),
        "configs": _wanted_files(options["configs"], "/"),
        "healthcheck": _wanted_healthcheck(options["healthcheck"]),
        "networks": sorted(options["networks"] or []),
        "limits": _wanted_resources("limits", options["limits"]),
        "reservations": _wanted_resources("reservations", options["reservations"]),
        "constraints": sorted(map(_rule, options["constraints"] or [])),
        "platforms": sorted(options["platforms"] or []),
        "preferences": list(options["preferences"] or []),
        "max_replicas_per_node": options["max_replicas_per_node"] or 0,
        "restart_policy": _with_durations("restart_policy", _RESTART, options["restart_policy"], "delay", "window"),
        "update_config": _with_durations("update_config", _UPDATE, options["update_config"], "delay", "monitor"),
        "rollback_config": _with_durations("rollback_config", _UPDATE, options["rollback_config"], "delay", "monitor"),
        "logging": {"driver": logging["driver"], "options": {k: str(v) for k, v in (logging["options"] or {}).items()}}
        if logging
        else {},
        "mode": options["mode"],
        "replicas": (1 if options["replicas"] is None else options["replicas"]) if replicated else None,
        "endpoint_mode": options["endpoint_mode"],
        "publish": sorted((_present(port) for port in options["publish"] or []), key=_port_key),
        "other": {},
    }


def _rule(constraint: str) -> str:
    return re.sub(r"\s*([=!]=)\s*", r"\1", constraint.strip())


def _wanted_mount(mount: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    target, kind = mount["target"], mount["type"]
    if kind == "tmpfs":
        if mount.get("source"):
            raise SpecError(f"mounts: the tmpfs at {target} has no source; leave {mount['source']!r} out")
    elif not mount.get("source"):
        raise SpecError(f"mounts: the {kind} at {target} needs a source")
    elif mount.get("tmpfs_size") or mount.get("tmpfs_mode"):
        raise SpecError(f"mounts: tmpfs_size and tmpfs_mode belong to type=tmpfs, {target} is a {kind}")
    wanted = {"type": kind, "target": target, "read_only": bool(mount.get("read_only"))}
    if kind != "tmpfs":
        wanted["source"] = mount["source"]
    if mount.get("tmpfs_size"):
        wanted["tmpfs_size"] = _convert(size, f"mounts: tmpfs_size of {target}", mount["tmpfs_size"])
    if mount.get("tmpfs_mode"):
        wanted["tmpfs_mode"] = _octal(f"mounts: tmpfs_mode of {target}", mount["tmpfs_mode"])
    return wanted


def _octal(option: str, value: str) -> str:
    try:
        return f"{int(value, 8):04o}"
    except ValueError:
        raise SpecError(f"{option}: {value!r} is no octal mode; write it quoted, as in '0444'") from None


def _wanted_files(references: t.Sequence[t.Mapping[str, t.Any]] | None, folder: str) -> list[dict[str, t.Any]]:
    files = [
        {
            "source": reference["source"],
            "target": _absolute(reference["target"] or reference["source"], folder),
            "uid": str(reference["uid"]),
            "gid": str(reference["gid"]),
            "mode": _octal(f"mode of {reference['source']}", reference["mode"]),
        }
        for reference in references or []
    ]
    return sorted(files, key=lambda file: file["target"])


def _absolute(target: str, folder: str) -> str:
    return target if target.startswith("/") else folder + target


def _wanted_healthcheck(check: t.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    if not check:
        return {}
    wanted = {"test": list(check["test"]), "retries": check["retries"]}
    if not wanted["test"] or wanted["test"][0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise SpecError(f"healthcheck.test: {wanted['test']!r} must begin with CMD, CMD-SHELL or NONE")
    for name in ("interval", "timeout", "start_period"):
        wanted[name] = _seconds(f"healthcheck.{name}", check[name])
    return wanted


def _wanted_resources(option: str, resources: t.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    wanted: dict[str, t.Any] = {}
    if resources and resources.get("cpus") is not None:
        wanted["cpus"] = float(resources["cpus"])
    if resources and resources.get("memory") is not None:
        wanted["memory"] = _convert(size, f"{option}.memory", resources["memory"])
    return wanted


def _with_durations(
    option: str, defaults: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any] | None, *names: str
) -> dict[str, t.Any]:
    wanted = {**defaults, **_present(given or {})}
    for name in names:
        wanted[name] = _seconds(f"{option}.{name}", wanted[name])
    return wanted


def _port_key(port: t.Mapping[str, t.Any]) -> tuple[int, str]:
    return port["published"], port["protocol"]


# ---------------------------------------------------------------------------- from the API


class _Rest:
    """A copy of a spec from which fields are taken; what stays is what no field covers."""

    def __init__(self, spec: t.Mapping[str, t.Any]) -> None:
        self.rest: dict[str, t.Any] = copy.deepcopy(dict(spec))

    def take(self, path: str, default: t.Any = None) -> t.Any:
        *parents, last = path.split(".")
        place: t.Any = self.rest
        for key in parents:
            place = place.get(key)
            if not isinstance(place, dict):
                return default
        value = place.pop(last, None)
        return default if value is None else value

    def left(self) -> dict[str, t.Any]:
        return meaningful(self.rest) or {}


def meaningful(value: t.Any) -> t.Any:
    if not isinstance(value, dict):
        return value
    kept = {key: meaningful(part) for key, part in value.items() if _NEUTRAL.get(key) != part}
    return {key: part for key, part in kept.items() if part not in (None, "", 0, False, [], {})}


def from_spec(spec: t.Mapping[str, t.Any], network_names: t.Mapping[str, str]) -> Fields:
    """The fields of a service as the API describes it; network_names maps a network's id to its name."""
    rest = _Rest(spec)
    task, container = "TaskTemplate.", "TaskTemplate.ContainerSpec."
    rest.take("Name")
    rest.take(task + "ForceUpdate")
    driver, options = rest.take(task + "LogDriver.Name"), rest.take(task + "LogDriver.Options", {})
    mode = rest.take("Mode", {})
    networks = rest.take(task + "Networks", []) + rest.take("Networks", [])
    return {
        "image": rest.take(container + "Image", ""),
        "command": rest.take(container + "Command", []),
        "args": rest.take(container + "Args", []),
        "env": dict(entry.partition("=")[::2] for entry in rest.take(container + "Env", [])),
        "labels": rest.take("Labels", {}),
        "container_labels": rest.take(container + "Labels", {}),
        "user": rest.take(container + "User", ""),
        "read_only": rest.take(container + "ReadOnly", False),
        "init": rest.take(container + "Init", False),
        "cap_add": sorted(rest.take(container + "CapabilityAdd", [])),
        "cap_drop": sorted(rest.take(container + "CapabilityDrop", [])),
        "stop_grace_period": duration(rest.take(container + "StopGracePeriod", 10 * 10**9)),
        "mounts": sorted(map(_found_mount, rest.take(container + "Mounts", [])), key=lambda mount: mount["target"]),
        "secrets": _found_files(rest.take(container + "Secrets", []), "Secret", "/run/secrets/"),
        "configs": _found_files(rest.take(container + "Configs", []), "Config", "/"),
        "healthcheck": _found_healthcheck(rest.take(container + "Healthcheck", {})),
        "networks": sorted(network_names.get(network["Target"], network["Target"]) for network in networks),
        "limits": _found_resources(rest, task + "Resources.Limits."),
        "reservations": _found_resources(rest, task + "Resources.Reservations."),
        "constraints": sorted(map(_rule, rest.take(task + "Placement.Constraints", []))),
        "platforms": sorted(
            f"{each.get('OS', '')}/{each.get('Architecture', '')}"
            for each in rest.take(task + "Placement.Platforms", [])
        ),
        "preferences": [wish["Spread"]["SpreadDescriptor"] for wish in rest.take(task + "Placement.Preferences", [])],
        "max_replicas_per_node": rest.take(task + "Placement.MaxReplicas", 0),
        "restart_policy": {
            "condition": rest.take(task + "RestartPolicy.Condition", "any"),
            "delay": duration(rest.take(task + "RestartPolicy.Delay", 5 * 10**9)),
            "max_attempts": rest.take(task + "RestartPolicy.MaxAttempts", 0),
            "window": duration(rest.take(task + "RestartPolicy.Window", 0)),
        },
        "update_config": _found_update(rest, "UpdateConfig."),
        "rollback_config": _found_update(rest, "RollbackConfig."),
        "logging": {"driver": driver, "options": options} if driver else {},
        "mode": next((name.lower() for name in mode), "replicated"),
        "replicas": mode["Replicated"].get("Replicas", 0) if "Replicated" in mode else None,
        "endpoint_mode": rest.take("EndpointSpec.Mode", "vip"),
        "publish": sorted(map(_found_port, rest.take("EndpointSpec.Ports", [])), key=_port_key),
        "other": rest.left(),
    }


def _found_mount(mount: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    rest = _Rest(mount)
    found = {
        "type": rest.take("Type", "bind"),
        "target": rest.take("Target", ""),
        "read_only": rest.take("ReadOnly", False),
        "source": rest.take("Source"),
        "tmpfs_size": rest.take("TmpfsOptions.SizeBytes"),
        "other": rest.left() or None,
    }
    mode = rest.take("TmpfsOptions.Mode")
    if mode:
        found.update(tmpfs_mode=f"{mode:04o}", other=rest.left() or None)
    return _present({key: None if value == "" else value for key, value in found.items()})


def _found_files(references: t.Sequence[t.Mapping[str, t.Any]], kind: str, folder: str) -> list[dict[str, t.Any]]:
    files = []
    for reference in references:
        file = reference.get("File") or {}
        files.append(
            {
                "source": reference[f"{kind}Name"],
                "target": _absolute(file.get("Name", ""), folder),
                "uid": file.get("UID", "0"),
                "gid": file.get("GID", "0"),
                "mode": f"{file.get('Mode', 0o444):04o}",
            }
        )
    return sorted(files, key=lambda file: file["target"])


def _found_healthcheck(check: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    if not check.get("Test"):
        return {}
    return {
        "test": check["Test"],
        "retries": check.get("Retries", 0),
        "interval": duration(check.get("Interval", 0)),
        "timeout": duration(check.get("Timeout", 0)),
        "start_period": duration(check.get("StartPeriod", 0)),
    }


def _found_resources(rest: _Rest, path: str) -> dict[str, t.Any]:
    cpus, memory = rest.take(path + "NanoCPUs"), rest.take(path + "MemoryBytes")
    return _present({"cpus": cpus / 1e9 if cpus else None, "memory": memory or None})


def _found_update(rest: _Rest, path: str) -> dict[str, t.Any]:
    return {
        "parallelism": rest.take(path + "Parallelism", 0),
        "delay": duration(rest.take(path + "Delay", 0)),
        "failure_action": rest.take(path + "FailureAction", "pause"),
        "monitor": duration(rest.take(path + "Monitor", 5 * 10**9)),
        # Swarm keeps it in 32 bits: 0.1 comes back as 0.10000000149011612.
        "max_failure_ratio": round(rest.take(path + "MaxFailureRatio", 0.0), 6),
        "order": rest.take(path + "Order", "stop-first"),
    }


def _found_port(port: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {
        "published": port.get("PublishedPort", 0),
        "target": port["TargetPort"],
        "protocol": port.get("Protocol", "tcp"),
        "mode": port.get("PublishMode", "ingress"),
    }


# ---------------------------------------------------------------------------- to the API


class Ids(t.NamedTuple):
    """The ids of what a service refers to by name."""

    networks: dict[str, str]
    secrets: dict[str, str]
    configs: dict[str, str]


def to_spec(name: str, fields: Fields, ids: Ids, force_update: int = 0) -> dict[str, t.Any]:
    """The service as the API takes it; force_update is kept as found, since a new value restarts every task."""
    check = fields["healthcheck"]
    container = {
        "Image": fields["image"],
        "Command": fields["command"],
        "Args": fields["args"],
        "Env": [f"{key}={value}" for key, value in sorted(fields["env"].items())],
        "Labels": fields["container_labels"],
        "User": fields["user"],
        "ReadOnly": fields["read_only"],
        "Init": fields["init"],
        "CapabilityAdd": fields["cap_add"],
        "CapabilityDrop": fields["cap_drop"],
        "StopGracePeriod": nanoseconds(fields["stop_grace_period"]),
        "Mounts": [_spec_mount(mount) for mount in fields["mounts"]],
        "Secrets": [_spec_file(file, "Secret", ids.secrets) for file in fields["secrets"]],
        "Configs": [_spec_file(file, "Config", ids.configs) for file in fields["configs"]],
    }
    if check:
        container["Healthcheck"] = {
            "Test": check["test"],
            "Retries": check["retries"],
            "Interval": nanoseconds(check["interval"]),
            "Timeout": nanoseconds(check["timeout"]),
            "StartPeriod": nanoseconds(check["start_period"]),
        }
    restart = fields["restart_policy"]
    task: dict[str, t.Any] = {
        "ContainerSpec": container,
        "Resources": {
            "Limits": _spec_resources(fields["limits"]),
            "Reservations": _spec_resources(fields["reservations"]),
        },
        "RestartPolicy": {
            "Condition": restart["condition"],
            "Delay": nanoseconds(restart["delay"]),
            "MaxAttempts": restart["max_attempts"],
            "Window": nanoseconds(restart["window"]),
        },
        "Placement": {
            "Constraints": fields["constraints"],
            "Platforms": list(map(_spec_platform, fields["platforms"])),
            "Preferences": [{"Spread": {"SpreadDescriptor": wish}} for wish in fields["preferences"]],
            "MaxReplicas": fields["max_replicas_per_node"],
        },
        "Networks": [{"Target": ids.networks[network]} for network in fields["networks"]],
        "ForceUpdate": force_update,
    }
    if fields["logging"]:
        task["LogDriver"] = {"Name": fields["logging"]["driver"], "Options": fields["logging"]["options"]}
    replicated = fields["mode"] == "replicated"
    return {
        "Name": name,
        "Labels": fields["labels"],
        "TaskTemplate": task,
        "Mode": {"Replicated": {"Replicas": fields["replicas"]}} if replicated else {"Global": {}},
        "UpdateConfig": _spec_update(fields["update_config"]),
        "RollbackConfig": _spec_update(fields["rollback_config"]),
        "EndpointSpec": {
            "Mode": fields["endpoint_mode"],
            "Ports": [
                {
                    "PublishedPort": port["published"],
                    "TargetPort": port["target"],
                    "Protocol": port["protocol"],
                    "PublishMode": port["mode"],
                }
                for port in fields["publish"]
            ],
        },
    }


def _spec_mount(mount: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    spec: dict[str, t.Any] = {"Type": mount["type"], "Target": mount["target"], "ReadOnly": mount["read_only"]}
    if "source" in mount:
        spec["Source"] = mount["source"]
    tmpfs: dict[str, t.Any] = {}
    if "tmpfs_size" in mount:
        tmpfs["SizeBytes"] = mount["tmpfs_size"]
    if "tmpfs_mode" in mount:
        tmpfs["Mode"] = int(mount["tmpfs_mode"], 8)
    if tmpfs:
        spec["TmpfsOptions"] = tmpfs
    return spec


def _spec_file(file: t.Mapping[str, t.Any], kind: str, ids: t.Mapping[str, str]) -> dict[str, t.Any]:
    return {
        f"{kind}ID": ids[file["source"]],
        f"{kind}Name": file["source"],
        "File": {"Name": file["target"], "UID": file["uid"], "GID": file["gid"], "Mode": int(file["mode"], 8)},
    }


def _spec_platform(platform: str) -> dict[str, str]:
    system, slash, architecture = platform.partition("/")
    if not (system and slash and architecture):
        raise SpecError(f"platforms: {platform!r} is no platform; write it as in linux/amd64")
    return {"Architecture": architecture, "OS": system}


def _spec_resources(resources: t.Mapping[str, t.Any]) -> dict[str, int]:
    spec = {}
    if "cpus" in resources:
        spec["NanoCPUs"] = round(resources["cpus"] * 1e9)
    if "memory" in resources:
        spec["MemoryBytes"] = resources["memory"]
    return spec


def _spec_update(update: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {
        "Parallelism": update["parallelism"],
        "Delay": nanoseconds(update["delay"]),
        "FailureAction": update["failure_action"],
        "Monitor": nanoseconds(update["monitor"]),
        "MaxFailureRatio": update["max_failure_ratio"],
        "Order": update["order"],
    }
