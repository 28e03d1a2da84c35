# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload's image as a container: a real engine, a real supervisor, the hardening that the service has."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from swarm_intelligence import gguf_check, synthetic
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TOKEN = "a-token-of-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
CONTEXT = 4096
LONG = {"prompt": "Hello", "max_tokens": 4000, "temperature": 1}


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached within {seconds} s"
        time.sleep(0.05)


class Container:
    def __init__(self, image: str, folder: Path, **variables: str) -> None:
        self.name = f"bitnet-test-workload-{uuid.uuid4().hex[:8]}"
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        tokens = folder / "tokens.json"
        tokens.write_text(json.dumps({"schema": 1, "tokens": {"tests": digest}}))
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = ["run", "--detach", "--name", self.name, "--label", "io.bitnet.owner=bitnet.devops.test"]
        command += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        command += ["--tmpfs", "/tmp:mode=1777", "--tmpfs", "/run/bitnet:uid=10001,gid=10001"]
        command += ["--volume", f"{folder}:/models:ro", "--volume", f"{tokens}:/run/secrets/bitnet_tokens:ro"]
        settings = {"BITNET_CONTEXT": str(CONTEXT), "BITNET_PARALLEL": "2", "BITNET_THREADS": "1"} | variables
        for name, value in settings.items():
            command += ["--env", f"{name}={value}"]
        docker(*command, image)
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = docker("inspect", "--format", address, self.name)
        self.url = f"http://{self.address}:8080"

    def remove(self) -> None:
        docker("rm", "--force", self.name, check=False)

    def logs(self) -> str:
        return docker("logs", self.name, check=False)

    def exit_code(self) -> int:
        return int(docker("wait", self.name))

    def python(self, program: str) -> str:
        return docker("exec", self.name, "/usr/bin/python3", "-c", program)

    def engine(self, path: str) -> dict[str, Any]:
        program = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8081{path}', timeout=20).read().decode())"
        )
        answer: dict[str, Any] = json.loads(self.python(program))
        return answer

    def busy_slots(self) -> int:
        return int(self.engine("/health")["slots_processing"])

    def get(self, path: str, authorized: bool = True) -> httpx.Response:
        return httpx.get(self.url + path, headers=AUTHORIZED if authorized else {}, timeout=20, trust_env=False)

    def post(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=AUTHORIZED, timeout=60, trust_env=False, **options)

    def ready(self) -> bool:
        try:
            return self.get("/ready", authorized=False).status_code == 200
        except httpx.TransportError:
            state = docker("inspect", "--format", "{{.State.Running}}", self.name)
            assert state == "true", self.logs()
            return False

    def websocket(self) -> Any:
        return connect(f"ws://{self.address}:8080/ws", additional_headers=AUTHORIZED, proxy=None, open_timeout=10)


@pytest.fixture(scope="module")
def image(workload_image: str) -> str:
    assert workload_image, "Set BITNET_TEST_IMAGE to a built swarm-intelligence image."
    return workload_image


