# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""oci_image for several platforms: buildah, buildx and skopeo are one script that keeps a registry in a folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci
from ansible_collections.bitnet.devops.plugins.module_utils._oci import platforms as tools
from ansible_collections.bitnet.devops.plugins.modules import oci_image

FAKE = r"""#!PYTHON
import hashlib, json, os, pathlib, shutil, sys, time
home = pathlib.Path(os.environ["FAKE"])
program, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (home / "calls").open("a") as calls:
    print(program, *arguments, file=calls)
def after(option):
    return arguments[arguments.index(option) + 1]
def blob(folder, data):
    path = folder / "blobs" / "sha256" / hashlib.sha256(data).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"digest": "sha256:" + path.name, "size": len(data)}
def image(folder, platform, context, health):
    # What a build makes of its context: the text of its file "only", if it has one.
    only = pathlib.Path(context) / "only"
    text = only.read_bytes() if only.exists() else b"-"
    if text == b"fails\n":
        sys.exit("RUN false: exec format error")
    if text == b"hangs\n":
        time.sleep(60)
    config = {"architecture": platform.split("/")[1], "os": "linux", "config": {"Healthcheck": 1} if health else {},
              "history": [{"comment": f"FROM {time.time()}"}] if not health else []}
    manifest = {"config": blob(folder, json.dumps(config).encode()), "layers": [blob(folder, text)]}
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    found = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **blob(folder, json.dumps(manifest).encode())}
    (folder / "index.json").write_text(json.dumps({"manifests": [found]}))
if program == "docker":
    if arguments[:2] == ["buildx", "inspect"]:
        if not (home / "buildx").exists():
            sys.exit("docker: 'buildx' is not a docker command.")
        # As buildx does: a builder that does not run yet says nothing of platforms.
        told = (home / "buildx").read_text().splitlines()
        print("\n".join(line for line in told if "--bootstrap" in arguments or not line.startswith("Platforms")))
    elif arguments[:2] == ["buildx", "build"]:
        options = dict(one.split("=", 1) for one in after("--output").split(","))
        image(pathlib.Path(options["dest"]), after("--platform"), arguments[-1], True)
    else:
        print("[]")
elif program == "buildah":
    if arguments == ["--version"]:
        print("buildah version 1.28.2")
    elif "build" in arguments:
        kept = home / "built" / after("--platform").replace("/", "-")
        shutil.rmtree(kept, ignore_errors=True)
        image(kept, after("--platform"), arguments[-1], False)
        pathlib.Path(after("--iidfile")).write_text(kept.name)
    elif "push" in arguments:
        shutil.copytree(home / "built" / arguments[-2], arguments[-1].split(":")[1])
    elif "inspect" in arguments:
        print(json.dumps({"Docker": {"config": {"Healthcheck": 1}}}))
elif program == "skopeo":
    registry = home / "registry"
    if (home / "unreachable").exists():
        sys.exit("pinging container registry: dial tcp: connection refused")
    if arguments[0] == "inspect":
        name = arguments[-1].partition("//")[2].replace("/", "_").replace("@", "_")
        if (home / "no login").exists():
            sys.exit((home / "no login").read_text())
        if "library_debian" in name:
            entries = [{"digest": "1", "platform": {"os": "linux", "architecture": one}} for one in ("amd64", "arm64")]
            print(json.dumps({"manifests": entries}) if not (home / "one base").exists()
                  else '{"os": "linux", "architecture": "amd64"}' if "--config" in arguments else '{"layers": []}')
            sys.exit()
        if not (registry / name).exists():
            sys.exit("reading manifest: manifest unknown")
        sys.stdout.buffer.write((registry / name).read_bytes())
    else:
        if (home / "denied").exists():
            sys.exit("writing manifest: authentication required")
        folder = pathlib.Path(arguments[-2].split(":")[1])
        name, _colon, _tag = arguments[-1].partition("//")[2].rpartition(":")
        registry.mkdir(exist_ok=True)
        index = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
        data = (folder / "blobs" / "sha256" / index[7:]).read_bytes()
        (registry / (name + ":" + _tag).replace("/", "_")).write_bytes(data + (home / "spoil").read_bytes()
                                                                     if (home / "spoil").exists() else data)
        for entry in json.loads(data)["manifests"]:
            text = (folder / "blobs" / "sha256" / entry["digest"][7:]).read_bytes()
            (registry / (name + "_" + entry["digest"]).replace("/", "_")).write_bytes(text)
"""
BASE = "debian@sha256:" + "b" * 64
PLATFORMS = ["linux/arm64", "linux/amd64"]
BUILDX = "Name: it\nDriver: docker-container\nPlatforms: linux/amd64, linux/arm64\n"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    folder = tmp_path / "fake"
    folder.mkdir()
    for program in ("docker", "buildah", "skopeo"):
        (folder / program).write_text(FAKE.replace("PYTHON", sys.executable))
        (folder / program).chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("BUILDX_BUILDER", raising=False)
    return folder


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "arm").write_text("arm\n")
    (tmp_path / "amd").write_text("amd\n")
    return [
        {"src": str(tmp_path / "Dockerfile"), "dest": "Dockerfile", "remote_src": True},
        {"src": str(tmp_path / "arm"), "dest": "only", "remote_src": True, "platform": "linux/arm64"},
        {"src": str(tmp_path / "amd"), "dest": "only", "remote_src": True, "platform": "linux/amd64"},
    ]


