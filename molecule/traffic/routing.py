# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the edge of a test machine as clients and testers do, and sets its routing as the switch does.

routing.py routing | replaced | stripped | taken | back
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

FOLDER = Path("/var/lib/bitnet/environments/local/edge")
MAP = "/run/bitnet-edge/routing.map"
TESTER = {"Authorization": "Bearer a-token-that-a-client-has"}
OTHER = {"Authorization": "Bearer a-token-that-another-has"}
HOLD_SECONDS = 3

Answer = collections.namedtuple("Answer", "status slot cookie body seconds")


def ask(*headers: dict[str, str], path: str = "/ready") -> Answer:
    """One request; few enough in a second for the limit of requests."""
    time.sleep(0.07)
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
    connection.request("GET", path, headers={k: v for some in headers for k, v in some.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    set_cookie = answer.getheader("Set-Cookie")
    return Answer(answer.status, answer.getheader("X-Bitnet-Slot"), set_cookie, body, time.monotonic() - began)


def slot(name: str) -> dict[str, str]:
    return {"X-Bitnet-Slot": name}


def cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"a=b; bitnet-slot={value}"}


def say(command: str) -> str:
    with socket.socket(socket.AF_UNIX) as edge:
        edge.settimeout(5)
        edge.connect(str(FOLDER / "haproxy.sock"))
        edge.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: edge.recv(65536), b"")).decode().strip()


def set_routing(active: str, share: int = 0, hold: int = 0) -> None:
    """The file, and the three keys of the map in one step."""
    (FOLDER / "routing.map.next").write_text(f"active {active}\nshare {share}\nhold {hold}\n")
    (FOLDER / "routing.map.next").replace(FOLDER / "routing.map")
    version = say(f"prepare map {MAP}").rsplit(None, 1)[-1]
    for key, value in (("active", active), ("share", share), ("hold", hold)):
        assert not say(f"add map @{version} {MAP} {key} {value}")
    assert not say(f"commit map @{version} {MAP}")


def routing() -> list[str]:
    """What HAProxy has in memory."""
    return [line.partition(" ")[2] for line in say(f"show map {MAP}").splitlines()]


def container() -> str:
    name = "label=com.docker.swarm.service.name=bitnet-local-edge"
    return subprocess.run(
        ["docker", "ps", "--quiet", "--filter", name], check=True, capture_output=True, text=True
    ).stdout.strip()


def signal(name: str) -> None:
    subprocess.run(["docker", "kill", "--signal", name, container()], check=True, stdout=subprocess.DEVNULL)


def requests_to(name: str) -> int:
    """Requests that this slot has had, as HAProxy counts them."""
    rows = [row.split(",") for row in say("show stat").splitlines() if row]
    return next(int(row[rows[0].index("stot")]) for row in rows if row[:2] == [name, "BACKEND"])


def check_shares() -> None:
    set_routing("blue", share=50)
    seen = [ask(TESTER) for _unused in range(40)]
    assert {answer.slot for answer in seen} == {"blue", "green"}, collections.Counter(answer.slot for answer in seen)
    for answer in seen:
        assert answer.cookie == f"bitnet-slot={answer.slot}.blue; Path=/; HttpOnly; SameSite=Lax", answer
    for kept in ("blue", "green"):
        answers = {ask(TESTER, cookie(f"{kept}.blue"))[:3] for _unused in range(12)}
        assert answers == {(200, kept, None)}, answers
    earlier = [ask(TESTER, cookie("green.green")) for _unused in range(16)]
    assert {answer.slot for answer in earlier} == {"blue", "green"}, "a cookie of an earlier rollout counts for nothing"
    assert all(answer.cookie for answer in earlier)
    set_routing("blue")
    assert ask(TESTER, cookie("green.blue"))[:3] == (200, "blue", None), "without a share the cookie is ignored"


def check_headers() -> None:
    for name, answers in (("blue", "blue"), ("green", "green"), ("GREEN", "green"), ("red", "blue")):
        assert ask(TESTER, slot(name)).slot == answers
    before = requests_to("green")
    assert ask(OTHER, slot("green"))[:3] == (200, None, None)
    assert ask(slot("green"))[:3] == (200, None, None)
    assert requests_to("green") == before, "only a tester names a slot"
    assert ask(TESTER, slot("green"), path="/v1/models")[:2] == (200, "green")
    assert ask(slot("green"), path="/v1/models")[:2] == (401, None)


