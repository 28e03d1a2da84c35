# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "b.py").write_text("b")
    (tmp_path / "src" / "a").write_text("a")
    (tmp_path / "src" / "a").chmod(0o755)
    (tmp_path / "src" / "link").symlink_to("a")
    return tmp_path / "src"


def packed(found, archive=None):
    stream = io.BytesIO()
    oci.write_tar(stream, found, archive)
    return stream.getvalue()


def test_entries_are_sorted_and_named_as_in_the_context(tree):
    assert [(entry.dest, entry.kind) for entry in oci.entries(tree, "package/src")] == [
        ("package/src", "folder"),
        ("package/src/a", "file"),
        ("package/src/deep", "folder"),
        ("package/src/deep/b.py", "file"),
        ("package/src/link", "link"),
    ]
    assert [entry.dest for entry in oci.entries(tree, ".")] == ["a", "deep", "deep/b.py", "link"]
    assert [entry.dest for entry in oci.entries(tree / "a", "Dockerfile")] == ["Dockerfile"]


def test_leftovers_of_a_checkout_change_nothing(tree):
    before = oci.digest(oci.entries(tree, "src"))
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "b.pyc").write_text("x")
    (tree / "it.egg-info").mkdir()
    (tree / ".mypy_cache").mkdir()
    (tree / "deep" / "tests").mkdir()
    assert oci.digest(oci.entries(tree, "src", ["tests"])) == before
    assert oci.digest(oci.entries(tree, "src")) != before


def test_owner_and_time_change_nothing(tree):
    before = oci.digest(oci.entries(tree, "src")), packed(oci.entries(tree, "src"))
    os.utime(tree / "a", (1, 1))
    (tree / "a").chmod(0o711)
    assert (oci.digest(oci.entries(tree, "src")), packed(oci.entries(tree, "src"))) == before


@pytest.mark.parametrize("change", ["content", "mode", "link", "name", "folder"])
def test_what_is_in_the_image_changes_the_digest(tree, change):
    before = oci.digest(oci.entries(tree, "src"))
    if change == "content":
        (tree / "a").write_text("A")
    elif change == "mode":
        (tree / "a").chmod(0o644)
    elif change == "link":
        (tree / "link").unlink()
        (tree / "link").symlink_to("deep")
    elif change == "name":
        (tree / "deep" / "b.py").rename(tree / "deep" / "c.py")
    else:
        (tree / "empty").mkdir()
    assert oci.digest(oci.entries(tree, "src")) != before


def test_a_source_that_is_a_link_is_followed(tree, tmp_path):
    (tmp_path / "current").symlink_to(tree)
    assert oci.digest(oci.entries(tmp_path / "current", "x")) == oci.digest(oci.entries(tree, "x"))


def test_tar_is_normal_and_takes_over_an_archive(tree, tmp_path):
    archive = tmp_path / "first.tar"
    archive.write_bytes(packed(oci.entries(tree / "a", "Dockerfile")))
    with tarfile.open(fileobj=io.BytesIO(packed(oci.entries(tree, "src"), str(archive)))) as tar:
        members = {member.name: member for member in tar}
        assert list(members) == ["Dockerfile", "src", "src/a", "src/deep", "src/deep/b.py", "src/link"]
        assert {member.mtime for member in members.values()} == {oci.MODIFIED}
        assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
        assert [members[name].mode for name in ("src", "src/a", "src/deep/b.py")] == [0o755, 0o755, 0o644]
        assert members["src/link"].linkname == "a"
        assert tar.extractfile("src/deep/b.py").read() == b"b"


@pytest.mark.parametrize(
    ("source", "dest", "says"),
    [("missing", "x", "does not exist"), ("a", ".", "is a file"), ("a", "../x", "leaves the context")],
)
def test_what_is_no_context_is_refused(tree, source, dest, says):
    with pytest.raises(oci.ImageError, match=says):
        oci.entries(tree / source, dest)


def test_special_files_are_refused(tree):
    os.mkfifo(tree / "pipe")
    with pytest.raises(oci.ImageError, match="neither file, folder nor link"):
        oci.entries(tree, "src")
    assert oci.entries(tree, "src", ["pipe"])


def test_content_depends_on_each_part():
    parts = {"base": "1", "build_args": {}, "context": {"a": "1"}, "labels": {}, "target": None}
    names = {oci.content(parts)}
    for change in (
        {"base": "2"},
        {"build_args": {"A": "1"}},
        {"context": {"a": "2"}},
        {"labels": {"a": "1"}},
        {"target": "b"},
    ):
        names.add(oci.content({**parts, **change}))
    assert len(names) == 6
    assert oci.content(dict(reversed(list(parts.items())))) == oci.content(parts)


@pytest.mark.parametrize("key", ["SchemaV2Manifest", "OCIManifest"])
def test_what_a_registry_says(key):
    manifest = {"config": {"size": 5}, "layers": [{"size": 100}, {"size": 20}]}
    answer = json.dumps({"Descriptor": {"digest": "sha256:1"}, key: manifest})
    assert oci.published(answer) == oci.Published("sha256:1", 125)
    assert oci.published("[]") is None


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("127.0.0.1:5000/a", True),
        ("localhost:5000/a", True),
        ("localhost/a", True),
        ("[::1]:5000/a", True),
        ("registry.example:5000/a", False),
        ("10.127.0.1/a", False),
        ("localhost.example/a", False),
        ("127.example.com:5000/a", False),
        ("127.0.0.2/a", True),
    ],
)
def test_loopback(name, loopback):
    assert oci.is_loopback(name) is loopback
