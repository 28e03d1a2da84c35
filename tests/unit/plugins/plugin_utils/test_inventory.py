# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugins have in common, without a command of Ansible."""

from __future__ import annotations

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.bitnet.devops.plugins.plugin_utils import _inventory


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "{{ 7 * 7 }}",
        "{% if true %}49{% endif %}",
        "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n[[ 7 * 7 ]]",
        "#jinja2: without an end of line",
    ],
)
def test_a_users_value_is_data_however_it_is_written(value):
    variables = {"deep": [{"value": _inventory.data_of(value)}]}
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(_inventory.data_of({"value": [value]})) == {"value": [value]}
    assert templar.evaluate_expression(_inventory._trusted("deep[0].value")) == value
