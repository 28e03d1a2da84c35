# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IQ2_BN and IQ2_BN_R4, the ternary layouts that ik_llama.cpp computes with.

Read off ``quantize_one_row_2bn`` in ik_llama.cpp (``ggml/src/iqk/iqk_quantize.cpp``): each row begins with one float32
scale; blocks of 64 weights in 16 bytes follow. Weight j of a block sits in byte ``j % 16`` at bit ``2 * (j // 16)``;
the codes 0, 1, 2 mean -1, 0, +1.

IQ2_BN_R4 has the same size and interleaves four rows, so that one register holds weights of all (``repack_iq2_bn``
there): their four scales, then for each 64 columns 64 bytes. Weight j of row k sits in byte
``16 * (j // 16) + 4 * k + j % 4`` at bit ``2 * (j % 16 // 4)``.
"""

from __future__ import annotations

import numpy as np

BLOCK = 64
GROUP = 16
ROWS = 4
"""That IQ2_BN_R4 interleaves."""
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(4, 1)


def decode(raw: np.ndarray, columns: int) -> np.ndarray:
    """Rows as float32, from the bytes of whole rows."""
    rows = np.asarray(raw, dtype=np.uint8).reshape(-1, 4 + columns // 4)
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
    codes = (rows[:, 4:].reshape(len(rows), -1, 1, GROUP) >> _SHIFTS) & 3
    return (codes.reshape(len(rows), columns).astype(np.float32) - 1) * scales


def encode(codes: np.ndarray, scale: float) -> np.ndarray:
    """Bytes of a matrix of -1, 0, +1 (int8) whose rows all have the one scale."""
    rows, columns = codes.shape
    shifted = (codes.reshape(rows, columns // BLOCK, 4, GROUP) + 1).astype(np.uint8) << _SHIFTS
    packed = np.bitwise_or.reduce(shifted, axis=2).reshape(rows, columns // 4)
    scales = np.full((rows, 1), scale, dtype="<f4").view(np.uint8)
    return np.concatenate([scales, packed], axis=1)


def decode_r4(raw: np.ndarray, columns: int) -> np.ndarray:
    """Rows as float32, from the bytes of whole groups of four rows in IQ2_BN_R4."""
    groups = np.asarray(raw, dtype=np.uint8).reshape(-1, 4 * ROWS + columns)
    scales = np.ascontiguousarray(groups[:, : 4 * ROWS]).view("<f4").reshape(-1, 1)
    packed = groups[:, 4 * ROWS :].reshape(len(groups), columns // GROUP, ROWS, 1, 4)
    codes = ((packed >> _SHIFTS) & 3).transpose(0, 2, 1, 3, 4)
    return (codes.reshape(-1, columns).astype(np.float32) - 1) * scales


def encode_r4(codes: np.ndarray, scale: float) -> np.ndarray:
    """Bytes, a row for each group of four, of a matrix of -1, 0, +1 (int8) whose rows all have the one scale."""
    rows, columns = codes.shape
    split = (codes.reshape(rows // ROWS, ROWS, columns // GROUP, 4, 4) + 1).astype(np.uint8) << _SHIFTS
    packed = np.bitwise_or.reduce(split, axis=3).transpose(0, 2, 1, 3).reshape(rows // ROWS, columns)
    scales = np.full((rows // ROWS, ROWS), scale, dtype="<f4").view(np.uint8)
    return np.concatenate([scales, packed], axis=1)
