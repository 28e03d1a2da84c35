# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small model of the published architecture with invented weights, the same bytes for the same seed.

It answers in pronounceable nonsense: byte-level BPE whose merges are syllables (``ba``, ``be``, ... ``zu``) and
words of two of them. Each embedding has a constant first component, larger for those tokens, which nothing later in
the network writes to; so the next token is nearly always a syllable or a word, and the output valid UTF-8. Numbers come
from SHAKE-256 and exact arithmetic, so they depend on neither the platform nor the version of NumPy.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType as Kind

from . import i2s, iq2bn, q6k
from .gguf_file import ARCHITECTURE, F16, F32, I2_S, IQ2_BN, IQ2_BN_R4, Q6_K, write_gguf

WIDTH = 512
HIDDEN = 768
LAYERS = 4
HEADS = 8
HEADS_KV = 2
CONTEXT = 4096
ROPE_BASE = 500000.0
EPSILON = 1e-5

VOCABULARY = 1024
CONSONANTS = "bdfgjklmnprstvxyzhcq"
VOWELS = "aeiou"
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
SPACE = "\u0120"
"""How byte-level BPE writes a blank."""

VOICE = 6.0
"""First component of the embedding of a token that is to be said, ..."""
SILENCE = 1.5
"""... and of one that is only understood."""
SPREAD = 0.02
"""Standard deviation of the other components: it makes next-token distributions broad, so that all tokens count."""
SCALE = 0.03
"""Of the ternary weights; and how much larger or smaller it is where that matters: attention has to tell tokens apart,
and squared ReLU makes outliers, which int8 activations render coarsely, so their share of the result is kept small."""
SCALES = {"attn_q": 2.0, "attn_k": 2.0, "ffn_down": 0.25}
GAIN = 12.0
"""Weights of the first layer's norms: the constant component takes most of the length of an embedding."""

TOLERANCE = 0.05
"""Of its known answers, in nats: right kernels stay below a third of it."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)

TYPES = {
    "iq2_bn": (IQ2_BN, iq2bn.encode, F16),
    "iq2_bn_r4": (IQ2_BN_R4, iq2bn.encode_r4, Q6_K),
    "i2_s": (I2_S, i2s.encode, F16),
}
"""Of the layers, how their matrices are written, and the type of the embeddings."""
SERVED = ("iq2_bn", "iq2_bn_r4")
"""As models come to be served: in the types that a plain quantization gives, and as ``convert`` makes them."""


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE, in GPT-2's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges: 256 bytes, 100 syllables, the same after a blank, words of two syllables, two specials."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    tokens = byte_alphabet() + syllables + [SPACE + syllable for syllable in syllables]
    merges = [f"{s[0]} {s[1]}" for s in syllables] + [f"{SPACE} {s}" for s in syllables]
    # A stride that shares no factor with their number visits all pairs once, in an order that mixes first syllables.
    pairs = list(itertools.product(syllables, syllables))
    for n in range(VOCABULARY - 2 - len(tokens)):
        first, second = pairs[n * 3779 % len(pairs)]
        tokens.append(SPACE + first + second)
        merges.append(f"{SPACE}{first} {second}")
    return [*tokens, BEGIN, END], merges


class _Stream:
    """Bytes that follow from a seed and a name."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def take(self, name: str, count: int) -> np.ndarray:
        digest = hashlib.shake_256(f"bitnet.devops synthetic 1 {self.seed} {name}".encode()).digest(count)
        return np.frombuffer(digest, dtype=np.uint8)

    def ternary(self, name: str, rows: int, columns: int) -> np.ndarray:
        return (self.take(name, rows * columns) % 3).astype(np.int8).reshape(rows, columns) - 1

    def bell(self, name: str, rows: int, columns: int) -> np.ndarray:
        """Sums of four bytes, centred and scaled to a standard deviation of one: near enough to normal."""
        quads = self.take(name, 4 * rows * columns).reshape(-1, 4).astype(np.int32)
        return ((quads.sum(axis=1) - 510) / np.float64(147.8)).reshape(rows, columns)


def _embeddings(stream: _Stream, tokens: list[str]) -> np.ndarray:
    table = (stream.bell("token_embd", len(tokens), WIDTH) * SPREAD).astype(np.float32)
    table[:, 0] = SILENCE
    table[256:-2, 0] = VOICE
    return table.astype("<f2")


def _norm(stream: _Stream, name: str, length: int) -> np.ndarray:
    """Weights of a norm, near one but not equal, so that one that is forgotten or swapped shows."""
    return (1 + 0.1 * stream.bell(name, 1, length)[0]).astype("<f4")


