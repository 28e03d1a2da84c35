# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor as a process of its own, with a stand-in for llama-server that fails as it is told."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from api_lab import AUTHORIZED, TOKEN, wait_until
from swarm_intelligence import synthetic
from swarm_intelligence.engine_run import free_port

FLAGS = "avx2 fma f16c bmi2"
ENGINE = '''#!{python}
"""Fault injector in place of llama-server: answers one token, or does what the file beside it says."""
import http.server, os, pathlib, sys, time
fault = pathlib.Path(__file__).with_name("fault").read_text().strip()
print("variant", os.environ["LD_LIBRARY_PATH"], flush=True)
if fault == "exit":
    sys.exit("cannot load the model")
if fault == "sigill":
    os.kill(os.getpid(), 4)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        pathlib.Path(__file__).with_name("asked").touch()
        if fault == "empty":
            body = b'data: {{"content":"","stop":true,"tokens_evaluated":1,"tokens_predicted":0}}\\n\\n'
            self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
            self.wfile.write(body)
            return
        if fault == "mute":
            time.sleep(600)
        body = b'data: {{"content":"x","stop":false}}\\n\\ndata: {{"content":"","stop":true,"tokens_evaluated":1,"tokens_predicted":1}}\\n\\n'.replace(b" ", b"").replace(b"data:", b"data: ")
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
'''  # noqa: E501