def calls(fake, program):
    lines = (fake / "calls").read_text().splitlines() if (fake / "calls").exists() else []
    return [line for line in lines if line.startswith(program)]


@pytest.fixture
def run(capsys, context, tmp_path):
    def run_module(check_mode=False, **arguments):
        given = {"name": "127.0.0.1:1/it", "base_image": BASE, "context": context, "platforms": PLATFORMS, "push": True}
        given |= {"work_dir": str(tmp_path / "work"), "_ansible_check_mode": check_mode, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit):
            oci_image.main()
        return json.loads(capsys.readouterr().out)

    return run_module


def pushed(fake, result):
    return json.loads((fake / "registry" / f"127.0.0.1:1_it:{result['tag']}").read_text())


@pytest.mark.parametrize("tool", ["buildah", "buildx"])
def test_one_index_is_built_by_what_there_is(run, fake, tmp_path, tool):
    if tool == "buildx":
        (fake / "buildx").write_text(BUILDX)
    planned = run(check_mode=True)
    assert planned["changed"] and planned["digest"] == oci.UNKNOWN and not calls(fake, "buildah")
    result = run(build_args={"A": 1}, labels={"l": "x"}, target="last")
    assert (result["changed"], result["built"], result["builder"]) == (True, True, tool), result
    assert result["image"] == f"127.0.0.1:1/it@{result['digest']}"
    index = pushed(fake, result)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"]["io.bitnet.content"] == result["content"]
    assert {name: part["digest"] for name, part in result["platforms"].items()} == {
        f"linux/{entry['platform']['architecture']}": entry["digest"] for entry in index["manifests"]
    }
    assert result["size_compressed_bytes"] == max(
        part["size_compressed_bytes"] for part in result["platforms"].values()
    )
    built = [line for line in calls(fake, "") if " build " in line]
    assert len(built) == 2
    for line in built:
        assert (
            f"BASE_IMAGE=docker.io/library/{BASE} --build-arg SOURCE_DATE_EPOCH={oci.MODIFIED} --build-arg A=1" in line
        )
        assert "--label io.bitnet.owner=bitnet.devops" in line and "--label l=x" in line and "--target last" in line
        assert ("--timestamp=" if tool == "buildah" else "rewrite-timestamp=true") in line
        if tool == "buildah":
            removal = line.partition(" build ")[0] + " rm --all"
            assert calls(fake, "").index(removal) < calls(fake, "").index(line), "of what a killed build left"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["lock"]
    assert not list(tmp_path.glob("bitnet-image-*.log"))

    (fake / "calls").unlink()
    again = run(build_args={"A": 1}, labels={"l": "x"}, target="last")
    assert (again["changed"], again["built"], again["digest"]) == (False, False, result["digest"])
    assert again["platforms"] == result["platforms"] and "builder" not in again and "diff" not in again
    assert not any(" build " in line for line in calls(fake, ""))