def _metadata(tokens: list[str], merges: list[str], layers: int, seed: int) -> dict[str, tuple[Kind, Any]]:
    specials = [3 if token in (BEGIN, END) else 1 for token in tokens]
    prefix = ARCHITECTURE
    return {
        "general.name": (Kind.STRING, f"synthetic-{seed}"),
        "general.license": (Kind.STRING, "CC0-1.0"),
        f"{prefix}.vocab_size": (Kind.UINT32, len(tokens)),
        f"{prefix}.context_length": (Kind.UINT32, CONTEXT),
        f"{prefix}.embedding_length": (Kind.UINT32, WIDTH),
        f"{prefix}.block_count": (Kind.UINT32, layers),
        f"{prefix}.feed_forward_length": (Kind.UINT32, HIDDEN),
        f"{prefix}.rope.dimension_count": (Kind.UINT32, WIDTH // HEADS),
        f"{prefix}.rope.freq_base": (Kind.FLOAT32, ROPE_BASE),
        f"{prefix}.attention.head_count": (Kind.UINT32, HEADS),
        f"{prefix}.attention.head_count_kv": (Kind.UINT32, HEADS_KV),
        f"{prefix}.attention.layer_norm_rms_epsilon": (Kind.FLOAT32, EPSILON),
        "tokenizer.ggml.model": (Kind.STRING, "gpt2"),
        "tokenizer.ggml.pre": (Kind.STRING, "default"),
        "tokenizer.ggml.tokens": (Kind.ARRAY, tokens),
        "tokenizer.ggml.token_type": (Kind.ARRAY, specials),
        "tokenizer.ggml.merges": (Kind.ARRAY, merges),
        "tokenizer.ggml.bos_token_id": (Kind.UINT32, tokens.index(BEGIN)),
        "tokenizer.ggml.eos_token_id": (Kind.UINT32, tokens.index(END)),
        "tokenizer.ggml.add_bos_token": (Kind.BOOL, True),
        "tokenizer.chat_template": (Kind.STRING, CHAT_TEMPLATE),
    }


def write(path: Path, seed: int = 1, layers: int = LAYERS, kind: str = "iq2_bn") -> None:
    """Write the model; ``kind`` is the type of its layers, one that is served or i2_s to try the conversion."""
    number, encode, table = TYPES[kind]
    stream = _Stream(seed)
    tokens, merges = vocabulary()
    embeddings = _embeddings(stream, tokens)
    raw = q6k.encode(embeddings) if table == Q6_K else embeddings
    tensors: dict[str, tuple[int, tuple[int, ...], np.ndarray]] = {
        "token_embd.weight": (table, embeddings.shape, raw),
        "output_norm.weight": (F32, (WIDTH,), _norm(stream, "output_norm", WIDTH)),
    }
    kv = WIDTH // HEADS * HEADS_KV
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (kv, WIDTH),
        "attn_v": (kv, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH),
        "ffn_down": (WIDTH, HIDDEN),
    }
    norms = {"attn_norm": WIDTH, "attn_sub_norm": WIDTH, "ffn_norm": WIDTH, "ffn_sub_norm": HIDDEN}
    for layer in range(layers):
        for name, length in norms.items():
            full = f"blk.{layer}.{name}"
            weights = _norm(stream, full, length)
            if name in ("attn_norm", "ffn_norm"):
                weights *= GAIN if layer == 0 else 1
                weights[0] = 0  # the layers work on the rest; an outlier would cost them the int8 resolution
            tensors[f"{full}.weight"] = (F32, (length,), weights)
        for name, (rows, columns) in shapes.items():
            full = f"blk.{layer}.{name}"
            codes = stream.ternary(full, rows, columns)
            scale = SCALES.get(name, 1.0) * SCALE
            if name in ("attn_output", "ffn_down"):
                codes[0] = 0  # leaves the constant component alone
            tensors[f"{full}.weight"] = (number, (rows, columns), encode(codes, scale))
    write_gguf(path, _metadata(tokens, merges, layers, seed), tensors)


def known_prompts() -> list[tuple[str, list[int]]]:
    """Prompts as text and as the tokens that byte-level BPE makes of them: the begin token, then words."""
    tokens, _unused = vocabulary()
    words = [token for token in tokens[:-2] if token.startswith(SPACE) and len(token) == 5]
    number = {token: n for n, token in enumerate(tokens)}
    chosen = [[words[(7 * n + 31 * m) % len(words)] for m in range(length)] for n, length in enumerate((1, 3, 8, 40))]
    return [("".join(line).replace(SPACE, " "), [number[BEGIN], *(number[word] for word in line)]) for line in chosen]
