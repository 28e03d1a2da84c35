# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is needed and what goes, decided without Docker; and the folder of the models."""

from __future__ import annotations

import dataclasses
import json

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._retention import plan as retention
from ansible_collections.bitnet.devops.plugins.module_utils._retention.models import Models
from ansible_collections.bitnet.devops.plugins.module_utils._retention.plan import (
    Container,
    Found,
    Image,
    Manifest,
    Model,
    Needed,
    Scope,
)
from ansible_collections.bitnet.devops.plugins.module_utils._retention.registry import Registry, moment

NAME = "127.0.0.1:5000/bitnet/swarm-intelligence"
OURS = {"io.bitnet.owner": "bitnet.devops"}
TASK = {**OURS, "io.bitnet.environment": "local", "com.docker.swarm.task.id": "t"}
OLD, NEW, MODEL, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "c" * 64, "d" * 64
NOW = 1_000_000.0
SCOPE = Scope("127.0.0.1:5000", ["bitnet/swarm-intelligence"], NOW, 600)


def spec(digest=NEW, model=MODEL):
    mounts = [{"Type": "bind", "Source": f"/var/lib/bitnet/models/{model}"}, {"Type": "tmpfs", "Target": "/tmp"}]
    return {"TaskTemplate": {"ContainerSpec": {"Image": f"{NAME}@{digest}", "Mounts": mounts}}}


def image(digest=OLD, **more):
    return Image(
        **{"id": "sha256:1", "references": (f"{NAME}@{digest}", f"{NAME}:1"), "labels": OURS, "made": 0, **more}
    )


def container(**more):
    return Container(**{"id": "1", "name": "it", "image": "sha256:1", "state": "running", "labels": {}, **more})


def decide(wanted=Needed(), **found):  # noqa: B008
    return retention.plan(Found(**found), wanted, SCOPE)


# ---------------------------------------------------------------------------- what is needed


def test_what_any_service_names_is_needed():
    assert retention.needed([{"Spec": spec()}, {"Spec": spec(OLD, OTHER)}], []) == Needed(
        frozenset([OLD, NEW]), frozenset([MODEL, OTHER])
    )


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (None, False),
        ("completed", False),
        ("rollback_completed", False),
        ("updating", True),
        ("paused", True),
        ("rollback_started", True),
        ("rollback_paused", True),
    ],
)
def test_the_previous_specification_is_needed_until_an_update_is_settled(state, kept):
    service = {"Spec": spec(), "PreviousSpec": spec(OLD, OTHER), "UpdateStatus": {"State": state} if state else None}
    found = retention.needed([service], [])
    assert (OLD in found.images, OTHER in found.models) == (kept, kept)
    assert NEW in found.images


@pytest.mark.parametrize(
    ("state", "kept"), [("running", True), ("preparing", True), ("shutdown", False), ("failed", False)]
)
def test_what_a_living_task_names_is_needed(state, kept):
    task = {"Spec": {"ContainerSpec": {"Image": f"x@{OLD}"}}, "Status": {"State": state}}
    assert (OLD in retention.needed([], [task]).images) == kept


def test_services_of_other_kinds_name_nothing():
    assert retention.needed([{"Spec": {"TaskTemplate": {"PluginSpec": {}}}}, {"Spec": {}}], [{}]) == Needed()


@pytest.mark.parametrize(
    ("text", "digest"),
    [(f"{NAME}@{OLD}", OLD), (f"{NAME}:1@{OLD}", OLD), (NAME, ""), (f"{NAME}:sha256", ""), (OLD, "")],
)
def test_digest_of(text, digest):
    assert retention.digest_of(text) == digest


@pytest.mark.parametrize(
    ("path", "model"),
    [(f"/x/models/{MODEL}", MODEL), (f"/x/models/{MODEL}/model.gguf", MODEL), ("/x/models/.making-1", ""), ("", "")],
)
def test_model_of(path, model):
    assert retention.model_of(path) == model


# ---------------------------------------------------------------------------- images


def test_an_image_that_nobody_needs_goes_tags_first():
    assert decide(images=[image()]).images == [f"{NAME}:1", f"{NAME}@{OLD}"]


@pytest.mark.parametrize(
    "kept",
    [
        image(NEW),
        image(id=NEW),
        image(labels={}),
        image(labels={"io.bitnet.owner": "somebody"}),
        image(references=("bitnet/swarm-intelligence:1",)),
        image(references=("127.0.0.1:5000/bitnet/edge:1",)),
        image(references=("127.0.0.1:5000/bitnet/swarm-intelligence-fork:1",)),
        image(references=("elsewhere:5000/bitnet/swarm-intelligence:1",)),
        image(made=NOW - 599),
    ],
    ids=["needed", "needed-by-id", "unlabelled", "foreign", "local", "edge", "fork", "elsewhere", "young"],
)
def test_an_image_that_stays(kept):
    made = decide(Needed(frozenset([NEW])), images=[kept])
    assert not made.changed


