# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the examples of the documentation with ansible-playbook, on this host and as two hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from tests.unit import consensus_world
from tests.unit import cpuinfo_texts as texts

PLATFORM = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[os.uname().machine]
CHECKOUT = Path(__file__).resolve().parents[3]


def examples(path: str):
    if path.endswith(".py"):
        namespace: dict = {}
        text = (CHECKOUT / path).read_text(encoding="utf-8").partition("\nimport ")[0]
        exec(compile(text, path, "exec"), namespace)
        return yaml.safe_load(namespace["EXAMPLES"])
    return yaml.safe_load(yaml.safe_load((CHECKOUT / path).read_text(encoding="utf-8"))["EXAMPLES"])


EXPECTED = {
    "plugins/modules/cpu_info.py": ["ok: [one] =>", "x86-64-v4-vnni is the best of 2 that this CPU runs"],
    # In this order: each takes what the one before has made.
    "plugins/modules/signing_key.py": ["signing.public_key: ssh-ed25519 AAAA"],
    "plugins/modules/verdict.py": ["decision: promote", "payloadType: application/vnd.bitnet.devops.verdict+json"],
    "plugins/modules/approval.py": ["payloadType: application/vnd.bitnet.devops.approval+json"],
    "plugins/modules/consensus.py": ["1 of 2 say promote (staging), 1 are needed", "approver: alice"],
    "plugins/filter/variants_for_hosts.yml": ["msg:\n    -"],
    "plugins/filter/variant_flags.yml": ["msg: cc -march=x86-64-v3 -mtune=haswell -O2 -c own.c"],
    "plugins/filter/image_platform.yml": [f"msg: {PLATFORM}", "msg: linux/arm64"],
    "plugins/filter/model_size.yml": ["msg: 1.2 GB"],
    "plugins/test/at_least_level.yml": ["All assertions passed"],
}

# What the example of the consensus has from elsewhere.
GIVEN = {
    "began_at": "{{ now(utc=true).strftime('%Y-%m-%dT%H:%M:%SZ') }}",
    "keys": {
        "development": consensus_world.public("development"),
        "staging": "{{ signing.public_key }}",
        "alice": consensus_world.public("alice"),
    },
    "verdicts": ["{{ said.verdict }}"],
    "approvals": ["{{ approved.approval }}"],
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What ansible-playbook says of each, from one run for all."""
    folder = tmp_path_factory.mktemp("examples")
    saved = folder / "cpuinfo"
    saved.write_text(texts.HOSTS["ice-lake"])
    plays = [{"name": path, "hosts": "all", "gather_facts": False, "tasks": examples(path)} for path in EXPECTED]
    text = yaml.safe_dump(plays).replace("/var/tmp/cpuinfo-of-the-other-host", str(saved))
    signing = folder / "signing"
    text = text.replace("/var/lib/bitnet/environments/staging/signing", str(signing))
    approving = folder / "approval-key"
    approving.touch(0o600)
    approving.write_bytes(
        consensus_world.key("alice").private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    text = text.replace("~/.config/bitnet/approval-key", str(approving))
    (folder / "play.yml").write_text(text)
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **GIVEN}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": {}, "two": {}}, "vars": variables}}))
    result = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-v", "-i", folder / "hosts.yml", folder / "play.yml"],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    _head, *rest = result.stdout.split("PLAY [")
    return {part.partition("]")[0]: part for part in rest}


@pytest.mark.parametrize("path", EXPECTED)
def test_examples_run(outputs, path):
    for text in EXPECTED[path]:
        assert text in outputs[path]