@pytest.fixture
def start(image: str, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    made: list[Container] = []

    def begin(make_model: Callable[[Path], None] = synthetic.write, ready: bool = True, **variables: str) -> Container:
        model = tmp_path / "model.gguf"
        make_model(model)
        with contextlib.suppress(gguf_check.ModelError):
            gguf_check.write_record(model)
        container = Container(image, tmp_path, **variables)
        made.append(container)
        if ready:
            wait_until(container.ready, 180)
        return container

    yield begin
    for container in made:
        container.remove()


@pytest.fixture(scope="module")
def shared(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("shared")
    synthetic.write(folder / "model.gguf")
    gguf_check.write_record(folder / "model.gguf")
    container = Container(image, folder)
    try:
        wait_until(container.ready, 180)
        yield container
    finally:
        container.remove()


def events(text: str) -> list[str]:
    return [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]


def test_known_requests(shared):
    answer = shared.post("/v1/completions", {"prompt": "Hello", "max_tokens": 8, "temperature": 0}).json()
    again = shared.post("/v1/completions", {"prompt": "Hello", "max_tokens": 8, "temperature": 0}).json()
    assert answer["choices"][0]["text"] == again["choices"][0]["text"] != ""
    assert answer["usage"]["completion_tokens"] == 8
    chat = shared.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
    assert chat.json()["choices"][0]["message"]["content"]
    top = shared.post("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0, "logprobs": 20}).json()
    assert len(top["choices"][0]["logprobs"]["top_logprobs"][0]) >= 15


def test_what_runs_is_told_only_with_a_token(shared):
    assert shared.get("/api", authorized=False).json() == {"name": "bitnet"}
    api = shared.get("/api").json()
    assert api["model"]["name"] == "synthetic-1"
    assert len(api["model"]["sha256"]) == 64
    assert api["variant"]["name"].startswith("x86-64-")
    assert api["variant"]["reason"]
    assert f'variant="{api["variant"]["name"]}"' in shared.get("/metrics", authorized=False).text


def test_stream_and_sdk(shared):
    answer = shared.post("/v1/completions", {"prompt": "Hello", "max_tokens": 5, "stream": True})
    assert events(answer.text)[-1] == "[DONE]"
    client = OpenAI(base_url=shared.url + "/v1", api_key=TOKEN, max_retries=0)
    model = client.models.list().data[0].id
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert client.completions.create(model=model, prompt="Hi", max_tokens=3).usage.completion_tokens == 3


def test_websocket(shared):
    with shared.websocket() as ws:
        assert json.loads(ws.recv(10))["type"] == "ready"
        ws.send(json.dumps({"type": "generate", "id": "a", "prompt": "Hi", "max_tokens": 4}))
        kinds = []
        while not kinds or kinds[-1] == "token":
            kinds.append(json.loads(ws.recv(10))["type"])
        assert kinds[-1] == "done"
        ws.send(json.dumps({"type": "generate", "id": "b", **LONG}))
        assert json.loads(ws.recv(10))["type"] == "token"
        ws.send(json.dumps({"type": "cancel", "id": "b"}))
        while (message := json.loads(ws.recv(10)))["type"] == "token":
            pass
        assert message["finish_reason"] == "cancelled"
    wait_until(lambda: shared.busy_slots() == 0, 10)


def test_refusals(shared):
    assert shared.get("/v1/models", authorized=False).status_code == 401
    assert shared.post("/v1/completions", {"prompt": 1}).status_code == 400
    assert shared.post("/v1/completions", {"prompt": "x" * 2_000_000}).status_code == 413
    too_long = shared.post("/v1/completions", {"prompt": "hello " * CONTEXT})
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_prompts_of_all_lengths_at_once_leave_the_engine_alive(shared):
    def ask(length: int) -> int:
        return shared.post("/v1/completions", {"prompt": "lo " * length, "max_tokens": length % 7 + 1}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, [1, 300, 40, 110, 7, 600, 64, 65, 63, 128, 2, 250] * 2)) == {200}
    assert shared.get("/api").json()["engine"]["restarts"] == 0


def test_prompts_without_text(shared):
    for prompt in ("", "\0", " ", "\U0001f600", "<|begin|>"):
        assert shared.post("/v1/completions", {"prompt": prompt, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_the_engines_slot(shared, stream):
    wait_until(lambda: shared.busy_slots() == 0, 10)
    body = json.dumps({**LONG, "stream": stream}).encode()
    with socket.create_connection((shared.address, 8080)) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: shared.busy_slots() == 1, 10)
    began = time.monotonic()
    wait_until(lambda: shared.busy_slots() == 0, 3)
    assert time.monotonic() - began < 3
    assert shared.get("/api").json()["load"]["running"] == 0


def test_fuzz(shared, tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", shared.url + "/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
    command += ["--max-examples", "10", "--checks", "not_a_server_error", "--mode", "all", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--request-timeout", "60"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stdout[-6000:]
    assert shared.get("/api").json()["engine"]["restarts"] == 0


def not_utf8(path: Path) -> None:
    """The synthetic model, its words renamed to bytes that are no UTF-8."""
    synthetic.write(path)
    data = path.read_bytes()
    letters = synthetic.byte_alphabet()
    words = [token for token in synthetic.vocabulary()[0] if len(token) == 5 and len(token.encode()) == 6]
    assert len(words) > 200
    for number, word in enumerate(words):
        name = letters[0xFF] + letters[0x80 + number // 100] + letters[0x80 + number % 100]
        size = struct.pack("<Q", 6)
        assert data.count(size + word.encode()) == 1
        data = data.replace(size + word.encode(), size + name.encode())
    path.write_bytes(data)


def test_a_model_that_writes_no_utf8(start):
    container = start(not_utf8)
    refused = container.python(
        "import json, urllib.request as r, urllib.error as e\n"
        "body = dict(prompt='Hi', n_predict=16)\n"
        "q = r.Request('http://127.0.0.1:8081/completion', json.dumps(body).encode())\n"
        "try: print(r.urlopen(q, timeout=60).status)\n"
        "except e.HTTPError as error: print(error.code)"
    )
    assert refused == "500", "the engine's own answer is the reason for this test"
    body = {"prompt": "Hi", "max_tokens": 16}
    whole = container.post("/v1/completions", body)
    assert whole.status_code == 200
    assert "\ufffd" in whole.json()["choices"][0]["text"]
    stream = container.post("/v1/completions", {**body, "stream": True})
    assert "\\ufffd" in stream.text
    assert events(stream.text)[-1] == "[DONE]"
    chat = container.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 16})
    assert chat.status_code == 200


def test_a_killed_engine_comes_back_and_is_counted(start):
    container = start()
    answer: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answer.append(container.post("/v1/completions", LONG)))
    asking.start()
    wait_until(lambda: container.busy_slots() == 1, 10)
    container.python(
        "import os, pathlib\n"
        "[os.kill(int(p.name), 9) for p in pathlib.Path('/proc').iterdir() if p.name.isdigit()"
        " and b'llama-server' in (p / 'cmdline').read_bytes().split(b'\\0')[0]]"
    )
    asking.join(30)
    assert (answer[0].status_code, answer[0].json()["error"]["code"]) == (503, "engine_lost")
    wait_until(container.ready, 180)
    assert container.get("/api").json()["engine"] == {"ready": True, "restarts": 1}
    assert "bitnet_engine_restarts_total 1.0" in container.get("/metrics").text
    assert container.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2}).status_code == 200


def test_sigterm_lets_streams_finish_and_announces(start):
    container = start(BITNET_GRACE_SECONDS="120", BITNET_CONTEXT="16384")
    with container.websocket() as first, container.websocket() as second:
        for ws in (first, second):
            assert json.loads(ws.recv(10))["type"] == "ready"
        with (
            httpx.Client(base_url=container.url, headers=AUTHORIZED, timeout=60, trust_env=False) as client,
            # Long enough that it still runs when the others have been asked, on a busy machine too.
            client.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 3000, "stream": True}) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container.name)), signal.SIGTERM)
            wait_until(lambda: container.get("/ready", authorized=False).status_code == 503, 5)
            refused = container.post("/v1/completions", {"prompt": "Hi"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["retry-after"]
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason": "length"' in rest[-2]
        for ws in (first, second):
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(timeout=20)
            assert closed.value.rcvd.code == 1012
    assert container.exit_code() == 0
    assert TOKEN not in container.logs()
    for line in container.logs().splitlines():
        json.loads(line)


def test_sigterm_cuts_at_the_end_of_its_grace(start):
    container = start(BITNET_GRACE_SECONDS="1", BITNET_CONTEXT="16384")
    with (
        httpx.Client(base_url=container.url, headers=AUTHORIZED, timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 16000, "stream": True}) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        began = time.monotonic()
        os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container.name)), signal.SIGTERM)
        rest = [line for line in lines if line]
    assert json.loads(rest[-2][6:])["error"]["code"] == "draining"
    assert rest[-1] == "data: [DONE]"
    assert container.exit_code() == 0
    assert time.monotonic() - began < 15


