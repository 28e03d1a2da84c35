# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What README promises, done on a machine that has nothing yet, by a user with sudo."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.lab.site import Site, writing_tasks

ROLES = "image_build|swarm_cluster|swarm_rollout|traffic"


def test_make_site_serves(site: Site) -> None:
    summary = site.first_run
    assert "failed=0" in summary, summary[-4000:]
    for line in ("URL", "token", "active slot", "blue", "x86-64-v3", "x86-64-v4-vnni", "sha256:"):
        assert line in summary, f"the summary does not say {line!r}:\n{summary[-4000:]}"


def test_curl_line_of_the_summary_answers(site: Site) -> None:
    command = re.search(r"^\s*(curl .+)$", site.first_run, re.MULTILINE)
    assert command, "there is no curl line in the summary"
    answer = json.loads(site.shell(command[1]))
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["completion_tokens"] > 0


def test_second_run_changes_nothing_and_builds_nothing(site: Site) -> None:
    began = time.monotonic()
    output = site.make("site")
    took = time.monotonic() - began
    assert re.search(r"localhost\s*: ok=\d+\s+changed=0\s+unreachable=0\s+failed=0", output), output[-4000:]
    # A share of the first, not a number of seconds: machines differ.
    assert took < site.first_seconds / 2, f"the second run took {took:.0f} s, the first {site.first_seconds:.0f} s"
    for line in (r"Time", r"platform +[0-9.]+ s", r"build +[0-9.]+ s", r"rollout +[0-9.]+ s", r"of which +kernels .+"):
        assert re.search(rf"^\s*{line}$", output, re.MULTILINE), f"the summary has no {line!r}:\n{output[-4000:]}"


def test_check_and_diff_show_a_changed_binding_and_do_nothing(site: Site) -> None:
    before = site.services()
    output = site.make("site", '--check --diff -e \'{"swarm_rollout_threads": 1, "swarm_rollout_replicas": 2}\'')
    assert re.search(r"^-.*replicas: 1$", output, re.MULTILINE), output[-4000:]
    assert re.search(r"^\+.*replicas: 2$", output, re.MULTILINE), output[-4000:]
    assert site.services() == before


def test_installed_tarball_runs_from_any_folder(site: Site) -> None:
    output = site.shell(
        "cd ~/bitnet.devops && make package >/dev/null"
        " && .venv/bin/ansible-galaxy collection install --force --no-deps -p /tmp/installed"
        " .cache/package/bitnet-devops-*.tar.gz >/dev/null"
        " && cp -r inventories/local /tmp/inventory && mv ~/bitnet.devops/plugins ~/bitnet.devops/plugins.away && cd /"
        " && ANSIBLE_COLLECTIONS_PATH=/tmp/installed ~/bitnet.devops/.venv/bin/ansible-playbook"
        " bitnet.devops.site -i /tmp/inventory; status=$?;"
        " mv ~/bitnet.devops/plugins.away ~/bitnet.devops/plugins; exit $status",
        timeout=600,
    )
    assert re.search(r"changed=0\s+unreachable=0\s+failed=0", output), output[-4000:]


def test_edge_is_closed_by_default(site: Site) -> None:
    def status(path: str, *options: str) -> str:
        return site.shell(f"curl -s -o /dev/null -w '%{{http_code}}' {' '.join(options)} http://127.0.0.1:8080{path}")

    assert status("/health") == "200"
    assert status("/ready") == "200"
    assert status("/v1/models") == "401"
    assert status("/v1/models", "-H 'Authorization: Bearer wrong'") == "401"
    assert status("/metrics") in ("403", "404")


def test_no_secret_is_where_it_could_be_read(site: Site) -> None:
    token = site.shell("sudo cat /var/lib/bitnet/environments/local/tokens/probe").strip()
    assert len(token) >= 32
    assert token not in site.first_run
    assert site.shell("stat -c '%a %U' /var/lib/bitnet/environments/local/tokens/probe 2>&1 || sudo stat -c '%a %U'"
                      " /var/lib/bitnet/environments/local/tokens/probe").split()[-2:] == ["600", "root"]  # fmt: skip
    assert token not in site.shell("sudo docker service inspect $(sudo docker service ls -q)")
    assert token not in site.shell("sudo docker ps -q | xargs sudo docker inspect")
    assert token not in site.shell("sudo docker ps -q | xargs -n1 sudo docker logs 2>&1")


def changed(number: int) -> str:
    """Values that no earlier run had: the binding of the slot and the configuration of the edge change."""
    return f"""-e '{{"swarm_rollout_threads": {1 + number % 2}, "traffic_rate_limit": {1000 + number}}}'"""


@pytest.mark.full
def test_killed_playbook_leaves_what_a_second_run_finishes(site: Site) -> None:
    assert site.kill_during("site", r"TASK \[.*: Bring the release into slot \w+\]", changed(0), after=1)
    output = site.make("site", changed(0))
    assert "failed=0" in output, output[-4000:]
    slots = [spec for spec in site.services().values() if "io.bitnet.slot" in spec["Labels"]]
    assert any("BITNET_THREADS=1" in spec["TaskTemplate"]["ContainerSpec"]["Env"] for spec in slots)
    assert "changed=0" in site.make("site", changed(0))
    assert "failed=0" in site.make("site")  # as the other tests expect it


@pytest.mark.full
def test_killed_at_any_task_that_changes_what_runs(site: Site) -> None:
    output = site.make("site", changed(1))
    tasks = writing_tasks(output, ROLES)
    assert any("Bring the release into slot" in task for task in tasks), output[-4000:]
    assert any("Run the edge" in task for task in tasks), output[-4000:]
    for number, task in enumerate(tasks, start=2):
        assert site.kill_during("site", re.escape(task), changed(number), after=number % 3 * 0.7), f"no {task}"
        output = site.make("site", changed(number))
        assert "failed=0" in output, f"after a kill at {task}:\n{output[-4000:]}"
        output = site.make("site", changed(number))
        assert "changed=0" in output, f"after a kill at {task}:\n{output[-4000:]}"
    assert "failed=0" in site.make("site")


@pytest.mark.full
def test_killed_at_any_task_that_makes_something(site: Site) -> None:
    """One run after the other is killed, at the next task that writes; each goes on with a dead one's work."""
    site.make("teardown")
    tasks = writing_tasks(site.make("site", timeout=1800), ROLES)
    assert len(tasks) > 10, tasks
    site.make("teardown")
    for number, task in enumerate(tasks):
        moment = {"moment": re.escape(task), "after": number % 3 * 0.7, "timeout": 1800}
        if not site.kill_during("site", **moment):
            site.make("teardown")  # the module that outlived the last kill had done it: begin anew
            assert site.kill_during("site", **moment), f"no {task}"
    output = site.make("site", timeout=1800)
    assert "failed=0" in output, output[-4000:]
    assert "changed=0" in site.make("site")
