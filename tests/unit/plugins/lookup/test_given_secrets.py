# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which source a value is taken from. tests/unit/roles/test_secrets.py has a file of a real SOPS among them."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.bitnet.devops.plugins.lookup import given_secrets

VARIABLE, FILE, ENVIRONMENT = (f"{source}-has-this-value" for source in ("variable", "sops", "environment"))


@pytest.fixture
def look(monkeypatch):
    """The lookup, with what SOPS would decrypt."""
    asked = []

    def decrypted(_self, file, _variables):
        asked.append(file)
        return {"smtp": FILE, "other": "of-no-declaration"}

    def run(declared, **options):
        given = {"values": {}, "sops_file": "", **options}  # the loader, which knows the defaults, is not here
        monkeypatch.setattr(given_secrets.LookupModule, "set_options", lambda *_arguments, **_options: None)
        monkeypatch.setattr(given_secrets.LookupModule, "get_option", lambda _self, name: given[name])
        [found] = given_secrets.LookupModule().run([declared], variables={}, **options)
        assert found["secrets"].keys() == found["sources"].keys()
        return {name: (found["sources"][name], value) for name, value in found["secrets"].items()}

    monkeypatch.setattr(given_secrets.LookupModule, "_decrypted", decrypted)
    run.asked = asked
    return run


def smtp(**more):
    return {"smtp": {"kind": "password", **more}}


def test_the_first_source_that_has_a_value_is_taken(look, monkeypatch):
    monkeypatch.setenv("BITNET_SECRET_SMTP", ENVIRONMENT)
    everywhere = {"values": {"smtp": VARIABLE}, "sops_file": "it.sops.yaml"}
    assert look(smtp(), **everywhere) == {"smtp": ("variable", VARIABLE)}
    assert look(smtp(sources=["environment", "sops"]), **everywhere) == {"smtp": ("environment", ENVIRONMENT)}
    assert look(smtp(), sops_file="it.sops.yaml") == {"smtp": ("sops", FILE)}
    # An empty one is none.
    assert look(smtp(), values={"smtp": ""}) == {"smtp": ("environment", ENVIRONMENT)}
    monkeypatch.setenv("BITNET_SECRET_SMTP", "")
    assert look(smtp()) == {}


def test_a_file_is_decrypted_once_and_only_for_those_who_want_it(look):
    assert look({**smtp(), "late": {"kind": "key"}}, sops_file="it.sops.yaml") == {"smtp": ("sops", FILE)}
    assert look.asked == ["it.sops.yaml"]
    assert look(smtp(sources=["generated"]), sops_file="it.sops.yaml") == {}
    assert look.asked == ["it.sops.yaml"]


def test_the_name_of_the_variable_can_be_chosen(look, monkeypatch):
    monkeypatch.setenv("SMTP_PASSWORD", ENVIRONMENT)
    assert look(smtp(environment="SMTP_PASSWORD")) == {"smtp": ("environment", ENVIRONMENT)}


@pytest.mark.parametrize(
    ("declared", "values", "says"),
    [
        (smtp(kind="word"), {}, "bitnet_secrets.smtp.kind is 'word'"),
        (smtp(), {"smtp": "too short"}, "bitnet_secrets.smtp: bitnet_secret_values.smtp has 9 characters that are"),
        (smtp(), {"smtp": {"a": "b"}}, "bitnet_secrets.smtp: bitnet_secret_values.smtp has dict, no text"),
        ("smtp", {}, "bitnet_secrets is str: give a dictionary"),
    ],
)
def test_what_is_wrong_is_said_without_a_value(look, declared, values, says):
    with pytest.raises(AnsibleLookupError) as error:
        look(declared, values=values)
    assert says in str(error.value) and "too short" not in str(error.value)


def test_a_wrong_value_of_the_environment_names_its_variable(look, monkeypatch):
    monkeypatch.setenv("BITNET_SECRET_SMTP", "too short")
    with pytest.raises(AnsibleLookupError, match="the variable BITNET_SECRET_SMTP of the controller's"):
        look(smtp())
