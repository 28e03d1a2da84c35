# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases through both slots of a real Swarm: what is moved, what is refused, what a death in between leaves."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.lab.site import Site

ANOTHER = '-e \'{"swarm_rollout_configuration": {"context": 1024, "parallel": 2}}\''
EDGE = "/var/lib/bitnet/environments/local/edge"


class Traffic:
    """The environment `local` of the machine, asked and told by the modules."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def module(self, name: str, *more: str, **options: Any) -> dict[str, Any]:
        """Run a module on the machine; its result, failed or not."""
        arguments = "-a '" + json.dumps(options).replace("'", "'\\''") + "'" if options else ""
        output = self.site.shell(
            f"cd ~/bitnet.devops && . .venv/bin/activate && ANSIBLE_CONFIG=$PWD/ansible.cfg ansible localhost --become"
            f" -i inventories/local -m bitnet.devops.{name} {arguments} --tree /tmp/tree {' '.join(more)} "
            ">/tmp/said 2>&1;"
            " cat /tmp/tree/localhost || cat /tmp/said"
        )
        return json.loads(output)

    def info(self) -> dict[str, Any]:
        return self.module("traffic_info")

    def switch(self, action: str, *more: str, **options: Any) -> dict[str, Any]:
        return self.module("traffic_switch", *more, action=action, **options)

    def rollout(self, arguments: str) -> str:
        """Run the playbook rollout with the image that `make site` built."""
        image = self.site.services()["bitnet-local-blue"]["TaskTemplate"]["ContainerSpec"]["Image"]
        return self.site.make("rollout", f"-e bitnet_image={image} {arguments}")

    def fill_both_slots(self) -> None:
        """For a test that may be the first: an earlier one has left a release in either slot."""
        if not self.releases()[self.idle]:
            self.rollout(ANOTHER)

    @property
    def active(self) -> str:
        return str(self.info()["routing"]["active"])

    @property
    def idle(self) -> str:
        return {"blue": "green", "green": "blue"}[self.active]

    def releases(self) -> dict[str, str]:
        return {name: slot["release"] for name, slot in self.info()["slots"].items()}

    def everything(self) -> str:
        """All state that a switch could touch, when Docker has ended what it was told before."""
        self.site.shell(
            "until ! sudo docker service inspect --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' "
            "$(sudo docker service ls -q) | grep -q updating; do sleep 0.5; done",
            timeout=60,
        )
        return self.site.shell(
            "sudo docker service inspect $(sudo docker service ls -q) | grep -v UpdatedAt;"
            f" sudo docker config ls -q | sort; sudo sh -c 'cd {EDGE} && ls -l --time-style=full-iso && cat "
            "routing.map'"
        )

    def settled(self) -> bool:
        info = self.info()
        return bool(info["agree"]) and info["operation"] == {} and info["routing"]["share"] == 0

    @contextmanager
    def clients(self, workers: int = 4) -> Iterator[Counter[int]]:
        """Requests that go on while the body runs; their answers are counted by status, 0 is a connection that "
        "broke."""
        answers: Counter[int] = Counter()
        token = self.site.shell("sudo cat /var/lib/bitnet/environments/local/tokens/probe").strip()
        body = json.dumps({"prompt": "Hello", "max_tokens": 2})
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        end = threading.Event()

        def ask() -> None:
            while not end.is_set():
                connection = http.client.HTTPConnection(self.site.machine.address, 8080, timeout=30)
                try:
                    connection.request("POST", "/v1/completions", body, headers)
                    response = connection.getresponse()
                    response.read()
                    answers[response.status] += 1
                except (OSError, http.client.HTTPException):
                    answers[0] += 1
                finally:
                    connection.close()
                time.sleep(0.1)

        threads = [threading.Thread(target=ask) for _number in range(workers)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            end.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def traffic(site: Site) -> Iterator[Traffic]:
    """Two slots that hold two releases; afterwards the machine runs what `make site` made."""
    yield Traffic(site)
    site.make("site", timeout=900)


def test_a_release_goes_through_the_idle_slot_and_no_request_is_lost(traffic: Traffic) -> None:
    before = traffic.info()
    old = before["routing"]["active"]
    new = {"blue": "green", "green": "blue"}[old]
    with traffic.clients() as answers:
        output = traffic.rollout(ANOTHER)
    assert "failed=0" in output, output[-4000:]
    assert answers.pop(200) > 20
    assert not answers, "every request was answered with 200"
    after = traffic.info()
    assert after["routing"] == {"active": new, "share": 0, "hold": False}
    assert after["slots"][old] == before["slots"][old], "the old slot is parked warm"
    assert after["slots"][new]["release"] not in ("", before["slots"][old]["release"])
    entry = after["journal"][0]
    assert (entry["action"], entry["outcome"]) == ("rollout", "switched")
    assert entry["asked_by"]
    assert "seen by a client" in [step["step"] for step in entry["steps"]]


def test_check_mode_of_a_rollout_shows_the_move_and_does_nothing(traffic: Traffic) -> None:
    before = traffic.everything()
    info = traffic.info()
    output = traffic.rollout(f"{ANOTHER} -e swarm_rollout_grace_seconds=29 --check --diff")
    active = info["routing"]["active"]
    assert f"moved from slot {active}, release {info['slots'][active]['release']}, to slot" in output, output[-4000:]
    assert traffic.everything() == before


def test_a_second_rollout_changes_nothing(traffic: Traffic) -> None:
    output = traffic.rollout(ANOTHER)
    assert re.search(r"localhost\s*: ok=\d+\s+changed=0\s+unreachable=0\s+failed=0", output), output[-4000:]


def test_a_rollout_by_shares_with_a_gate_of_the_users(traffic: Traffic) -> None:
    gate = "- ansible.builtin.command: touch /tmp/gate-passed\n"
    traffic.site.shell(f"printf -- '{gate}' > /tmp/gate.yml; rm -f /tmp/gate-passed")
    idle = traffic.idle
    wanted = {"swarm_rollout_shares": [20, 100], "swarm_rollout_grace_seconds": 31}
    more = "-e '" + json.dumps({**wanted, "swarm_rollout_gates_after": ["/tmp/gate.yml"]}) + "'"
    output = traffic.rollout(more)
    assert "failed=0" in output, output[-4000:]
    assert traffic.active == idle
    assert traffic.site.shell("ls /tmp/gate-passed")
    steps = [step["step"] for step in traffic.info()["journal"][0]["steps"]]
    assert f"20 % to {idle}" in steps
    assert f"{idle} active" in steps


def test_a_gate_that_fails_after_the_switch_takes_traffic_back(traffic: Traffic) -> None:
    active = traffic.active
    traffic.site.shell("printf -- '- ansible.builtin.command: /bin/false\n' > /tmp/gate.yml")
    with pytest.raises(AssertionError) as failure:
        traffic.rollout(f'{ANOTHER} -e \'{{"swarm_rollout_gates_after": ["/tmp/gate.yml"]}}\'')
    assert "did not take over" in str(failure.value)
    assert traffic.active == active
    assert traffic.settled()
    assert [entry["outcome"] for entry in traffic.info()["journal"][:2]] == ["rolled back", "switched"]


def test_a_gate_that_never_returns_meets_its_deadline(traffic: Traffic) -> None:
    active = traffic.active
    traffic.site.shell("printf -- '- ansible.builtin.command: sleep 3600\n' > /tmp/gate.yml")
    gate = '{"swarm_rollout_gates_before": ["/tmp/gate.yml"], "swarm_rollout_gate_seconds": 10}'
    began = time.monotonic()
    with pytest.raises(AssertionError, match="did not take over"):
        traffic.rollout(f"{ANOTHER} -e '{gate}'")
    assert time.monotonic() - began < 240
    assert traffic.active == active
    assert traffic.settled()


@pytest.mark.full
@pytest.mark.parametrize("playbook", ["switch", "rollback"])
@pytest.mark.parametrize("after", [0, 0.4, 0.8, 1.2, 1.6])
def test_a_playbook_that_is_killed_is_finished_by_the_next(traffic: Traffic, playbook: str, after: float) -> None:
    traffic.fill_both_slots()
    release = f"-e bitnet_release={traffic.releases()[traffic.idle]}"
    target = traffic.idle
    task = {"switch": r"TASK \[.*Send new requests", "rollback": r"TASK \[.*Make the slot active"}[playbook]
    with traffic.clients() as answers:
        assert traffic.site.kill_during(playbook, task, release, after=after)
        assert "failed=0" in traffic.site.make(playbook, release)
    assert set(answers) == {200}, answers
    assert traffic.active == target
    assert traffic.settled()


def test_playbooks_switch_and_rollback(traffic: Traffic) -> None:
    releases, old, new = traffic.releases(), traffic.active, traffic.idle
    with traffic.clients() as answers:
        assert "failed=0" in traffic.site.make("switch", f"-e bitnet_release={releases[new]}")
        assert traffic.active == new
        assert "failed=0" in traffic.site.make("rollback", f"-e bitnet_release={releases[old]}")
        assert traffic.active == old
    assert list(answers) == [200]
    assert "changed=0" in traffic.site.make("switch", f"-e bitnet_release={releases[old]}"), "it is active already"
    with pytest.raises(AssertionError, match="no release was named, and none is prepared in local"):
        traffic.site.make("switch")
    with pytest.raises(AssertionError, match="does not hold release 000000000000"):
        traffic.site.make("rollback", "-e bitnet_release=000000000000")


@pytest.mark.full
def test_a_rollback_brings_no_token_back(traffic: Traffic) -> None:
    def status(token: str) -> str:
        ask = f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {token}' http://127.0.0.1:8080/v1/models"
        return traffic.site.shell(ask)

    def tokens(token: str) -> str:
        return f'{ANOTHER} -e \'{{"bitnet_api_tokens": {{"alice": "{token}"}}}}\''

    one, two = "the-first-token-of-alice", "the-second-token-of-alice"
    assert "failed=0" in traffic.rollout(tokens(one))
    assert status(one) == "200"
    with traffic.clients() as answers:
        assert "failed=0" in traffic.rollout(tokens(two))
    assert list(answers) == [200]
    assert (status(one), status(two)) == ("401", "200")
    traffic.switch("rollback", release=traffic.releases()[traffic.idle], slot=traffic.idle)
    assert (status(one), status(two)) == ("401", "200")
    assert "changed=0" in traffic.rollout(tokens(two))
    assert "failed=0" in traffic.rollout("")  # of another release, as the next tests expect it
    assert (status(one), status(two)) == ("401", "401")


@pytest.mark.parametrize(
    "options",
    [
        {"action": "switch"},
        {"action": "rollback"},
        {"action": "prepare", "release": "ffffffffffff"},
        {"action": "park"},
        {"action": "freeze", "reason": "why"},
    ],
    ids=lambda options: options["action"],
)
def test_check_mode_shows_and_touches_nothing(traffic: Traffic, options: dict[str, Any]) -> None:
    if options["action"] in ("switch", "rollback"):
        options = {**options, "release": traffic.releases()[traffic.idle]}
    before = traffic.everything()
    shown = traffic.module("traffic_switch", "--check", "--diff", **options)
    assert shown["changed"]
    said = traffic.site.shell("cat /tmp/said")
    assert re.search(r"^--- before", said, re.MULTILINE), said
    assert re.search(r"^[+] ", said, re.MULTILINE), said
    assert traffic.everything() == before


def test_a_switch_is_quick_and_a_client_sees_it(traffic: Traffic) -> None:
    old, new = traffic.active, traffic.idle
    there = traffic.switch("switch", slot=new)
    back = traffic.switch("rollback", release=traffic.releases()[old])
    for result in (there, back):
        assert result["changed"], result
        assert result["seconds"]["to_client"] > 0
    assert (there["routing"]["active"], back["routing"]["active"]) == (new, old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "switch", "release": "ffffffffffff"}, "does not hold release ffffffffffff; blue holds"),
        ({"action": "switch", "share": 0}, "share: 0 is no percentage"),
        ({"action": "switch", "environment": "nowhere"}, "there is no service bitnet-nowhere-edge"),
        ({"action": "rollback"}, "release: a rollback names the release"),
        ({"action": "freeze"}, "reason: say why"),
    ],
)
def test_bad_input_changes_nothing(traffic: Traffic, options: dict[str, Any], message: str) -> None:
    before = traffic.everything()
    result = traffic.module("traffic_switch", **options)
    assert message in result["msg"]
    assert traffic.everything() == before