def test_the_same_content_gives_the_same_digest(run, fake):
    first = run()
    shutil.rmtree(fake / "registry")
    assert run()["digest"] == first["digest"]


def test_each_platform_has_its_own_context(run, fake, context, tmp_path):
    first = run()
    (tmp_path / "arm").write_text("other\n")
    second = run()
    assert first["tag"] != second["tag"]
    changed = [name for name in first["platforms"] if first["platforms"][name] != second["platforms"][name]]
    assert changed == ["linux/arm64"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"push": False}, "platforms: an index lives in a registry"),
        ({"platforms": ["arm64"]}, "'arm64' is no platform.*linux/arm64"),
        ({"platforms": ["linux/arm64"]}, "context: platform 'linux/amd64' is none of linux/arm64"),
        ({"base_image": "debian:bookworm"}, "'debian:bookworm' is not by digest"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(run, fake, given, says):
    result = run(**given)
    assert result["failed"] and re.search(says, result["msg"]), result
    assert not any(" build " in line for line in calls(fake, ""))


def test_a_part_for_all_platforms_reaches_each(run, fake, context):
    context[1:] = [{**context[1], "platform": ""}]
    layers = {part["size_compressed_bytes"] for part in run()["platforms"].values()}
    assert len(layers) == 1 and "arm\n" in [
        path.read_text() for path in (fake / "built" / "linux-amd64").rglob("*") if path.is_file()
    ]


def test_buildah_is_given_no_base_of_another_platform(run, fake):
    (fake / "one base").touch()
    said = run()["msg"]
    assert re.search("base_image: docker.io/.* is there for linux/amd64, not for linux/arm64.*skopeo copy --all", said)
    assert not any(" build " in line for line in calls(fake, "buildah"))


def test_a_part_for_one_platform_has_to_be_on_the_target(run, context):
    context[1]["remote_src"] = False
    assert "is for one platform; that needs remote_src: true" in run()["msg"]


def test_a_base_that_check_mode_cannot_know_yet(run):
    assert run(check_mode=True, base_image="127.0.0.1:1/base:1")["image"] == oci.UNKNOWN
    assert run(check_mode=True, base_image=oci.UNKNOWN)["image"] == oci.UNKNOWN
    assert run(check_mode=True, base_image="scratch")["image"] != oci.UNKNOWN


def test_neither_builder_is_there(run, fake, monkeypatch):
    (fake / "buildah").unlink()
    (fake / "tar").symlink_to("/usr/bin/tar")
    (fake / "buildx").write_text("Name: default\nDriver: docker\nPlatforms: linux/amd64\n")
    monkeypatch.setenv("PATH", str(fake))
    said = run()["msg"]
    assert re.search("needs buildx with a builder .*daemon's own.* or buildah .*not installed.*Install buildah", said)


def test_skopeo_is_missing(run, fake, monkeypatch):
    (fake / "skopeo").unlink()
    monkeypatch.setenv("PATH", str(fake))
    result = run()
    assert result["failed"] and "command skopeo is not installed" in result["msg"]
    assert run(check_mode=True)["changed"]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("unreachable", r"registry 127\.0\.0\.1:1 does not answer .*connection refused"),
        ("denied", "did not take 127.*authentication required.*docker login 127"),
    ],
)
def test_a_registry_that_does_not_answer_or_refuses(run, fake, file, says):
    (fake / file).touch()
    result = run()
    assert result["failed"] and re.search(says, result["msg"], re.DOTALL), result
    assert run(check_mode=True)["changed"]


