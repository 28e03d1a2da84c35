# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NumPy forward pass of BitNet b1.58, to compare the engine with.

The formulas are those of "BitNet b1.58 2B4T Technical Report" (arXiv 2504.12285, section 2) in the order in which
``build_bitnet_158`` of ik_llama.cpp (``src/llama-build-context.cpp``) applies them. With x of shape (tokens, width)::

    h = rms(x) * attn_norm
    q, k, v = h Wq', h Wk', h Wv'            (tokens, heads * head_length); k and v have fewer heads (GQA)
    q, k = rope(q), rope(k)                  pairs (i, i + head_length / 2), the "neox" order
    a = softmax(q k' / sqrt(head_length)) v  causal
    x = x + (rms(a) * attn_sub_norm) Wo'
    h = rms(x) * ffn_norm
    g = relu(h Wgate')^2 * (h Wup')          (tokens, hidden)
    x = x + (rms(g) * ffn_sub_norm) Wdown'
    logits = (rms(x) * output_norm) E'       E is token_embd unless the model has an output tensor

Everything is float32. The engine rounds activations to int8 and keeps keys and values in float16; that is what the
tolerance of a comparison is for. With ``int8`` the input x of each linear layer is rounded as the models are trained,
to ``round(x 127 / max|x|)`` for each token (the report's section 2): nearer to the engine, whose blocks are finer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import gguf
import numpy as np

from . import i2s, iq2bn
from .gguf_check import HyperParameters, check_structure
from .gguf_file import BF16, F16, F32, I2_S, IQ2_BN, IQ2_BN_R4, GGUFFile, ModelError

_OUTPUT_ROWS = 16384


class Reference:
    """The forward pass over one model file; weights are unpacked one layer at a time."""

    def __init__(self, model: GGUFFile, int8: bool = False) -> None:
        self.model = model
        self.int8 = int8
        self.parameters: HyperParameters = check_structure(model)
        beyond = set(model.tensors) - set(self.parameters.shapes()) - {"output.weight"}
        if beyond:
            raise ModelError(
                f"{model.path}: the reference knows nothing of {', '.join(sorted(beyond)[:3])}; "
                "compare with a model that has only the published tensors."
            )

    def log_probabilities(self, sequences: Sequence[Sequence[int]], last: int = 1) -> list[np.ndarray]:
        """For each token sequence the log-distribution after each of its ``last`` last tokens: (last, vocabulary)."""
        states = [self._embed(tokens) for tokens in sequences]
        for layer in range(self.parameters.block_count):
            weights = {
                name: self.matrix(f"blk.{layer}.{name}.weight")
                for name in (
                    "attn_norm", "attn_sub_norm", "attn_q", "attn_k", "attn_v", "attn_output",
                    "ffn_norm", "ffn_sub_norm", "ffn_gate", "ffn_up", "ffn_down",
                )
            }  # fmt: skip
            states = [self._block(state, weights) for state in states]
        norm = self.matrix("output_norm.weight")
        return [_log_softmax(self._logits(self._rms(state[-last:]) * norm)) for state in states]

    def matrix(self, name: str, first: int = 0, rows: int | None = None) -> np.ndarray:
        """Rows of a tensor as float32 (the whole tensor by default)."""
        tensor = self.model.tensor(name)
        return unpack(self.model.bytes_of(name), tensor.type_id, tensor.shape, first, rows)

    def _embed(self, tokens: Sequence[int]) -> np.ndarray:
        if not tokens or min(tokens) < 0 or max(tokens) >= self.parameters.vocabulary:
            raise ValueError(f"a token sequence holds ids from 0 to {self.parameters.vocabulary - 1}, and at least one")
        return np.concatenate([self.matrix("token_embd.weight", token, 1) for token in tokens])

    def _logits(self, state: np.ndarray) -> np.ndarray:
        name = "output.weight" if "output.weight" in self.model.tensors else "token_embd.weight"
        rows = self.parameters.vocabulary
        return np.concatenate(
            [
                state @ self.matrix(name, first, min(_OUTPUT_ROWS, rows - first)).T
                for first in range(0, rows, _OUTPUT_ROWS)
            ],
            axis=1,
        )

    def _rms(self, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.parameters.norm_epsilon))

    def _input(self, x: np.ndarray) -> np.ndarray:
        """What a linear layer sees of its input."""
        if not self.int8:
            return x
        scale = 127 / (np.max(np.abs(x), axis=-1, keepdims=True) + np.float32(1e-8))
        rounded: np.ndarray = np.round(x * scale) / scale
        return rounded

    def _block(self, x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
        h = self._input(self._rms(x) * w["attn_norm"])
        attention = self._attention(h @ w["attn_q"].T, h @ w["attn_k"].T, h @ w["attn_v"].T)
        x = x + self._input(self._rms(attention) * w["attn_sub_norm"]) @ w["attn_output"].T
        h = self._input(self._rms(x) * w["ffn_norm"])
        gated = np.square(np.maximum(h @ w["ffn_gate"].T, 0)) * (h @ w["ffn_up"].T)
        return x + self._input(self._rms(gated) * w["ffn_sub_norm"]) @ w["ffn_down"].T

    def _attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        tokens, length = len(q), self.parameters.head_length
        share = self.parameters.head_count // self.parameters.head_count_kv
        q, k, v = (part.reshape(tokens, -1, length).transpose(1, 0, 2) for part in (q, k, v))
        q, k = self._rope(q), np.repeat(self._rope(k), share, axis=0)
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(length))
        scores += np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), k=1)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ np.repeat(v, share, axis=0)
        return mixed.transpose(1, 0, 2).reshape(tokens, -1)

    def _rope(self, x: np.ndarray) -> np.ndarray:
        half = x.shape[-1] // 2
        frequency = self.parameters.rope_base ** (-np.arange(half) / half)
        angle = np.arange(x.shape[1])[:, None] * frequency[None, :]
        cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        low, high = x[..., :half], x[..., half:]
        return np.concatenate([low * cosine - high * sine, low * sine + high * cosine], axis=-1)


