# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate against an edge that misbehaves: a local HTTP server, a local socket, and commands that hang."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._traffic import probe
from ansible_collections.bitnet.devops.plugins.modules import traffic_gate

TOKEN = "a-token-of-a-tester-0123456789"
COMPLETION = json.dumps({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """An edge whose two slots behave as the test says: each is a function that takes the handler."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_unused):
        pass

    def answer(self, status=200, body=COMPLETION, slot=None, length=None):
        self.send_response(status)
        name = self.headers["X-Bitnet-Slot"] if slot is None else slot
        if name:
            self.send_header("X-Bitnet-Slot", name)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, b"no", slot="")
            return
        self.server.slots[self.headers["X-Bitnet-Slot"]](self)

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients go on purpose


@pytest.fixture
def edge():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.slots = {"blue": Handler.answer, "green": Handler.answer}
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "probe"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def run(capsys, edge, token_file):
    """Run the module; give back what it prints."""

    def run_module(check_mode=False, **arguments):
        arguments = {"name": "it", "slot": "green", "deadline": 10, "token_file": str(token_file), **arguments}
        arguments.setdefault("url", f"http://127.0.0.1:{edge.server_address[1]}")
        arguments = {name: value for name, value in arguments.items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            traffic_gate.main()
        printed = capsys.readouterr().out
        assert TOKEN not in printed
        result = json.loads(printed)
        assert not result.get("changed")
        return result

    return run_module


def cut(handler):
    handler.answer(length=5000)
    handler.close_connection = True


def cut_chunk(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"ff\r\nx")
    handler.close_connection = True


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def drip(handler):
    """Never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _unused in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.05)


def garbage(handler):
    handler.wfile.write(b"this is no HTTP\r\n\r\n")
    handler.close_connection = True


def status(number, **more):
    return lambda handler: handler.answer(number, b"it says why", **more)


def after(tries, before, then=Handler.answer):
    """Misbehaves for the first requests."""
    seen = []

    def answer(handler):
        seen.append(1)
        (before if len(seen) <= tries else then)(handler)

    return answer


def slow(seconds, then=Handler.answer):
    def answer(handler):
        time.sleep(seconds)
        then(handler)

    return answer


def test_healthy_asks_the_slot_by_name_and_with_the_token(run, edge):
    result = run(kind="healthy")
    assert (result["verdict"], result["figures"]) == ("pass", {"/health": 200, "/ready": 200})
    assert [path for _method, path, _headers in edge.seen] == ["/health", "/ready"]
    assert {headers["X-Bitnet-Slot"] for _method, _path, headers in edge.seen} == {"green"}


def test_healthy_waits_for_a_slot_that_is_not_ready_yet(run, edge):
    edge.slots["green"] = after(2, status(503))
    assert run(kind="healthy")["verdict"] == "pass"
    assert len(edge.seen) == 4


@pytest.mark.parametrize(
    ("slot", "verdict", "says"),
    [
        (status(503), "fail", "status 503 from green: it says why"),
        (status(500), "fail", "status 500"),
        (status(200, slot="blue"), "inconclusive", "slot blue answered in its place"),
        (status(200, slot=""), "inconclusive", "did not say which slot answered"),
        (hang_up, "fail", "the answer was cut"),
        (cut, "fail", "bytes are missing"),
        (cut_chunk, "fail", "the answer was cut (IncompleteRead"),
        (garbage, "fail", "the answer was cut (BadStatusLine"),
        (drip, "inconclusive", "no result within 1.5 s"),
        (slow(5), "inconclusive", "no result within 1.5 s"),
    ],
    ids=["503", "500", "other", "nameless", "hang-up", "cut", "chunk", "garbage", "drip", "slow"],
)
@pytest.mark.parametrize("kind", ["healthy", "token"])
def test_a_slot_that_misbehaves_does_not_pass(run, edge, kind, slot, verdict, says):
    edge.slots["green"] = slot
    begin = time.monotonic()
    result = run(kind=kind, deadline=1.5)
    assert time.monotonic() - begin < 2.5
    assert (result["failed"], result["verdict"]) == (True, verdict), result
    assert says in result["reason"], result["reason"]
    for part in ("gate it", verdict, result["reason"], "docker service logs --tail 100 bitnet-local-green"):
        assert part in result["msg"]


def test_an_edge_that_is_not_there_is_inconclusive(run):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        result = run(kind="healthy", deadline=1, url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert (result["verdict"], "took no request" in result["reason"]) == ("inconclusive", True), result


def test_a_verdict_that_is_not_required_is_returned(run, edge):
    edge.slots["green"] = status(500)
    result = run(kind="token", required=False)
    assert "failed" not in result and (result["verdict"], result["figures"]["status"]) == ("fail", 500)


def test_token_asks_for_one_token(run, edge):
    bodies = []

    def answer(handler):
        bodies.append(json.loads(handler.body))
        handler.answer()

    edge.slots["green"] = after(1, status(429), answer)
    result = run(kind="token")
    assert (result["verdict"], result["figures"]["tokens"], bodies[0]["max_tokens"]) == ("pass", 1, 1)


def test_a_token_that_the_edge_does_not_know_says_nothing_about_the_slot(run, token_file):
    token_file.write_text("another-token-0123456789\n")
    result = run(kind="token")
    assert (result["verdict"], "status 401" in result["reason"]) == ("inconclusive", True)


def test_an_answer_that_repeats_the_token_does_not_show_it(run, edge):
    edge.slots["green"] = lambda handler: handler.answer(500, handler.headers["Authorization"].encode())
    assert run(kind="token")["verdict"] == "fail"  # run() looks for the token


def test_compare_asks_both_in_turns(run, edge):
    result = run(kind="compare", requests=6, min_latency_ms=5000)
    assert (result["verdict"], result["figures"]["asked"]) == ("pass", 6), result
    assert result["figures"]["slot"]["requests"] == result["figures"]["baseline"]["requests"] == 6
    order = [headers["X-Bitnet-Slot"] for _method, _path, headers in edge.seen]
    assert order == ["green", "blue", "blue", "green"] * 3


def test_compare_with_several_at_once(run, edge):
    edge.slots = {"blue": slow(0.1), "green": slow(0.1)}
    result = run(kind="compare", requests=20, concurrency=8, min_latency_ms=5000)
    assert result["verdict"] == "pass" and result["seconds"] < 3, "one after the other would take 4 s"
    assert len(edge.seen) == 40


@pytest.mark.parametrize(
    ("green", "blue", "options", "verdict", "says"),
    [
        (slow(0.6), Handler.answer, {}, "fail", "a ratio of"),
        (slow(0.3), Handler.answer, {"min_latency_ms": 3000}, "pass", "counts as noise"),
        (Handler.answer, slow(0.3), {}, "pass", "a ratio of"),
        (status(500), Handler.answer, {}, "fail", "20 of 20 requests to green failed"),
        (after(1, hang_up), Handler.answer, {"max_error_ratio": 0.2, "min_latency_ms": 5000}, "pass", "1 of 20"),
        (after(1, hang_up), Handler.answer, {}, "fail", "1 of 20"),
        (Handler.answer, status(503), {}, "inconclusive", "0 answers of blue"),
        (Handler.answer, status(503), {"max_latency_ratio": 0}, "pass", "latency was not judged"),
        (status(200, slot="blue"), Handler.answer, {}, "inconclusive", "only 0 of 20"),
        (slow(9), Handler.answer, {"deadline": 1}, "inconclusive", "no result within 1 s"),
    ],
)
def test_compare_judges(run, edge, green, blue, options, verdict, says):
    edge.slots = {"green": green, "blue": blue}
    result = run(kind="compare", requests=20, concurrency=4, required=False, **options)
    assert (result["verdict"], says in result["reason"]) == (verdict, True), result


# ---------------------------------------------------------------------------- the edge's socket


class Runtime:
    """HAProxy's socket: each look at the statistics counts more."""

    def __init__(self, path, requests, errors, reload=False):
        self.looks, self.requests, self.errors, self.reload = 0, requests, errors, reload
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                command = connection.recv(100).decode().strip()
                if command == "show info":
                    answer = f"Name: HAProxy\nPid: {self.looks if self.reload else 7}\n"
                else:
                    answer = "# pxname,svname,act,hrsp_2xx,hrsp_5xx,econ,eresp,\n"
                    answer += f"green,BACKEND,1,{self.looks * self.requests},{self.looks * self.errors},0,0,\n"
                    self.looks += 1
                connection.sendall(answer.encode() + b"\n")
                connection.close()


@pytest.fixture
def state_dir():
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:  # pytest's own is too deep for the path of a socket
        yield Path(folder)


@pytest.fixture
def state(state_dir):
    folder = state_dir / "environments" / "local" / "edge"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"requests": 100, "errors": 0}, "pass"),
        ({"requests": 95, "errors": 5}, "fail"),
        ({"requests": 0, "errors": 0}, "inconclusive"),
        ({"requests": 100, "errors": 0, "reload": True}, "inconclusive"),
    ],
)
def test_watch(run, state_dir, state, counts, verdict):
    Runtime(state / "haproxy.sock", **counts)
    result = run(kind="watch", seconds=1, state_dir=str(state_dir), token_file=None, required=False)
    assert result["verdict"] == verdict, result
    assert 1 <= result["seconds"] < 3