def test_a_frozen_environment(traffic: Traffic) -> None:
    traffic.switch("freeze", reason="year-end", asked_by="carol")
    assert "frozen by carol" in traffic.switch("switch", slot=traffic.idle)["msg"]
    with pytest.raises(AssertionError, match="frozen by carol"):
        traffic.rollout("-e swarm_rollout_log_level=warning")
    traffic.switch("thaw")
    assert traffic.settled()


# Runs one action with the module's own code, and dies by SIGKILL at its N-th effect, before or after it.
DEADLY = """
import json, os, sys
checkout = "/home/ops/bitnet.devops"
import ansible_collections
ansible_collections.__path__.append(checkout + "/.cache/collections/ansible_collections")
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import SwarmClient
from ansible_collections.bitnet.devops.plugins.module_utils._traffic import edge, swarm, switch
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.plan import Wish

number, side, wish = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
count = -1

def deadly(owner, name, counts=lambda *given: True):
    original = getattr(owner, name)
    def effect(self, *given):
        global count
        if not counts(*given):
            return original(self, *given)
        count += 1
        mine = count == number
        if mine and side == "before":
            os.kill(os.getpid(), 9)
        result = original(self, *given)
        if mine and side == "after":
            os.kill(os.getpid(), 9)
        return result
    setattr(owner, name, effect)

for name in ("write", "scale", "record"):
    deadly(swarm.SwarmDriver, name)
deadly(edge.Edge, "reserve")
deadly(edge.Edge, "ask", lambda command: command.startswith(("prepare", "add")))
driver = swarm.SwarmDriver(SwarmClient("unix:///var/run/docker.sock"), "local", "/var/lib/bitnet")
switch.run(driver, Wish(**wish), act=True)
print("effects", count + 1)
"""