class Container:
    """A supervisor's surroundings: kernels, model, tokens, environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        engine = folder / "kernels" / "bin" / "llama-server"
        engine.parent.mkdir(parents=True)
        engine.write_text(ENGINE.format(python=sys.executable))
        engine.chmod(0o755)
        self.fault("none")
        self.variants({"x86-64-v3": (FLAGS, 3, True)})
        self.cpu(FLAGS)
        synthetic.write(folder / "model.gguf", layers=1)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        (folder / "tokens").write_text(json.dumps({"schema": 1, "tokens": {"tests": digest}}))
        self.process: subprocess.Popen[str] | None = None

    def fault(self, name: str) -> None:
        (self.folder / "kernels" / "bin" / "fault").write_text(name)

    def cpu(self, flags: str) -> None:
        (self.folder / "cpuinfo").write_text(f"processor: 0\nflags\t: {flags}\n")

    def variants(self, entries: dict[str, tuple[str, int, bool]]) -> None:
        variants = {
            name: {"requires": requires.split(), "rank": rank, "verified": {"run": {"ran": ran}}}
            for name, (requires, rank, ran) in entries.items()
        }
        (self.folder / "kernels" / "manifest.json").write_text(json.dumps({"schema": 1, "variants": variants}))

    def start(self, **variables: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "src"),
            "BITNET_KERNELS": str(self.folder / "kernels"),
            "BITNET_MODEL": str(self.folder / "model.gguf"),
            "BITNET_TOKENS_FILE": str(self.folder / "tokens"),
            "BITNET_CPUINFO": str(self.folder / "cpuinfo"),
            "BITNET_ENGINE_PORT": str(free_port()),
            "BITNET_GRACE_SECONDS": "2",
            **variables,
        }
        command = [sys.executable, "-m", "swarm_intelligence.orchestrator", "--api-port", str(self.port)]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def log(self) -> list[dict[str, object]]:
        lines = (self.folder / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def messages(self) -> str:
        return "\n".join(str(line["message"]) for line in self.log())

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, headers=AUTHORIZED, timeout=5, trust_env=False)
        except httpx.TransportError:
            return None

    def ready(self) -> bool:
        answer = self.get("/ready")
        return answer is not None and answer.status_code == 200

    def children(self) -> list[int]:
        assert self.process is not None
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def engine_pid(self) -> int:
        for pid in self.children():
            try:
                if b"llama-server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except FileNotFoundError:  # it ended after it was listed
                continue
        return 0


@pytest.fixture
def container(tmp_path):
    container = Container(tmp_path)
    yield container
    if container.process is not None:
        container.end()


def test_serves_and_ends_on_sigterm(container):
    container.start()
    wait_until(container.ready, 30)
    api = container.get("/api").json()
    assert api["variant"] == {"name": "x86-64-v3", "reason": "the only one that this CPU runs"}
    answer = httpx.post(container.url + "/v1/completions", json={"prompt": "Hi"}, headers=AUTHORIZED, trust_env=False)
    assert answer.json()["choices"][0]["text"] == "x"
    children = container.children()
    assert len(children) == 2
    assert container.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert TOKEN not in (container.folder / "log").read_text()


def test_a_killed_engine_is_restarted_and_counted(container):
    container.start()
    wait_until(container.ready, 30)
    for killed in (1, 2):
        pid = container.engine_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda old=pid: container.engine_pid() not in (0, old), 30)
        wait_until(container.ready, 30)
        assert container.get("/api").json()["engine"] == {"ready": True, "restarts": killed}
        assert f"bitnet_engine_restarts_total {killed}.0" in container.get("/metrics").text
    waits = [line["in_seconds"] for line in container.log() if line["message"] == "engine restarts"]
    assert waits == [0.5, 1.0]


def test_an_engine_that_never_starts_ends_the_container_with_its_words(container):
    container.fault("exit")
    container.start()
    assert container.process.wait(60) == os.EX_SOFTWARE
    assert "failed to start 5 times" in container.messages()
    assert "cannot load the model" in container.messages()


@pytest.mark.parametrize("fault", ["mute", "empty"])
def test_an_engine_that_is_well_and_generates_nothing_is_not_ready(container, fault):
    """/health of the engine says that it listens; that it computes, only a token does."""
    container.fault(fault)
    container.start()
    asked = container.folder / "kernels" / "bin" / "asked"
    wait_until(asked.exists, 30)  # it was well, and so it was asked for a token
    wait_until(lambda: container.get("/ready") is not None, 30)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        answer = container.get("/ready")
        assert answer is not None
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_ready"
        time.sleep(0.2)
    assert container.get("/health").status_code == 200
    assert container.get("/api").json()["engine"]["ready"] is False


def test_a_cpu_below_every_variant(container):
    container.cpu("sse4_2 fma")
    container.start()
    assert container.process.wait(30) == os.EX_UNAVAILABLE
    assert "x86-64-v3 needs avx2 bmi2 f16c" in container.messages()


def test_the_choice_and_its_reason_are_told(container):
    v4 = FLAGS + " avx512f"
    container.variants({"low": ("fma", 1, True), "x86-64-v3": (FLAGS, 3, True), "x86-64-v4": (v4, 4, True)})
    container.start()
    wait_until(container.ready, 30)
    reason = "the best of 2 that this CPU runs; x86-64-v4 needs avx512f"
    assert container.get("/api").json()["variant"] == {"name": "x86-64-v3", "reason": reason}
    found = [line for line in container.get("/metrics").text.splitlines() if line.startswith("bitnet_kernel_variant")]
    assert len(found) == 1 and found[0].endswith(" 1.0")
    assert 'variant="x86-64-v3"' in found[0] and f'reason="{reason}"' in found[0]
    container.end()
    container.start(BITNET_VARIANT="low")
    wait_until(container.ready, 30)
    assert container.get("/api").json()["variant"] == {"name": "low", "reason": "set by BITNET_VARIANT"}
    assert 'reason="set by BITNET_VARIANT"' in container.get("/metrics").text


def test_a_cpu_of_which_nothing_is_known(container):
    container.cpu("")
    container.start()
    assert container.process.wait(30) == os.EX_UNAVAILABLE
    assert "The CPU's features are not known" in container.messages()
    assert "set BITNET_CPUINFO" in container.messages()


def test_an_unproven_variant_that_fails_its_check_is_passed_over(container):
    container.variants({"x86-64-v3": (FLAGS, 3, True), "x86-64-v4-vnni": (FLAGS + " avx512f", 4, False)})
    container.cpu(FLAGS + " avx512f")
    container.start()  # the stand-in for the engine has no right answer to give
    wait_until(container.ready, 60)
    variant = container.get("/api").json()["variant"]
    assert variant["name"] == "x86-64-v3"
    assert variant["reason"] == (
        "the only one that this CPU runs; x86-64-v4-vnni failed its known-answer run (see the log)"
    )
    assert any(line["message"] == "variant refused" and line["problem"] for line in container.log())


def test_no_variant_that_computes_right(container):
    container.variants({"x86-64-v3": (FLAGS, 3, False)})
    container.fault("sigill")
    container.start()
    assert container.process.wait(60) == os.EX_SOFTWARE
    assert "No variant that this CPU can run computes right" in container.messages()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>not found</html>"])
def test_a_model_that_cannot_be_served(container, content):
    (container.folder / "model.gguf").write_bytes(content)
    container.start()
    assert container.process.wait(30) == os.EX_DATAERR
    assert "BITNET_MODEL" in container.messages()


def test_a_raw_i2s_model(container):
    synthetic.write(container.folder / "model.gguf", layers=1, kind="i2_s")
    container.start()
    assert container.process.wait(30) == os.EX_DATAERR
    assert "I2_S" in container.messages()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BITNET_TOKENS_FILE": "/nonexistent"}, "BITNET_TOKENS_FILE='/nonexistent'"),
        ({"BITNET_KERNELS": "/nonexistent"}, "BITNET_KERNELS='/nonexistent'"),
        ({"BITNET_PARALLEL": "many"}, "BITNET_PARALLEL='many'"),
        ({"BITNET_VARIANT": "z80"}, "BITNET_VARIANT='z80'"),
    ],
)
def test_wrong_settings(container, variables, words):
    container.start(**variables)
    assert container.process.wait(30) == os.EX_CONFIG
    assert words in container.messages()


def test_a_port_that_is_taken(container):
    with socket.create_server(("", container.port)):
        container.start()
        assert container.process.wait(60) == os.EX_SOFTWARE
    assert "api-server ended by itself" in container.messages()
