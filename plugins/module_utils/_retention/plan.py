# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images, manifests and models of releases are needed, and which can go: decided without touching anything.

Needed is what any service of the Swarm names, active, parked or beside, and what a container runs. Of the rest, only
what carries our mark goes.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

OWNER_LABEL, OWNER = "io.bitnet.owner", "bitnet.devops"
ENVIRONMENT_LABEL = "io.bitnet.environment"
TASK_LABEL = "com.docker.swarm.task.id"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SIGNATURE = re.compile(r"sha256-([0-9a-f]{64})(?:[.](?:sig|att))?")  # the tags that cosign gives
ENDED = ("exited", "dead")
# Swarm has done what the specification says; before that it may still go back to the previous one.
SETTLED = ("", "completed", "rollback_completed")
# States in which a task has or will have no container any more.
TERMINAL = ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")

Json = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Needed:
    """Digests of images and SHA-256 of models."""

    images: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def __or__(self, more: Needed) -> Needed:
        return Needed(self.images | more.images, self.models | more.models)


def digest_of(reference: str) -> str:
    """The digest in a reference to an image, empty if it has none."""
    found = DIGEST.search(reference.partition("@")[2])
    return found.group() if found else ""


def model_of(path: str) -> str:
    """The model in the source of a mount: the part of the path that is a hash."""
    return next((part for part in reversed(path.split("/")) if SHA256.fullmatch(part)), "")


def _named(container: Json) -> Needed:
    digest = digest_of(container.get("Image") or "")
    models = [model_of(mount.get("Source") or "") for mount in container.get("Mounts") or []]
    return Needed(frozenset(filter(None, [digest])), frozenset(filter(None, models)))


def needed(services: t.Iterable[Json], tasks: t.Iterable[Json]) -> Needed:
    """What the services name, whoever owns them, and what their tasks still run."""
    names = Needed()
    for service in services:
        specs = [service["Spec"]]
        if (service.get("UpdateStatus") or {}).get("State", "") not in SETTLED:
            specs.append(service.get("PreviousSpec") or {})
        for spec in specs:
            names |= _named((spec.get("TaskTemplate") or {}).get("ContainerSpec") or {})
    for task in tasks:
        if (task.get("Status") or {}).get("State", "") not in TERMINAL:
            names |= _named((task.get("Spec") or {}).get("ContainerSpec") or {})
    return names


# ---------------------------------------------------------------------------- what there is


@dataclasses.dataclass(frozen=True)
class Image:
    id: str
    references: tuple[str, ...]  # repository:tag and repository@digest
    labels: Json
    made: float

    @property
    def digests(self) -> set[str]:
        return {self.id, *filter(None, map(digest_of, self.references))}


@dataclasses.dataclass(frozen=True)
class Container:
    id: str
    name: str
    image: str  # id
    state: str
    labels: Json
    sources: tuple[str, ...] = ()

    @property
    def is_our_ended_task(self) -> bool:
        ours = self.labels.get(OWNER_LABEL) == OWNER and ENVIRONMENT_LABEL in self.labels
        return ours and TASK_LABEL in self.labels and self.state in ENDED


@dataclasses.dataclass(frozen=True)
class Manifest:
    repository: str
    digest: str
    tags: tuple[str, ...]
    labels: Json | None  # of its image, or of an index; nothing if it is neither
    made: float
    children: tuple[str, ...] = ()  # digests of the manifests that an index is made of


@dataclasses.dataclass(frozen=True)
class Model:
    sha256: str
    ours: bool  # it has a record that says so
    size: int
    made: float


