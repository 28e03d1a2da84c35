# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One index for x86-64 and ARM: built without buildx on a machine of one architecture, pushed, pulled, run on both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from swarm_intelligence.gguf_check import write_record

from benchmarks.kernels import models
from tests.lab import gotool, machine
from tests.lab.site import writing_tasks

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = "debian:bookworm-slim"
REGISTRY = "127.0.0.1:5000"
REPOSITORY = f"{REGISTRY}/bitnet/swarm-intelligence"
VARIANTS = {"linux/amd64": "x86-64-v3", "linux/arm64": "armv8.2-a-dotprod"}
LIMIT = 250_000_000
BINFMT = "/proc/sys/fs/binfmt_misc"
# "ELF", 64 bits, little endian; then the machine (ELF specification, e_machine).
ELF = {"linux/amd64": 62, "linux/arm64": 183}
PLAYS = """
- name: Build
  hosts: machine
  gather_facts: false
  tags: [never, build]
  roles:
    - role: bitnet.devops.image_build
- name: Run the registry alone
  hosts: machine
  gather_facts: false
  tags: [never, registry]
  tasks:
    - name: Run the registry
      ansible.builtin.include_role:
        name: bitnet.devops.image_build
        tasks_from: registry
        apply: {tags: [always]}
      vars:
        image_build_engine: true
        image_build_registry_seen: {stdout: ""}
        image_build_base: debian:bookworm-slim
    - name: Provide the commands
      ansible.builtin.apt:
        name: [buildah, skopeo]
        update_cache: true
        install_recommends: false
- name: Build a small index
  hosts: machine
  gather_facts: false
  tags: [never, small]
  tasks:
    - name: Build
      bitnet.devops.oci_image:
        name: 127.0.0.1:5000/small
        base_image: scratch
        platforms: [linux/amd64, linux/arm64]
        context:
          - {src: small, dest: .}
          - {src: /etc/hostname, dest: own, remote_src: true, platform: linux/arm64}
          - {src: /etc/hosts, dest: own, remote_src: true, platform: linux/amd64}
        push: true
- name: Retain nothing of it
  hosts: machine
  gather_facts: false
  tags: [never, retain]
  tasks:
    - name: Remove what nobody needs
      bitnet.devops.release_retention:
        repositories: [small]
        needed: {images: [], models: []}
        grace: 0
      register: retained
    - name: Judge what went
      ansible.builtin.assert:
        that: retained.plan.manifests | length == 3
"""


class Lab:
    """A machine with a Docker that is as old as Debian 12's, and the plays above."""

    def __init__(self, host: machine.Machine, folder: Path, variants: list[str]) -> None:
        self.host = host
        self.folder = folder
        variables = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": host.container,
            "ansible_python_interpreter": "/usr/bin/python3",
            "image_build_variants": variants,
        }
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"machine": variables}}}))
        (folder / "play.yml").write_text(PLAYS)

    def play(self, tag: str, *arguments: str, timeout: float = 2400) -> str:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.folder / "inventory.json")]
        command += [str(self.folder / "play.yml"), "--tags", tag, *arguments]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout

    def shell(self, script: str, timeout: float = 600) -> str:
        return self.host.exec("sh", "-euc", script, timeout=timeout).strip()

    def tags(self, repository: str) -> set[str]:
        return set(json.loads(self.shell(f"curl -fsS http://{REGISTRY}/v2/{repository}/tags/list"))["tags"])

    def tag(self, repository: str) -> str:
        """The one of the image; a signature has a tag of its own beside it."""
        (tag,) = (tag for tag in self.tags(repository) if not tag.startswith("sha256-"))
        return tag

    def status(self, path: str) -> str:
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        return self.shell(
            f"curl -sS -o /dev/null -w '%{{http_code}}' -H 'Accept: {accept}' http://{REGISTRY}/v2/{path}"
        )

    def raw(self, reference: str) -> Any:
        return json.loads(self.shell(f"skopeo inspect --tls-verify=false --raw docker://{reference}"))

    def digest(self, reference: str) -> str:
        return "sha256:" + self.shell(f"skopeo inspect --tls-verify=false --raw docker://{reference} | sha256sum")[:64]

    def forget(self, repository: str, *more: str) -> None:
        """Remove an index from the registry, and all that its builds have kept."""
        reference = f"{REGISTRY}/{repository}:{self.tag(repository)}"
        self.shell(
            f"curl -fsS -X DELETE http://{REGISTRY}/v2/{repository}/manifests/{self.digest(reference)}\n"
            f"rm -rf /var/lib/bitnet/cache/images {' '.join(more)}"
        )


