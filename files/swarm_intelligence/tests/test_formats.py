# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layouts of tensors, against decoders written weight by weight from their descriptions."""

from __future__ import annotations

import math
import struct

import gguf
import numpy as np
import pytest
from swarm_intelligence import i2s, iq2bn, q6k
from swarm_intelligence.convert import choose
from swarm_intelligence.gguf_file import IQ2_BN_R4
from swarm_intelligence.reference import unpack


def ternary(rows: int, columns: int) -> np.ndarray:
    return (np.random.default_rng(7).integers(-1, 2, (rows, columns))).astype(np.int8)


def test_i2s_weight_by_weight() -> None:
    codes = ternary(3, 256)
    raw = i2s.encode(codes, 0.25).tobytes()
    assert len(raw) == 3 * 256 // 4 + 32
    (scale,) = struct.unpack_from("<f", raw, 3 * 256 // 4)
    for index, wanted in enumerate(codes.reshape(-1)):
        block, place = divmod(index, 128)
        code = raw[block * 32 + place % 32] >> (6 - 2 * (place // 32)) & 3
        assert (code - 1) * scale == wanted * 0.25


def test_i2s_known_bytes() -> None:
    raw = np.zeros(64, dtype=np.uint8)
    raw[0] = 0b10_01_00_10
    raw[32:36] = np.frombuffer(struct.pack("<f", 2.0), dtype=np.uint8)
    weights = i2s.decode(raw, 128)
    assert weights[[0, 32, 64, 96]].tolist() == [2.0, 0.0, -2.0, 2.0]
    assert weights[1] == -2.0


def test_i2s_of_arm_weight_by_weight() -> None:
    codes = np.random.default_rng(5).integers(-1, 2, 256).astype(np.int8)
    raw = bytearray(64 + i2s.TAIL)
    for number, code in enumerate(codes):
        block, j = divmod(number, 64)
        raw[block * 16 + j % 16] |= (int(code) + 1) << (6 - 2 * (j // 16))
    raw[64:68] = np.float32(0.5).tobytes()
    arm = np.frombuffer(bytes(raw), dtype=np.uint8)
    assert np.array_equal(i2s.decode(i2s.to_x86(arm, 256), 256), codes * np.float32(0.5))
    assert not np.array_equal(i2s.decode(arm, 256), codes * np.float32(0.5))


def test_the_ordering_that_makes_more_sense_is_taken() -> None:
    assert choose({"x86": -9.0, "arm": -4.0}, 1024)[0] == "arm"
    assert choose({"x86": -4.0, "arm": -9.0}, 1024)[0] == "x86"
    assert choose({"x86": -math.inf, "arm": -4.0}, 1024)[0] == "arm"
    untrained = {"x86": -12.6, "arm": -11.2}
    for unknown in ({"x86": -4.0, "arm": -3.8}, {"x86": -math.inf, "arm": -math.inf}, untrained):
        ordering, reason = choose(unknown, 1024)
        assert ordering == "x86"
        assert "cannot be told" in reason


def test_i2s_round_trip_and_parts() -> None:
    codes = ternary(4, 128)
    raw = i2s.encode(codes, 1.5)
    assert np.array_equal(i2s.decode(raw, 512), codes.reshape(-1) * np.float32(1.5))
    assert np.array_equal(i2s.decode(raw, 512, 128, 256), codes[1:3].reshape(-1) * np.float32(1.5))
    with pytest.raises(ValueError, match="blocks of 128"):
        i2s.decode(raw, 512, 64, 128)


def test_iq2bn_weight_by_weight() -> None:
    codes = ternary(5, 192)
    raw = iq2bn.encode(codes, 0.75)
    assert raw.shape == (5, 4 + 192 // 4)
    for row, bytes_ in zip(codes, raw, strict=True):
        (scale,) = struct.unpack_from("<f", bytes_.tobytes())
        for index, wanted in enumerate(row):
            block, place = divmod(index, 64)
            code = int(bytes_[4 + block * 16 + place % 16]) >> (2 * (place // 16)) & 3
            assert (code - 1) * scale == wanted * 0.75


def test_iq2bn_round_trip() -> None:
    codes = ternary(6, 128)
    assert np.array_equal(iq2bn.decode(iq2bn.encode(codes, 0.5), 128), codes * np.float32(0.5))


def test_iq2bn_r4_weight_by_weight() -> None:
    codes = ternary(8, 192)
    raw = iq2bn.encode_r4(codes, 0.75)
    for group, bytes_ in enumerate(raw):
        scales = struct.unpack_from("<4f", bytes_.tobytes())
        for row in range(4):
            for index, wanted in enumerate(codes[4 * group + row]):
                place = 16 + 16 * (index // 16) + 4 * row + index % 4
                code = int(bytes_[place]) >> (2 * (index % 16 // 4)) & 3
                assert (code - 1) * scales[row] == wanted * 0.75


def test_iq2bn_r4_round_trip_and_parts() -> None:
    codes = ternary(12, 128)
    raw = iq2bn.encode_r4(codes, 0.5)
    wanted = codes * np.float32(0.5)
    assert np.array_equal(iq2bn.decode_r4(raw, 128), wanted)
    for first, rows in ((0, 12), (3, 1), (2, 7), (11, 1)):
        found = unpack(raw.reshape(-1), IQ2_BN_R4, (12, 128), first, rows)
        assert np.array_equal(found, wanted[first : first + rows])


def test_q6k_as_the_gguf_package_reads_it() -> None:
    """Each weight within half a step of its group, groups of nothing included, and the change small for the whole."""
    table = np.random.default_rng(1).standard_normal((5, 512)).astype(np.float32)
    table[1] *= np.float32(1e-3)
    table[2, :256] = 0
    table[3] = 0
    table[4, 7] = 1000
    raw = q6k.encode(table)
    assert (raw.dtype, raw.shape) == (np.uint8, (5, 2 * 210))
    found = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q6_K)
    assert not found[3].any()
    assert not found[2, :256].any()
    change = np.linalg.norm(found - table, axis=1)[[0, 1, 2]] / np.linalg.norm(table, axis=1)[[0, 1, 2]]
    assert (change < 0.021).all()
    assert abs(found[4, 7] - 1000) < 1000 / 62
    assert np.abs(found[4, 256:] - table[4, 256:]).max() < np.abs(table[4, 256:]).max() / 50, (
        "an outlier stays in its block"
    )