def test_an_image_that_somebody_named_too_loses_our_names_only():
    held = container(state="exited", image="sha256:1")
    named = image(references=(f"{NAME}:1", "mine:1"))
    made = decide(images=[named], containers=[held])
    assert (made.images, made.containers) == ([f"{NAME}:1"], [])


@pytest.mark.parametrize("state", ["running", "paused", "created", "restarting"])
def test_what_a_container_runs_stays_here_and_in_the_registry(state):
    made = decide(
        images=[image()],
        containers=[container(state=state)],
        manifests=[Manifest("bitnet/swarm-intelligence", OLD, ("1",), OURS, 0)],
    )
    assert not made.changed
    assert made.kept == {f"{NAME}:1": "the container it runs it"}


def test_ended_tasks_of_ours_go_with_their_image():
    ended = container(state="exited", labels=TASK)
    made = decide(images=[image()], containers=[ended, container(id="2", image="sha256:2")])
    assert (made.images, made.containers) == ([f"{NAME}:1", f"{NAME}@{OLD}"], [ended])
    assert decide(Needed(frozenset([OLD])), images=[image()], containers=[ended]).containers == []


@pytest.mark.parametrize("labels", [{}, OURS, {**TASK, "io.bitnet.owner": "x"}])
def test_an_ended_container_that_is_no_task_of_ours_keeps_its_image(labels):
    made = decide(images=[image()], containers=[container(state="exited", labels=labels)])
    assert not made.changed and made.kept == {f"{NAME}:1": "the container it holds it"}


# ---------------------------------------------------------------------------- manifests


@pytest.mark.parametrize(
    ("labels", "made", "goes"), [(OURS, 0, True), (OURS, NOW - 1, False), ({}, 0, False), (None, 0, False)]
)
def test_manifests(labels, made, goes):
    old = Manifest("bitnet/swarm-intelligence", OLD, ("1", "2"), labels, made)
    new = dataclasses.replace(old, digest=NEW)
    planned = decide(Needed(frozenset([NEW])), manifests=[old, new])
    assert planned.manifests == ([old] if goes else [])
    assert planned.collect == goes
    assert list(planned.kept) == ([] if goes else [f"bitnet/swarm-intelligence@{OLD}"])


INDEX = Manifest("bitnet/swarm-intelligence", OLD, ("1",), OURS, 0, ("sha256:" + "1" * 64, "sha256:" + "2" * 64))


def test_an_index_goes_with_what_it_is_made_of():
    planned = decide(manifests=[INDEX])
    assert [manifest.digest for manifest in planned.manifests] == [OLD, *INDEX.children]
    assert {manifest.repository for manifest in planned.manifests} == {INDEX.repository}


def test_what_another_index_or_a_service_needs_of_an_index_stays():
    other = dataclasses.replace(INDEX, digest=NEW, children=(INDEX.children[0], "sha256:" + "3" * 64))
    planned = decide(Needed(frozenset([NEW])), manifests=[INDEX, other])
    assert [manifest.digest for manifest in planned.manifests] == [OLD, INDEX.children[1]]
    planned = decide(Needed(frozenset(INDEX.children)), manifests=[INDEX])
    assert [manifest.digest for manifest in planned.manifests] == [OLD]
    assert decide(Needed(frozenset([OLD])), manifests=[INDEX]).manifests == []


def test_an_image_of_two_tags_in_two_indexes_that_go_is_removed_once():
    other = dataclasses.replace(INDEX, digest=NEW)
    assert len(decide(manifests=[INDEX, other]).manifests) == 4


@pytest.mark.parametrize(("tag", "goes"), [("sha256-{}.sig", True), ("sha256-{}", True), ("{}", False), ("x", False)])
def test_a_signature_goes_with_its_image(tag, goes):
    beside = Manifest(INDEX.repository, NEW, (tag.format(OLD.partition(":")[2]),), {}, 0)
    planned = decide(manifests=[INDEX, beside])
    assert (beside in planned.manifests) == goes
    assert (f"{INDEX.repository}@{NEW}" in planned.kept) != goes
    assert beside not in decide(Needed(frozenset([OLD])), manifests=[INDEX, beside]).manifests


def test_what_was_written_of_an_image_tells_its_age_and_goes_with_it():
    """An image that is the same in each build has no time of its own."""
    young = decide(manifests=[INDEX], evidence={OLD: NOW - 1})
    assert (young.manifests, young.evidence) == ([], [])
    old = decide(manifests=[INDEX], evidence={OLD: 0, NEW: NOW - 1})
    assert (len(old.manifests), old.evidence) == (3, [OLD])
    assert decide(evidence={OLD: 0}, registry_seen=False).changed is False
    assert decide(evidence={OLD: 0}).evidence == [OLD], "of an image that the registry has lost"


