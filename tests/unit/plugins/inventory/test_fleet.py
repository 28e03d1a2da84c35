# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin fleet, called by ansible-inventory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.bitnet.devops.plugins.inventory import docker_swarm, fleet
from ansible_collections.bitnet.devops.plugins.plugin_utils._inventory import SCHEMAS

FLEET = """\
plugin: bitnet.devops.fleet
environments:
  production:
    vars: {tier: one}
    regions:
      here:
        clusters:
          one:
            platform: swarm
            vars: {tier: two, size: 3}
            nodes:
              m1: {roles: [manager], address: 10.0.0.1, variant: x86-64-v3, failure_domain: rack-1}
              w1: {roles: [worker], vars: {tier: three}}
"""


def listed(ansible, text=FLEET, name="it.fleet.yml", **environment):
    (ansible.folder / name).write_text(text)
    return ansible("ansible-inventory", "-i", name, "--list", **environment)


def test_the_example_of_the_documentation(ansible):
    found = listed(ansible, fleet.EXAMPLES, "production.fleet.yml")
    assert set(found.hosts) == {"staging-1", "use1-a1", "use1-a2", "euw1-a1"}
    assert found.groups["rack_rack_1"]["hosts"] == ["use1-a1"]
    assert found.hosts["euw1-a1"]["swarm_rollout_replicas"] == 2
    assert found.hosts["use1-a1"]["bitnet_registry"] == "registry.example.com:5000"
    assert found.hosts["staging-1"]["bitnet_variants"] == ["x86-64-v3", "x86-64-v4-vnni", "armv8.2-a-dotprod"]
    header = fleet.EXAMPLES.splitlines()[1].partition("$schema=")[2]
    assert (Path(fleet.__file__).parents[1] / "inventory" / header).resolve() == SCHEMAS / "fleet.schema.json"


def test_the_more_special_variable_wins(ansible):
    found = listed(ansible)
    assert (found.hosts["m1"]["tier"], found.hosts["w1"]["tier"]) == ("two", "three")
    assert found.hosts["m1"]["size"] == 3
    assert found.hosts["m1"]["bitnet_environment"] == "production"


def test_constructed_features_know_what_groups_give(ansible):
    more = """\
compose:
  place: bitnet_environment ~ '/' ~ bitnet_cluster
groups:
  placed: place == 'production/one' and size > 2
keyed_groups:
  - {key: tier, prefix: tier, parent_group: tiers}
  - {key: absent, prefix: none}
"""
    found = listed(ansible, FLEET + more)
    assert found.hosts["m1"]["place"] == {"__ansible_unsafe": "production/one"}  # as any plugin's
    assert sorted(found.groups["placed"]["hosts"]) == ["m1", "w1"]
    assert found.groups["tier_three"]["hosts"] == ["w1"]
    assert sorted(found.groups["tiers"]["children"]) == ["tier_three", "tier_two"]
    (ansible.folder / "it.fleet.yml").write_text(f"{FLEET}{more}strict: true\n")
    refused = ansible("ansible-inventory", "-i", "it.fleet.yml", "--list", fails=True)
    assert "Could not generate group for host m1 from absent" in refused.err


