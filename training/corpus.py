# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two public-domain dictionaries as passages of plain ASCII, one per entry.

The Jargon File 4.4.7 (Debian's jargon-text) and Ambrose Bierce's The Devil's Dictionary (Debian's dict-devil). A
passage is one entry: its paragraphs are lines, and it holds no blank line, so that blank lines can part passages.
"""

from __future__ import annotations

import argparse
import gzip
import re
import unicodedata
from pathlib import Path

JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
DEVIL = Path("/usr/share/dictd/devil.dict.dz")
HELD_OUT_EVERY = 32
"""Of the entries of the Jargon File one in so many is kept out of the training, ..."""
HELD_OUT_LENGTHS = (300, 1600)
"""... among those of a length, in characters, that says something and fits the model's context."""

_PLAIN = {
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "\u2013": "-", "\u2026": "...",
    "\u00a0": " ", "\u00b7": "", "\u00d7": "x", "\u2212": "-", "\u2022": "*", "\u00a9": "(c)", "\u2192": "->",
}  # fmt: skip
_PRONUNCIATION = re.compile(r"\s*/[^/\n]{1,60}/(?:(?:,| or)\s*/[^/\n]{1,60}/)*,?")
_APPENDICES = re.compile(r"(\s*Part III\. Appendices|Appendix A\.)")
ESSAY_PARAGRAPH = 100
"""Characters; what is shorter outside of the entries is a heading or a list."""
_HEADING = re.compile(r"^   :(.+?):(.*)$")


def ascii_of(text: str) -> str:
    """Typographic marks as typewriters have them; other letters lose their accents, and what is left goes."""
    plain = "".join(_PLAIN.get(character, character) for character in text)
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()


def paragraphs(lines: list[str]) -> list[str]:
    """Lines joined up to the next blank one; blanks in a row become one."""
    joined = "\n".join(line.rstrip() for line in lines)
    return [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", joined) if part.strip()]


def jargon_entries(path: Path) -> tuple[list[str], list[str]]:
    """The entries as ``hacker: n. One who ...``, and the essays before and after them in pieces of an entry's length;
    without pronunciations, and without the braces around references."""
    text = re.sub("[{}]", "", ascii_of(gzip.decompress(path.read_bytes()).decode("utf-8")))
    entries: list[list[str]] = []
    essays: list[str] = []
    within = False
    for line in text.split("\n"):
        heading = _HEADING.match(line)
        if heading and "://" not in line:
            within = True
            rest = _PRONUNCIATION.sub(" ", heading[2]).replace("//", "").strip()
            entries.append([f"{heading[1]}:{' ' + rest if rest else ''}"])
        elif within and not _APPENDICES.match(line):
            entries[-1].append(line)
        else:
            within = False
            essays.append(line)
    passages = []
    for entry in entries:
        body = paragraphs(entry[1:])
        if body:
            passages.append("\n".join([f"{entry[0]} {body[0]}", *body[1:]]))
    return passages, pieces([part for part in paragraphs(essays) if len(part) >= ESSAY_PARAGRAPH])


def pieces(parts: list[str]) -> list[str]:
    """Paragraphs joined into passages of a length that fits the context."""
    passages: list[str] = []
    for part in parts:
        if passages and len(passages[-1]) + len(part) < HELD_OUT_LENGTHS[1]:
            passages[-1] += "\n" + part
        else:
            passages.append(part)
    return passages


def devil_entries(path: Path) -> list[str]:
    """``HASTE, n. The dispatch of bunglers.``; verses lose their line ends."""
    text = ascii_of(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
    parts = re.split(r"\n(?=[A-Z][A-Z' -]+, (?:n|v|adj|adv|pron|pp|interj|x)\.)", text)
    return ["\n".join(paragraphs(part.split("\n"))) for part in parts[1:]]


def split(entries: list[str]) -> tuple[list[str], list[str]]:
    """For training, and held out."""
    low, high = HELD_OUT_LENGTHS
    fitting = [entry for entry in entries if low <= len(entry) <= high]
    held_out = set(fitting[HELD_OUT_EVERY::HELD_OUT_EVERY])
    return [entry for entry in entries if entry not in held_out], sorted(held_out, key=entries.index)


def load(jargon: Path, devil: Path) -> tuple[list[str], list[str]]:
    entries, essays = jargon_entries(jargon)
    train, held_out = split(entries)
    return train + essays + devil_entries(devil), held_out


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jargon", type=Path, default=JARGON, metavar="FILE", help=f"default {JARGON}")
    parser.add_argument("--devil", type=Path, default=DEVIL, metavar="FILE", help=f"default {DEVIL}")
