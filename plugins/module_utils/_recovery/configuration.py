# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest's configuration from a declaration, in two texts: what anybody may read, and what is secret."""

from __future__ import annotations

import re
import typing as t

from .errors import RecoveryError

Json = t.Mapping[str, t.Any]

STANZA = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SIZE = re.compile(r"[0-9]{1,9}\s*[KMGT]i?B")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PASS_LENGTH = 16

# Where each option stands in a declaration, and under which name pgBackRest knows it.
OF_REPOSITORY = {
    "path": "path",
    "bucket": "s3-bucket",
    "endpoint": "s3-endpoint",
    "region": "s3-region",
    "uri_style": "s3-uri-style",
    "key_type": "s3-key-type",
    "port": "storage-port",
    "ca_file": "storage-ca-file",
    "verify_tls": "storage-verify-tls",
    "retention_full": "retention-full",
    "retention_full_type": "retention-full-type",
    "retention_diff": "retention-diff",
}
SECRETS = {"cipher_pass": "cipher-pass", "key": "s3-key", "key_secret": "s3-key-secret", "token": "s3-token"}
ONLY_S3 = {
    "bucket",
    "endpoint",
    "region",
    "uri_style",
    "key_type",
    "port",
    "ca_file",
    "verify_tls",
    "key",
    "key_secret",
    "token",
}
CHOICES = {
    "type": ("posix", "s3"),
    "uri_style": ("host", "path"),
    "key_type": ("shared", "auto", "web-id"),
    "retention_full_type": ("count", "time"),
    "compress": ("zst", "lz4", "gz", "none"),
}
LEVELS = {"zst": (-7, 22), "lz4": (1, 12), "gz": (1, 9), "none": (0, 0)}
TOP = {
    "stanza", "data", "port", "socket", "repositories", "compress", "compress_level", "process_max", "archive_async",
    "archive_push_queue_max", "archive_timeout", "spool_path", "log_path", "lock_path",
}  # fmt: skip


def render(declared: Json, cpus: int) -> dict[str, str]:
    """The texts of C(pgbackrest.conf) and of the file with the secrets, which pgBackRest reads beside it."""
    _known(declared, TOP, "")
    stanza = _text(declared, "stanza", "main")
    if not STANZA.fullmatch(stanza):
        raise RecoveryError(f"stanza: {stanza!r} has to be up to 63 small letters, digits, - and _")
    repositories = declared.get("repositories")
    if not isinstance(repositories, (list, tuple)) or not 1 <= len(repositories) <= 4:
        raise RecoveryError("repositories: give one to four of them, each with its type (posix or s3)")
    public, secret = _global(declared, cpus), []
    for key, repository in enumerate(repositories, start=1):
        open_lines, secret_lines = _repository(key, repository)
        public += open_lines
        secret += secret_lines
    of_stanza = [
        f"pg1-path={_folder(declared, 'data', required=True)}",
        f"pg1-port={_whole(declared, 'port', 5432, (1, 65535))}",
        f"pg1-socket-path={_folder(declared, 'socket', '/var/run/postgresql')}",
    ]
    return {
        "config": "\n".join(["[global]", *public, "", f"[{stanza}]", *of_stanza, ""]),
        "secrets": "\n".join(["[global]", *secret, ""]),
    }


