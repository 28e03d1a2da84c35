# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unlocking a manager; the client is a stand-in whose daemon is in one state after the other."""

from __future__ import annotations

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import DockerFailed
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused
from ansible_collections.bitnet.devops.plugins.modules import swarm_settings


class Client:
    """Says the last state for ever, and of the key what it is told to say."""

    def __init__(self, *states: str, refuses: str = "") -> None:
        self.states, self.refuses, self.keys = list(states), refuses, []

    def local_state(self) -> str:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def unlock(self, key: str) -> None:
        self.keys.append(key)
        if self.refuses:
            raise DockerFailed(f"Docker refused to unlock its Swarm: {self.refuses}")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(swarm_settings.time, "sleep", lambda _seconds: None)


def test_a_locked_manager_is_opened_and_waited_for():
    client = Client("locked", "pending", "active")
    assert swarm_settings.unlock(client, "k", True, 60)["changed"] and client.keys == ["k"]


def test_check_mode_opens_nothing_and_what_is_open_is_left():
    client = Client("locked")
    assert swarm_settings.unlock(client, "k", False, 60)["changed"] and client.keys == []
    assert not swarm_settings.unlock(Client("active"), "k", True, 60)["changed"]


def test_a_key_that_does_not_fit_is_said():
    with pytest.raises(Refused, match=r"unlock_key: .*invalid key.* Give the one"):
        swarm_settings.unlock(Client("locked", refuses="invalid key provided"), "k", True, 60)


def test_a_key_that_fits_is_not_called_wrong_because_docker_waits_for_the_other_managers():
    """Docker answers only when there is a leader, which takes the key on the other managers, too."""
    client = Client("locked", "pending", "active", refuses="Read timed out")
    assert swarm_settings.unlock(client, "k", True, 60)["changed"]
    with pytest.raises(Refused, match=r"it fitted, and the manager was not back within -1 s .*last seen: pending"):
        swarm_settings.unlock(Client("locked", "pending", refuses="Read timed out"), "k", True, -1)
