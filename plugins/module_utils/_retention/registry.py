# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry on a loopback address of this machine, by its own API. Every call has a deadline."""

from __future__ import annotations

import calendar
import http.client
import json
import time
import typing as t

from .plan import DIGEST, Manifest

ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
LARGEST = 8 << 20


class RegistryFailed(Exception):
    """The registry could not be asked or said no; the text is for a person."""


class Registry:
    def __init__(self, address: str, timeout: float = 20) -> None:
        self.address = address
        self.timeout = timeout

    def _ask(self, method: str, path: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=self.timeout)
        try:
            connection.request(method, path, headers={"Accept": ACCEPT})
            response = connection.getresponse()
            body = response.read(LARGEST)
        except (OSError, http.client.HTTPException) as error:
            raise RegistryFailed(
                f"registry: {self.address} did not answer {method} {path} within {self.timeout:.0f} s ({error})"
            ) from error
        finally:
            connection.close()
        return response.status, response.getheader("Docker-Content-Digest") or "", body

    def _get(self, path: str) -> tuple[str, t.Any]:
        """The digest and the document; an empty one where there is none."""
        status, digest, body = self._ask("GET", path)
        if status == 404:
            return "", {}
        try:
            document = json.loads(body) if status == 200 else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            said = body[:200].decode("utf-8", "replace")
            raise RegistryFailed(f"registry: {self.address} answered GET {path} with {status}: {said}")
        return digest, document

    def manifests(self, repository: str) -> list[Manifest]:
        """All that have a tag; the registry lists no others, and every push of ours has one."""
        tags: dict[str, list[str]] = {}
        documents: dict[str, t.Any] = {}
        for tag in self._get(f"/v2/{repository}/tags/list")[1].get("tags") or []:
            digest, document = self._get(f"/v2/{repository}/manifests/{tag}")
            if DIGEST.fullmatch(digest):
                tags.setdefault(digest, []).append(tag)
                documents[digest] = document
        return [self._manifest(repository, digest, sorted(names), documents[digest]) for digest, names in tags.items()]

    def _manifest(self, repository: str, digest: str, tags: list[str], document: t.Any) -> Manifest:
        if isinstance(document.get("manifests"), list):
            children = tuple(child["digest"] for child in document["manifests"])
            return Manifest(repository, digest, tuple(tags), document.get("annotations") or {}, 0.0, children)
        config = str((document.get("config") or {}).get("digest") or "")
        if not DIGEST.fullmatch(config):
            return Manifest(repository, digest, tuple(tags), None, 0.0)
        _unused, image = self._get(f"/v2/{repository}/blobs/{config}")
        labels = (image.get("config") or {}).get("Labels") or {}
        return Manifest(repository, digest, tuple(tags), labels, moment(str(image.get("created") or "")))

    def delete(self, manifest: Manifest) -> None:
        status, _unused, body = self._ask("DELETE", f"/v2/{manifest.repository}/manifests/{manifest.digest}")
        if status == 405:
            raise RegistryFailed(
                f"registry: {self.address} does not delete. It runs from an earlier image of this collection; the "
                "playbook bitnet.devops.build renews it"
            )
        if status not in (202, 404):
            said = body[:200].decode("utf-8", "replace")
            raise RegistryFailed(f"registry: {self.address} did not delete {manifest.digest} ({status}): {said}")

    def await_answer(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if self._ask("GET", "/v2/")[0] == 200:
                    return
                seen = "an error"
            except RegistryFailed as error:
                seen = str(error)
            if time.monotonic() > end:
                raise RegistryFailed(
                    f"registry: {self.address} did not answer within {seconds:.0f} s after it was started; last: {seen}"
                )
            time.sleep(0.2)


def moment(text: str) -> float:
    """The time that Docker writes as 2026-01-31T12:00:00.123456789Z, in seconds; 0 if it is none."""
    try:
        return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0
