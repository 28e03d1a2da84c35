# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The size of a model of the architecture bitnet-b1.58 from its dimensions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Of each type: weights in a block, bytes of a block, bytes that each row has besides (ggml's block structures).
TYPES = {
    "bf16": (1, 2, 0),
    "f16": (1, 2, 0),
    "f32": (1, 4, 0),
    "i2_s": (4, 1, 0),
    "iq1_bn": (64, 13, 2),
    "iq2_bn": (64, 16, 4),
    "iq2_bn_r4": (64, 16, 4),
    "q4_0": (32, 18, 0),
    "q4_k": (256, 144, 0),
    "q6_k": (256, 210, 0),
    "q8_0": (32, 34, 0),
    "tq1_0": (256, 54, 0),
    "tq2_0": (256, 66, 0),
}
# I2_S keeps one scale for a whole tensor in 32 bytes behind it.
TENSOR_EXTRA = {"i2_s": 32}
ALIGNMENT = 32
DIMENSIONS = ("vocabulary", "width", "hidden", "layers", "heads", "heads_kv")
LARGEST = 1 << 32


class ModelSizeError(Exception):
    """Dimensions or a type that no model can have; the message names it, its value and the way out."""


def size(dimensions: Any, layers_type: str, embeddings_type: str, output_type: str | None = None) -> int:
    """Bytes of all tensors as a GGUF file holds them, each padded to 32 bytes; without the file's header."""
    found = _checked(dimensions)
    kinds = _tensors(found, layers_type, embeddings_type, output_type)
    return sum(count * _bytes(name, rows, columns, kind) for name, count, rows, columns, kind in kinds)


def _tensors(
    of: dict[str, int], layers: str, embeddings: str, output: str | None
) -> Iterator[tuple[str, int, int, int, str]]:
    """Name, how many, rows, columns, type."""
    width, hidden, count = of["width"], of["hidden"], of["layers"]
    key_width = width // of["heads"] * of["heads_kv"]
    yield "the embeddings", 1, of["vocabulary"], width, embeddings
    if output is not None:
        yield "the output", 1, of["vocabulary"], width, output
    yield "the last norm", 1, 1, width, "f32"
    yield "norms", 3 * count, 1, width, "f32"
    yield "norms", count, 1, hidden, "f32"
    yield "queries and attention's output", 2 * count, width, width, layers
    yield "keys and values", 2 * count, key_width, width, layers
    yield "gate and up", 2 * count, hidden, width, layers
    yield "down", count, width, hidden, layers


def _bytes(name: str, rows: int, columns: int, kind: str) -> int:
    if kind not in list(TYPES):
        raise ModelSizeError(f"the type {kind!r} is not known; known are {', '.join(TYPES)}")
    weights, block, row_extra = TYPES[kind]
    if columns % weights:
        raise ModelSizeError(
            f"{name} have rows of {columns} weights, which {kind} cannot hold: it takes them by {weights}"
        )
    plain = rows * (columns // weights * block + row_extra) + TENSOR_EXTRA.get(kind, 0)
    return -(-plain // ALIGNMENT) * ALIGNMENT


def _checked(dimensions: Any) -> dict[str, int]:
    if not isinstance(dimensions, Mapping) or set(dimensions) != set(DIMENSIONS):
        given = ", ".join(sorted(map(str, dimensions))) if isinstance(dimensions, Mapping) else repr(dimensions)
        raise ModelSizeError(f"wants a dictionary of exactly {', '.join(DIMENSIONS)}, not of {given or 'nothing'}")
    for name, value in dimensions.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < LARGEST:
            raise ModelSizeError(f"{name}: {value!r} is no whole number above zero")
    found = {str(name): int(value) for name, value in dimensions.items()}
    if found["width"] % found["heads"]:
        raise ModelSizeError(f"heads: {found['heads']} does not divide the width {found['width']}")
    if found["heads"] % found["heads_kv"]:
        raise ModelSizeError(f"heads_kv: {found['heads_kv']} does not divide the heads {found['heads']}")
    return found