@contextlib.contextmanager
def lab_of(name: str, folder: Path, **options: Any) -> Iterator[Lab]:
    host = machine.up(name, images=[BASE], **options)
    try:
        yield Lab(host, folder, sorted(VARIANTS.values()))
    finally:
        host.exec("sh", "-c", "rm -rf /var/lib/bitnet/cache/images", check=False)
        host.down()


def test_the_same_small_index_comes_out_of_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "Dockerfile").write_text(
        'FROM scratch\nCOPY own /own\nHEALTHCHECK --interval=5s CMD ["/own"]\nUSER 1:1\n'
    )
    # The layers of buildah's storage do not lie over those of the machine's own file system.
    (tmp_path / "cache").mkdir()
    with lab_of("multi-arch-small", tmp_path, mounts=[f"{tmp_path}/cache:/var/lib/bitnet/cache"]) as lab:
        lab.play("registry")
        assert "changed=1" in lab.play("small", "--check")
        assert "changed=1" in lab.play("small")
        reference = f"{REGISTRY}/small:{lab.tag('small')}"
        first = lab.digest(reference)
        begin = time.monotonic()
        assert "changed=0" in lab.play("small")
        assert time.monotonic() - begin < 15
        index = lab.raw(reference)
        assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
        for entry in index["manifests"]:
            manifest = lab.raw(f"{REGISTRY}/small@{entry['digest']}")
            blob = f"http://{REGISTRY}/v2/small/blobs/{manifest['config']['digest']}"
            config = json.loads(lab.shell(f"curl -fsS {blob}"))
            assert config["architecture"] == entry["platform"]["architecture"]
            assert config["config"]["Healthcheck"]["Test"] == ["CMD", "/own"]
            assert config["created"].startswith("1980-")
        lab.forget("small")
        lab.play("small")
        assert lab.digest(reference) == first
        before = int(lab.shell("docker exec bitnet-registry du -sb /var/lib/registry").split()[0])
        assert "changed=1" in lab.play("retain")
        for digest in (first, *(entry["digest"] for entry in index["manifests"])):
            assert lab.status(f"small/manifests/{digest}") == "404"
        assert int(lab.shell("docker exec bitnet-registry du -sb /var/lib/registry").split()[0]) < before


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The machine on which the role has built the image for both platforms."""
    folder = tmp_path_factory.mktemp("lab")
    machine.ensure_base()
    prefill = ["-e", json.dumps({"prefill_variants": sorted(VARIANTS.values())})]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "molecule/resources/prefill.yml", *prefill],
        cwd=CHECKOUT, env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    with lab_of("multi-arch", folder, cache=True) as made:
        # The machine shares the kernel, and with it the emulators, with the host.
        there = made.shell(f"mount -t binfmt_misc it {BINFMT}; ls {BINFMT}; umount {BINFMT}").split()
        try:
            made.play("build")
            yield made
        finally:
            if "qemu-aarch64" not in there:
                made.host.exec("sh", "-c", f"echo -1 > {BINFMT}/qemu-aarch64", check=False)


@pytest.fixture(scope="module")
def index(lab: Lab) -> dict[str, dict[str, Any]]:
    """The entries of the index, by platform."""
    found = lab.raw(f"{REPOSITORY}:{lab.tag('bitnet/swarm-intelligence')}")
    assert found["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return {f"{entry['platform']['os']}/{entry['platform']['architecture']}": entry for entry in found["manifests"]}


@pytest.mark.full
def test_labels_of_the_architecture_are_right(lab: Lab, index: dict[str, dict[str, Any]]) -> None:
    assert sorted(index) == sorted(VARIANTS)
    for platform, entry in index.items():
        manifest = lab.raw(f"{REPOSITORY}@{entry['digest']}")
        size = sum(part["size"] for part in [manifest["config"], *manifest["layers"]])
        assert 0 < size <= LIMIT, f"{platform}: {size / 1e6:.1f} MB"
        shown = json.loads(
            lab.shell(f"skopeo inspect --tls-verify=false --config docker://{REPOSITORY}@{entry['digest']}")
        )
        assert f"{shown['os']}/{shown['architecture']}" == platform
        assert shown["config"]["User"] == "10001:10001"


@pytest.mark.full
@pytest.mark.parametrize("platform", sorted(VARIANTS))
def test_each_platform_answers(lab: Lab, index: dict[str, dict[str, Any]], platform: str) -> None:
    """Pulled by the digest of the index, as a node of a Swarm does: natively, and under qemu."""
    reference = f"{REPOSITORY}@{lab.digest(f'{REPOSITORY}:' + lab.tag('bitnet/swarm-intelligence'))}"
    lab.shell(f"docker image rm --force {reference} >/dev/null 2>&1 || true")
    lab.shell(f"docker pull --quiet --platform {platform} {reference}")
    programs = ("/usr/bin/python3.11", "/opt/bitnet/kernels/bin/llama-server")
    for program in programs:
        start = lab.shell(
            f"docker run --rm --platform {platform} --entrypoint od {reference} -A n -t u2 -j 18 -N 2 {program}"
        )
        assert int(start) == ELF[platform], program
    token = "a-token-of-the-tests"
    tokens = json.dumps({"schema": 1, "tokens": {"tests": hashlib.sha256(token.encode()).hexdigest()}})
    lab.shell(
        f"mkdir -p /srv/run; echo '{tokens}' > /srv/run/tokens.json; chmod 0644 /srv/run/tokens.json\n"
        "docker rm --force it >/dev/null 2>&1 || true\n"
        f"docker run --detach --name it --platform {platform} --read-only --cap-drop ALL --tmpfs /tmp:mode=1777 "
        "--tmpfs /run/bitnet:uid=10001,gid=10001 --volume /srv/run/tokens.json:/run/secrets/bitnet_tokens:ro "
        "--publish 127.0.0.1:8080:8080 --env BITNET_MODEL=/opt/bitnet/models/jargon/model.gguf "
        f"--env BITNET_CONTEXT=128 --env BITNET_PARALLEL=1 --env BITNET_THREADS=1 {reference}"
    )
    end = time.monotonic() + (60 if platform == "linux/amd64" else 420)
    while lab.host.exec("sh", "-c", "curl -fsS http://127.0.0.1:8080/ready", check=False) == "":
        running = lab.shell("docker inspect --format '{{.State.Running}}' it")
        assert running == "true" and time.monotonic() < end, lab.shell("docker logs it 2>&1 | tail -n 40")
        time.sleep(1)
    asked = json.dumps({"prompt": "A hacker is", "max_tokens": 8, "temperature": 0})
    answer = json.loads(
        lab.shell(
            f"curl -fsS -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' --max-time 300 "
            f"-d '{asked}' http://127.0.0.1:8080/v1/completions"
        )
    )
    assert answer["usage"]["completion_tokens"] == 8 and answer["choices"][0]["text"].strip(), answer
    told = json.loads(
        lab.shell(f"curl -fsS -H 'Authorization: Bearer {token}' --max-time 60 http://127.0.0.1:8080/api")
    )
    assert VARIANTS[platform] in json.dumps(told)
    lab.shell("docker rm --force it")


@pytest.mark.full
def test_a_second_run_only_looks(lab: Lab) -> None:
    begin = time.monotonic()
    assert writing_tasks(lab.play("build"), "image_build") == []
    assert time.monotonic() - begin < 60


@pytest.mark.full
def test_what_is_said_of_the_image_names_it(lab: Lab) -> None:
    digest = lab.digest(f"{REPOSITORY}:{lab.tag('bitnet/swarm-intelligence')}").partition(":")[2]
    statement = json.loads(lab.shell(f"cat /var/lib/bitnet/images/{digest}/provenance.json"))
    assert statement["subject"] == [{"name": REPOSITORY, "digest": {"sha256": digest}}]
    assert statement["predicate"]["runDetails"]["builder"]["version"] == {"builder": "buildah"}
    parts = {part["name"]: part for part in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert re.fullmatch("[0-9a-f]{64}", parts["base image"]["digest"]["sha256"])
    assert {f"kernels for {platform}" for platform in VARIANTS} <= parts.keys()


@pytest.mark.full
def test_a_build_from_nothing_gives_the_same_digest(lab: Lab) -> None:
    """Base, wheels and kernels are kept, as their digests are what is given; all layers are made anew."""
    reference = f"{REPOSITORY}:{lab.tag('bitnet/swarm-intelligence')}"
    first = lab.digest(reference)
    lab.forget("bitnet/swarm-intelligence")
    lab.play("build")
    assert lab.digest(reference) == first


@pytest.mark.full
def test_by_the_builder_and_the_signer_of_the_users(lab: Lab) -> None:
    """buildx with a builder of its own in buildah's place, and cosign: each the real one."""
    programs = {
        "/usr/local/lib/docker/cli-plugins/docker-buildx": "buildx",
        "/usr/local/bin/buildkitd": "buildkitd",
        "/usr/local/bin/cosign": "cosign",
    }
    for path, name in programs.items():
        built = gotool.build(name).relative_to(machine.cache_dir())
        lab.shell(f"mkdir -p {Path(path).parent}; install -m 0755 /var/lib/bitnet/cache/{built} {path}")
    lab.shell(
        "(setsid buildkitd --oci-worker-snapshotter=native --containerd-worker=false >/var/log/buildkitd.log 2>&1 &)\n"
        "docker buildx create --name users --driver remote --use unix:///run/buildkit/buildkitd.sock\n"
        "docker buildx inspect --bootstrap"
    )
    word = "a-word-of-the-tests"
    lab.shell(f"mkdir /srv/keys; cd /srv/keys; COSIGN_PASSWORD={word} cosign generate-key-pair; mv cosign.pub ours.pub")
    lab.forget("bitnet/swarm-intelligence")
    signing = (
        "-e",
        json.dumps({"image_build_cosign_key": "/srv/keys/cosign.key", "image_build_cosign_password": word}),
    )
    try:
        assert word not in lab.play("build", "-vv", *signing, timeout=3000)
        digest = lab.digest(f"{REPOSITORY}:{lab.tag('bitnet/swarm-intelligence')}")
        folder = f"/var/lib/bitnet/images/{digest.partition(':')[2]}"
        statement = json.loads(lab.shell(f"cat {folder}/provenance.json"))
        assert statement["predicate"]["runDetails"]["builder"]["version"] == {"builder": "buildx"}
        verify = "--insecure-ignore-tlog=true --allow-http-registry"
        lab.shell(f"cosign verify --key /srv/keys/ours.pub {verify} {REPOSITORY}@{digest}")
        blob = f"--insecure-ignore-tlog=true --bundle {folder}/provenance.json.sigstore {folder}/provenance.json"
        lab.shell(f"cosign verify-blob --key /srv/keys/ours.pub {blob}")
        assert writing_tasks(lab.play("build", *signing), "image_build") == []
        lab.shell(f"cd /srv/keys; COSIGN_PASSWORD={word} cosign generate-key-pair --output-key-prefix other")
        refused = lab.shell(
            f"cosign verify --key /srv/keys/other.pub {verify} {REPOSITORY}@{digest} 2>&1 || echo refused"
        )
        assert refused.endswith("refused"), refused
        lab.forget("bitnet/swarm-intelligence")
        lab.play("build", *signing, timeout=3000)
        assert lab.digest(f"{REPOSITORY}:{lab.tag('bitnet/swarm-intelligence')}") == digest
    finally:
        lab.shell("docker buildx rm users; pkill -x buildkitd; rm -f /usr/local/lib/docker/cli-plugins/docker-buildx")


@pytest.mark.full
def test_with_a_model_of_the_published_dimensions_inside(lab: Lab) -> None:
    """As `bitnet-cli model convert` makes it, with random weights: the role itself refuses 2 GB and more."""
    before = lab.tags("bitnet/swarm-intelligence")
    folder = machine.cache_dir() / "model-inside"
    folder.mkdir(exist_ok=True)
    models.write(folder / "model.gguf", models.Dimensions(), models.ENGINE, "iq2_bn_r4", "q6_k")
    write_record(folder / "model.gguf")
    try:
        lab.play("build", "-e", "image_build_model_path=/var/lib/bitnet/cache/model-inside", timeout=3000)
    finally:
        shutil.rmtree(folder)
    (tag,) = lab.tags("bitnet/swarm-intelligence") - before
    for entry in lab.raw(f"{REPOSITORY}:{tag}")["manifests"]:
        manifest = lab.raw(f"{REPOSITORY}@{entry['digest']}")
        size = sum(part["size"] for part in [manifest["config"], *manifest["layers"]])
        assert 600_000_000 < size < 2_000_000_000, f"{entry['platform']}: {size / 1e6:.1f} MB"
