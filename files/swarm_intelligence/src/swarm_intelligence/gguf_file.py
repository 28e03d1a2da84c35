# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading GGUF files that nobody vouches for, and writing ours.

The ``gguf`` package reads only tensor types of mainline llama.cpp; ik_llama.cpp's ternary types and Microsoft's I2_S
have numbers of their own (``ggml/include/ggml.h`` of ik_llama.cpp), so the index is parsed here. Every length is
compared with what is left of the file before anything is allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURE = "bitnet-b1.58"
MAGIC = b"GGUF"
VERSION = 3
MAX_KEYS = 4096
MAX_TENSORS = 65536
MAX_NAME = 256
MAX_ELEMENTS = 1 << 40

I2_S = 36
IQ1_BN = 134
IQ2_BN = 135
IQ2_BN_R4 = 335
F32, F16, Q6_K, BF16 = 0, 1, 14, 30


class ModelError(Exception):
    """A model that cannot be used; the message is one sentence and says the way out."""


@dataclass(frozen=True)
class TensorType:
    """How a tensor type is laid out: blocks of weights, and bytes of metadata at the head of each row."""

    name: str
    block: int
    block_bytes: int
    row_meta: int = 0
    rows: int = 1
    """That lie interleaved."""


# Numbers 31 to 33 and 36 to 38 meant repacked types in older mainline files; here 36 is I2_S, as in Microsoft's fork.
TYPES: dict[int, TensorType] = {
    int(number): TensorType(number.name.lower(), block, size)
    for number, (block, size) in gguf.GGML_QUANT_SIZES.items()
    if int(number) < 39 and int(number) != I2_S
} | {
    I2_S: TensorType("i2_s", 4, 1),
    IQ1_BN: TensorType("iq1_bn", 64, 13, row_meta=2),
    IQ2_BN: TensorType("iq2_bn", 64, 16, row_meta=4),
    IQ2_BN_R4: TensorType("iq2_bn_r4", 64, 16, row_meta=4, rows=4),
}
I2_S_TAIL = 32

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """One entry of the index. ``shape`` is (rows, columns) or (columns,), outermost first, as NumPy counts."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    start: int
    size: int

    @property
    def type_name(self) -> str:
        return TYPES[self.type_id].name


class _Cursor:
    """Walks over the mapped bytes and refuses to look beyond their end."""

    def __init__(self, data: np.ndarray, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0

    def fail(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what}; fetch the model again (bitnet-cli model fetch).")

    def take(self, count: int, what: str) -> bytes:
        end = self.position + count
        if end > self.data.size:
            raise self.fail(f"the file ends inside {what} (byte {self.data.size}, {end} needed), so it is truncated")
        piece = self.data[self.position : end].tobytes()
        self.position = end
        return piece

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def text(self, what: str, limit: int | None = None) -> str:
        length = self.number("Q", what)
        if limit is not None and length > limit:
            raise self.fail(f"{what} is {length} bytes long, at most {limit} are allowed, so the header is corrupt")
        return self.take(length, what).decode("utf-8", errors="replace")

    def value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return self.text(what)
        if kind == _ARRAY:
            return self.array(what)
        raise self.fail(f"{what} has the unknown value type {kind}, so the header is corrupt")

    def array(self, what: str) -> list[Any]:
        kind = self.number("I", what)
        count = self.number("Q", what)
        smallest = struct.calcsize("<" + _SCALARS[kind]) if kind in _SCALARS else 8
        if count * smallest > self.data.size - self.position:
            raise self.fail(
                f"{what} claims {count} entries, more than the file can hold, so it is corrupt or truncated"
            )
        if kind in _SCALARS:
            code = _SCALARS[kind]
            return list(struct.unpack(f"<{count}{code}", self.take(count * smallest, what)))
        if kind == _STRING:
            return [self.text(what) for _unused in range(count)]
        raise self.fail(f"{what} holds values of the unsupported type {kind}, so the header is corrupt")


class GGUFFile:
    """The index of a GGUF file, its metadata, and its tensors' bytes (mapped, not read)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            if self.path.stat().st_size == 0:
                raise ModelError(f"{self.path}: the file is empty; fetch the model again (bitnet-cli model fetch).")
            self.data: np.ndarray = np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.path}: cannot be read ({error}); name a GGUF file that exists.") from error
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._parse(_Cursor(self.data, self.path))

    def _parse(self, cursor: _Cursor) -> None:
        if cursor.take(4, "the magic") != MAGIC:
            raise cursor.fail("this is no GGUF file (it does not begin with 'GGUF')")
        version = cursor.number("I", "the version")
        if version not in (2, 3):
            raise cursor.fail(f"GGUF version {version} is not supported (2 and 3 are)")
        tensor_count = cursor.number("Q", "the number of tensors")
        key_count = cursor.number("Q", "the number of keys")
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise cursor.fail(f"the header claims {tensor_count} tensors and {key_count} keys, so it is corrupt")
        for index in range(key_count):
            key = cursor.text(f"the name of key {index}", MAX_NAME)
            if key in self.metadata:
                raise cursor.fail(f"the key {key!r} appears twice, so the header is corrupt")
            self.metadata[key] = cursor.value(
                cursor.number("I", f"the type of key {key!r}"), f"the value of key {key!r}"
            )
        entries = [self._entry(cursor, index) for index in range(tensor_count)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= 65536 or alignment & (alignment - 1):
            raise cursor.fail(
                f"the alignment {alignment!r} is no power of two from 8 to 65536, so the header is corrupt"
            )
        base = -(-cursor.position // alignment) * alignment
        for name, shape, type_id, offset in entries:
            if name in self.tensors:
                raise cursor.fail(f"the tensor {name!r} appears twice, so the header is corrupt")
            size = tensor_bytes(type_id, shape)
            if offset % alignment:
                raise cursor.fail(f"the tensor {name!r} is not aligned to {alignment} bytes, so the header is corrupt")
            if base + offset + size > self.data.size:
                raise cursor.fail(
                    f"the tensor {name!r} ends at byte {base + offset + size}, the file at byte {self.data.size}, "
                    "so it is truncated"
                )
            self.tensors[name] = Tensor(name, shape, type_id, base + offset, size)

    def _entry(self, cursor: _Cursor, index: int) -> tuple[str, tuple[int, ...], int, int]:
        name = cursor.text(f"the name of tensor {index}", MAX_NAME)
        what = f"the tensor {name!r}"
        rank = cursor.number("I", what)
        if not 1 <= rank <= 4:
            raise cursor.fail(f"{what} has {rank} dimensions (1 to 4 are possible), so the header is corrupt")
        shape = tuple(reversed(struct.unpack(f"<{rank}Q", cursor.take(8 * rank, what))))
        type_id = cursor.number("I", what)
        offset = cursor.number("Q", what)
        if type_id not in TYPES:
            raise ModelError(
                f"{self.path}: {what} has the unknown type {type_id}; "
                "use a model in IQ2_BN, or one in I2_S converted by bitnet-cli model convert."
            )
        if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise cursor.fail(f"{what} has the impossible shape {shape}, so the header is corrupt")
        if math.prod(shape[:-1]) % TYPES[type_id].rows:
            raise cursor.fail(f"{what} has {math.prod(shape[:-1])} rows, which {TYPES[type_id].name} holds in fours")
        if type_id != I2_S and shape[-1] % TYPES[type_id].block:
            raise cursor.fail(f"{what} has rows of {shape[-1]}, no multiple of its block of {TYPES[type_id].block}")
        return name, shape, type_id, offset

    def bytes_of(self, name: str) -> np.ndarray:
        """The tensor's bytes as they lie in the file (a view of the mapping)."""
        tensor = self.tensor(name)
        return self.data[tensor.start : tensor.start + tensor.size]

    def tensor(self, name: str) -> Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise ModelError(
                f"{self.path}: the tensor {name!r} is missing; use a model of architecture {ARCHITECTURE}."
            ) from None

    def close(self) -> None:
        """Lets go of the mapping; nothing may be read through this object afterwards."""
        self.data = np.empty(0, dtype=np.uint8)


def tensor_bytes(type_id: int, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of this type and shape takes on disk (``ggml_nbytes`` of ik_llama.cpp)."""
    kind = TYPES[type_id]
    if type_id == I2_S:
        return math.prod(shape) // 4 + I2_S_TAIL
    return math.prod(shape[:-1]) * (kind.row_meta + shape[-1] // kind.block * kind.block_bytes)


def write_gguf(
    path: Path,
    metadata: Mapping[str, tuple[gguf.GGUFValueType, Any]],
    tensors: Mapping[str, tuple[int, tuple[int, ...], np.ndarray]],
) -> None:
    """Write a GGUF file; each tensor is (type number, logical shape, its bytes in any dtype)."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    for key, (kind, value) in metadata.items():
        element = gguf.GGUFValueType.get_type(value[0]) if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, kind, sub_type=element)
    for name, (type_id, shape, content) in tensors.items():
        raw = np.ascontiguousarray(content).view(np.int8).reshape(-1)
        if raw.nbytes != tensor_bytes(type_id, shape):
            raise ValueError(f"{name}: {raw.nbytes} bytes given, {tensor_bytes(type_id, shape)} needed")
        # The writer takes the number as it is; its enumeration lacks those of ik_llama.cpp.
        writer.add_tensor(name, raw, raw_shape=shape, raw_dtype=type_id)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
