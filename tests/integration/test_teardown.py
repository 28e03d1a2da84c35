# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of the machine that the other tests used; conftest.py puts this file last."""

from __future__ import annotations

import json

from tests.lab.site import Site

RECORD = "sudo cat /var/lib/bitnet/record/docker_engine.json"


def test_teardown_removes_what_is_ours_and_nothing_else(site: Site) -> None:
    site.shell("sudo docker volume create theirs && sudo docker network create theirs")
    site.make("teardown")
    assert "theirs" in site.shell("sudo docker volume ls -q")
    assert "theirs" in site.shell("sudo docker network ls --format '{{.Name}}'")
    assert site.shell("sudo docker ps -aq --filter label=io.bitnet.owner").strip() == ""
    assert site.shell("sudo docker volume ls -q --filter label=io.bitnet.owner").strip() == ""
    assert "inactive" in site.shell("sudo docker info --format '{{.Swarm.LocalNodeState}}'")
    assert "changed=0" in site.make("teardown")


def test_whose_docker_it_is_outlives_a_teardown(site: Site) -> None:
    """Docker and its configuration stay, and so does the record that they are ours: the next run reads it."""
    before = site.shell(RECORD)
    assert json.loads(before)["found"] is False
    site.make("platform")
    assert site.shell(RECORD) == before