def process_max(cpus: int) -> int:
    """Half of the processors, since the database works meanwhile; more than eight find the disk or the network busy."""
    return max(1, min(8, cpus // 2))


def of_cluster(texts: str, stanza: str) -> dict[str, str]:
    """Of a cluster: C(path), C(port), C(socket-path), C(spool-path), where the configuration gives them."""
    section = ""
    found: dict[str, dict[str, str]] = {"global": {}, stanza: {}}
    for line in texts.splitlines():
        header = re.fullmatch(r"\[([^\]]+)\]", line.strip())
        option = re.fullmatch(r"(?:pg1-)?(path|port|socket-path|spool-path)\s*=\s*(\S.*)", line.strip())
        if header:
            section = header.group(1)
        elif option and section in found:
            found[section][option.group(1)] = option.group(2)
    return {**found["global"], **found[stanza]}


def _global(declared: Json, cpus: int) -> list[str]:
    compress = _choice(declared, "compress", "zst", "")
    lines = [
        # Without it a backup waits for the next checkpoint, up to checkpoint_timeout.
        "start-fast=y",
        f"compress-type={compress}",
        f"process-max={_whole(declared, 'process_max', process_max(cpus), (1, 999))}",
        f"archive-timeout={_whole(declared, 'archive_timeout', 60, (1, 86400))}",
        f"log-path={_folder(declared, 'log_path', '/var/log/pgbackrest')}",
        f"lock-path={_folder(declared, 'lock_path', '/tmp/pgbackrest')}",  # noqa: S108 - pgBackRest's own default
    ]
    if "compress_level" in declared:
        lines.append(f"compress-level={_whole(declared, 'compress_level', 1, LEVELS[compress])}")
    if _flag(declared, "archive_async", True):
        lines += ["archive-async=y", f"spool-path={_folder(declared, 'spool_path', '/var/spool/pgbackrest')}"]
    if declared.get("archive_push_queue_max"):
        # Never by default: when the queue is full pgBackRest tells PostgreSQL that WAL is archived and drops it. That
        # saves the disk of the database and ends point-in-time recovery until the next backup.
        size = _text(declared, "archive_push_queue_max", "")
        if not SIZE.fullmatch(size):
            raise RecoveryError(f"archive_push_queue_max: {size!r} is no size: give one such as 4GiB, or leave it out")
        lines.append(f"archive-push-queue-max={size}")
    return lines


def _repository(key: int, declared: object) -> tuple[list[str], list[str]]:
    at = f"repositories[{key - 1}]."
    if not isinstance(declared, t.Mapping):
        raise RecoveryError(f"{at[:-1]}: it is of type {type(declared).__name__}, and no dictionary with type and path")
    _known(declared, {"type", "encrypted", *OF_REPOSITORY, *SECRETS}, at)
    kind = _choice(declared, "type", "posix", at)
    misplaced = sorted(ONLY_S3 & set(declared)) if kind == "posix" else []
    if misplaced:
        raise RecoveryError(f"{at}{misplaced[0]}: it is of type s3, and this repository is of type posix")
    public = [f"type={kind}", *_storage(declared, kind, at)]
    # Files of pages in one object: less to ask for, which counts with S3.
    public.append("bundle=y")
    public += [
        f"retention-full={_whole(declared, 'retention_full', 2, (1, 9999999), at)}",
        f"retention-full-type={_choice(declared, 'retention_full_type', 'count', at)}",
    ]
    if "retention_diff" in declared:
        public.append(f"retention-diff={_whole(declared, 'retention_diff', 1, (1, 9999999), at)}")
    if _flag(declared, "encrypted", True, at):
        public.append("cipher-type=aes-256-cbc")
        if len(_text(declared, "cipher_pass", "", at)) < PASS_LENGTH:
            raise RecoveryError(
                f"{at}cipher_pass: give at least {PASS_LENGTH} characters, and keep them elsewhere, too: without them "
                "nobody can read the repository. encrypted: false makes one that everybody can read who reaches it"
            )
    elif declared.get("cipher_pass"):
        raise RecoveryError(f"{at}cipher_pass: it is given, and encrypted is false: leave one of both out")
    secret = [f"repo{key}-{SECRETS[name]}={_text(declared, name, '', at)}" for name in SECRETS if declared.get(name)]
    return [f"repo{key}-{line}" for line in public], secret


def _storage(declared: Json, kind: str, at: str) -> list[str]:
    if kind == "posix":
        return [f"path={_folder(declared, 'path', '/var/lib/pgbackrest', at)}"]
    bucket = _text(declared, "bucket", "", at)
    if not BUCKET.fullmatch(bucket):
        raise RecoveryError(f"{at}bucket: {bucket!r} is no name of a bucket: 3 to 63 small letters, digits, . and -")
    lines = [f"path={_folder(declared, 'path', '/pgbackrest', at)}", f"s3-bucket={bucket}"]
    for name in ("endpoint", "region"):
        value = _text(declared, name, "", at)
        if not re.fullmatch(r"[A-Za-z0-9.:-]{1,255}", value):
            raise RecoveryError(
                f"{at}{name}: {value!r}: an S3 repository needs it, as in s3.eu-west-1.amazonaws.com, eu-west-1"
            )
        lines.append(f"s3-{name}={value}")
    lines.append(f"s3-uri-style={_choice(declared, 'uri_style', 'host', at)}")
    key_type = _choice(declared, "key_type", "shared", at)
    lines.append(f"s3-key-type={key_type}")
    if key_type == "shared" and not (declared.get("key") and declared.get("key_secret")):
        raise RecoveryError(
            f"{at}key, {at}key_secret: give both, or key_type: auto, which takes the role of the instance"
        )
    if "port" in declared:
        lines.append(f"storage-port={_whole(declared, 'port', 443, (1, 65535), at)}")
    if "ca_file" in declared:
        lines.append(f"storage-ca-file={_folder(declared, 'ca_file', at=at)}")
    if not _flag(declared, "verify_tls", True, at):
        lines.append("storage-verify-tls=n")
    return lines


def _known(declared: Json, names: t.AbstractSet[str], at: str) -> None:
    unknown = sorted(str(name) for name in declared if name not in names)
    if unknown:
        raise RecoveryError(f"{at}{unknown[0]}: there is no such option; there are {', '.join(sorted(names))}")


def _text(declared: Json, name: str, default: str, at: str = "") -> str:
    value = str(default if declared.get(name) is None else declared[name])
    # A line break would begin an option of somebody else's choice; pgBackRest takes blanks at the ends away.
    if re.search(r"[\x00-\x1f\x7f]", value) or value != value.strip():
        shown = "its value" if name in SECRETS else repr(value)
        raise RecoveryError(f"{at}{name}: {shown} has a control character, or a blank at its beginning or end")
    return value


def _folder(declared: Json, name: str, default: str = "", at: str = "", required: bool = False) -> str:
    value = _text(declared, name, default, at)
    if not value.startswith("/") or "//" in value or (len(value) > 1 and value.endswith("/")) or "/../" in f"{value}/":
        raise RecoveryError(
            f"{at}{name}: {value!r} is no absolute path{' and has to be given' if required else ''}, as /srv/x is"
        )
    return value


def _whole(declared: Json, name: str, default: int, limits: tuple[int, int], at: str = "") -> int:
    value = declared.get(name, default)
    least, most = limits
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,9}", str(value)) or not least <= int(value) <= most:
        raise RecoveryError(f"{at}{name}: {value!r} is no whole number from {least} to {most}")
    return int(value)


def _choice(declared: Json, name: str, default: str, at: str) -> str:
    value = _text(declared, name, default, at)
    if value not in CHOICES[name]:
        raise RecoveryError(f"{at}{name}: {value!r} is none of {', '.join(CHOICES[name])}")
    return value


def _flag(declared: Json, name: str, default: bool, at: str = "") -> bool:
    value = declared.get(name, default)
    if str(value).lower() not in ("true", "false", "yes", "no"):
        raise RecoveryError(f"{at}{name}: {value!r} is neither true nor false")
    return str(value).lower() in ("true", "yes")
