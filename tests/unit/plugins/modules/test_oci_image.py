# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The docker command is a script that writes down how it was called and answers from files: no Docker is needed."""

from __future__ import annotations

import errno
import json
import re

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci
from ansible_collections.bitnet.devops.plugins.modules import oci_image

FAKE = r"""#!/bin/sh
echo "$*" >> "$FAKE/calls"
case "$1 $2" in
"image inspect") for last; do :; done
    name=$(printf %s "$last" | tr '/:' '__')
    if [ -e "$FAKE/refused" ]; then cat "$FAKE/refused" >&2; exit 1; fi
    cat "$FAKE/image_$name" 2>/dev/null || { echo "Error: No such image: $last" >&2; exit 1; } ;;
"manifest inspect") cat "$FAKE/manifest" 2>/dev/null || { cat "$FAKE/manifest_error" >&2; exit 1; } ;;
"build "*) cat > "$FAKE/context.tar"; [ ! -e "$FAKE/build_fails" ] || { cat "$FAKE/build_fails"; exit 1; }
    [ ! -e "$FAKE/build_hangs" ] || exec sleep 60 ;;
"push "*) [ ! -e "$FAKE/push_fails" ] || { echo denied >&2; exit 1; }; mv "$FAKE/pushed" "$FAKE/manifest" ;;
esac
"""
DIGEST = "sha256:" + "d" * 64
MANIFEST = {"Descriptor": {"digest": DIGEST}, "OCIManifest": {"config": {"size": 1}, "layers": [{"size": 9}]}}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder whose files are the answers of docker."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "docker").write_text(FAKE)
    (folder / "docker").chmod(0o755)
    (folder / "image_base_1").write_text("sha256:base\n")
    (folder / "manifest_error").write_text("no such manifest: it\n")
    (folder / "pushed").write_text(json.dumps(MANIFEST))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return [{"src": str(tmp_path / "Dockerfile"), "dest": "Dockerfile", "remote_src": True}]


def calls(fake):
    return (fake / "calls").read_text().splitlines() if (fake / "calls").exists() else []


