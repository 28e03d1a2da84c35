# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What README promises, done on a machine that has nothing yet, by a user with sudo."""

from __future__ import annotations

import json
import re

import pytest

from tests.lab.site import Site


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


def test_second_run_changes_nothing(site: Site) -> None:
    output = site.make("site")
    assert re.search(r"localhost\s*: ok=\d+\s+changed=0\s+unreachable=0\s+failed=0", output), output[-4000:]


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


@pytest.mark.full
def test_killed_playbook_leaves_what_a_second_run_finishes(site: Site) -> None:
    for moment in ("swarm_rollout", "traffic"):
        site.kill_during("site", rf"TASK \[bitnet\.devops\.{moment} :", "-e swarm_rollout_threads=1")
        output = site.make("site", "-e swarm_rollout_threads=1")
        assert "failed=0" in output, output[-4000:]
        assert "changed=0" in site.make("site", "-e swarm_rollout_threads=1")
    site.make("site")


def test_teardown_removes_what_is_ours_and_nothing_else(site: Site) -> None:
    site.shell("sudo docker volume create theirs && sudo docker network create theirs")
    site.make("teardown")
    assert "theirs" in site.shell("sudo docker volume ls -q")
    assert "theirs" in site.shell("sudo docker network ls --format '{{.Name}}'")
    assert site.shell("sudo docker ps -aq --filter label=io.bitnet.owner").strip() == ""
    assert site.shell("sudo docker volume ls -q --filter label=io.bitnet.owner").strip() == ""
    assert "inactive" in site.shell("sudo docker info --format '{{.Swarm.LocalNodeState}}'")
    assert "changed=0" in site.make("teardown")