def test_watch_without_an_edge(run, tmp_path):
    result = run(kind="watch", seconds=1, state_dir=str(tmp_path))
    assert (result["verdict"], "bitnet-local-edge' shows" in result["msg"]) == ("inconclusive", True)


def test_a_socket_that_hangs_meets_the_deadline(run, state_dir, state):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(state / "haproxy.sock"))
        silent.listen()
        result = run(kind="watch", seconds=1, deadline=1.5, state_dir=str(state_dir))
    assert result["verdict"] == "inconclusive" and result["seconds"] < 3, result


# ---------------------------------------------------------------------------- commands


@pytest.mark.parametrize(("code", "verdict"), [(0, "pass"), (4, "inconclusive"), (3, "fail"), (1, "fail")])
def test_command(run, code, verdict):
    result = run(kind="command", argv=["sh", "-c", f"echo it said; exit {code}"], required=False)
    assert (result["verdict"], result["figures"]) == (verdict, {"status": code})
    assert "it said" in result["reason"]


def test_a_command_is_not_run_in_check_mode(run, tmp_path):
    result = run(kind="command", argv=["touch", str(tmp_path / "made")], check_mode=True)
    assert (result["verdict"], "failed" in result) == ("skipped in check mode", False)
    assert not (tmp_path / "made").exists()


