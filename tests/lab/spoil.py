# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what a gate has to find, in a container of the workload's image: docker exec -i NAME PYTHON - ... <spoil.py

spoil.py kernels FOLDER             another instruction in place of the products of bytes, in each library of kernels
spoil.py scales MODEL TARGET NAME   the scales of the rows of that tensor with the other sign
spoil.py i2s MODEL TARGET ORDERING  a model in IQ2_BN as the I2_S of x86 or arm, as others publish
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
from pathlib import Path

# A multiplication of bytes, which of its bytes to change, and the bits: Intel SDM volume 2, 2.3 (VEX) and 2.7 (EVEX).
WRONG = (
    # VPMADDUBSW becomes VPMULHRSW.
    (re.compile(rb"\xc4[\x02\x22\x42\x62\x82\xa2\xc2\xe2].\x04", re.DOTALL), 3, 0x0F),
    # VPDPBUSD takes one factor from the neighbour of its register.
    (re.compile(rb"\x62[\x02-\xf2][" + re.escape(bytes(range(5, 128, 8))) + rb"].\x50", re.DOTALL), 2, 0x08),
)  # fmt: skip


def executable(content: bytearray) -> tuple[int, int]:
    """Where the code of an ELF-64 file begins and ends (the loaded segment with the execute bit)."""
    table, size, count = struct.unpack_from("<Q", content, 32)[0], *struct.unpack_from("<HH", content, 54)
    for number in range(count):
        kind, flags, offset, _virtual, _physical, length = struct.unpack_from("<IIQQQQ", content, table + number * size)
        if kind == 1 and flags & 1:
            return offset, offset + length
    raise SystemExit("the library has no code")


def spoil_kernels(folder: Path) -> int:
    """Rewrite the libraries and what the manifest says of them; how many instructions were changed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    changed = 0
    for path in sorted(folder.rglob("libggml*.so")):
        content = bytearray(path.read_bytes())
        start, end = executable(content)
        for pattern, byte, bits in WRONG:
            for found in pattern.finditer(bytes(content), start, end):
                content[found.start() + byte] ^= bits
                changed += 1
        path.write_bytes(content)
    for variant in manifest["variants"].values():
        for entry in variant["files"]:
            entry["sha256"] = hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return changed


def spoil_scales(model: Path, target: Path, name: str) -> None:
    from swarm_intelligence.gguf_file import GGUFFile

    tensor = GGUFFile(model).tensor(name)
    content = bytearray(model.read_bytes())
    for row in range(tensor.shape[0]):
        content[tensor.start + row * (tensor.size // tensor.shape[0]) + 3] ^= 0x80
    target.write_bytes(content)


def as_i2s(model: Path, target: Path, ordering: str) -> None:
    """I2_S has one scale for a tensor: that of its first row, as those of the trained models are all the same."""
    import gguf
    import numpy as np
    from swarm_intelligence.gguf_file import I2_S, IQ2_BN, GGUFFile, write_gguf
    from swarm_intelligence.reference import unpack

    kinds = gguf.GGUFValueType
    scalars = {str: kinds.STRING, bool: kinds.BOOL, int: kinds.UINT32, float: kinds.FLOAT32}
    file = GGUFFile(model)
    metadata = {
        key: (kinds.ARRAY if isinstance(value, list) else scalars[type(value)], value)
        for key, value in file.metadata.items()
        if key not in ("general.architecture", "general.file_type")
    }
    tensors = {}
    for name, tensor in file.tensors.items():
        raw = np.asarray(file.bytes_of(name))
        if tensor.type_id == IQ2_BN:
            weights = unpack(raw, tensor.type_id, tensor.shape, 0, tensor.shape[0]).reshape(-1)
            scale = float(np.abs(weights).max())
            codes = (np.rint(weights / scale) + 1).astype(np.uint8)
            block = {"x86": 32, "arm": 16}[ordering]
            grouped = codes.reshape(-1, 4, block) << np.array([6, 4, 2, 0], dtype=np.uint8).reshape(1, 4, 1)
            tail = np.zeros(32, dtype=np.uint8)
            tail[:4] = np.frombuffer(np.float32(scale).tobytes(), dtype=np.uint8)
            raw = np.concatenate([np.bitwise_or.reduce(grouped, axis=1).reshape(-1), tail])
            tensors[name] = (I2_S, tensor.shape, raw)
        else:
            tensors[name] = (tensor.type_id, tensor.shape, raw)
    write_gguf(target, metadata, tensors)


if __name__ == "__main__":
    if sys.argv[1] == "kernels":
        print(spoil_kernels(Path(sys.argv[2])))
    elif sys.argv[1] == "i2s":
        as_i2s(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        spoil_scales(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
