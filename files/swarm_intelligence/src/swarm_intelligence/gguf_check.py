# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a servable model looks like, and the record (``model.json``) that lies beside it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import i2s
from .gguf_file import ARCHITECTURE, I2_S, GGUFFile, ModelError

__all__ = ["HyperParameters", "ModelError", "check_servable", "describe", "read_record", "write_record"]

SCHEMA = 1
RECORD = "model.json"
LINEAR = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class HyperParameters:
    """Sizes of a model of architecture bitnet-b1.58, under the names GGUF gives them."""

    embedding_length: int
    block_count: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    context_length: int
    vocabulary: int
    norm_epsilon: float
    rope_base: float

    @property
    def head_length(self) -> int:
        return self.embedding_length // self.head_count

    @property
    def kv_length(self) -> int:
        return self.head_length * self.head_count_kv

    @classmethod
    def read(cls, model: GGUFFile) -> HyperParameters:
        """Read and check them; the engine aborts on some of what is refused here."""
        if model.metadata.get("general.architecture") != ARCHITECTURE:
            raise ModelError(
                f"{model.path}: the architecture is {model.metadata.get('general.architecture')!r}, "
                f"only {ARCHITECTURE!r} is served; choose a BitNet b1.58 model."
            )
        tokens = model.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens:
            raise _incomplete(model, "tokenizer.ggml.tokens")
        parameters = cls(
            embedding_length=_whole(model, "embedding_length"),
            block_count=_whole(model, "block_count"),
            feed_forward_length=_whole(model, "feed_forward_length"),
            head_count=_whole(model, "attention.head_count"),
            head_count_kv=_whole(model, "attention.head_count_kv", _whole(model, "attention.head_count")),
            context_length=_whole(model, "context_length"),
            vocabulary=len(tokens),
            norm_epsilon=_real(model, "attention.layer_norm_rms_epsilon"),
            rope_base=_real(model, "rope.freq_base", 10000.0),
        )
        if parameters.embedding_length % parameters.head_count or parameters.head_count % parameters.head_count_kv:
            raise ModelError(
                f"{model.path}: {parameters.head_count} heads ({parameters.head_count_kv} for keys) do not divide "
                f"an embedding of {parameters.embedding_length}; fetch the model again (bitnet-cli model fetch)."
            )
        return parameters

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors that a model of this size must have (``create_bitnet2_tensors`` of ik_llama.cpp)."""
        width, hidden = self.embedding_length, self.feed_forward_length
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocabulary, width),
            "output_norm.weight": (width,),
        }
        for layer in range(self.block_count):
            block = {
                "attn_norm": (width,),
                "attn_sub_norm": (width,),
                "attn_q": (width, width),
                "attn_k": (self.kv_length, width),
                "attn_v": (self.kv_length, width),
                "attn_output": (width, width),
                "ffn_norm": (width,),
                "ffn_sub_norm": (hidden,),
                "ffn_gate": (hidden, width),
                "ffn_up": (hidden, width),
                "ffn_down": (width, hidden),
            }
            shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in block.items()})
        return shapes


def _incomplete(model: GGUFFile, key: str) -> ModelError:
    return ModelError(
        f"{model.path}: the key {key!r} is missing or wrong; fetch the model again (bitnet-cli model fetch)."
    )


def _whole(model: GGUFFile, key: str, default: int | None = None) -> int:
    value = model.metadata.get(f"{ARCHITECTURE}.{key}", default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
        raise _incomplete(model, f"{ARCHITECTURE}.{key}")
    return value


def _real(model: GGUFFile, key: str, default: float | None = None) -> float:
    value = model.metadata.get(f"{ARCHITECTURE}.{key}", default)
    if not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise _incomplete(model, f"{ARCHITECTURE}.{key}")
    return float(value)


def check_structure(model: GGUFFile) -> HyperParameters:
    """Architecture, sizes and the presence and shape of every tensor; whichever type they are in."""
    parameters = HyperParameters.read(model)
    if parameters.block_count * len(LINEAR) > len(model.tensors):
        raise ModelError(
            f"{model.path}: {parameters.block_count} layers are declared, there are {len(model.tensors)} tensors; "
            "fetch the model again (bitnet-cli model fetch)."
        )
    for name, shape in parameters.shapes().items():
        found = model.tensor(name).shape
        if found != shape:
            raise ModelError(
                f"{model.path}: the tensor {name!r} has the shape {found}, {shape} is needed; "
                "fetch the model again (bitnet-cli model fetch)."
            )
    return parameters


def raw_i2s(model: GGUFFile) -> list[str]:
    """Names of the tensors that are still in I2_S."""
    return [tensor.name for tensor in model.tensors.values() if tensor.type_id == I2_S]


def check_i2s(model: GGUFFile) -> None:
    """That the I2_S tensors can be in the x86 layout: whole blocks, and a positive finite scale each."""
    for name in raw_i2s(model):
        count = 1
        for length in model.tensors[name].shape:
            count *= length
        scale = i2s.scale_of(model.bytes_of(name), count) if count % i2s.BLOCK == 0 else 0.0
        if not 0 < scale < 1e6:
            raise ModelError(
                f"{model.path}: the tensor {name!r} has no usable I2_S scale ({scale}), so it was packed for another "
                "engine or is corrupt; fetch the model again (bitnet-cli model fetch)."
            )


def check_servable(path: Path | str) -> dict[str, Any]:
    """Refuse a model that the engine would crash on or answer wrongly with; describe it otherwise."""
    model = GGUFFile(path)
    raw = raw_i2s(model)
    if raw and model.metadata.get("general.architecture") == ARCHITECTURE:
        raise ModelError(
            f"{model.path}: {len(raw)} tensors are in I2_S, with which the engine answers garbage; "
            f"convert it first: bitnet-cli model convert --kernels DIR --input {model.path} --output FILE."
        )
    check_structure(model)
    return describe(model)


def describe(model: GGUFFile) -> dict[str, Any]:
    """What can be said of a model at a glance; ``type`` is the one that most of its layers are in."""
    types = [tensor.type_name for tensor in model.tensors.values()]
    layers = [
        tensor.type_name for name, tensor in model.tensors.items() if name.startswith("blk.") and len(tensor.shape) > 1
    ]
    name = model.metadata.get("general.name")
    return {
        "name": name if isinstance(name, str) else model.path.stem,
        "architecture": str(model.metadata.get("general.architecture")),
        "type": max(sorted(set(layers)), key=layers.count, default="none"),
        "types": {kind: types.count(kind) for kind in sorted(set(types))},
        "size": model.data.size,
        "tensors": len(types),
    }


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_path(model: Path) -> Path:
    return model.parent / RECORD


def write_record(
    path: Path,
    known_answer: list[dict[str, Any]] | None = None,
    name: str | None = None,
    held_out: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Check a model and write ``model.json`` beside it."""
    record: dict[str, Any] = {"schema": SCHEMA, **check_servable(path), "sha256": file_sha256(path)}
    if name:
        record["name"] = name
    if known_answer:
        record["known_answer"] = known_answer
    if held_out:
        record["held_out"] = held_out
    target = record_path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(target)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """The record of a model, given the path of either."""
    target = path if path.suffix == ".json" else record_path(path)
    try:
        record = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{target}: cannot be read ({error}); write it with bitnet-cli model check --record."
        ) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ModelError(
            f"{target}: this is no record of schema {SCHEMA}; write it again with bitnet-cli model check --record."
        )
    return record
