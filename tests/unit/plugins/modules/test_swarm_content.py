# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept and read again, with a Swarm of memory; the lab's tests keep it in a real one."""

from __future__ import annotations

import base64
import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.modules import swarm_content, swarm_content_info


class Swarm:
    """The configs, with a clock that goes by one second for each."""

    def __init__(self) -> None:
        self.configs: list[dict] = []
        self.clock = 0

    def __call__(self, _docker_host):
        return self

    def contents(self, _kind):
        return list(self.configs)

    def services(self):
        return []

    def create_content(self, _kind, name, data, labels):
        self.clock += 1
        spec = {"Name": name, "Labels": labels, "Data": base64.b64encode(data).decode()}
        self.configs.append({"ID": name, "CreatedAt": f"2026-11-26T10:00:{self.clock:02}Z", "Spec": spec})

    def remove_content(self, _kind, content_id):
        self.configs = [config for config in self.configs if config["ID"] != content_id]


@pytest.fixture
def run(monkeypatch, capsys):
    swarm = Swarm()

    def module(which, **options):
        with patch_module_args(options), pytest.raises(SystemExit):
            which.main()
        return json.loads(capsys.readouterr().out)

    for which in (swarm_content, swarm_content_info):
        monkeypatch.setattr(which, "SwarmClient", swarm)
        monkeypatch.setattr(which, "HAS_DOCKER", True)
    module.swarm = swarm
    return module


def keep(run, text, **options):
    return run(swarm_content, base="bitnet-dev-decision", config=text, **options)


def test_the_newest_stay_as_a_history(run):
    for number in range(5):
        keep(run, f"text {number}", labels={"io.bitnet.release": number % 2})
    collected = keep(run, "text 4", state="collected", keep=2, _ansible_check_mode=True)
    assert (collected["changed"], len(collected["removed"]), len(run.swarm.configs)) == (True, 2, 5)
    keep(run, "text 4", state="collected", keep=2)
    said = run(swarm_content_info, base="bitnet-dev-decision")
    assert [kept["content"] for kept in said["contents"]] == ["text 4", "text 3", "text 2"]
    assert not keep(run, "text 4", state="collected", keep=2)["changed"]
    said = run(swarm_content_info, base="bitnet-dev-decision", labels={"io.bitnet.release": 1})
    assert [kept["content"] for kept in said["contents"]] == ["text 3"]
    # Of several only those that were named, as what another run has made meanwhile is to stay.
    gone = keep(run, "text 4", state="collected", _ansible_check_mode=True)["removed"]
    assert len(gone) == 2
    assert keep(run, "text 4", state="collected", only=[])["removed"] == []
    assert keep(run, "text 4", state="collected", only=gone[:1])["removed"] == gone[:1]
    assert keep(run, "text 4", state="collected")["removed"] == gone[1:]


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ('{"schema": 1}', {"schema": 1}),
        ("no json", None),
        ("NaN", None),
        ("[" * 100_000, None),
        ('"\\ud800"', None),
    ],
)
def test_what_somebody_else_has_written_does_no_harm(run, text, document):
    keep(run, text)
    [kept] = run(swarm_content_info, base="bitnet-dev-decision")["contents"]
    assert (kept["content"], kept["document"]) == (text, document)


def test_what_is_not_ours_is_passed_over(run):
    run.swarm.create_content("config", "bitnet-dev-decision-1", b"x", {"io.bitnet.base": "bitnet-dev-decision"})
    assert run(swarm_content_info, base="bitnet-dev-decision")["contents"] == []
