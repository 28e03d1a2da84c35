# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A llama-server that runs for a moment, on the loopback interface, to be asked about its numbers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

ATTEMPTS = 3


class EngineError(Exception):
    """The engine did not start, or did not answer as it should; the message is one sentence and says the way out."""


class NotText(EngineError):
    """llama-server holds back what is not yet whole UTF-8, and its numbers; another prompt has another continuation."""


def environment(kernels: Path, variant: str) -> dict[str, str]:
    """The programs are shared; the variant is what the loader finds."""
    return {**os.environ, "LD_LIBRARY_PATH": str((kernels / "lib" / variant).resolve())}


class Engine:
    """Client of a running llama-server of ik_llama.cpp."""

    def __init__(self, url: str, until: float) -> None:
        self.until = until
        self._client = httpx.Client(base_url=url, trust_env=False, headers={"Connection": "close"})

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        left = self.until - time.monotonic()
        if left <= 0:
            raise EngineError("the engine did not answer everything within the deadline; give a longer --deadline.")
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.post(path, json=body, timeout=left)
                break
            except httpx.HTTPError as error:
                # llama-server now and then ends a stream without its last chunk; a question may be put again.
                if attempt == ATTEMPTS - 1 or not isinstance(error, httpx.RemoteProtocolError):
                    raise EngineError(
                        f"the engine broke off while it worked on {path} ({error}); build the kernels again."
                    ) from error
        if response.status_code != httpx.codes.OK:
            raise EngineError(f"the engine answered {path} with {response.status_code}: {response.text[:200]!r}.")
        return response.content

    def tokens(self, text: str) -> list[int]:
        """How the engine reads a prompt, with the special tokens that it adds."""
        answer = json.loads(self._post("/tokenize", {"content": text, "add_special": True}))
        return [int(token) for token in answer["tokens"]]

    def distributions(self, tokens: Sequence[int], steps: int, vocabulary: int) -> tuple[list[int], np.ndarray]:
        """Greedy continuation, and the whole log-distribution before each of its tokens: (steps, vocabulary).

        ``logprobs`` of llama-server are the softmax of the raw logits whatever the sampler does
        (``get_token_probabilities`` in ``examples/server/server-common.cpp``). When fewer entries are wanted than the
        vocabulary has, it counts the rest twice in the sum, so all are asked for. They are asked for as a stream, since
        a plain answer fails on the first token of the vocabulary that is no UTF-8 by itself.
        """
        body = {
            "prompt": list(tokens),
            "max_tokens": steps,
            "temperature": 0,
            "logprobs": vocabulary,
            "cache_prompt": False,
            "ignore_eos": True,
            "stream": True,
        }
        content = [step for event in _events(self._post("/v1/completions", body)) for step in _steps(event)]
        if len(content) < steps:
            raise NotText(f"the engine gave {len(content)} of {steps} tokens; try another model.")
        result = np.full((steps, vocabulary), np.nan)
        for row, step in enumerate(content):
            entries = step["top_logprobs"]
            result[row, [entry["id"] for entry in entries]] = [entry["logprob"] for entry in entries]
        if not np.isfinite(result).all():
            raise EngineError(
                f"the engine gave {int(np.isfinite(result).sum())} finite probabilities of {result.size}, "
                "so it computes wrongly; do not use this build."
            )
        return [int(step["id"]) for step in content], result


def _events(stream: bytes) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events, of which llama-server writes one per line."""
    for line in stream.split(b"\n"):
        if line.startswith(b"error: "):
            raise EngineError(f"the engine gave up: {line[7:207].decode('utf-8', 'replace')}.")
        if line.startswith(b"data: {"):
            yield json.loads(line[6:].decode("utf-8", "replace"))


def _steps(event: dict[str, Any]) -> list[dict[str, Any]]:
    return (event["choices"][0]["logprobs"] or {}).get("content") or []


@contextlib.contextmanager
def running(
    kernels: Path,
    variant: str,
    model: Path,
    *,
    threads: int = 2,
    context: int = 1024,
    deadline: float = 120,
    emulator: Sequence[str] = (),
) -> Iterator[Engine]:
    """Start llama-server with one variant's libraries, wait until its model is loaded, and stop it at the end.

    ``emulator`` is a command line that the program is appended to (``qemu-aarch64-static -cpu cortex-a76 ...``).
    """
    program = kernels / "bin" / "llama-server"
    until = time.monotonic() + deadline
    port = free_port()
    command = [
        *emulator, str(program.resolve()), "--model", str(model.resolve()), "--host", "127.0.0.1", "--port", str(port),
        "--ctx-size", str(context), "--parallel", "1", "--threads", str(threads),
    ]  # fmt: skip
    # The engine also writes a log of its own into its working directory.
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bitnet-engine-") as scratch:
        try:
            process = subprocess.Popen(
                command,
                env=environment(kernels, variant),
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            way_out = "name an emulator that is installed" if emulator else "build the kernels again"
            raise EngineError(f"{command[0]}: cannot be started ({error.strerror}); {way_out}.") from error
        engine = Engine(f"http://127.0.0.1:{port}", until)
        try:
            _wait_until_loaded(process, port, until)
            yield engine
        except EngineError as error:
            if process.poll() is not None:
                raise EngineError(f"{_death(process)}; its last lines: {_tail(log)}") from error
            raise EngineError(f"{error} Its last lines: {_tail(log)}") from error
        finally:
            engine.close()
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_loaded(process: subprocess.Popen[bytes], port: int, until: float) -> None:
    last = "no answer yet"
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise EngineError("the engine ended before its model was loaded.")
            try:
                response = client.get(f"http://127.0.0.1:{port}/health")
                if response.status_code == httpx.codes.OK:
                    return
                last = f"status {response.status_code}"
            except httpx.HTTPError as error:
                last = type(error).__name__
            time.sleep(0.05)
    raise EngineError(f"the engine did not load its model within the deadline (last seen: {last}).")


def _death(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code >= 0:
        return f"the engine ended with exit code {code}"
    try:
        return f"the engine died of {signal.Signals(-code).name}"
    except ValueError:
        return f"the engine died of signal {-code}"


def _tail(log: Any, size: int = 600) -> str:
    end = log.seek(0, os.SEEK_END)
    log.seek(max(0, end - size))
    return repr(log.read().decode("utf-8", "replace"))


def free_port() -> int:
    """Below the ports that outgoing connections are given: none of them can take it before its server does."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError("no free port from 20000 to 31999 was found in 100 tries")
