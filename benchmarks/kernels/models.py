# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of the published 2B-4T's dimensions with random weights: speed does not depend on what the weights say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from swarm_intelligence import iq2bn, q6k
from swarm_intelligence.gguf_file import IQ2_BN, IQ2_BN_R4
from swarm_intelligence.synthetic import BEGIN, CHAT_TEMPLATE, END, byte_alphabet


@dataclass(frozen=True)
class Dimensions:
    """Of a BitNet b1.58 model; the default is microsoft/bitnet-b1.58-2B-4T, by its config.json."""

    width: int = 2560
    hidden: int = 6912
    layers: int = 30
    heads: int = 20
    heads_kv: int = 5
    vocabulary: int = 128256

    def linear(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of the ternary matrices of a layer."""
        kv = self.width // self.heads * self.heads_kv
        return {
            "attn_q": (self.width, self.width),
            "attn_k": (kv, self.width),
            "attn_v": (kv, self.width),
            "attn_output": (self.width, self.width),
            "ffn_gate": (self.hidden, self.width),
            "ffn_up": (self.hidden, self.width),
            "ffn_down": (self.width, self.hidden),
        }


Entry = tuple[str, int, tuple[int, ...], np.ndarray]
"""Name, number of the type, shape, bytes."""
ENGINE, MAINLINE = "bitnet-b1.58", "bitnet"
"""The architecture's names in ik_llama.cpp and in llama.cpp."""


def write(path: Path, dimensions: Dimensions, architecture: str, ternary: str, embeddings: str) -> None:
    """Write a model; ``ternary`` is iq2_bn, iq2_bn_r4 or tq2_0, ``embeddings`` the type of its tied embeddings."""
    temporary = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(temporary, architecture, use_temp_file=True)
    _describe(writer, dimensions)
    for name, kind, shape, raw in _tensors(dimensions, ternary, Type[embeddings.upper()]):
        # The writer takes the number as it is; its enumeration lacks those of ik_llama.cpp.
        writer.add_tensor(name, raw, raw_shape=shape, raw_dtype=kind)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def _describe(writer: gguf.GGUFWriter, dimensions: Dimensions) -> None:
    writer.add_name("2B-4T's dimensions, random weights")
    writer.add_vocab_size(dimensions.vocabulary)
    writer.add_context_length(4096)
    writer.add_embedding_length(dimensions.width)
    writer.add_block_count(dimensions.layers)
    writer.add_feed_forward_length(dimensions.hidden)
    writer.add_rope_dimension_count(dimensions.width // dimensions.heads)
    writer.add_rope_freq_base(500000.0)
    writer.add_head_count(dimensions.heads)
    writer.add_head_count_kv(dimensions.heads_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    alphabet = byte_alphabet()
    rest = [f"<{number}>" for number in range(dimensions.vocabulary - len(alphabet) - 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*alphabet, *rest, BEGIN, END])
    writer.add_token_types([1] * (dimensions.vocabulary - 2) + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(dimensions.vocabulary - 2)
    writer.add_eos_token_id(dimensions.vocabulary - 1)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(dimensions: Dimensions, ternary: str, embeddings: Type) -> Iterator[Entry]:
    random = np.random.default_rng(1)

    def norm(name: str, length: int) -> Entry:
        return f"{name}.weight", Type.F32, (length,), np.ones(length, dtype=np.float32).view(np.int8)

    shape = (dimensions.vocabulary, dimensions.width)
    table = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
    raw = q6k.encode(table) if embeddings == Type.Q6_K else table.astype(np.float16)
    yield "token_embd.weight", embeddings, shape, raw.view(np.int8).reshape(-1)
    yield norm("output_norm", dimensions.width)
    for layer in range(dimensions.layers):
        for name in ("attn_norm", "attn_sub_norm", "ffn_norm"):
            yield norm(f"blk.{layer}.{name}", dimensions.width)
        yield norm(f"blk.{layer}.ffn_sub_norm", dimensions.hidden)
        for name, (rows, columns) in dimensions.linear().items():
            codes = random.integers(-1, 2, (rows, columns), dtype=np.int8)
            if ternary == "iq2_bn":
                kind, content = IQ2_BN, iq2bn.encode(codes, 0.02)
            elif ternary == "iq2_bn_r4":
                kind, content = IQ2_BN_R4, iq2bn.encode_r4(codes, 0.02)
            else:
                kind, content = Type.TQ2_0, gguf.quants.quantize(codes.astype(np.float32), Type.TQ2_0)
            yield (
                f"blk.{layer}.{name}.weight",
                kind,
                (rows, columns),
                np.ascontiguousarray(content).view(np.int8).reshape(-1),
            )