def test_space_that_an_earlier_run_did_not_free_is_freed():
    made = decide(uncollected=True)
    assert made.changed and made.collect and made.manifests == []


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("model", "containers", "goes"),
    [
        (Model(OTHER, True, 1, 0), [], True),
        (Model(MODEL, True, 1, 0), [], False),
        (Model(OTHER, False, 1, 0), [], False),
        (Model(OTHER, True, 1, NOW), [], False),
        (Model(OTHER, True, 1, 0), [container(sources=(f"/x/models/{OTHER}",))], False),
        (Model(OTHER, True, 1, 0), [container(sources=(f"/x/models/{OTHER}",), state="exited")], True),
    ],
    ids=["unneeded", "needed", "foreign", "young", "mounted", "ended"],
)
def test_models_and_their_records(model, containers, goes):
    made = decide(
        Needed(models=frozenset([MODEL])), models=[model], containers=containers, records={"source.json": model.sha256}
    )
    assert made.models == ([model.sha256] if goes else [])
    assert made.records == (["source.json"] if goes else [])


def test_a_record_of_a_model_that_is_not_there_goes_and_an_interrupted_removal_ends():
    made = decide(records={"source.json": OTHER}, leftovers=[f".removing-{OTHER}"])
    assert (made.records, made.leftovers, made.changed) == (["source.json"], [f".removing-{OTHER}"], True)
    assert made.summary()["models"] == [f".removing-{OTHER}"]


def test_where_there_is_nothing_nothing_goes():
    assert not decide().changed


@pytest.fixture
def folder(tmp_path):
    models = tmp_path / "models"
    for sha256 in (MODEL, OTHER):
        (models / sha256).mkdir(parents=True)
        (models / sha256 / "model.gguf").write_text("GGUF")
        (models / sha256 / "model.json").write_text(json.dumps({"sha256": sha256}))
    (models / "sources").mkdir()
    (models / "sources" / "one.json").write_text(json.dumps({"sha256": MODEL}))
    (models / "sources" / "broken.json").write_text("{")
    (models / ".making-1").mkdir()
    (models / ("e" * 64)).symlink_to(models / MODEL)
    return models


def test_the_folder_of_the_models(tmp_path, folder):
    models = Models(str(tmp_path))
    assert [(model.sha256, model.ours, model.size > 4) for model in models.models()] == [
        (MODEL, True, True),
        (OTHER, True, True),
    ]
    assert (models.records(), models.leftovers()) == ({"one.json": MODEL}, [])


@pytest.mark.parametrize("wrong", ["json", "other", "subfolder", "link"])
def test_a_folder_that_is_no_model_of_ours(tmp_path, folder, wrong):
    if wrong == "json":
        (folder / MODEL / "model.json").write_text("no")
    elif wrong == "other":
        (folder / MODEL / "model.json").write_text(json.dumps({"sha256": OTHER}))
    elif wrong == "subfolder":
        (folder / MODEL / "mine").mkdir()
    else:
        (folder / MODEL / "mine").symlink_to("/etc/hostname")
    assert [model.ours for model in Models(str(tmp_path)).models()] == [False, True]


def test_a_model_goes_at_once_or_is_finished_later(tmp_path, folder, monkeypatch):
    def interrupted(_path):
        raise KeyboardInterrupt

    models = Models(str(tmp_path))
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            models.remove(MODEL)
    assert [model.sha256 for model in models.models()] == [OTHER]
    assert models.leftovers() == [f".removing-{MODEL}"]
    (folder / MODEL).mkdir()  # made anew, and not needed again
    models.remove(MODEL)
    models.remove_record("one.json")
    models.remove_record("one.json")
    assert (models.leftovers(), models.records(), (folder / MODEL).exists()) == ([], {}, False)


def test_a_host_without_models(tmp_path):
    models = Models(str(tmp_path))
    assert (models.models(), models.records(), models.leftovers()) == ([], {}, [])


@pytest.mark.parametrize(
    ("text", "seconds"), [("1970-01-01T00:01:00.5Z", 60), ("0001-01-01T00:00:00Z", -62135596800), ("", 0), ("x", 0)]
)
def test_moment(text, seconds):
    assert moment(text) == seconds


def test_what_was_written_of_images(tmp_path):
    models = Models(str(tmp_path))
    assert models.evidence() == {}
    (tmp_path / "images" / "a").mkdir(parents=True)
    folder = tmp_path / "images" / OLD.partition(":")[2]
    folder.mkdir()
    (folder / "provenance.json").write_text("{}")
    assert list(models.evidence()) == [OLD]
    models.remove_evidence(OLD)
    assert not folder.exists() and models.evidence() == {}


@pytest.mark.parametrize("annotations", [OURS, None])
def test_an_index_in_the_registry(annotations, monkeypatch):
    monkeypatch.setattr(Registry, "_get", lambda self, path: pytest.fail("an index has no configuration"))
    document = {"manifests": [{"digest": OLD}, {"digest": NEW}], "annotations": annotations}
    found = Registry("127.0.0.1:1")._manifest("it", MODEL, ["1"], document)
    assert (found.children, found.labels, found.made) == ((OLD, NEW), annotations or {}, 0.0)