def unpack(
    raw: np.ndarray, type_id: int, shape: tuple[int, ...], first: int = 0, rows: int | None = None
) -> np.ndarray:
    """Rows of a tensor as float32, from its bytes on disk; a vector comes back as a vector."""
    columns = shape[-1]
    total = math.prod(shape[:-1])
    rows = total - first if rows is None else rows
    if type_id == I2_S:
        flat = i2s.decode(raw, total * columns, first * columns, rows * columns)
    else:
        stride = len(raw) // total
        part = raw[first * stride : (first + rows) * stride]
        if type_id == IQ2_BN:
            flat = iq2bn.decode(part, columns)
        elif type_id == IQ2_BN_R4:
            begin = first // iq2bn.ROWS * iq2bn.ROWS
            end = -(-(first + rows) // iq2bn.ROWS) * iq2bn.ROWS
            flat = iq2bn.decode_r4(raw[begin * stride : end * stride], columns)[first - begin :][:rows]
        elif type_id in (F32, F16):
            flat = np.frombuffer(part.tobytes(), dtype="<f4" if type_id == F32 else "<f2").astype(np.float32)
        elif type_id == BF16:
            flat = (np.frombuffer(part.tobytes(), dtype="<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            flat = _unpack_mainline(part.reshape(rows, stride), type_id)
    return flat.reshape(columns) if len(shape) == 1 else flat.reshape(rows, columns)


def _unpack_mainline(part: np.ndarray, type_id: int) -> np.ndarray:
    try:
        return gguf.quants.dequantize(part, gguf.GGMLQuantizationType(type_id))
    except (ValueError, NotImplementedError) as error:
        raise ModelError(
            f"tensors of type {type_id} cannot be unpacked for a comparison; use iq2_bn_r4, iq2_bn, f16, q8_0 or q6_k."
        ) from error


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def agreement(reference: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Cosine and relative L2 error of two distributions, given as log-probabilities."""
    p, q = np.exp(reference), np.exp(measured)
    cosine = float(p @ q / (np.linalg.norm(p) * np.linalg.norm(q)))
    return cosine, float(np.linalg.norm(p - q) / np.linalg.norm(p))
