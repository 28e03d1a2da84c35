# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""swarm-orchestrator: process 1 of the container. Starts, watches, restarts and ends the engine and the API server."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .auth import Tokens
from .cpu import CpuError, Variant, candidates, cpu_flags, read_manifest, why
from .gguf_check import ModelError, check_servable
from .logs import configure, event
from .settings import Settings, SettingsError

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 30.0
STABLE_SECONDS = 60.0
MOST_FAILED_STARTS = 5
LOAD_SECONDS = 300.0
PROOF_SECONDS = 300.0
END_SECONDS = 5.0

# Exit codes, as in sysexits.h
EXIT_MODEL = os.EX_DATAERR  # 65: the model cannot be served
EXIT_CPU = os.EX_UNAVAILABLE  # 69: the CPU is below every variant
EXIT_ENGINE = os.EX_SOFTWARE  # 70: no variant computes right, or a child cannot be kept running
EXIT_SETTINGS = os.EX_CONFIG  # 78: a setting cannot be used


class EngineError(Exception):
    """The engine cannot be started or kept running."""


@dataclass
class Child:
    process: subprocess.Popen[bytes]
    ended: asyncio.Future[int]

    def signal(self, number: int) -> None:
        if not self.ended.done():
            os.kill(self.process.pid, number)

    async def wait(self) -> int:
        """Its exit code. Awaiting the future itself would cancel it together with the task that waits."""
        await asyncio.wait([self.ended])
        return self.ended.result()

    async def end(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL when that is not enough."""
        self.signal(signal.SIGTERM)
        done, _unused = await asyncio.wait([self.ended], timeout=seconds)
        if not done:
            event(logging.WARNING, "child did not end in time, killing it", pid=self.process.pid)
            self.signal(signal.SIGKILL)
            await self.wait()


class Children:
    """Starts processes and reaps all that end: ours, and orphans that process 1 inherits."""

    def __init__(self) -> None:
        self._ended: dict[int, asyncio.Future[int]] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def start(self, command: list[str], **options: Any) -> Child:
        # No await between start and registration: SIGCHLD is handled by this same loop, afterwards.
        process = subprocess.Popen(command, **options)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ended[process.pid] = ended
        return Child(process, ended)

    def kill_rest(self) -> None:
        for pid in self._ended:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._ended.pop(pid, None)
            if ended is not None and not ended.done():
                ended.set_result(os.waitstatus_to_exitcode(status))


class Orchestrator:
    def __init__(self, settings: Settings, api_port: int) -> None:
        self.settings = settings
        self.api_port = api_port
        self.children = Children()
        self.stopping = asyncio.Event()
        self.ready = False
        self.restarts = 0
        self.variants: dict[str, Variant] = {}
        self.flags: frozenset[str] = frozenset()
        self.variant: Variant | None = None
        self.reason = ""
        self.api: Child | None = None
        self.engine: Child | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)

    async def run(self) -> None:
        """Until a signal asks for the end, or a child cannot be kept running (raises EngineError)."""
        self.variants = read_manifest(self.settings.kernels)
        self.flags = cpu_flags(self.settings.cpuinfo)
        fitting = candidates(self.variants, self.flags, self.settings.variant)
        self.api = self.children.start(
            [sys.executable, "-m", "swarm_intelligence.api", "--port", str(self.api_port)], stdin=subprocess.PIPE
        )
        engine = asyncio.create_task(self._run_engine(fitting))
        stop = asyncio.create_task(self.stopping.wait())
        try:
            first: list[asyncio.Future[Any]] = [engine, stop, self.api.ended]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self.stopping.is_set():
                event(logging.INFO, "stopping")
            elif self.api.ended.done():
                raise EngineError(
                    f"api-server ended by itself ({_how(self.api.ended.result())}); see its messages above."
                )
            else:
                engine.result()
        finally:
            stop.cancel()
            await self.api.end(self.settings.grace_seconds + END_SECONDS)
            engine.cancel()
            await asyncio.wait([engine])
            if self.engine is not None:
                await self.engine.end(END_SECONDS)
            self.children.kill_rest()  # a proof that was under way

    async def _run_engine(self, fitting: list[Variant]) -> None:
        self.variant = await self._choose(fitting)
        self._tell()
        backoff = FIRST_BACKOFF
        failed_starts = 0
        while True:
            began = time.monotonic()
            output: deque[str] = deque(maxlen=20)
            self.engine = self._start_engine(self.variant)
            reading = asyncio.create_task(_read_output(self.engine, output))
            became_ready = await self._wait_ready(self.engine)
            if became_ready:
                failed_starts = 0
                self.ready = True
                self._tell()
                event(
                    logging.INFO, "engine ready", variant=self.variant.name, seconds=round(time.monotonic() - began, 2)
                )
            else:
                failed_starts += 1
                await self.engine.end(END_SECONDS)
            code = await self.engine.wait()
            self.ready = False
            await asyncio.wait([reading], timeout=1)
            reading.cancel()
            event(logging.ERROR, "engine ended", how=_how(code), last_output=list(output))
            if failed_starts >= MOST_FAILED_STARTS:
                raise EngineError(
                    f"The engine failed to start {failed_starts} times in a row, last: {_how(code)}. Its last words: "
                    f"{' | '.join(list(output)[-5:]) or 'none'}"
                )
            if time.monotonic() - began > STABLE_SECONDS:
                backoff = FIRST_BACKOFF
            self.restarts += 1
            self._tell()
            event(logging.WARNING, "engine restarts", restarts=self.restarts, in_seconds=backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF)

    async def _choose(self, fitting: list[Variant]) -> Variant:
        """The best variant that is proven: by the builder, or here and now."""
        refused: dict[str, str] = {}
        for number, variant in enumerate(fitting):
            if not variant.proven:
                problem = await self._prove(variant)
                if problem:
                    event(logging.ERROR, "variant refused", variant=variant.name, problem=problem)
                    refused[variant.name] = problem
                    continue
            chosen = "set by BITNET_VARIANT"
            if not self.settings.variant:
                chosen = why(variant, fitting[number:], self.variants, self.flags)
            proof = [] if variant.proven else ["proven by a known-answer run at start"]
            failed = [f"{name} failed its known-answer run (see the log)" for name in refused]
            self.reason = "; ".join([chosen, *proof, *failed])
            event(logging.INFO, "variant chosen", variant=variant.name, reason=self.reason)
            return variant
        problems = "; ".join(f"{name} failed its known-answer run ({problem})" for name, problem in refused.items())
        raise EngineError(f"No variant that this CPU can run computes right: {problems}.")

    async def _prove(self, variant: Variant) -> str:
        """Run the known-answer check in a process of its own, which SIGILL may end. Empty when it passed."""
        command = [sys.executable, "-m", "swarm_intelligence.cli", "kernels", "verify", "--json"]
        command += ["--kernels", str(self.settings.kernels), "--variant", variant.name]
        child = self.children.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        output: deque[str] = deque(maxlen=200)
        reading = asyncio.create_task(_read_output(child, output))
        done, _unused = await asyncio.wait([child.ended], timeout=PROOF_SECONDS)
        if not done:
            await child.end(END_SECONDS)
            return f"no result within {PROOF_SECONDS:g} s"
        await asyncio.wait([reading], timeout=1)
        reading.cancel()
        if child.ended.result() == 0:
            return ""
        return f"{_how(child.ended.result())}: {' '.join(output)[-500:]}"

    def _start_engine(self, variant: Variant) -> Child:
        settings = self.settings
        command = [str(settings.kernels / "bin" / "llama-server"), "--model", str(settings.model)]
        command += ["--host", "127.0.0.1", "--port", str(settings.engine_port)]
        command += ["--threads", str(settings.threads), "--parallel", str(settings.parallel)]
        command += ["--ctx-size", str(settings.context * settings.parallel)]
        command += ["--cache-ram", "0", "--no-context-shift", "--jinja", "--log-disable"]
        command += ["--timeout", str(int(settings.request_seconds))]
        if settings.parallel > 1:
            # With several sequences its flash attention on CPUs runs into a failed assertion (a whole block masked).
            command += ["--flash-attn", "off"]
        return self.children.start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_LIBRARY_PATH": str(settings.kernels / "lib" / variant.name)},
        )

    async def _wait_ready(self, engine: Child) -> bool:
        """True once the engine has generated one token, False when it ended or took too long."""
        deadline = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < deadline and not engine.ended.done():
            if await asyncio.to_thread(_generates, self.settings.engine_port):
                return not engine.ended.done()
            await asyncio.wait([engine.ended], timeout=0.2)
        return False

    def _tell(self) -> None:
        """Tell api-server how the engine is."""
        if self.api is None or self.api.process.stdin is None:
            return
        state = {
            "ready": self.ready,
            "restarts": self.restarts,
            "variant": self.variant.name if self.variant else "",
            "reason": self.reason,
        }
        try:
            self.api.process.stdin.write(json.dumps(state).encode() + b"\n")
            self.api.process.stdin.flush()
        except BrokenPipeError:  # it has just ended, which run() sees
            return


GENERATED = re.compile(rb'"tokens_predicted":\s*[1-9]')  # an answer can also end well without a token


def _generates(port: int) -> bool:
    """Whether the engine generates a token (streamed: its bytes may be no UTF-8)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = json.dumps({"prompt": "Hello", "n_predict": 1, "stream": True, "cache_prompt": False})
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status == 200 and GENERATED.search(response.read()) is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def _read_output(child: Child, lines: deque[str]) -> None:
    """Keep a child's last lines, and log them when asked to."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), child.process.stdout
    )
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # longer than the limit
            continue
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip()
        lines.append(text[:500])
        event(logging.DEBUG, "child output", pid=child.process.pid, line=text[:500])


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _run(settings: Settings, api_port: int) -> None:
    await Orchestrator(settings, api_port).run()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="swarm-orchestrator",
        description="Runs the inference engine and the API server; settings come from BITNET_* variables.",
    )
    parser.add_argument("--api-port", type=int, default=8080, help="port of the API server (default: 8080)")
    arguments = parser.parse_args()
    configure("swarm-orchestrator", "info")
    code, problem = 0, ""
    try:
        settings = Settings.from_environment()
        configure("swarm-orchestrator", settings.log_level)
        Tokens.from_file(settings.tokens_file)
        if settings.database_url_file or settings.redis_url_file:
            from .data import check  # its libraries are for those who want them

            check(settings)
        check_servable(settings.model)
        asyncio.run(_run(settings, arguments.api_port))
    except SettingsError as error:
        code, problem = EXIT_SETTINGS, str(error)
    except ModelError as error:
        code, problem = EXIT_MODEL, f"BITNET_MODEL={str(settings.model)!r}: {error}"
    except CpuError as error:
        code, problem = EXIT_CPU, str(error)
    except EngineError as error:
        code, problem = EXIT_ENGINE, str(error)
    if code:
        event(logging.CRITICAL, problem, exit_code=code)
    sys.exit(code)


if __name__ == "__main__":
    main()