def deadly(traffic: Traffic, number: int, side: str, **wish: Any) -> bool:
    """Whether it died; False means that it had fewer effects and ended well."""
    traffic.site.shell(f"cat > /tmp/deadly.py <<'EOF'\n{DEADLY}\nEOF")
    arguments = json.dumps(wish).replace("'", "'\\''")
    said = traffic.site.shell(
        f"sudo ~/bitnet.devops/.venv/bin/python /tmp/deadly.py {number} {side} '{arguments}' 2>&1; echo status $?"
    )
    if "status 0" in said:
        return False
    assert "status 137" in said, said
    return True


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_every_effect_traffic_flows_and_the_next_run_finishes(traffic: Traffic, side: str) -> None:
    number = 0
    with traffic.clients(2) as answers:
        while number < 40:
            target = traffic.idle
            if not deadly(traffic, number, side, action="switch", slot=target):
                break
            left = traffic.info()
            result = traffic.switch("switch", slot=target, asked_by="the next run")
            assert result.get("routing") == {"active": target, "share": 0, "hold": False}, (number, left, result)
            assert traffic.settled(), (number, left)
            number += 1
    assert 7 <= number < 40
    assert list(answers) == [200], answers


def test_killed_between_shares_the_next_run_may_undo(traffic: Traffic) -> None:
    active = traffic.active
    target = {"blue": "green", "green": "blue"}[active]
    assert deadly(traffic, 4, "after", action="switch", slot=target, share=30)
    traffic.switch("abort", reason="the run was killed")
    assert traffic.settled()
    assert traffic.active == active


