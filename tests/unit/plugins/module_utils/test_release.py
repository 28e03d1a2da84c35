# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils import _release
from hypothesis import given
from hypothesis import strategies as st

IMAGE = "sha256:" + "a" * 64
MODEL = "b" * 64
RELEASE = {
    "image": f"127.0.0.1:5000/bitnet/swarm-intelligence@{IMAGE}",
    "model": MODEL,
    "configuration": {"context": 1},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_canonical_json_is_what_the_ids_are_made_of():
    text = f'{{"configuration":{{"context":1}},"image":"{IMAGE}","model":"sha256:{MODEL}"}}'
    assert _release.release_id(RELEASE) == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert _release.canonical_json({"b": [1, None, True], "a": "ü"}) == '{"a":"\\u00fc","b":[1,null,true]}'


@pytest.mark.parametrize(
    "same",
    [
        {**RELEASE, "image": IMAGE},
        {**RELEASE, "image": f"registry.example/mirror/name:1.0@{IMAGE}"},
        {**RELEASE, "model": f"sha256:{MODEL}"},
        dict(reversed(list(RELEASE.items()))),
    ],
)
def test_the_same_release_under_other_names(same):
    assert _release.release_id(same) == _release.release_id(RELEASE)


@pytest.mark.parametrize(
    "other",
    [
        {**RELEASE, "image": "sha256:" + "c" * 64},
        {**RELEASE, "model": "c" * 64},
        {**RELEASE, "configuration": {"context": 2}},
        {**RELEASE, "configuration": {"context": "1"}},
        {**RELEASE, "configuration": {"context": True}},
    ],
)
def test_another_release(other):
    assert _release.release_id(other) != _release.release_id(RELEASE)


@pytest.mark.parametrize(
    ("release", "says"),
    [
        (None, "dictionary"),
        ({}, "missing: configuration, image, model"),
        ({**RELEASE, "replicas": 1}, "unknown: replicas"),
        ({**RELEASE, "image": "bitnet:latest"}, "by digest"),
        ({**RELEASE, "image": "a" * 64}, "by digest"),
        ({**RELEASE, "image": f"two words@{IMAGE}"}, "by digest"),
        ({**RELEASE, "model": "b" * 63}, "64 hexadecimal"),
        ({**RELEASE, "configuration": ["context"]}, "configuration is of type list"),
        ({**RELEASE, "configuration": {"a": [{"b": b"x"}]}}, r"configuration\.a\[0\]\.b is of type bytes"),
        ({**RELEASE, "configuration": {1: 2}}, "keys must be strings"),
        ({**RELEASE, "configuration": {"a": float("nan")}}, "finite"),
        ({**RELEASE, "configuration": {"a": {1, 2}}}, "type set"),
    ],
)
def test_what_is_no_release_is_refused(release, says):
    with pytest.raises(_release.ReleaseError, match=says):
        _release.release_id(release)


def test_binding():
    binding = {"replicas": 2, "threads": 4}
    assert _release.binding_id(binding) == hashlib.sha256(b'{"replicas":2,"threads":4}').hexdigest()[:12]
    assert _release.binding_id({"replicas": 3, "threads": 4}) != _release.binding_id(binding)
    for wrong in ({}, [], "x", None):
        with pytest.raises(_release.ReleaseError, match="dictionary"):
            _release.binding_id(wrong)


@given(st.dictionaries(st.text(), json_values, min_size=1))
def test_ids_do_not_depend_on_the_order_of_keys(binding):
    again = dict(reversed(list(binding.items())))
    assert _release.binding_id(again) == _release.binding_id(binding)
    assert len(_release.binding_id(binding)) == _release.ID_LENGTH