def test_templates_in_values_are_never_rendered(ansible):
    marker = ansible.folder / "rendered"
    template = f"{{{{ lookup('ansible.builtin.pipe', 'touch {marker}') }}}}"
    text = FLEET.replace("tier: three", f'tier: "{template}"').replace("x86-64-v3,", f'x86-64-v3, user: "{template}",')
    text += "compose:\n  copied: tier\ngroups:\n  same: tier == copied\n"
    found = listed(ansible, text)
    assert found.hosts["w1"]["tier"] == {"__ansible_unsafe": template}
    assert found.hosts["w1"]["copied"] == {"__ansible_unsafe": template}
    play = [{"hosts": "w1", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "<{{ tier }}>"}}]}]
    (ansible.folder / "play.yml").write_text(yaml.safe_dump(play))
    shown = ansible("ansible-playbook", "-i", "it.fleet.yml", "play.yml", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert f"<{template}>" in shown.out
    assert not marker.exists()


def test_an_error_names_file_line_and_key(ansible):
    (ansible.folder / "it.fleet.yml").write_text(FLEET.replace("platform: swarm", "platfrom: swarm"))
    refused = ansible("ansible-inventory", "-i", "it.fleet.yml", "--list", fails=True)
    where = f"{ansible.folder}/it.fleet.yml:9: environments.production.regions.here.clusters.one.platfrom"
    assert f"{where}: unknown key 'platfrom'; did you mean 'platform'?" in refused.err


@pytest.mark.parametrize("name", ["fleet.yml", "fleet.yaml", "it.fleet.yaml", "inventory"])
def test_names_that_are_read(ansible, name):
    assert set(listed(ansible, name=name).hosts) == {"m1", "w1"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fleets.yml", FLEET),
        ("myfleet.yml", FLEET),
        ("fleet.json", FLEET),
        ("inventory", "[fleet]\nm1\n"),
        ("inventory", FLEET.replace("bitnet.devops.fleet", "bitnet.devops.docker_swarm")),
        ("absent.fleet.yml", None),
    ],
)
def test_names_that_are_somebody_elses(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert not fleet.InventoryModule().verify_file(str(tmp_path / name))


def test_through_auto_where_nobody_enabled_the_plugin(ansible):
    assert set(listed(ansible, ANSIBLE_INVENTORY_ENABLED="auto").hosts) == {"m1", "w1"}


def test_a_cache_is_used_until_the_file_changes(ansible):
    cached = {
        "ANSIBLE_INVENTORY_CACHE": "1",
        "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(ansible.folder / "cache"),
    }
    first = listed(ansible, **cached)
    (kept,) = (ansible.folder / "cache").iterdir()
    assert listed(ansible, **cached).out == first.out
    kept.write_text(kept.read_text().replace("10.0.0.1", "10.0.0.7"))
    assert listed(ansible, **cached).hosts["m1"]["ansible_host"] == "10.0.0.7", "the cache was not asked"
    assert listed(ansible, FLEET.replace("10.0.0.1", "10.0.0.8"), **cached).hosts["m1"]["ansible_host"] == "10.0.0.8"


def test_what_a_vault_kept_no_cache_has(ansible):
    (ansible.folder / "password").write_text("it")
    vault = VaultLib([("default", VaultSecret(b"it"))])
    cached = {
        "ANSIBLE_INVENTORY_CACHE": "1",
        "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(ansible.folder / "cache"),
        "ANSIBLE_VAULT_PASSWORD_FILE": "password",
    }
    found = listed(ansible, vault.encrypt(FLEET).decode(), **cached)
    assert found.hosts["m1"]["ansible_host"] == "10.0.0.1"
    assert not (ansible.folder / "cache").exists()


@pytest.mark.parametrize("plugin", [fleet, docker_swarm])
def test_schema_and_documentation_have_the_same_options(plugin):
    def compare(options, rules, root):
        rules = root["definitions"][rules["$ref"].rpartition("/")[2]] if "$ref" in rules else rules
        assert set(options) <= set(rules["properties"])
        if "plugin" not in options:
            assert set(options) == set(rules["properties"])
        for name, option in options.items():
            assert bool(option.get("required")) == (name in rules["required"] if "required" in rules else False), name
            inner = rules["properties"][name]
            if option.get("suboptions"):
                compare(option["suboptions"], inner.get("items") or inner.get("additionalProperties") or inner, root)

    rules = json.loads((SCHEMAS / f"{plugin.InventoryModule.FILE}.schema.json").read_text())
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    compare(options, rules, rules)
    ansibles = set(rules["properties"]) - set(options)
    assert ansibles == {
        "cache", "cache_plugin", "cache_timeout", "cache_connection", "cache_prefix",
        "strict", "compose", "groups", "keyed_groups", "use_extra_vars", "leading_separator",
    }  # fmt: skip