def test_of_two_controllers_one_is_refused_by_name(traffic: Traffic) -> None:
    prepared = traffic.switch("prepare", release="eeeeeeeeeeee", asked_by="bob", drain_seconds=0)
    refused = traffic.switch("prepare", release="dddddddddddd", asked_by="eve", wait_seconds=1, drain_seconds=0)
    assert "asked by bob" in refused["msg"]
    traffic.switch("abort", asked_by="eve")
    stale = traffic.switch("switch", operation=prepared["operation"]["id"])
    assert "is not open any more" in stale["msg"]
    assert traffic.settled()


def test_an_edge_that_is_killed_during_a_switch_comes_back_right(traffic: Traffic) -> None:
    target = traffic.idle
    traffic.site.shell(
        "(sleep 0.8; sudo docker kill $(sudo docker ps -q --filter "
        "label=com.docker.swarm.service.name=bitnet-local-edge))"
        " >/dev/null 2>&1 &"
    )
    result = traffic.switch("switch", slot=target)
    assert result.get("routing", {}).get("active") == target, result
    deadline = time.monotonic() + 30
    while not traffic.settled():
        assert time.monotonic() < deadline
    assert traffic.active == target


def test_the_gap_that_a_killed_edge_leaves(traffic: Traffic) -> None:
    """Docker starts another; the shortest of three gaps, since what else the machine does lengthens them."""
    active, gaps = traffic.active, []
    for _unused in range(3):
        seen: list[tuple[float, str]] = []
        end = threading.Event()
        asking = threading.Thread(target=ask_until, args=(traffic, seen, end))
        asking.start()
        time.sleep(1)
        traffic.site.shell(
            "sudo docker kill $(sudo docker ps -q --filter label=com.docker.swarm.service.name=bitnet-local-edge)"
        )
        began = len(seen)
        deadline = time.monotonic() + 60
        while not [slot for _at, slot in seen[began:] if slot][5:]:
            assert time.monotonic() < deadline, seen[-5:]
            time.sleep(0.1)
        end.set()
        asking.join()
        right = [at for at, slot in seen if slot == active]
        assert {slot for _at, slot in seen} <= {active, ""}, "no other slot ever answered"
        gaps.append(max(later - earlier for earlier, later in pairwise(right)))
        time.sleep(3)
    assert min(gaps) < 2, gaps