def test_a_cpu_below_every_variant(start, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse2\n")
    container = start(ready=False, BITNET_CPUINFO="/models/cpuinfo")
    assert container.exit_code() == os.EX_UNAVAILABLE
    assert "This CPU runs none of the image's kernel variants" in container.logs()
    assert "avx2" in container.logs()


def test_a_variant_that_this_cpu_cannot_run(start):
    flags = Path("/proc/cpuinfo").read_text()
    if "avx512_vnni" in flags:
        pytest.skip("this CPU runs every variant that the tests build")
    container = start(ready=False, BITNET_VARIANT="x86-64-v4-vnni")
    assert container.exit_code() in (os.EX_UNAVAILABLE, os.EX_CONFIG)
    assert "x86-64-v4-vnni" in container.logs()


def test_a_cpuinfo_that_lies_meets_a_sentence_and_not_sigill(start, tmp_path):
    flags = "avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni"
    real = Path("/proc/cpuinfo").read_text()
    if "avx512_vnni" in real:
        pytest.skip("this CPU has what the lie claims")
    (tmp_path / "cpuinfo").write_text(real.replace("avx2", f"avx2 {flags}"))
    container = start(ready=False, BITNET_CPUINFO="/models/cpuinfo", BITNET_LOG_LEVEL="info")
    wait_until(container.ready, 300)
    variant = container.get("/api").json()["variant"]
    assert variant["name"] == "x86-64-v3"


@pytest.mark.parametrize("kind", ["truncated", "raw", "garbage"])
def test_a_model_that_cannot_be_served(start, kind):
    def make(path: Path) -> None:
        synthetic.write(path, kind="i2_s" if kind == "raw" else "iq2_bn")
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-5000])
        if kind == "garbage":
            path.write_bytes(b"<html>")

    container = start(make, ready=False)
    assert container.exit_code() == os.EX_DATAERR
    assert "BITNET_MODEL='/models/model.gguf'" in container.logs()
