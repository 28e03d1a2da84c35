# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bitnet-cli with the real engine, in the image that is deployed: what it proves, and what it finds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KERNELS = "/opt/bitnet/kernels"
PYTHON = "/opt/bitnet/venv/bin/python"
TOKEN = "a token of the tests"

SPOIL = (Path(__file__).parents[1] / "lab" / "spoil.py").read_text()


class Container:
    """A container of the image that only waits; commands run in it as the image's own user."""

    def __init__(self, image: str) -> None:
        self.name = f"bitnet-test-cli-{uuid.uuid4().hex[:8]}"
        subprocess.run(
            [
                *("docker", "run", "--detach", "--name", self.name, "--network", "none", "--no-healthcheck"),
                *("--env", "BITNET_MODEL=/tmp/served/model.gguf", "--env", "BITNET_TOKENS_FILE=/tmp/tokens"),
                *("--env", "BITNET_CONTEXT=512", image, "sleep", "1800"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def run(self, *command: str, stdin: str = "", timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", "--interactive", self.name, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def cli(self, *arguments: str) -> tuple[int, Any, str]:
        """Exit code, JSON document, stderr."""
        done = self.run("bitnet-cli", *arguments, "--json")
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def ok(self, *arguments: str) -> Any:
        code, document, error = self.cli(*arguments)
        assert code == 0, f"{arguments}: {document} {error}"
        return document

    def spoil(self, *arguments: str) -> str:
        done = self.run(PYTHON, "-", *arguments, stdin=SPOIL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self) -> None:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", self.name], capture_output=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def container(workload_image: str) -> Iterator[Container]:
    made = Container(workload_image)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def model(container: Container) -> str:
    container.ok("model", "synthetic", "--output", "/tmp/synthetic/model.gguf")
    return "/tmp/synthetic/model.gguf"


@pytest.fixture(scope="module")
def runnable(container: Container) -> str:
    """The best variant that this CPU runs."""
    done = container.run("cat", f"{KERNELS}/manifest.json", "/proc/cpuinfo")
    manifest, end = json.JSONDecoder().raw_decode(done.stdout)
    flags = set(done.stdout[end:].split())
    names = [name for name, entry in manifest["variants"].items() if set(entry["requires"]) <= flags]
    assert names, "this CPU runs no variant of the image; these tests need an x86-64-v3 CPU"
    return max(names, key=lambda name: manifest["variants"][name]["rank"])


def test_synthetic_model_is_the_same_here(container: Container, model: str) -> None:
    again = container.ok("model", "synthetic", "--output", "/tmp/again/model.gguf")
    assert again["sha256"] == json.loads(container.run("cat", "/tmp/synthetic/model.json").stdout)["sha256"]


def test_every_variant_that_runs_agrees(container: Container, runnable: str) -> None:
    verdicts = container.ok("kernels", "verify", "--kernels", KERNELS)
    assert verdicts[runnable]["ran"]
    for name, verdict in verdicts.items():
        if verdict["ran"]:
            assert verdict["passed"], f"{name}: {verdict}"
            assert verdict["cosine"] >= 0.999
            assert verdict["relative_l2"] < 0.02
        else:
            assert "this CPU lacks" in verdict["reason"]


@pytest.mark.parametrize("tensor", ["blk.0.attn_k.weight", "blk.3.ffn_down.weight"])
def test_wrong_computation_is_caught(container: Container, model: str, runnable: str, tensor: str) -> None:
    """The engine is given the model with one tensor's scale negative, the reference the right one."""
    container.spoil("scales", model, "/tmp/wrong.gguf", tensor)
    arguments = ["--kernels", KERNELS, "--variant", runnable, "--model", "/tmp/wrong.gguf", "--reference", model]
    code, verdict, _unused = container.cli("kernels", "verify", *arguments)
    assert code == 1
    assert verdict["ran"]
    assert not verdict["passed"]
    assert verdict["relative_l2"] > 0.02


def test_cpu_below_a_variant_is_no_sigill(container: Container, runnable: str) -> None:
    arguments = ["--kernels", KERNELS, "--variant", runnable, "--requires", "avx4096"]
    code, verdict, _unused = container.cli("kernels", "verify", *arguments)
    assert code == 4
    assert (verdict["ran"], verdict["reason"]) == (False, "this CPU lacks avx4096")


def test_raw_i2s_is_refused_converted_verified_and_served(container: Container, runnable: str) -> None:
    raw, served = "/tmp/raw/model.gguf", "/tmp/served/model.gguf"
    container.ok("model", "synthetic", "--type", "i2_s", "--seed", "3", "--output", raw)
    code, _unused, error = container.cli("model", "check", raw)
    assert code == 1
    assert "bitnet-cli model convert" in error

    record = container.ok(
        "model", "convert", "--kernels", KERNELS, "--input", raw, "--output", served, "--name", "three"
    )
    assert (record["name"], record["type"]) == ("three", "iq2_bn_r4")
    # NumPy reads the I2_S file, the engine the converted one.
    arguments = ["--kernels", KERNELS, "--variant", runnable, "--model", served, "--reference", raw]
    assert container.ok("kernels", "verify", *arguments)["passed"]

    tokens = {"schema": 1, "tokens": {"tests": hashlib.sha256(TOKEN.encode()).hexdigest()}}
    container.run("sh", "-c", "cat > /tmp/tokens", stdin=json.dumps(tokens))
    container.run("sh", "-c", "cat > /tmp/token", stdin=TOKEN)
    container.run("sh", "-c", "(swarm-orchestrator --api-port 8080 > /tmp/log 2>&1 & echo $! > /tmp/pid)")
    answer = ["answer", "--url", "http://127.0.0.1:8080", "--token-file", "/tmp/token", "--expect"]
    try:
        code, finding, _unused = wait_for_verdict(container, [*answer, "/tmp/served/model.json"])
        assert (code, finding["verdict"]) == (0, "pass"), f"{finding} {container.run('tail', '-20', '/tmp/log').stdout}"
        # The same slot, held against the answers of another model.
        container.ok("model", "synthetic", "--seed", "4", "--output", "/tmp/other/model.gguf")
        code, finding, _unused = container.cli(*answer, "/tmp/other/model.json")
        assert (code, finding["verdict"]) == (1, "fail"), finding
    finally:
        container.run("sh", "-c", "kill $(cat /tmp/pid)")


JARGON = "/opt/bitnet/models/jargon"
HELD_OUT = ["--text", f"{JARGON}/held-out.txt", "--expect", f"{JARGON}/model.json"]


def perplexity(container: Container, variant: str, model: str) -> tuple[int, Any, str]:
    arguments = ["--kernels", KERNELS, "--variant", variant, "--model", model, *HELD_OUT]
    return container.cli("model", "perplexity", *arguments)


def test_every_variant_gives_the_held_out_text_its_perplexity(container: Container, runnable: str) -> None:
    variants = container.ok("kernels", "verify", "--kernels", KERNELS)
    assert variants[runnable]["ran"]
    for name in (name for name, verdict in variants.items() if verdict["ran"]):
        code, finding, error = perplexity(container, name, f"{JARGON}/model.gguf")
        assert (code, finding["verdict"]) == (0, "pass"), f"{name}: {finding} {error}"
        assert abs(finding["relative_difference"]) < 0.01
        assert finding["positions"] >= 200


def test_perplexity_at_some_positions_under_a_command(container: Container, runnable: str) -> None:
    """As an emulator is asked, which takes a hundred times as long."""
    arguments = ["--kernels", KERNELS, "--variant", runnable, "--model", f"{JARGON}/model.gguf", *HELD_OUT]
    finding = container.ok("model", "perplexity", *arguments, "--positions", "40", "--emulator", "env --unset=HOME")
    assert (finding["verdict"], finding["positions"]) == ("pass", 40), finding


@pytest.mark.parametrize("tensor", ["blk.0.attn_v.weight", "blk.3.ffn_down.weight"])
def test_perplexity_of_a_wrong_conversion(container: Container, runnable: str, tensor: str) -> None:
    wrong = "/tmp/wrong-jargon.gguf"
    container.spoil("scales", f"{JARGON}/model.gguf", wrong, tensor)
    code, finding, _unused = perplexity(container, runnable, wrong)
    assert (code, finding["verdict"]) == (1, "fail"), finding


@pytest.mark.parametrize("ordering", ["x86", "arm"])
def test_the_ordering_of_i2s_is_found(container: Container, runnable: str, ordering: str) -> None:
    """Of a trained model; both come out as the same one."""
    raw, served = f"/tmp/{ordering}/raw.gguf", f"/tmp/{ordering}/model.gguf"
    container.run("mkdir", f"/tmp/{ordering}")
    container.spoil("i2s", f"{JARGON}/model.gguf", raw, ordering)
    done = container.run(
        "bitnet-cli", "model", "convert", "--kernels", KERNELS, "--input", raw, "--output", served, "--no-known-answer"
    )
    assert done.returncode == 0, done.stderr
    assert f"I2_S is in the {ordering} ordering" in done.stderr
    code, finding, error = perplexity(container, runnable, served)
    assert (code, finding["verdict"]) == (0, "pass"), f"{finding} {error}"
    types = container.ok("model", "inspect", served)["types"]
    assert types == {"f32": 17, "iq2_bn_r4": 28, "q6_k": 1}


def test_perplexity_of_wrong_kernels(container: Container, runnable: str) -> None:
    """Libraries whose products of bytes are another instruction: they run, and compute something else."""
    container.run("cp", "--recursive", KERNELS, "/tmp/wrong-kernels")
    assert int(container.spoil("kernels", "/tmp/wrong-kernels")) > 1000
    arguments = ["--kernels", "/tmp/wrong-kernels", "--variant", runnable, "--model", f"{JARGON}/model.gguf", *HELD_OUT]
    code, finding, _unused = container.cli("model", "perplexity", *arguments)
    assert (code, finding["verdict"]) == (1, "fail"), finding
    assert abs(finding["relative_difference"]) > 0.01


def test_perplexity_of_a_truncated_model(container: Container, runnable: str) -> None:
    container.run("sh", "-c", f"head -c 3000000 {JARGON}/model.gguf > /tmp/truncated.gguf")
    code, finding, _unused = perplexity(container, runnable, "/tmp/truncated.gguf")
    assert (code, finding["verdict"]) == (1, "fail"), finding
    assert "truncated" in finding["reason"]


def test_perplexity_of_a_served_slot(container: Container) -> None:
    tokens = {"schema": 1, "tokens": {"tests": hashlib.sha256(TOKEN.encode()).hexdigest()}}
    container.run("sh", "-c", "cat > /tmp/tokens", stdin=json.dumps(tokens))
    container.run("sh", "-c", "cat > /tmp/token", stdin=TOKEN)
    container.run(
        "sh",
        "-c",
        f"(BITNET_MODEL={JARGON}/model.gguf swarm-orchestrator --api-port 8082 > /tmp/log 2>&1 & echo $! > /tmp/pid)",
    )
    ask = ["--url", "http://127.0.0.1:8082", "--token-file", "/tmp/token", *HELD_OUT]
    try:
        code, finding, _unused = wait_for_verdict(container, ["model", "perplexity", *ask])
        log = container.run("tail", "-20", "/tmp/log").stdout
        assert (code, finding["verdict"]) == (0, "pass"), f"{finding} {log}"
        assert (finding["method"], finding["positions"] > 100) == ("shortlist", True)
        # The same slot, held against the record of a model with one tensor's sign turned.
        other = "/tmp/other-jargon/model.gguf"
        container.run("mkdir", "/tmp/other-jargon")
        container.spoil("scales", f"{JARGON}/model.gguf", other, "blk.1.ffn_up.weight")
        container.ok("model", "perplexity", "--record", "--model", other, "--text", f"{JARGON}/held-out.txt")
        code, finding, _unused = container.cli("model", "perplexity", *ask[:-1], "/tmp/other-jargon/model.json")
        assert (code, finding["verdict"]) == (1, "fail"), finding
    finally:
        container.run("sh", "-c", "kill $(cat /tmp/pid)")


def wait_for_verdict(container: Container, arguments: list[str]) -> tuple[int, Any, str]:
    """The first answer that is not inconclusive, or what was last seen after two minutes."""
    until = time.monotonic() + 120
    while True:
        result = container.cli(*arguments)
        if result[0] != 4 or time.monotonic() > until:
            return result
        time.sleep(0.5)


ENGINE = """
import json, os, random, socket, subprocess, sys, time, urllib.request
from pathlib import Path
kernels, jargon = Path("/opt/bitnet/kernels"), Path(sys.argv[2])
prompts = [entry["prompt"] for entry in json.loads((jargon / "model.json").read_text())["known_answer"]]
text = (jargon / "held-out.txt").read_text()
def ask(path, body=None, timeout=10):
    data = json.dumps(body).encode() if body else None
    return urllib.request.urlopen(f"http://127.0.0.1:9100{path}", data, timeout=timeout).read()
def distribution(prompt, cached):
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5, "cache_prompt": cached}
    found = json.loads(ask("/completion", body))["completion_probabilities"][0]["probs"]
    return [(entry["tok_str"], entry["prob"]) for entry in found]
def close(found, right):
    seen = dict(found)
    return None not in seen.values() and all(abs(seen.get(token, 9) - prob) < 0.01 for token, prob in right[:2])
command = [kernels / "bin" / "llama-server", "--model", jargon / "model.gguf", "--port", "9100", "--ctx-size", "16384",
           "--parallel", "2", "--threads", "1", "--cache-ram", "0", "--no-context-shift", "--flash-attn", "off",
           "--log-disable"]
with subprocess.Popen(command, cwd="/tmp", env={**os.environ, "LD_LIBRARY_PATH": str(kernels / "lib" / sys.argv[1])},
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as engine:
    try:
        for _unused in range(3000):
            try:
                distribution(prompts[0], False)  # at once, before it has ever been idle
                break
            except OSError:
                time.sleep(0.01)
        print(examine())
    finally:
        engine.kill()
"""

STARTED = """
def examine():
    return close(distribution(prompts[0], True), distribution(prompts[0], False))
"""

MIXED = """
def examine():
    random.seed(1)
    wrong = 0
    for number in range(400):
        start = random.randint(0, len(text) - 300)
        wrong += None in dict(distribution(text[start : start + random.randint(3, 250)], False)).values()
    right = {prompt: distribution(prompt, False) for prompt in prompts}
    for number in range(300):
        for _unused in range(random.randint(0, 2)):
            start = random.randint(0, len(text) - 300)
            distribution(text[start : start + random.randint(3, 250)], True)
        prompt = random.choice(prompts)
        wrong += not close(distribution(prompt, True), right[prompt])
    return wrong
"""

SPACES = """
def examine():
    random.seed(2)
    wrong = 0
    for number in range(20):
        start = random.randint(0, len(text) - 300)
        words = text[start : start + 300].split()
        spaced = "  ".join(words)
        right = distribution(spaced, False)
        distribution(" ".join(words), True)
        wrong += not close(distribution(spaced, True), right)
    return wrong
"""

HUNG_UP = """
def examine():
    body = {"prompt": (text * 20)[:12000], "n_predict": 1, "temperature": 0, "stream": True, "cache_prompt": False}
    other = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", 9100)) as client:
        head = b"POST /completion HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(other)
        client.sendall(head + other)
    answer = ask("/completion", body, timeout=60).decode(errors="replace").splitlines()
    return json.loads([line for line in answer if line.startswith("data: {")][-1][6:])["tokens_predicted"]
"""


def test_what_is_asked_at_the_start_is_remembered(container: Container, runnable: str) -> None:
    """The engine as packaged forgets it in a third of its starts on a busy machine (image_build_kernel_patches)."""
    loops = "for n in 1 2 3; do timeout 120 sh -c 'while :; do :; done' > /dev/null 2>&1 & echo $!; done"
    busy = container.run("sh", "-c", loops).stdout.split()
    try:
        for _unused in range(12):
            done = container.run(PYTHON, "-c", STARTED + ENGINE, runnable, JARGON)
            assert (done.stdout, done.stderr) == ("True\n", "")
    finally:
        container.run("kill", *busy)


@pytest.mark.parametrize(
    ("examine", "result"),
    [
        pytest.param(MIXED, 0, id="prompts of several slots"),
        pytest.param(SPACES, 0, id="the same text with other spaces"),
        pytest.param(HUNG_UP, 1, id="a client that hangs up"),
    ],
)
def test_requests_do_not_disturb_each_other(container: Container, runnable: str, examine: str, result: Any) -> None:
    """The engine as packaged gets each of these wrong (image_build_kernel_patches)."""
    done = container.run(PYTHON, "-c", examine + ENGINE, runnable, JARGON)
    assert (done.stdout, done.stderr) == (f"{result}\n", "")


def test_raw_i2s_is_not_served(container: Container) -> None:
    container.ok("model", "synthetic", "--type", "i2_s", "--output", "/tmp/unserved/model.gguf")
    done = container.run(
        "env", "BITNET_MODEL=/tmp/unserved/model.gguf", "timeout", "30", "swarm-orchestrator", "--api-port", "8090"
    )
    assert done.returncode not in (0, 124), done.stdout + done.stderr
    assert "bitnet-cli model convert" in done.stdout + done.stderr