def ask_until(traffic: Traffic, seen: list[tuple[float, str]], end: threading.Event) -> None:
    """The slot that answered a tester, and when; '' where nothing did."""
    token = traffic.site.shell("sudo cat /var/lib/bitnet/environments/local/tokens/probe").strip()
    while not end.is_set():
        connection = http.client.HTTPConnection(traffic.site.machine.address, 8080, timeout=1)
        try:
            connection.request("GET", "/ready", headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            slot = response.getheader("X-Bitnet-Slot", "") if response.status == 200 else ""
        except (OSError, http.client.HTTPException):
            slot = ""
        finally:
            connection.close()
        seen.append((time.monotonic(), slot))
        time.sleep(0.02)


def test_a_socket_that_hangs_meets_its_deadline_before_anything_is_decided(traffic: Traffic) -> None:
    active = traffic.active
    target = {"blue": "green", "green": "blue"}[active]
    listener = (
        'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind("haproxy.sock"); s.listen(); time.sleep(600)'
    )
    traffic.site.shell(
        f'sudo sh -c \'cd {EDGE} && mv haproxy.sock real.sock && (setsid python3 -c "{listener}" >/dev/null 2>&1 '
        "</dev/null &)"
        " && sleep 1'".replace('"haproxy.sock"', '\\"haproxy.sock\\"')
    )
    try:
        with traffic.clients(1) as answers:
            result = traffic.switch("switch", slot=target, timeout=5)
        assert "did not answer" in result["msg"], result
        assert list(answers) == [200]
    finally:
        traffic.site.shell(f"sudo sh -c 'pkill -f [s].listen; cd {EDGE} && mv -f real.sock haproxy.sock'")
    assert traffic.active == active
    assert traffic.settled()


def test_a_full_disk_changes_nothing(traffic: Traffic) -> None:
    active = traffic.active
    target = {"blue": "green", "green": "blue"}[active]
    traffic.site.shell(f"cat > /tmp/deadly.py <<'EOF'\n{DEADLY}\nEOF")
    said = traffic.site.shell(
        f"sudo unshare --mount sh -c 'mkdir -p /tmp/real && mount --bind {EDGE} /tmp/real && mount -t tmpfs -o size=4k "
        f"tmpfs {EDGE}"
        f" && touch {EDGE}/haproxy.sock && mount --bind /tmp/real/haproxy.sock {EDGE}/haproxy.sock; head -c 8192 "
        f"/dev/zero > {EDGE}/full;"
        " /home/ops/bitnet.devops/.venv/bin/python /tmp/deadly.py 99 after "
        f'\'\\\'\'{{"action": "switch", "slot": "{target}"}}\'\\\'\' 2>&1\''
        " || true"
    )
    assert "No space left on device" in said, said
    assert traffic.active == active
    traffic.switch("abort")
    assert traffic.settled()


def test_an_idle_slot_that_dies_between_gate_and_switch(traffic: Traffic) -> None:
    active = traffic.active
    idle = {"blue": "green", "green": "blue"}[active]
    traffic.site.shell(f"sudo docker service scale --detach bitnet-local-{idle}=0")
    result = traffic.switch("switch", slot=idle, timeout=5)
    assert "told to have no tasks" in result["msg"], result
    assert traffic.active == active
    traffic.site.shell(f"sudo docker service scale --detach bitnet-local-{idle}=1")
    assert traffic.switch("switch", slot=idle)["routing"]["active"] == idle


@pytest.mark.parametrize("after", [0, 0.9], ids=["before", "during"])
def test_an_active_slot_that_dies_is_no_obstacle(traffic: Traffic, after: float) -> None:
    active = traffic.active
    idle = {"blue": "green", "green": "blue"}[active]
    traffic.site.shell(
        f"(sleep {after}; sudo docker service scale --detach bitnet-local-{active}=0) >/dev/null 2>&1"
        + (" &" if after else "")
    )
    result = traffic.switch("switch", slot=idle, timeout=30)
    assert result.get("routing", {}).get("active") == idle, result
    traffic.site.shell(f"sudo docker service scale --detach bitnet-local-{active}=1")


@pytest.mark.full
def test_a_manager_whose_daemon_restarts_during_a_switch(traffic: Traffic) -> None:
    traffic.fill_both_slots()
    target = traffic.idle
    traffic.site.shell("(sleep 0.7; sudo pkill --pidfile /var/run/docker.pid) >/dev/null 2>&1 &")
    first = traffic.switch("switch", slot=target, timeout=20)
    traffic.site.shell(
        "sudo sh -c 'while [ -e /var/run/docker.pid ]; do sleep 0.2; done;"
        " setsid --fork dockerd >>/var/log/docker.log 2>&1'"
    )
    traffic.site.shell("until sudo docker service ls >/dev/null 2>&1; do sleep 0.5; done", timeout=120)
    deadline = time.monotonic() + 120
    while traffic.switch("switch", slot=target, timeout=60).get("routing", {}).get("active") != target:
        assert time.monotonic() < deadline, first
    assert traffic.settled()


def test_without_room_for_both_slots_requests_wait(traffic: Traffic) -> None:
    active = traffic.active
    idle = {"blue": "green", "green": "blue"}[active]
    traffic.site.shell(f"sudo docker service scale bitnet-local-{idle}=0 >/dev/null")
    with traffic.clients(2) as answers:
        result = traffic.switch("switch", slot=idle, hold=True)
    assert result.get("routing", {}).get("active") == idle, result
    info = traffic.info()
    assert (info["slots"][active]["replicas"], info["slots"][idle]["running"]) == (0, 1)
    assert set(answers) <= {200, 503}, answers
    assert answers[503] == 0 or result["seconds"]["held"] > 5


@pytest.mark.full
def test_without_room_a_bad_release_gives_way_to_the_one_before(traffic: Traffic) -> None:
    active, releases = traffic.active, traffic.releases()
    traffic.site.shell("printf -- '- ansible.builtin.command: /bin/false\n' > /tmp/gate.yml")
    bad = {
        "swarm_rollout_configuration": {"context": 512, "parallel": 2},
        "swarm_rollout_overlap": False,
        "swarm_rollout_gates_after": ["/tmp/gate.yml"],
    }
    with traffic.clients(2) as answers, pytest.raises(AssertionError, match="did not take over"):
        traffic.rollout("-e '" + json.dumps(bad) + "'")
    assert traffic.active == active
    assert traffic.settled()
    info = traffic.info()
    assert info["slots"][active]["release"] == releases[active]
    assert info["slots"][active]["running"] == 1
    assert set(answers) <= {200, 503}, answers
    assert [entry["outcome"] for entry in info["journal"][:2]] == ["rolled back", "switched"]