def test_a_command_that_never_returns_is_killed_with_its_children(run, tmp_path):
    script = f"echo begun; sleep 300 & echo $! > {tmp_path}/child; wait"
    result = run(kind="command", argv=["sh", "-c", script], deadline=1)
    assert (result["verdict"], result["reason"]) == ("inconclusive", "no result within 1 s; seen last: begun")
    child = int((tmp_path / "child").read_text())
    for _unused in range(50):
        try:
            with open(f"/proc/{child}/stat", encoding="ascii") as file:  # noqa: PTH123
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child of the command lives on")


def test_a_command_that_leaves_a_child_behind_is_judged_at_once(run):
    result = run(kind="command", argv=["sh", "-c", "sleep 20 & exit 0"])
    assert result["verdict"] == "pass" and result["seconds"] < 5


# ---------------------------------------------------------------------------- described wrongly


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "healthy", "url": "localhost:8080"}, "url: 'localhost:8080' is no address"),
        ({"kind": "healthy", "url": "http://x:99999"}, "has no port that is one"),
        ({"kind": "healthy", "token_file": "/nonexistent"}, "token_file: /nonexistent cannot be read"),
        ({"kind": "healthy", "token_file": None}, "missing: token_file"),
        ({"kind": "healthy", "slot": "red"}, "value of slot must be one of"),
        ({"kind": "token", "slot": None}, "missing: slot"),
        ({"kind": "compare", "requests": 0}, "requests: 0 is not between 1 and 1000"),
        ({"kind": "compare", "concurrency": 99}, "concurrency: 99 is not between 1 and 16"),
        ({"kind": "compare", "max_error_ratio": 1.5}, "max_error_ratio: 1.5 is not between 0 and 1"),
        ({"kind": "compare", "max_latency_ratio": 0.5}, "give 1 or more, or 0"),
        ({"kind": "compare", "baseline": "green"}, "compared with itself"),
        ({"kind": "watch", "seconds": 30, "deadline": 20}, "does not end within a deadline of 20 s"),
        ({"kind": "command"}, "missing: argv"),
        ({"kind": "command", "argv": []}, "argv"),
        ({"kind": "command", "argv": ["/nonexistent"]}, "argv: '/nonexistent' cannot be run"),
        ({"kind": "healthy", "deadline": 0}, "deadline: 0 is not between 1"),
    ],
)
def test_what_is_described_wrongly_fails_even_if_it_is_not_required(run, edge, arguments, says):
    result = run(required=False, **arguments)
    assert result["failed"] and says in result["msg"], result["msg"]
    assert edge.seen == []


def test_a_token_that_others_may_read_is_refused(run, token_file):
    token_file.chmod(0o644)
    assert "others may read" in run(kind="healthy")["msg"]
    token_file.chmod(0o600)
    token_file.write_text("two tokens\n")
    assert "does not hold one token" in run(kind="healthy")["msg"]


def test_pairs_stop_at_the_deadline():
    asked = []
    begin = time.monotonic()
    probe.pairs(lambda number: (asked.append(number), time.sleep(0.1)), 1000, 4, probe.Deadline(0.5))
    assert time.monotonic() - begin < 2 and 4 <= len(asked) <= 30


def test_the_documentation_describes_every_option():
    documented = traffic_gate.DOCUMENTATION
    assert all(f"\n  {option}:" in documented for option in traffic_gate.argument_spec())