@pytest.mark.parametrize(
    "said",
    [
        'error getting credentials - err: exec: "docker-credential-it": executable file not found in $PATH',
        "reading JSON file: open config.json: permission denied",
    ],
)
def test_a_login_that_cannot_be_read_does_not_mean_that_there_is_no_image(run, fake, said):
    (fake / "no login").write_text(said)
    result = run()
    assert result["failed"] and said in result["msg"], result
    assert not any(" build " in line for line in calls(fake, ""))


def test_a_registry_that_changes_what_it_is_given(run, fake):
    (fake / "spoil").write_text("\n")
    assert re.search("was pushed with the digest sha256:.* but the registry gives sha256:", run()["msg"])


def test_an_image_of_other_platforms_under_the_tag_is_not_taken_for_ours(run, fake):
    done = run()
    path = fake / "registry" / f"127.0.0.1:1_it:{done['tag']}"
    path.write_text(json.dumps({**pushed(fake, done), "manifests": pushed(fake, done)["manifests"][:1]}))
    assert re.search("has 127.* for linux/amd64, not for linux/amd64, linux/arm64: something else", run()["msg"])


def test_a_program_that_the_kernel_does_not_run_and_a_build_that_does_not_end(run, fake, tmp_path):
    (tmp_path / "arm").write_text("fails\n")
    said = run()["msg"]
    assert re.search("buildah failed. This host does not run programs of that platform: install qemu-user-static", said)
    assert "The whole log: /" in said
    (tmp_path / "arm").write_text("hangs\n")
    result = run(build_timeout=1)
    assert "buildah did not end within 1 s (build_timeout)" in result["msg"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["lock"]
    sleeping = subprocess.run(["pgrep", "-f", f"{tmp_path}/fake/buildah"], capture_output=True, check=False)
    assert sleeping.stdout == b"", "what the build started ended with it"


def test_another_build_is_waited_for_and_its_leftovers_go(run, fake, tmp_path):
    (tmp_path / "work" / "building-old").mkdir(parents=True)
    holder = subprocess.Popen(
        ["flock", str(tmp_path / "work" / "lock"), "sh", "-c", "echo held; exec sleep 60"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        result = run(build_timeout=1)
        assert re.search("another build in .*work did not end within 1 s", result["msg"]), result
    finally:
        subprocess.run(["pkill", "-P", str(holder.pid)], check=False)
        holder.kill()
        holder.wait()
    assert run()["built"]
    assert not (tmp_path / "work" / "building-old").exists()


def test_a_context_that_tar_complains_of_at_length_is_not_waited_for_for_ever(fake, tmp_path):
    (fake / "tar").write_text("#!/bin/sh\nhead -c 200000 /dev/zero >&2\necho No space left >&2\ncat\nexit 2\n")
    (fake / "tar").chmod(0o755)
    signal.alarm(20)
    try:
        with pytest.raises(oci.ImageError, match="The disk is full"):
            tools.unpack(tmp_path / "unpacked", lambda stream: stream.write(b"-" * 200000) and None)
    finally:
        signal.alarm(0)


def test_what_a_killed_module_has_started_ends_with_it(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from ansible_collections.bitnet.devops.plugins.module_utils._oci import platforms\n"
        f"sys.path[:] = {sys.path!r}\n"
        f"command = ['sh', '-c', 'echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 60']\n"
        f"platforms.work(command, pathlib.Path('{tmp_path}/log'), 60, 'build_timeout')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    module = subprocess.Popen([sys.executable, "-c", code], env=environment)
    end = time.monotonic() + 20
    while not (tmp_path / "pid").exists() and time.monotonic() < end:
        time.sleep(0.05)
    started = int((tmp_path / "pid").read_text())
    module.kill()
    module.wait()
    while Path(f"/proc/{started}").exists() and time.monotonic() < end:
        if "State:\tZ" in Path(f"/proc/{started}/status").read_text():
            break
        time.sleep(0.05)
    assert time.monotonic() < end
