# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte-level BPE of GPT-2, for ASCII text: what a model that ships a held-out text is read with.

The engine has tokenizers for all models; this one is for the reference side of a comparison, which must not depend on
the engine that is judged. It refuses what it cannot read exactly as the engine does.
"""

from __future__ import annotations

import re

from .gguf_file import GGUFFile, ModelError
from .synthetic import byte_alphabet

_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
"""GPT-2's pattern, with its classes of letters and digits narrowed to those that ASCII has."""


class Tokenizer:
    """Reads text as the tokens of one model, its begin token first."""

    def __init__(self, model: GGUFFile) -> None:
        kind = (model.metadata.get("tokenizer.ggml.model"), model.metadata.get("tokenizer.ggml.pre"))
        if kind != ("gpt2", "gpt-2"):
            raise ModelError(
                f"{model.path}: its tokenizer is {kind[0]!r}/{kind[1]!r}, only 'gpt2'/'gpt-2' is read here; "
                "use a model that ships a held-out text, or let the engine read it (--kernels DIR)."
            )
        self._alphabet = byte_alphabet()
        self._numbers = {token: number for number, token in enumerate(model.metadata["tokenizer.ggml.tokens"])}
        merges = model.metadata.get("tokenizer.ggml.merges", [])
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        begins = model.metadata.get("tokenizer.ggml.add_bos_token", False)
        self.begin = [int(model.metadata["tokenizer.ggml.bos_token_id"])] if begins else []
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if not text.isascii():
            raise ModelError("a held-out text is plain ASCII; write its quotation marks and dashes as ASCII has them.")
        return self.begin + [number for word in _WORDS.findall(text) for number in self._word(word)]

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            parts = [self._alphabet[byte] for byte in word.encode("ascii")]
            while len(parts) > 1:
                ranks = [self._ranks.get(pair, len(self._ranks)) for pair in zip(parts, parts[1:], strict=False)]
                best = min(ranks)
                if best == len(self._ranks):
                    break
                at = ranks.index(best)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            self._known[word] = [self._numbers[part] for part in parts]
        return self._known[word]
