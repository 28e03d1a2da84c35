# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""I2_S, the ternary layout of Microsoft's published GGUF files, and its two orderings.

Read off ``dequantize_row_ms_i2s`` in ik_llama.cpp (``ggml/src/iqk/iqk_quantize.cpp``): the tensor is one run of blocks
of 128 weights in 32 bytes. Weight j of a block sits in byte ``j % 32`` at bit ``6 - 2 * (j // 32)``; the codes 0, 1, 2
mean -1, 0, +1. After ``n / 4`` bytes follows one float32 scale for the whole tensor, and padding to 32 bytes.

That is the x86 ordering, in which Microsoft publishes. bitnet.cpp on ARM has, since its commit 112f853, blocks of 64
weights in 16 bytes: weight j in byte ``j % 16`` at bit ``6 - 2 * (j // 16)``. Nothing in a file says which of the two
it has, and each reads as a model in the other, one that answers garbage.
"""

from __future__ import annotations

import numpy as np

BLOCK = 128
GROUP = 32
TAIL = 32
ORDERINGS = {"x86": GROUP, "arm": 16}
"""Bytes of a block, by ordering; four times as many weights."""
_SHIFTS = np.array([6, 4, 2, 0], dtype=np.uint8).reshape(1, 4, 1)


def scale_of(raw: np.ndarray, count: int) -> float:
    """The tensor's scale, from its bytes and its number of weights."""
    return float(np.frombuffer(raw[count // 4 : count // 4 + 4].tobytes(), dtype="<f4")[0])


def decode(raw: np.ndarray, count: int, first: int = 0, length: int | None = None) -> np.ndarray:
    """Weights ``first`` to ``first + length`` of a tensor of ``count`` as float32; both ends lie on blocks."""
    length = count - first if length is None else length
    if count % BLOCK or first % BLOCK or length % BLOCK:
        raise ValueError(f"I2_S comes in blocks of {BLOCK}: {count} weights, {length} from {first}")
    blocks = np.asarray(raw[first // 4 : (first + length) // 4], dtype=np.uint8).reshape(-1, 1, GROUP)
    codes = (blocks >> _SHIFTS) & 3
    return ((codes.astype(np.float32) - 1) * np.float32(scale_of(raw, count))).reshape(-1)


def encode(codes: np.ndarray, scale: float) -> np.ndarray:
    """Bytes of a tensor from its weights as -1, 0, +1 (int8) and its scale."""
    flat = (codes.reshape(-1, 4, GROUP) + 1).astype(np.uint8)
    packed = np.bitwise_or.reduce(flat << _SHIFTS, axis=1).reshape(-1)
    tail = np.zeros(TAIL, dtype=np.uint8)
    tail[:4] = np.frombuffer(np.array([scale], dtype="<f4").tobytes(), dtype=np.uint8)
    return np.concatenate([packed, tail])


def to_x86(raw: np.ndarray, count: int) -> np.ndarray:
    """Bytes of a tensor in the x86 ordering from those in the ARM one; the scale stays as it is."""
    blocks = raw[: count // 4].reshape(-1, 1, ORDERINGS["arm"])
    codes = ((blocks >> _SHIFTS) & 3).reshape(-1, 4, GROUP)
    packed = np.bitwise_or.reduce(codes << _SHIFTS, axis=1).reshape(-1)
    return np.concatenate([packed, raw[count // 4 :]])
