# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the instruction counts that the builder container writes, and judges a variant by them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .catalogue import Variant
from .errors import KernelError

# Prints "COUNT MNEMONIC REGISTER ENCODING" for each kind of instruction.
# x86_64: the byte 0x62 (after an optional segment or address-size prefix) begins an EVEX instruction and nothing else.
# aarch64: z and v are the vectors of SVE and of Advanced SIMD; "lse" are the atomic instructions of Armv8.1. The
# functions named __aarch64_* are libgcc's: they ask the CPU before they use one, so what they hold is "guarded".
AWK = r"""
/^[0-9a-f]+ <.*>:$/ { guarded = ($0 ~ /<__aarch64_(cas|swp|ldadd|ldclr|ldeor|ldset)[0-9]/) }
NF >= 3 {
  text = $3
  for (i = 4; i <= NF; i++) text = text " " $i
  sub(/<.*/, "", text)
  split(text, word, " ")
  name = word[1]
  if (name ~ /^[{]/) name = name word[2]
  register = "none"
  if (text ~ /%tmm/) register = "tmm"
  else if (text ~ /%zmm/) register = "zmm"
  else if (text ~ /%ymm/) register = "ymm"
  else if (text ~ /%xmm/) register = "xmm"
  else if (text ~ /[ ,{[]z[0-9]+([.,]|$)/) register = "z"
  else if (text ~ /[ ,{[]v[0-9]+[.]/) register = "v"
  encoding = "other"
  if ($2 ~ /^((64|65|67) )*62 /) encoding = "evex"
  else if (name ~ /^(casp?|swp|(ld|st)(add|clr|eor|set|smax|smin|umax|umin))(a|l|al)?[bh]?$/) encoding = "lse"
  if (guarded) encoding = "guarded"
  count[name " " register " " encoding]++
}
END { for (key in count) print count[key], key }
"""


@dataclass
class Inspection:
    """What the container saw: instructions per file, needed libraries, baked-in search paths."""

    instructions: dict[str, dict[tuple[str, str, str], int]] = field(default_factory=dict)
    needed: dict[str, set[str]] = field(default_factory=dict)
    runpaths: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Inspection:
    """Lines are "file NAME", then counts, and "needed NAME" or "runpath PATH" of that file."""
    seen = Inspection()
    current = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "file":
            current = words[1]
            seen.instructions.setdefault(current, {})
            seen.needed.setdefault(current, set())
        elif len(words) == 2 and words[0] == "needed":
            seen.needed[current].add(words[1])
        elif words and words[0] == "runpath":
            seen.runpaths[current] = " ".join(words[1:])
        elif len(words) == 4 and words[0].isdigit():
            seen.instructions[current][(words[1], words[2], words[3])] = int(words[0])
    return seen


def judge(variant: Variant, seen: Inspection, hot: list[str]) -> dict[str, Any]:
    """Counts for the manifest, or a refusal that names the file and the instruction."""
    objects = {name: counts for name, counts in seen.instructions.items() if name.startswith("hot/")}
    libraries = {name: counts for name, counts in seen.instructions.items() if name.startswith("lib/")}
    for name in hot:
        if not any(counts for path, counts in objects.items() if path.endswith("/" + name)):
            raise KernelError(
                f"variant {variant.name}: the build holds no object {name!r} with code in it, so nothing proves the "
                "variant; hot_objects must name object files of the source"
            )
    required: dict[str, int] = {}
    for item in variant.present if hot else ():
        count = sum(
            number
            for counts in objects.values()
            for (mnemonic, register, _encoding), number in counts.items()
            if (mnemonic, register) == (item.mnemonic, item.register)
        )
        required[f"{item.mnemonic} {item.register}"] = count
        if not count:
            raise KernelError(
                f"variant {variant.name} is refused: {', '.join(hot)} holds no {item.mnemonic} on {item.register} "
                f"registers; the compiler did not act on {' '.join(variant.flags)}"
            )
    for path, counts in sorted(libraries.items()):
        for (mnemonic, register, encoding), number in sorted(counts.items()):
            if encoding != "guarded" and not {mnemonic, register, encoding}.isdisjoint(variant.absent):
                raise KernelError(
                    f"variant {variant.name} is refused: {path} holds {number} times {mnemonic} "
                    f"({register}, {encoding} encoding), which a CPU of this variant need not have"
                )
    return {
        "passed": True,
        "required": required,
        "forbidden": {name: 0 for name in variant.absent},
        "instructions": {path: sum(counts.values()) for path, counts in sorted(libraries.items())},
    }


def judge_linking(seen: Inspection, own: set[str]) -> list[str]:
    """Refuses baked-in search paths, which would defeat LD_LIBRARY_PATH; returns the system's libraries."""
    for path, runpath in sorted(seen.runpaths.items()):
        raise KernelError(
            f"{path} has the search path {runpath!r} baked in, so the variant could not be chosen at start"
        )
    needed: set[str] = set().union(*seen.needed.values()) if seen.needed else set()
    return sorted(needed - own)