@dataclasses.dataclass(frozen=True)
class Found:
    images: t.Sequence[Image] = ()
    containers: t.Sequence[Container] = ()
    manifests: t.Sequence[Manifest] = ()
    models: t.Sequence[Model] = ()
    records: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> SHA-256 of the model
    leftovers: t.Sequence[str] = ()  # models whose removal was interrupted
    evidence: t.Mapping[str, float] = dataclasses.field(default_factory=dict)  # digest of an image -> its time
    registry_seen: bool = True  # whether the manifests are what the registry has
    uncollected: bool = False  # an earlier run deleted manifests and did not free their space


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes. Containers are the ended tasks that hold an image that goes."""

    images: list[str] = dataclasses.field(default_factory=list)
    containers: list[Container] = dataclasses.field(default_factory=list)
    manifests: list[Manifest] = dataclasses.field(default_factory=list)
    models: list[str] = dataclasses.field(default_factory=list)
    records: list[str] = dataclasses.field(default_factory=list)
    leftovers: list[str] = dataclasses.field(default_factory=list)
    evidence: list[str] = dataclasses.field(default_factory=list)
    collect: bool = False
    kept: dict[str, str] = dataclasses.field(default_factory=dict)  # what nobody needs and stays, and why

    @property
    def changed(self) -> bool:
        going = (self.images, self.manifests, self.models, self.records, self.leftovers, self.evidence)
        return any(going) or self.collect

    def summary(self) -> dict[str, t.Any]:
        return {
            "images": self.images,
            "containers": [container.name for container in self.containers],
            "manifests": [f"{manifest.repository}@{manifest.digest}" for manifest in self.manifests],
            "models": [*self.models, *self.leftovers],
            "records": self.records,
            "evidence": self.evidence,
            "collect": self.collect,
        }


# ---------------------------------------------------------------------------- the decision


@dataclasses.dataclass(frozen=True)
class Scope:
    """What is looked at: repositories of one registry, and how young something is too young to go."""

    registry: str
    repositories: t.Sequence[str]
    now: float
    grace: float

    def covers(self, reference: str) -> bool:
        name = reference.partition("@")[0]
        repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        return repository in {f"{self.registry}/{repository}" for repository in self.repositories}

    def is_young(self, made: float) -> bool:
        return self.now - made < self.grace


def plan(found: Found, wanted: Needed, scope: Scope) -> Plan:
    made = Plan(leftovers=list(found.leftovers))
    in_use = _plan_images(made, found, wanted, scope)
    _plan_manifests(made, found, wanted.images | in_use, scope)
    _plan_evidence(made, found, scope)
    _plan_models(made, found, wanted, scope)
    return dataclasses.replace(made, collect=bool(made.manifests) or found.uncollected)


def _plan_images(made: Plan, found: Found, wanted: Needed, scope: Scope) -> set[str]:
    """Gives back the digests of the images that containers run here."""
    in_use: set[str] = set()
    for image in sorted(found.images, key=lambda image: image.id):
        holders = [container for container in found.containers if container.image == image.id]
        living = [container for container in holders if container.state not in ENDED]
        if living:
            in_use |= image.digests
        ours = [reference for reference in image.references if scope.covers(reference)]
        if not ours or image.labels.get(OWNER_LABEL) != OWNER or image.digests & wanted.images:
            continue
        foreign = [container.name for container in holders if not container.is_our_ended_task]
        name = sorted(ours)[0]
        if living:
            made.kept[name] = f"the container {living[0].name} runs it"
        elif foreign and len(ours) == len(image.references):
            made.kept[name] = f"the container {foreign[0]} holds it"
        elif scope.is_young(image.made):
            made.kept[name] = f"it is younger than {scope.grace:.0f} s"
        else:
            # With the last tag of a repository its digests go, too: tags first.
            made.images.extend(sorted(ours, key=lambda reference: ("@" in reference, reference)))
            if len(ours) == len(image.references):
                made.containers.extend(sorted(holders, key=lambda container: container.name))
    return in_use


def _plan_manifests(made: Plan, found: Found, wanted: t.AbstractSet[str], scope: Scope) -> None:
    for manifest in sorted(found.manifests, key=lambda manifest: (manifest.repository, manifest.digest)):
        name = f"{manifest.repository}@{manifest.digest}"
        if manifest.digest in wanted:
            continue
        if manifest.labels is None:
            made.kept[name] = "it is neither an image nor an index of images"
        elif manifest.labels.get(OWNER_LABEL) != OWNER:
            made.kept[name] = f"its image has no label {OWNER_LABEL}={OWNER}"
        elif scope.is_young(max(manifest.made, found.evidence.get(manifest.digest, 0))):
            made.kept[name] = f"it is younger than {scope.grace:.0f} s"
        else:
            made.manifests.append(manifest)
    made.manifests.extend(_children(made, found, wanted))
    made.manifests.extend(_signatures(made, found))
    for signature in made.manifests:
        made.kept.pop(f"{signature.repository}@{signature.digest}", None)


def _children(made: Plan, found: Found, wanted: t.AbstractSet[str]) -> list[Manifest]:
    """What indexes that go are made of and nothing that stays is: it has no tag, and nobody else would remove it."""
    staying = [manifest for manifest in found.manifests if manifest not in made.manifests]
    kept = {digest for manifest in staying for digest in (manifest.digest, *manifest.children)} | wanted
    gone: dict[str, Manifest] = {manifest.digest: manifest for manifest in made.manifests}
    children = []
    for manifest in list(made.manifests):
        for digest in manifest.children:
            if digest not in kept and digest not in gone:
                gone[digest] = Manifest(manifest.repository, digest, (), manifest.labels, manifest.made)
                children.append(gone[digest])
    return children


def _signatures(made: Plan, found: Found) -> list[Manifest]:
    """What cosign has put beside an image that goes."""
    gone = {(manifest.repository, manifest.digest) for manifest in made.manifests}
    beside = []
    for manifest in found.manifests:
        subjects = [SIGNATURE.fullmatch(tag) for tag in manifest.tags]
        if manifest in made.manifests or not subjects:
            continue
        if all(subject and (manifest.repository, f"sha256:{subject.group(1)}") in gone for subject in subjects):
            beside.append(manifest)
    return beside


def _plan_evidence(made: Plan, found: Found, scope: Scope) -> None:
    if found.registry_seen:
        staying = {manifest.digest for manifest in found.manifests if manifest not in made.manifests}
        gone = [digest for digest, written in found.evidence.items() if not scope.is_young(written)]
        made.evidence.extend(sorted(digest for digest in gone if digest not in staying))


def _plan_models(made: Plan, found: Found, wanted: Needed, scope: Scope) -> None:
    living = [container for container in found.containers if container.state not in ENDED]
    mounted = {model_of(source): container.name for container in living for source in container.sources}
    for model in sorted(found.models, key=lambda model: model.sha256):
        if model.sha256 in wanted.models:
            continue
        if model.sha256 in mounted:
            made.kept[model.sha256] = f"the container {mounted[model.sha256]} has it mounted"
        elif not model.ours:
            made.kept[model.sha256] = "its folder has no model.json that names it"
        elif scope.is_young(model.made):
            made.kept[model.sha256] = f"it is younger than {scope.grace:.0f} s"
        else:
            made.models.append(model.sha256)
    staying = {model.sha256 for model in found.models} - set(made.models)
    made.records.extend(sorted(name for name, sha256 in found.records.items() if sha256 not in staying))