@pytest.fixture
def run(capsys, context):
    """Run the module; give back what it prints."""

    def run_module(check_mode=False, **arguments):
        arguments = {"name": "127.0.0.1:1/it", "base_image": "base:1", "context": context, **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            oci_image.main()
        return json.loads(capsys.readouterr().out)

    return run_module


def test_builds_pushes_and_names_by_digest(run, fake):
    result = run(push=True, build_args={"A": 1}, labels={"l": "x"}, target="last")
    assert result["changed"] and result["built"]
    assert result["image"] == f"127.0.0.1:1/it@{DIGEST}"
    assert result["size_compressed_bytes"] == 10
    assert set(result["seconds"]) == {"look", "build", "push"}
    build = next(call for call in calls(fake) if call.startswith("build"))
    assert f"--tag 127.0.0.1:1/it:{result['tag']}" in build
    assert "--build-arg BASE_IMAGE=base:1 --build-arg A=1" in build
    assert f"--label io.bitnet.content={result['content']}" in build
    assert "--label l=x" in build and "--target last -" in build
    assert result["diff"]["after"]["digest"] == result["digest"]
    assert not list(fake.parent.glob("bitnet-image-*.log"))


def test_what_the_registry_has_is_not_built(run, fake):
    (fake / "manifest").write_text(json.dumps(MANIFEST))
    result = run(push=True)
    assert not result["changed"] and not result["built"] and "diff" not in result
    assert result["digest"] == DIGEST
    assert not any(call.startswith(("build", "push")) for call in calls(fake))


def test_a_local_image_needs_no_registry(run, fake):
    tag = run(check_mode=True)["tag"]
    (fake / f"image_127.0.0.1_1_it_{tag}").write_text("sha256:it\n")
    result = run()
    assert not result["changed"] and result["image"] == f"127.0.0.1:1/it:{tag}"
    assert not any(call.startswith(("manifest", "build", "push")) for call in calls(fake))


def test_each_of_two_sources_for_one_folder_counts(run, fake, context, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
        context.append({"src": str(tmp_path / name), "dest": ".", "remote_src": True})
    first = run(check_mode=True)["content"]
    (tmp_path / "one" / "one").write_text("other")
    assert run(check_mode=True)["content"] != first


def test_a_part_for_a_platform_needs_platforms(run, fake, context):
    context[0]["platform"] = "linux/arm64"
    assert "context: platform 'linux/arm64' is none of platforms, which is empty" in run()["msg"]


def test_check_mode_builds_nothing_and_knows_the_tag(run, fake):
    planned = run(check_mode=True, push=True)
    assert planned["changed"] and planned["digest"] == oci.UNKNOWN
    assert planned["diff"]["after"]["image"] == f"127.0.0.1:1/it:{planned['tag']}"
    assert not any(call.startswith(("build", "push")) for call in calls(fake))
    assert run(push=True)["tag"] == planned["tag"]


@pytest.mark.parametrize("absent", ["docker", "image_base_1", "context"])
def test_check_mode_on_a_machine_that_has_nothing_yet(run, fake, context, absent, monkeypatch):
    if absent == "context":
        context[0]["src"] = "/nonexistent"
    else:
        (fake / absent).unlink()
    if absent == "docker":
        monkeypatch.setenv("PATH", str(fake))
    result = run(check_mode=True, push=True)
    assert result["changed"] and result["image"] == oci.UNKNOWN


def test_check_mode_where_the_registry_does_not_run_yet(run, fake):
    (fake / "manifest_error").write_text("dial tcp: connection refused\n")
    assert run(check_mode=True, push=True)["changed"]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "manifest_error",
            "dial tcp: connection refused",
            r"registry 127\.0\.0\.1:1 does not answer .*connection refused",
        ),
        ("build_fails", "step 3\nwrite: no space left on device", "disk is full.*step 3"),
        ("build_fails", "E: Unable to locate package", "docker build failed.*Unable to locate.*whole log: /"),
        ("push_fails", "", "did not take 127.*docker login"),
        ("refused", "permission denied while trying to connect", "denies access.*group docker"),
        ("refused", "Cannot connect to the Docker daemon", "no Docker answers at unix:///var/run/docker.sock"),
    ],
)
def test_failures_say_what_to_do(run, fake, file, text, says):
    (fake / file).write_text(text + "\n")
    result = run(push=True)
    assert result["failed"] and not result.get("changed")
    assert re.search(says, result["msg"], re.DOTALL), result["msg"]


def test_a_build_has_a_deadline(run, fake):
    (fake / "build_hangs").touch()
    result = run(build_timeout=1)
    assert result["failed"] and "did not end within 1 s (build_timeout)" in result["msg"]


def test_missing_base_image_and_missing_archive(run, fake, context):
    assert "has no image other:1. Pull it" in run(base_image="other:1")["msg"]
    context.append({"src": "/etc/hostname", "dest": "x", "digest": "0"})
    assert "action plugin" in run()["msg"]


def test_a_registry_that_gives_an_index_is_refused(run, fake):
    (fake / "pushed").write_text("[]")
    assert "does not give one manifest" in run(push=True)["msg"]


def test_a_full_disk_and_a_file_that_nobody_may_read_are_sentences(run, fake, context, monkeypatch, tmp_path):
    def full(**_options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "log"))

    with monkeypatch.context() as patched:
        patched.setattr("tempfile.mkstemp", full)
        result = run()
    assert result["failed"]
    assert f"{tmp_path}/log cannot be used: No space left on device. Free some space there" in result["msg"]

    def nameless(*_arguments, **_options):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(oci, "write_tar", nameless)
        assert f"{tmp_path} cannot be used: Input/output error." in run()["msg"]

    context[0]["src"] = str(tmp_path / "gone" / "Dockerfile")
    assert run()["failed"]
