# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What C(pgbackrest info --output=json) says, and what is wrong with it."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass

from .errors import RecoveryError
from .wal import SEGMENT, lsn, timeline

Json = t.Mapping[str, t.Any]
OK, NO_STANZA, NO_BACKUP = 0, 1, 2
# What an encrypted file is for somebody who has another pass, in the words of pgBackRest.
UNREADABLE = re.compile(
    r"FormatError|CryptoError|cipher header invalid|unable to flush|unexpected eof|invalid checksum"
)


@dataclass(frozen=True)
class Repository:
    key: int
    code: int
    message: str
    cipher: str

    def problem(self, stanza: str) -> str:
        """Empty where it can be used."""
        if self.code in (OK, NO_BACKUP):
            return ""
        if self.code == NO_STANZA or "missing stanza" in self.message:
            return (
                f"repository {self.key} does not know the stanza {stanza}: 'pgbackrest --stanza={stanza} "
                "stanza-create' makes it, once, on the host of the database"
            )
        if UNREADABLE.search(self.message):
            return undecipherable(self.key, self.cipher)
        return f"repository {self.key} cannot be used: {printable(self.message)}"


@dataclass(frozen=True)
class Backup:
    label: str
    type: str
    repo: int
    database: int
    start: int
    stop: int
    wal_start: str
    wal_stop: str
    lsn_start: str
    lsn_stop: str
    # Bytes: of the database, of what was copied, and what both take in the repository.
    size: int
    copied: int
    # None where pgBackRest does not say it, as of a backup of blocks, which it knows from 2.46 on.
    repo_size: int | None
    repo_copied: int
    references: tuple[str, ...]
    page_errors: bool

    def end(self) -> tuple[int, int]:
        """Where in the WAL it ends, which a clock that jumps does not change."""
        return timeline(self.wal_stop), lsn(self.lsn_stop)

    def result(self) -> dict[str, t.Any]:
        return {
            "label": self.label,
            "type": self.type,
            "repo": self.repo,
            "start": self.start,
            "stop": self.stop,
            "seconds": self.stop - self.start,
            "wal_start": self.wal_start,
            "wal_stop": self.wal_stop,
            "size": self.size,
            "copied": self.copied,
            "repo_size": self.repo_size,
            "repo_copied": self.repo_copied,
            "references": list(self.references),
            "page_errors": self.page_errors,
        }


@dataclass(frozen=True)
class Stanza:
    name: str
    repositories: tuple[Repository, ...]
    backups: tuple[Backup, ...]
    # (repository, database) -> the folder of its WAL, such as 15-1
    archives: t.Mapping[tuple[int, int], str]
    # repository -> the database as it is now; older ones are of clusters before an upgrade
    databases: t.Mapping[int, int]
    locked: bool

    def usable(self) -> list[Repository]:
        return [repository for repository in self.repositories if not repository.problem(self.name)]

    def repository(self, key: int) -> Repository:
        for repository in self.repositories:
            if repository.key == key:
                return repository
        known = ", ".join(str(repository.key) for repository in self.repositories) or "none"
        raise RecoveryError(f"repo: the configuration has no repository {key}; it has {known}")

    def current(self, repo: int | None = None) -> list[Backup]:
        """The backups of the cluster as it is now, the newest last."""
        found = [
            backup
            for backup in self.backups
            if backup.database == self.databases.get(backup.repo) and repo in (None, backup.repo)
        ]
        return sorted(found, key=lambda backup: (backup.end(), -backup.repo))


def printable(text: str) -> str:
    """One line without what a terminal would act upon; a file that was read with a wrong pass is quoted in messages."""
    flat = " ".join(text.split())
    return re.sub(r"[^\x20-\x7e]+", "?", flat)[:600]


def undecipherable(key: int, cipher: str) -> str:
    if cipher in ("", "none"):
        return (
            f"repository {key} cannot be read: it is encrypted and the configuration gives no cipher "
            f"(repo{key}-cipher-type, repo{key}-cipher-pass), or its files are damaged. Give the cipher and the pass "
            "that it was made with"
        )
    return (
        f"repository {key} cannot be decrypted: the cipher pass (repo{key}-cipher-pass) is not the one that it was "
        "made with, or its files are damaged. Give that pass; without it nobody can read this repository"
    )


def parse(text: str, name: str) -> Stanza:
    """The stanza of that name."""
    try:
        stanzas = json.loads(text, strict=False)
        found = [stanza for stanza in stanzas if stanza["name"] == name]
        if not found:
            raise RecoveryError(f"stanza: pgBackRest does not know {name!r}")
        return _stanza(found[0])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecoveryError(
            f"pgbackrest info answered what cannot be understood ({type(error).__name__}: {error}): "
            f"{printable(text)[:200]}"
        ) from error


def _stanza(found: Json) -> Stanza:
    repositories = tuple(
        Repository(
            int(repo["key"]),
            int(repo["status"]["code"]),
            str(repo["status"]["message"]),
            str(repo.get("cipher", "none")),
        )
        for repo in found.get("repo", [])
    )
    databases: dict[int, int] = {}
    for database in found.get("db", []):
        key = int(database["repo-key"])
        databases[key] = max(int(database["id"]), databases.get(key, 0))
    archives = {
        (int(archive["database"]["repo-key"]), int(archive["database"]["id"])): str(archive["id"])
        for archive in found.get("archive", [])
    }
    backups = [_backup(backup) for backup in found.get("backup", [])]
    locked = bool(found["status"].get("lock", {}).get("backup", {}).get("held", False))
    return Stanza(
        str(found["name"]), repositories, tuple(backup for backup in backups if backup), archives, databases, locked
    )


def _backup(backup: Json) -> Backup | None:
    """None for one that was made without its WAL: nothing can be said of what it needs."""
    start, stop = backup["archive"]["start"], backup["archive"]["stop"]
    if not (start and stop and SEGMENT.fullmatch(start) and SEGMENT.fullmatch(stop)):
        return None
    size, repository = backup["info"], backup["info"]["repository"]
    return Backup(
        label=str(backup["label"]),
        type=str(backup["type"]),
        repo=int(backup["database"]["repo-key"]),
        database=int(backup["database"]["id"]),
        start=int(backup["timestamp"]["start"]),
        stop=int(backup["timestamp"]["stop"]),
        wal_start=start,
        wal_stop=stop,
        lsn_start=str(backup["lsn"]["start"]),
        lsn_stop=str(backup["lsn"]["stop"]),
        size=int(size["size"]),
        copied=int(size["delta"]),
        repo_size=int(repository["size"]) if repository.get("size") is not None else None,
        repo_copied=int(repository["delta"]),
        references=tuple(backup.get("reference") or ()),
        page_errors=bool(backup.get("error")),
    )
