# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts as a builder leaves them, joined to an index: no builder and no registry is needed."""

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._oci import layout as layouts
from ansible_collections.bitnet.devops.plugins.module_utils._oci.content import ImageError

CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
CHECK = {"Test": ["CMD", "/true"], "Interval": 5000000000}


def image(folder, architecture="amd64", layer=b"layer", history=()):
    """What buildah push leaves for one image."""
    made = layouts.Layout(folder)
    path = made.blob(layouts.digest_of(layer))
    path.parent.mkdir(parents=True)
    path.write_bytes(layer)
    config = {"architecture": architecture, "os": "linux", "config": {"User": "1"}, "history": list(history)}
    manifest = {
        "schemaVersion": 2,
        "config": made.write(config, CONFIG),
        "layers": [{"mediaType": LAYER, "digest": layouts.digest_of(layer), "size": len(layer)}],
    }
    made.finish(made.write(manifest, layouts.MANIFEST))
    return made


def config_of(made):
    return made.read(made.read(made.only()["digest"])["config"]["digest"])


def test_an_index_names_each_platform_and_holds_all_blobs(tmp_path):
    images = {f"linux/{name}": image(tmp_path / name, name, name.encode()) for name in ("arm64", "amd64")}
    joined = layouts.Layout(tmp_path / "index")
    digest = layouts.join(images, joined, {"io.bitnet.owner": "bitnet.devops"})
    data = joined.blob(digest).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    index = json.loads(data)
    assert index["mediaType"] == layouts.INDEX and index["annotations"] == {"io.bitnet.owner": "bitnet.devops"}
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    for entry in index["manifests"]:
        manifest = joined.read(entry["digest"])
        assert entry["size"] == joined.blob(entry["digest"]).stat().st_size
        assert all(joined.blob(part["digest"]).exists() for part in [manifest["config"], *manifest["layers"]])
    outer = json.loads((joined.folder / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in outer] == [digest]
    assert outer[0]["annotations"]["org.opencontainers.image.ref.name"] == layouts.NAME


def test_the_same_images_give_the_same_index(tmp_path):
    digests = []
    for run in ("first", "second"):
        images = {f"linux/{name}": image(tmp_path / run / name, name) for name in ("amd64", "arm64")}
        digests.append(layouts.join(images, layouts.Layout(tmp_path / run / "index"), {"b": "2", "a": "1"}))
    assert digests[0] == digests[1]
    other = {"linux/amd64": image(tmp_path / "other" / "amd64", layer=b"other")}
    assert layouts.join(other, layouts.Layout(tmp_path / "other" / "index"), {}) != digests[0]


def test_an_image_that_is_labelled_for_another_machine_is_refused(tmp_path):
    with pytest.raises(ImageError, match="built for linux/arm64 says that it is for linux/amd64"):
        layouts.join({"linux/arm64": image(tmp_path / "it", "amd64")}, layouts.Layout(tmp_path / "index"), {})


def test_a_health_check_is_added_and_ids_of_the_storage_go(tmp_path):
    steps = [{"created_by": "a"}, {"created_by": "b", "comment": "FROM 3d4c2ec72adf"}, {"comment": "by hand"}]
    made, same = (
        image(tmp_path / name, history=[*steps[:1], {**steps[1], "comment": f"FROM {name}"}, steps[2]])
        for name in ("a", "b")
    )
    for one in (made, same):
        layouts.settle(one, CHECK)
    config = config_of(made)
    assert config["config"] == {"User": "1", "Healthcheck": CHECK}
    assert config["history"] == [{"created_by": "a"}, {"created_by": "b"}, {"comment": "by hand"}]
    assert made.only() == same.only()
    layouts.settle(made, None)
    assert config_of(made) == config


@pytest.mark.parametrize(
    "written",
    [None, "", "{}", '{"manifests": []}', json.dumps({"manifests": [{"mediaType": layouts.INDEX, "digest": "x"}]})],
)
def test_a_builder_that_left_something_else_is_a_sentence(tmp_path, written):
    if written is not None:
        (tmp_path / "index.json").write_text(written)
    with pytest.raises(ImageError, match="The builder left"):
        layouts.Layout(tmp_path).only()


def test_what_a_registry_says_of_an_index():
    entries = [
        {"digest": "1", "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": "2", "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        {"digest": "3", "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        {"digest": "4", "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    found = layouts.manifests(json.dumps({"mediaType": layouts.INDEX, "manifests": entries}).encode())
    assert {platform: entry["digest"] for platform, entry in found.items()} == {
        "linux/amd64": "1",
        "linux/arm64": "2",
        "linux/arm/v7": "3",
    }
    assert layouts.manifests(b'{"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}') is None


def test_size_is_that_of_the_largest_image():
    assert layouts.size_of(b'{"config": {"size": 1}, "layers": [{"size": 2}, {"size": 4}]}') == 7
    parts = (layouts.Part("linux/amd64", "a", 5), layouts.Part("linux/arm64", "b", 7))
    assert layouts.Index("c", parts).size == 7


INSPECTED = """Name:          {name}
Driver:        {driver}
Last Activity: 2026-01-01 00:00:00 +0000 UTC

Nodes:
Name:             {name}0
Status:           running
BuildKit version: v0.20.0
Platforms:        linux/amd64*, linux/amd64/v2, linux/arm64, linux/386
"""


@pytest.mark.parametrize(
    ("driver", "status", "platforms", "says"),
    [
        ("docker-container", "[]", ["linux/amd64", "linux/arm64"], ""),
        ("docker", '[["driver-type","io.containerd.snapshotter.v1"]]', ["linux/arm64"], ""),
        ("docker", '[["Backing Filesystem","extfs"]]', ["linux/arm64"], "it is the daemon's own"),
        ("remote", "[]", ["linux/amd64", "linux/riscv64"], "it does not build for linux/riscv64"),
        ("", "", ["linux/amd64"], "no builder of buildx is selected"),
    ],
)
def test_which_builder_of_buildx_will_do(driver, status, platforms, says):
    inspected = INSPECTED.format(name="it", driver=driver) if driver else ""
    lacks = layouts.buildx_lacks(inspected, status, platforms)
    assert (lacks == "") == (says == "") and says in lacks


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("debian@sha256:1", "docker.io/library/debian@sha256:1"),
        ("bitnami/redis:1", "docker.io/bitnami/redis:1"),
        ("127.0.0.1:5000/base@sha256:1", "127.0.0.1:5000/base@sha256:1"),
        ("localhost/base", "localhost/base"),
        ("registry.example.com/a/b", "registry.example.com/a/b"),
    ],
)
def test_names_of_docker_hub_are_written_out(reference, full):
    assert layouts.qualified(reference) == full
