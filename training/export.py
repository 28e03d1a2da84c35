# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a checkpoint to the GGUF that is served: ternary weights in IQ2_BN, embeddings in F16, the rest in F32.

The engine's kernels for IQ2_BN want rows of at least 512 weights, and the network is narrower. So the served file is
padded: the residual stream and the heads get as many zeros again. What is added is zero everywhere (embeddings,
ternary codes), so it stays zero in every layer; a root mean square over twice the length is smaller by a factor of
sqrt(2), which the weights of the norms and the epsilon take up (and, where nothing is added before a norm, the scale of
what it is taken of). It computes the same function.

Beside it goes the trained network as it is, with every tensor in F32 (``trained.gguf``): what types and padding cost is
measured against that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "files/swarm_intelligence/src"))

import train
from gguf import GGUFValueType as Kind
from swarm_intelligence import iq2bn
from swarm_intelligence.gguf_file import ARCHITECTURE, F16, F32, IQ2_BN, write_gguf

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""The model knows dictionary entries and no dialogue: what is said to it is a text that it goes on with."""


PADDING = 2
"""How many times as wide and with how many times as many heads as it was trained the network is served."""


def metadata(tokenizer: dict[str, Any], name: str, padding: int) -> dict[str, tuple[Kind, Any]]:
    numbers = {**tokenizer["model"]["vocab"], **{entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}}
    tokens = sorted(numbers, key=numbers.__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    specials = [3 if token in (train.BEGIN, train.END) else 1 for token in tokens]
    prefix = ARCHITECTURE
    return {
        "general.name": (Kind.STRING, name),
        "general.license": (Kind.STRING, "CC0-1.0"),
        f"{prefix}.vocab_size": (Kind.UINT32, len(tokens)),
        f"{prefix}.context_length": (Kind.UINT32, train.CONTEXT),
        f"{prefix}.embedding_length": (Kind.UINT32, padding * train.WIDTH),
        f"{prefix}.block_count": (Kind.UINT32, train.LAYERS),
        f"{prefix}.feed_forward_length": (Kind.UINT32, train.HIDDEN),
        f"{prefix}.rope.dimension_count": (Kind.UINT32, train.WIDTH // train.HEADS),
        f"{prefix}.rope.freq_base": (Kind.FLOAT32, train.ROPE_BASE),
        f"{prefix}.attention.head_count": (Kind.UINT32, padding * train.HEADS),
        f"{prefix}.attention.head_count_kv": (Kind.UINT32, padding * train.HEADS),
        f"{prefix}.attention.layer_norm_rms_epsilon": (Kind.FLOAT32, train.EPSILON / padding),
        "tokenizer.ggml.model": (Kind.STRING, "gpt2"),
        "tokenizer.ggml.pre": (Kind.STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (Kind.ARRAY, tokens),
        "tokenizer.ggml.token_type": (Kind.ARRAY, specials),
        "tokenizer.ggml.merges": (Kind.ARRAY, merges),
        "tokenizer.ggml.bos_token_id": (Kind.UINT32, numbers[train.BEGIN]),
        "tokenizer.ggml.eos_token_id": (Kind.UINT32, numbers[train.END]),
        "tokenizer.ggml.add_bos_token": (Kind.BOOL, True),
        "tokenizer.chat_template": (Kind.STRING, CHAT_TEMPLATE),
    }


def ternary(weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes and scale, as the forward pass of the training takes them."""
    scale = np.float32(np.mean(np.abs(weights))) + np.float32(1e-8)
    return np.clip(np.round(weights / scale), -1, 1).astype(np.int8), float(scale)


def wider(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The same matrix with zeros below and to the right."""
    result = np.zeros((rows, columns), dtype=matrix.dtype)
    result[: matrix.shape[0], : matrix.shape[1]] = matrix
    return result


def padded(parameters: dict[str, np.ndarray], padding: int) -> dict[str, Any]:
    """Codes and scales of the matrices, norms and embeddings of the network as it is served."""
    width, hidden = padding * train.WIDTH, train.HIDDEN
    shorter = np.float32(1 / math.sqrt(padding))

    def norm(weights: np.ndarray) -> np.ndarray:
        return np.concatenate([weights * shorter, np.full(width - len(weights), shorter, np.float32)])

    result: dict[str, Any] = {
        "token_embd": wider(parameters["token_embd"], train.VOCABULARY, width),
        "output_norm": norm(parameters["output_norm"]),
    }
    for layer in range(train.LAYERS):
        codes = {name: ternary(parameters[name][layer]) for name in train.MATRICES}
        for name, (narrow, scale) in codes.items():
            rows, columns = (hidden if length == hidden else width for length in train.MATRICES[name])
            # The epsilon of ffn_sub_norm is smaller as well, though its length is not larger.
            final = scale * shorter if name == "ffn_up" else scale
            result[f"blk.{layer}.{name}"] = (wider(narrow, rows, columns), final)
        for name in train.NORMS:
            weights = parameters[name][layer]
            result[f"blk.{layer}.{name}"] = weights if name == "ffn_sub_norm" else norm(weights)
    return result


def tensors(network: dict[str, Any], served: bool) -> dict[str, tuple[int, tuple[int, ...], np.ndarray]]:
    result: dict[str, tuple[int, tuple[int, ...], np.ndarray]] = {}
    for name, content in network.items():
        if isinstance(content, tuple):
            codes, scale = content
            plain = codes.astype("<f4") * np.float32(scale)
            raw, kind = (iq2bn.encode(codes, scale), IQ2_BN) if served else (plain, F32)
            result[f"{name}.weight"] = (kind, codes.shape, raw)
        elif name == "token_embd" and served:
            result[f"{name}.weight"] = (F16, content.shape, content.astype("<f2"))
        else:
            result[f"{name}.weight"] = (F32, content.shape, content.astype("<f4"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the --output of train.py")
    parser.add_argument("--name", default="jargon")
    options = parser.parse_args()
    state, _unused = train.load(options.run / "checkpoint.npz")
    parameters = {name: np.asarray(value) for name, value in state["parameters"].items()}
    tokenizer = json.loads((options.run / "tokenizer.json").read_text(encoding="utf-8"))
    for file_name, padding, served in (("model.gguf", PADDING, True), ("trained.gguf", 1, False)):
        network = tensors(padded(parameters, padding), served)
        write_gguf(options.run / file_name, metadata(tokenizer, options.name, padding), network)


if __name__ == "__main__":
    main()
