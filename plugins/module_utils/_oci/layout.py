# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of several platforms as one index: OCI layouts on disk, and what a registry says of an index.

A layout is a folder with oci-layout, index.json and blobs/sha256/HEX (OCI image specification 1.0, "Image Layout").
Nothing here asks a clock or a network: the same images give the same index, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from dataclasses import dataclass
from pathlib import Path

from .content import ImageError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
# Under this name a layout holds its index.
NAME = "image"

Json = dict[str, t.Any]


@dataclass(frozen=True)
class Part:
    """The image of one platform in an index."""

    platform: str
    digest: str
    size: int  # of layers and configuration, compressed


@dataclass(frozen=True)
class Index:
    """An index as a registry holds it."""

    digest: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Of the largest image: it is what one host pulls."""
        return max((part.size for part in self.parts), default=0)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encoded(document: Json) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def platform_of(descriptor: Json) -> str:
    """The platform of an image in an index, as OS/ARCHITECTURE[/VARIANT]; variant v8 is what arm64 is anyway."""
    platform = descriptor.get("platform") or {}
    names = [platform.get("os", ""), platform.get("architecture", ""), platform.get("variant", "")]
    if names[1:] == ["arm64", "v8"]:
        del names[2]
    return "/".join(name for name in names if name)


def manifests(index: bytes) -> dict[str, Json] | None:
    """The descriptors of an index by platform; nothing if the bytes are no index."""
    document = json.loads(index)
    if document.get("mediaType") not in INDEXES and "manifests" not in document:
        return None
    # Attestations of BuildKit are in an index, too, under a platform that nobody has.
    found = {platform_of(descriptor): descriptor for descriptor in document.get("manifests") or []}
    return {platform: descriptor for platform, descriptor in found.items() if "unknown" not in platform.split("/")}


def size_of(manifest: bytes) -> int:
    """Bytes of layers and configuration."""
    document = json.loads(manifest)
    return sum(part["size"] for part in [*document.get("layers", []), document.get("config", {"size": 0})])


class Layout:
    """One folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.partition(":")[2]

    def read(self, digest: str) -> Json:
        document: Json = json.loads(self.blob(digest).read_bytes())
        return document

    def write(self, document: Json, media_type: str) -> Json:
        """A document as a blob; gives back its descriptor."""
        data = encoded(document)
        path = self.blob(digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def only(self) -> Json:
        """The descriptor of the one image that a builder left here."""
        try:
            found: list[Json] = json.loads((self.folder / "index.json").read_bytes())["manifests"]
        except (OSError, ValueError, KeyError) as error:
            raise ImageError(f"The builder left no OCI layout in {self.folder} ({error}).") from error
        if len(found) != 1 or found[0].get("mediaType") != MANIFEST:
            raise ImageError(f"The builder left {len(found)} entries in {self.folder}/index.json, not one OCI image.")
        return found[0]

    def finish(self, descriptor: Json) -> None:
        """Make the descriptor what the layout holds."""
        named = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": NAME}}
        (self.folder / "oci-layout").write_bytes(encoded({"imageLayoutVersion": "1.0.0"}))
        (self.folder / "index.json").write_bytes(encoded({"schemaVersion": 2, "manifests": [named]}))


def settle(layout: Layout, health_check: Json | None) -> None:
    """Make the image that buildah left in a layout the same for the same content, and give it its health check.

    OCI's configuration has no field for a health check, and buildah drops it; Docker and BuildKit write and read it
    there. The comments of its history name images of its storage, by ids that are new with each build.
    """
    manifest = layout.read(layout.only()["digest"])
    config = layout.read(manifest["config"]["digest"])
    for step in config.get("history", []):
        if step.get("comment", "").startswith("FROM "):
            del step["comment"]
    if health_check:
        config.setdefault("config", {})["Healthcheck"] = health_check
    manifest["config"] = layout.write(config, manifest["config"]["mediaType"])
    layout.finish(layout.write(manifest, MANIFEST))


def join(images: t.Mapping[str, Layout], target: Layout, annotations: t.Mapping[str, str]) -> str:
    """One index of the images of several platforms, in a layout of its own; gives back its digest.

    The blobs are linked, not copied: all layouts are in one file system.
    """
    descriptors = []
    for platform, layout in sorted(images.items()):
        only = layout.only()
        manifest = layout.read(only["digest"])
        config = layout.read(manifest["config"]["digest"])
        built = f"{config.get('os')}/{config.get('architecture')}"
        if built != platform:
            raise ImageError(f"platforms: the image that was built for {platform} says that it is for {built}.")
        os_name, architecture = platform.split("/")
        for digest in (only["digest"], *(part["digest"] for part in [manifest["config"], *manifest["layers"]])):
            _link(layout.blob(digest), target.blob(digest))
        kept = {key: only[key] for key in ("mediaType", "digest", "size")}
        descriptors.append({**kept, "platform": {"architecture": architecture, "os": os_name}})
    index = target.write(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors, "annotations": dict(annotations)}, INDEX
    )
    target.finish(index)
    return str(index["digest"])


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.link(source, target)


# -------------------------------------------------------------------------------- which builder


def buildx_lacks(inspected: str, driver_status: str, platforms: t.Iterable[str]) -> str:
    """Why the selected builder of buildx cannot build a layout for these platforms; empty if it can.

    C(inspected) is what C(docker buildx inspect) prints, C(driver_status) what C(docker info) says of its storage.
    """
    fields: dict[str, list[str]] = {}
    for line in inspected.splitlines():
        key, _colon, value = line.partition(":")
        fields.setdefault(key.strip().lower(), []).append(value.strip())
    name = next(iter(fields.get("name", [])), "default")
    driver = next(iter(fields.get("driver", [])), "")
    if not driver:
        return "no builder of buildx is selected"
    # The daemon's own builder writes OCI layouts only where the daemon keeps its images in containerd.
    if driver == "docker" and "io.containerd.snapshotter" not in driver_status:
        return f"the builder {name} is the daemon's own, which keeps its images outside of containerd"
    known = {one.strip(" *") for value in fields.get("platforms", []) for one in value.split(",")}
    missing = sorted(set(platforms) - known)
    return f"the builder {name} does not build for {', '.join(missing)}" if missing else ""


def qualified(reference: str) -> str:
    """A reference with its registry: what Docker leaves out of names in Docker Hub is written."""
    host, slash, _rest = reference.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"
