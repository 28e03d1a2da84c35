# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API (and the edge) add to the bare engine: pairs of the same short completion in one run.

    python benchmarks/api_overhead.py --engine http://127.0.0.1:8081 --through "API http://127.0.0.1:8080" \
        --through "API and edge http://127.0.0.1:80" --token-file FILE

Each round sends one request to the engine and one through each of the others, in turning order, over connections that
stay open. The difference is taken within a round, so that what else the machine does meets both sides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

Timed = tuple[float, str]


class Client:
    """One open connection; a server may close it between requests."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise SystemExit(f"{url!r} cannot be measured: give an address of the form http://host:port.")
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=60)
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.url = url

    def ask(self, path: str, body: dict[str, object]) -> Timed:
        data = json.dumps(body)
        for attempt in (1, 2):
            began = time.perf_counter()
            try:
                self.connection.request("POST", path, data, self.headers)
                response = self.connection.getresponse()
                answer = response.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.connection.close()  # it had been closed while idle: measure on a new one
                if attempt == 2:
                    raise SystemExit(f"{self.url} closes the connection instead of answering.") from None
        taken = time.perf_counter() - began
        if response.status != 200:
            raise SystemExit(f"{self.url}{path} answered {response.status}: {answer[:200]!r}")
        return taken, json.loads(answer)["choices"][0]["text"]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row(name: str, values: list[float], engine: list[float]) -> str:
    added = [mine - bare for mine, bare in zip(values, engine, strict=True)]
    cells = [
        percentile(values, 0.5),
        percentile(values, 0.95),
        percentile(added, 0.5),
        percentile(added, 0.95),
        percentile(values, 0.95) - percentile(engine, 0.95),
    ]
    return f"| {name} | " + " | ".join(f"{cell * 1000:.2f}" for cell in cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, metavar="URL", help="llama-server itself")
    parser.add_argument("--through", action="append", required=True, metavar="NAME URL", help="repeat for several")
    parser.add_argument("--token-file", type=Path, required=True, help="file with the bearer token")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=8, help="length of each completion (default 8)")
    parser.add_argument("--prompt", default="Hello")
    parser.add_argument("--fail-over-ms", type=float, help="exit 1 when a p95 lies this much above the engine's")
    arguments = parser.parse_args()
    token = arguments.token_file.read_text().strip()
    body = {"prompt": arguments.prompt, "max_tokens": arguments.tokens, "temperature": 0}

    clients = {"engine": Client(arguments.engine)}
    for value in arguments.through:
        name, _unused, url = value.rpartition(" ")
        clients[name or url] = Client(url, token)
    times: dict[str, list[float]] = {name: [] for name in clients}
    names = list(clients)
    for number in range(-20, arguments.rounds):  # the first twenty warm up
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken, _unused = clients[name].ask("/v1/completions", body)
            if number >= 0:
                times[name].append(taken)

    print(f"{arguments.rounds} rounds, {arguments.tokens} tokens each, one request at a time; milliseconds\n")
    print("| path | p50 | p95 | added, median of pairs | added, p95 of pairs | p95 above the engine's p95 |")
    print("|---|---|---|---|---|---|")
    for name, values in times.items():
        print(row(name, values, times["engine"]))
    bare = percentile(times["engine"], 0.95)
    worst = max(percentile(values, 0.95) - bare for values in times.values()) * 1000
    if arguments.fail_over_ms is not None and worst > arguments.fail_over_ms:
        print(
            f"\nThe p95 lies {worst:.2f} ms above the engine's, more than {arguments.fail_over_ms:g}.", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
