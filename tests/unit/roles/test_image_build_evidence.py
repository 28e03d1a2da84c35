# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What image_build says of an image and signs: syft and cosign are scripts that write down how they were called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
PASSWORD = "a-password-of-the-tests"
FAKES = {
    "syft": """
for a; do case $a in --output=*) echo '{}' > "${a#--output=spdx-json=}" ;; esac; done
""",
    "cosign": """
[ ! -e "$FAKE/fails" ] || { echo 'Error: decrypt: wrong password' >&2; exit 1; }
[ "$(cat)" = a-password-of-the-tests ] || { echo 'no password on standard input' >&2; exit 1; }
for a; do case $a in --bundle=*) echo signed > "${a#--bundle=}" ;; esac; done
""",
}
HOSTILE = {"__ansible_unsafe": "'\"]}{{ {% it"}  # what a module gives back is no template
IMAGE = {"digest": "sha256:" + "d" * 64, "base": "sha256:" + "b" * 64, "content": "c" * 64, "built": False}


class Role:
    """The tasks that follow a build, on this host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, script in FAKES.items():
            begin = f'#!/bin/sh\n[ "$1" != version ] || exit 0\necho {name} "$@" >> "$FAKE/calls"\n'
            (folder / name).write_text(begin + script)
            (folder / name).chmod(0o755)

    @property
    def evidence(self) -> Path:
        return self.folder / "a state" / "images" / ("d" * 64)

    def run(self, *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """What was called before is forgotten."""
        (self.folder / "calls").write_text("")
        given = {
            "ansible_python_interpreter": sys.executable,
            "image_build_state_dir": str(self.folder / "a state"),
            "image_build_registry": "localhost.example.com:5000",
            "image_build_variants": ["x86-64-v3"],
            "image_build_info": {"Architecture": "x86_64"},
            "image_build_base": "debian:bookworm-slim",
            "image_build_kernels": {"linux/amd64": {"hash": "h", "manifest": {"source": HOSTILE, "builder": "b"}}},
            "image_build_cosign_key": "/keys/a.key",
            "image_build_cosign_password": PASSWORD,
            "image_build_image": IMAGE,
            "image_build_tools": {"results": [{"rc": 0}, {"rc": 0}]},
            **variables,
        }
        tasks = [{"ansible.builtin.include_role": {"name": "bitnet.devops.image_build", "tasks_from": "evidence"}}]
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        (self.folder / "given.json").write_text(json.dumps(given))
        ours = {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "FAKE": str(self.folder)}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", *options]
        done = subprocess.run(
            [*command, "-e", f"@{self.folder}/given.json", str(self.folder / "play.yml")],
            env={**os.environ, **ours, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            cwd=CHECKOUT, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert PASSWORD not in done.stdout + done.stderr
        return done

    def calls(self, program: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(program)]


@pytest.fixture
def role(tmp_path: Path) -> Role:
    return Role(tmp_path)


def test_what_is_signed_is_signed_once_and_anew_where_it_is_another(role: Role) -> None:
    planned = role.run("--check")
    assert "failed=0" in planned.stdout and not role.calls("cosign"), planned.stdout
    first = role.run("-vvvv")
    assert "failed=0" in first.stdout, first.stdout[-3000:]
    said = json.loads((role.evidence / "provenance.json").read_text())["predicate"]["buildDefinition"]
    assert HOSTILE["__ansible_unsafe"] in [
        part.get("annotations", {}).get("source") for part in said["resolvedDependencies"]
    ]
    assert len(role.calls("syft")) == 1 and len(role.calls("cosign")) == 3
    assert sorted(path.name for path in role.evidence.glob("*.sigstore")) == [
        "provenance.json.sigstore",
        "sbom.linux-amd64.spdx.json.sigstore",
    ]
    for options in (("--check",), ()):
        assert "changed=0" in role.run(*options).stdout and not role.calls("cosign")

    assert "changed=0" not in role.run("--check", image_build_cosign_key="/keys/b.key").stdout
    role.run(image_build_cosign_key="/keys/b.key")
    assert len([line for line in role.calls("cosign") if "--key=/keys/b.key" in line]) == 3
    # The same digest, in another registry: its provenance names it, and the bill of materials is the same.
    role.run(
        image_build_cosign_key="/keys/b.key",
        image_build_registry="registry.example.com",
        image_build_image={**IMAGE, "built": True},
    )
    signed = [line.split()[-1].rpartition("/")[2] for line in role.calls("cosign")]
    assert signed == [f"swarm-intelligence@{IMAGE['digest']}", "provenance.json"]


def test_a_signature_that_fails_is_a_sentence_without_the_password(role: Role) -> None:
    (role.folder / "fails").touch()
    said = role.run("-vvv").stdout
    for text in ("image_build_cosign_key: cosign", "/keys/a.key", "wrong password", "image_build_cosign_password"):
        assert text in said
    assert not (role.evidence / "signed.json").exists()
