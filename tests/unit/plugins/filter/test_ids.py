# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.filter import binding_id, release_id

RELEASE = {"image": "sha256:" + "a" * 64, "model": "b" * 64, "configuration": {}}


def test_filters_answer_with_twelve_digits():
    name_release = release_id.FilterModule().filters()["release_id"]
    name_binding = binding_id.FilterModule().filters()["binding_id"]
    assert len(bytes.fromhex(name_release(RELEASE))) == 6
    assert len(bytes.fromhex(name_binding({"replicas": 1}))) == 6


def test_errors_are_ansibles_and_name_the_filter():
    with pytest.raises(AnsibleFilterError, match=r"release_id: .*by digest"):
        release_id.release_id({**RELEASE, "image": "bitnet:latest"})
    with pytest.raises(AnsibleFilterError, match=r"binding_id: .*not empty"):
        binding_id.binding_id({})


@pytest.mark.parametrize("plugin", [release_id, binding_id])
def test_each_filter_has_its_documentation(plugin):
    names = list(plugin.FilterModule().filters())
    text = yaml.safe_load(Path(plugin.__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    assert names == [text["DOCUMENTATION"]["name"]]
    assert text["EXAMPLES"] and text["RETURN"]
