# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as plain data: the same as a loader's where both take it, and a sentence with a line where ours does not."""

from __future__ import annotations

import time

import pytest
import yaml
from ansible_collections.bitnet.devops.plugins.plugin_utils import _document
from hypothesis import given, settings
from hypothesis import strategies as some

PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, some.booleans())
def test_what_was_written_is_read(value, flow):
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    text = yaml.dump(value, Dumper=Plain, default_flow_style=flow, allow_unicode=True)
    assert _document.read(text, "it") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-01-01\nb: 'yes'\nc: yes", {"a": "2026-01-01", "b": "yes", "c": True}),
        ("a: 1.5\nb:\nc: ~", {"a": 1.5, "b": None, "c": None}),
        ("a: |\n  {{ x }}\n", {"a": "{{ x }}\n"}),
        ("", None),
        ("# nothing", None),
        ("- - 1\n  - {a: []}\n", [[1, {"a": []}]]),
    ],
)
def test_scalars(text, value):
    assert _document.read(text, "it") == value


@pytest.mark.parametrize("loader", ["c", "python"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "it:4: the key 'c' is there twice"),
        ("a: &x [*x]\n", "it:1: anchors and aliases are not used here"),
        ("a: 1\nb: *x\n", "it:2: anchors and aliases|it:2: is no YAML: found undefined alias"),
        ("a: 1\n? [b]\n: 2\n", "it:2: the key 'of several values' is not text"),
        ("a: 1\n2: 3\n", "it:2: the key '2' is not text; put it in quotes"),
        ("yes: 3\n", "it:1: the key 'yes' is not text"),
        ("a: !vault x\n", "it:1: the tag !vault is not used here"),
        ("a: !!python/object/apply:os.system [id]\n", "it:1: the tag .*python.* is not used here"),
        ("a: 1\n---\nb: 2\n", "it:2: a second document begins"),
        ("a: [1\nb: 2\n", "it:2: is no YAML"),
        ("a: 1\n\tb: 2\n", "it:2: is no YAML"),
        ("a: 1\nb: 0x_\n", "it:2: is no YAML"),
        ("a: 1\nb: " + "9" * 5000, "it:2: is no YAML"),
        ("a: \x00\n", "it: is no YAML: .*special characters are not allowed|it: is no YAML: .*control characters"),
    ],
)
def test_what_is_refused_has_a_line(text, says, loader, monkeypatch):
    monkeypatch.setattr(_document, "LOADER", yaml.CSafeLoader if loader == "c" else yaml.SafeLoader)
    with pytest.raises(_document.DocumentError, match=says):
        _document.read(text, "it")


BOMB = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * (1 << 20), "nested more than 40 deep"),
        ("- " * (1 << 19), "nested more than 40 deep"),
        ("{a: " * (1 << 18), "nested more than 40 deep"),
        ("a: " + "x" * (1 << 20), ""),
        ("a: '" + "x" * (1 << 20), "is no YAML"),
        ("".join(f"k{n}: v\n" for n in range(100_000)), ""),
        ("a: [" + "1, " * (350_000) + "]", ""),
        (BOMB, "anchors and aliases"),
        ("a" * (_document.LARGEST + 1), "has more than 64 MiB"),
    ],
    ids=["brackets", "dashes", "braces", "a word", "no end", "keys", "items", "aliases", "too much"],
)
def test_a_megabyte_of_anything_ends_soon(text, says):
    """A loader's recursion ends the process here: the test would not fail, it would be gone."""
    began = time.process_time()
    if says:
        with pytest.raises(_document.DocumentError, match=says):
            _document.read(text, "it")
    else:
        assert _document.read(text, "it")
    assert time.process_time() - began < 30


class Wrong:
    def __init__(self, *path):
        self.path, self.text = list(path), "is wrong"


def test_a_refusal_finds_the_line_of_keys_and_items():
    text = "a:\n  b:\n    - 1\n    - {c: 2,\n       d: 3}\n"
    wrong = [Wrong("a", "b", 1, "d"), Wrong("a", "b", 0), Wrong("a", "z"), Wrong()]
    said = str(_document.refusal(text, "it", wrong)).splitlines()
    assert said == [
        "it:5: a.b.1.d: is wrong",
        "it:3: a.b.0: is wrong",
        "it:1: a.z: is wrong",
        "it:1: the document: is wrong",
    ]