def check_hold() -> None:
    set_routing("blue", hold=1)
    waited: list[Answer] = []
    waiting = [threading.Thread(target=lambda: waited.append(ask(TESTER))) for _unused in range(8)]
    for thread in waiting:
        thread.start()
    time.sleep(1)
    assert not waited, "requests wait"
    named = ask(TESTER, slot("green"))
    assert named[:2] == (200, "green") and named.seconds < 0.8, "a tester that names a slot does not wait"
    set_routing("green")
    for thread in waiting:
        thread.join()
    assert {answer[:2] for answer in waited} == {(200, "green")}, "they go where the map says when the wait is over"
    assert all(0.9 < answer.seconds < 2.5 for answer in waited), [answer.seconds for answer in waited]
    set_routing("blue", hold=1)
    late = ask(TESTER)
    assert late[:2] == (200, "blue") and HOLD_SECONDS - 0.5 < late.seconds < HOLD_SECONDS + 2, late
    before = requests_to("blue")
    with socket.create_connection(("127.0.0.1", 8080)) as gone:
        gone.sendall(b"GET /health HTTP/1.1\r\nHost: edge\r\n\r\n")
        time.sleep(0.5)
    time.sleep(0.5)
    set_routing("blue")
    time.sleep(0.5)
    assert requests_to("blue") == before, "what a client has given up goes to no slot"


def check_websocket() -> None:
    for name in ("blue", "green"):
        with socket.create_connection(("127.0.0.1", 8080), timeout=10) as stream:
            key = base64.b64encode(os.urandom(16)).decode()
            lines = [
                "GET /ws HTTP/1.1", "Host: edge", "Connection: Upgrade", "Upgrade: websocket",
                "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
                f"Authorization: {TESTER['Authorization']}", f"X-Bitnet-Slot: {name}",
            ]  # fmt: skip
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            head = stream.recv(4096).decode(errors="replace")
            assert head.startswith("HTTP/1.1 101 "), head
            assert re.search(rf"(?mi)^x-bitnet-slot: {name}\r$", head), head


def check_reload() -> None:
    set_routing("green", share=20)
    before = say("show info").split("Pid: ")[1].split()[0]
    answers: list[Answer] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(ask(TESTER))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    time.sleep(0.5)
    signal("USR2")
    time.sleep(4)
    stop.set()
    asking.join()
    assert say("show info").split("Pid: ")[1].split()[0] != before, "there is a new worker"
    assert {answer.status for answer in answers} == {200}, collections.Counter(answer.status for answer in answers)
    assert routing() == ["active green", "share 20", "hold 0"], routing()
    set_routing("blue")


def check_replaced() -> None:
    before = container()
    signal("KILL")
    deadline = time.monotonic() + 60
    while True:
        try:
            if container() not in ("", before) and routing() == ["active green", "share 30", "hold 1"]:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline, (container(), (FOLDER / "routing.map").read_text())
        time.sleep(0.2)
    assert (FOLDER / "routing.map").read_text() == "active green\nshare 30\nhold 1\n"
    held = ask(TESTER)
    assert held.status == 200 and held.cookie and held.seconds > HOLD_SECONDS - 0.5, held


def check_stripped() -> None:
    deadline = time.monotonic() + 60
    while True:
        answer = ask(TESTER, slot("green"))
        if answer.status == 200:
            break
        assert time.monotonic() < deadline, answer
    assert answer.slot == "green", "the edge says it, not the service"
    for who in (TESTER, OTHER, {}):
        got = json.loads(ask(who, slot("green"), {"X-Forwarded-For": "192.0.2.1"}).body)
        assert "x-bitnet-slot" not in got, got
        assert got["x-forwarded-for"] != "192.0.2.1", got
    assert ask(OTHER).slot is None


def check_taken() -> None:
    assert int(say("show info").split("Uptime_sec: ")[1].split()[0]) > 3, "nothing was restarted or reloaded for it"
    probe = {"Authorization": "Bearer " + Path("/var/lib/bitnet/environments/local/tokens/probe").read_text().strip()}
    assert routing() == ["active green", "share 0", "hold 0"], routing()
    assert ask(probe, slot("blue")).slot == "blue"
    before = requests_to("blue")
    assert ask(TESTER, slot("blue"))[:2] == (200, None)
    assert requests_to("blue") == before


if __name__ == "__main__":
    {
        "routing": lambda: [check_shares(), check_headers(), check_hold(), check_websocket(), check_reload()],
        "replaced": check_replaced,
        "stripped": check_stripped,
        "taken": check_taken,
        "back": lambda: set_routing("blue"),
    }[sys.argv[1]]()
