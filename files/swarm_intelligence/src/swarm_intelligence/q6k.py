# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing Q6_K, which the ``gguf`` package only reads.

The layout is that of ``block_q6_K`` in llama.cpp's ``ggml-common.h``: 256 weights in 210 bytes. Sixteen groups of 16
weights have a scale of 8 bits each, which one float16 scales in turn; a weight is a code of 6 bits, less 32. Codes lie
as 128 bytes of low halves, then 64 bytes of high pairs; 16 scales and the float16 follow.

Scales are simply those that keep each group's largest weight, which changes normally distributed numbers by 2 % of
their length; llama.cpp's own encoder searches for better ones.
"""

from __future__ import annotations

import numpy as np

BLOCK = 256
GROUP = 16
LARGEST, LARGEST_SCALE = 31, 127


def encode(table: np.ndarray) -> np.ndarray:
    """Bytes, a row for each row, of a matrix whose width is a multiple of 256."""
    rows = len(table)
    groups = np.asarray(table, dtype=np.float32).reshape(-1, BLOCK // GROUP, GROUP)
    wanted = np.abs(groups).max(axis=2) / LARGEST
    scale = (wanted.max(axis=1, keepdims=True) / LARGEST_SCALE).astype("<f2")
    factor = scale.astype(np.float32)
    # Nothing is divided by zero: where all weights of a block are nothing, so are their codes.
    scales = np.rint(wanted / np.where(factor, factor, 1)).clip(1, LARGEST_SCALE).astype(np.int8)
    step = (scales * np.where(factor, factor, 1))[:, :, np.newaxis]
    codes = (np.rint(groups / step).clip(-LARGEST - 1, LARGEST) + LARGEST + 1).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = codes & 15, codes >> 4
    lows = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    highs = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    parts = (lows, highs, scales.view(np.uint8), scale.view(np.uint8))
    return np.concatenate([part.reshape(len(groups), -1) for part in parts], axis=1).reshape(rows, -1)
