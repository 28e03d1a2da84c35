# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for llama-server that computes with NumPy.

It speaks as much of llama-server's protocol as is used, and can be told to compute wrongly or to die.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from swarm_intelligence import cli, synthetic
from swarm_intelligence.gguf_file import GGUFFile

STAND_IN = """#!{python}
import json, os, sys, time
sys.path.insert(0, {source!r})
from http.server import BaseHTTPRequestHandler, HTTPServer
import numpy as np
from swarm_intelligence.gguf_file import GGUFFile
from swarm_intelligence.reference import Reference
from swarm_intelligence.tokenizer import Tokenizer

fault = open({fault!r}).read()
if fault == "die":
    print("stand-in: cannot allocate", flush=True)
    os.kill(os.getpid(), 4)
if fault == "hang":
    time.sleep(60)
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options["--host"] == "127.0.0.1" and os.environ["LD_LIBRARY_PATH"].endswith("/lib/good")
reference = Reference(GGUFFile(options["--model"]))
vocabulary = reference.model.metadata["tokenizer.ggml.tokens"]


def read(text):
    known = {prompts!r}
    return known[text] if text in known else Tokenizer(reference.model).encode(text)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.reply(b"{{}}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.reply(json.dumps({{"tokens": read(body["content"])}}).encode())
        tokens, steps = body["prompt"], []
        if isinstance(tokens, str):
            tokens = read(tokens)
        for _ in range(body["max_tokens"]):
            logs = reference.log_probabilities([tokens])[0][0]
            if fault == "noise":
                logs = logs + np.random.default_rng(1).normal(0, 0.05, len(logs))
            if fault == "sharp":
                logs = 1.15 * logs - np.log(np.exp(1.15 * logs).sum())
            if fault == "not finite":
                logs[17] = np.nan
            order = np.argsort(-logs)[: body["logprobs"]]
            top = [{{"id": int(n), "token": vocabulary[n].replace("\\u0120", " "), "logprob": logs[n]}} for n in order]
            steps.append({{"id": int(order[0]), "top_logprobs": top}})
            tokens = [*tokens, int(order[0])]
        if fault == "short":
            steps = steps[:1]
        event = {{"choices": [{{"logprobs": {{"content": steps}}}}]}}
        text = json.dumps(event)
        self.reply(("data: " + text + "\\n\\ndata: [DONE]\\n\\n" if body.get("stream") else text).encode())

    def reply(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


HTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""


def make_kernels(folder: Path) -> Path:
    """A kernels directory with one variant that runs here and one that runs nowhere."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / "good").mkdir(parents=True)
    entry: dict[str, Any] = {"rank": 1, "verified": {"run": {"ran": False}}}
    variants = {"good": {**entry, "requires": []}, "future": {**entry, "requires": ["avx4096", "quantum"]}}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "variants": variants}))
    (folder / "fault").write_text("")
    program = folder / "bin" / "llama-server"
    program.write_text(
        STAND_IN.format(
            python=sys.executable,
            source=str(Path(cli.__file__).parent.parent),
            fault=str(folder / "fault"),
            prompts=dict(synthetic.known_prompts()),
        )
    )
    program.chmod(0o755)
    return folder


def change_rows(source: Path, target: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of a model with one tensor's bytes changed; ``change`` gets its rows, and gives them back whole or only
    their last bytes."""
    tensor = GGUFFile(source).tensor(name)
    content = np.frombuffer(source.read_bytes(), dtype=np.uint8).copy()
    rows = content[tensor.start : tensor.start + tensor.size].reshape(tensor.shape[0], -1)
    changed = change(rows.copy())
    rows[:, rows.shape[1] - changed.shape[1] :] = changed
    target.unlink(missing_ok=True)
    target.write_bytes(content.tobytes())
    return target


def change_header(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    target.write_bytes(source.read_bytes().replace(old, new, 1))
    return target
