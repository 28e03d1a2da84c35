# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet file may hold, told by file, line and key, and what becomes of one without mistakes."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from ansible_collections.bitnet.devops.plugins.module_utils._fleet import declared, schema
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.catalogue import VARIANTS
from ansible_collections.bitnet.devops.plugins.plugin_utils import _document
from hypothesis import given, settings
from hypothesis import strategies as some

SCHEMAS = Path(__file__).resolve().parents[4] / "files" / "schemas"
RULES = json.loads((SCHEMAS / "fleet.schema.json").read_text())

TEXT = """\
plugin: bitnet.devops.fleet
environments:
  production:
    vars: {tier: one, site: shop}
    regions:
      us-east-1:
        clusters:
          use1-a:
            platform: swarm
            vars: {tier: two}
            nodes:
              m1:
                roles: [manager, builder]
                address: 10.0.0.1
                variant: x86-64-v4-vnni
                failure_domain: rack-1
              w1: {roles: [worker], variant: armv8.2-a-dotprod, port: 2222, user: admin, vars: {tier: three}}
      eu-west-1:
        clusters:
          k8s:
            platform: kubernetes
            nodes:
              k1: {roles: [control_plane], arch: aarch64, labels: {disk: nvme}}
"""
FLEET = yaml.safe_load(TEXT)


def refused(text: str) -> str:
    """What the plugin says of such a file."""
    fleet = _document.read(text, "it.fleet.yml")
    problems = list(schema.compiled(RULES)(fleet)) or list(declared.problems_of(fleet))
    return str(_document.refusal(text, "it.fleet.yml", problems)) if problems else ""


def test_a_fleet_becomes_groups_that_the_playbooks_name():
    assert refused(TEXT) == ""
    listing = declared.listing_of(FLEET)
    groups = {
        name: {host for host, entry in listing.hosts.items() if name in entry["groups"]} for name in listing.groups
    }
    assert {name: hosts for name, hosts in groups.items() if hosts} == {
        "cluster_use1_a": {"m1", "w1"},
        "cluster_k8s": {"k1"},
        "role_manager": {"m1"},
        "role_worker": {"w1"},
        "role_control_plane": {"k1"},
        "role_builder": {"m1"},
        "builders": {"m1"},
        "swarm_managers": {"m1"},
        "swarm_workers": {"w1"},
        "arch_x86_64": {"m1"},
        "arch_aarch64": {"w1", "k1"},
        "variant_x86_64_v4_vnni": {"m1"},
        "variant_armv8_2_a_dotprod": {"w1"},
    }
    children = {name: group["children"] for name, group in listing.groups.items() if group["children"]}
    assert children == {
        "swarm": ["swarm_managers", "swarm_workers"],
        "env_production": ["cluster_use1_a", "cluster_k8s"],
        "region_us_east_1": ["cluster_use1_a"],
        "region_eu_west_1": ["cluster_k8s"],
        "platform_swarm": ["cluster_use1_a"],
        "platform_kubernetes": ["cluster_k8s"],
    }


def test_variables_are_those_that_the_roles_take():
    listing = declared.listing_of(FLEET)
    assert listing.hosts["m1"]["vars"] == {
        "ansible_host": "10.0.0.1",
        "swarm_cluster_node_labels": {"io.bitnet.variant": "x86-64-v4-vnni", "io.bitnet.failure-domain": "rack-1"},
    }
    assert listing.hosts["w1"]["vars"]["ansible_port"] == 2222
    assert listing.hosts["k1"]["vars"] == {"swarm_cluster_node_labels": {"disk": "nvme"}}
    assert listing.groups["env_production"]["vars"]["bitnet_environment"] == "production"
    assert listing.groups["builders"]["vars"] == {"bitnet_variants": ["x86-64-v4-vnni", "armv8.2-a-dotprod"]}


def test_some_clusters_come_with_the_variants_of_all():
    listing = declared.listing_of(FLEET, {"k8s"})
    assert set(listing.hosts) == {"k1"}
    assert "armv8.2-a-dotprod" in listing.groups["builders"]["vars"]["bitnet_variants"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("platform: swarm", "platfrom: swarm", "it.fleet.yml:9: environments.production.regions.us-east-1.clusters."
         "use1-a.platfrom: unknown key 'platfrom'; did you mean 'platform'?"),
        ("platform: swarm", "platfrom: swarm", "it.fleet.yml:8: environments.production.regions.us-east-1.clusters."
         "use1-a: the key 'platform' is missing"),
        ("platform: swarm", "platform: swam", "it.fleet.yml:9: .*'swam' is not known; did you mean 'swarm'?"),
        ("roles: [worker]", "roles: [wroker]", r"it.fleet.yml:17: .*nodes\.w1\.roles\.0: .*did you mean 'worker'"),
        ("roles: [worker]", "roles: worker", r"it.fleet.yml:17: .*roles: 'worker' is not a list"),
        ("roles: [worker]", "roles: []", r"it.fleet.yml:17: .*roles: is empty"),
        ("roles: [worker]", "roles: [worker, worker]", r"roles\.1: 'worker' is there twice"),
        ("port: 2222", "port: '2222'", r"it.fleet.yml:17: .*w1\.port: '2222' is not a whole number"),
        ("port: 2222", "port: 0", r"w1\.port: 0 is not of the form: the port that Ansible connects to, 1 to 65535"),
        ("port: 2222", "port: 65536", r"w1\.port: 65536 is not of the form"),
        ("port: 2222", "port: true", r"w1\.port: True is not a whole number"),
        ("x86-64-v4-vnni", "x86-64-v4-vni", "it.fleet.yml:15: .*did you mean 'x86-64-v4-vnni'"),
        ("labels: {disk: nvme}", "labels: {disk: 5}", r"labels\.disk: 5 is not text"),
        ("vars: {tier: two}", "vars: {tier-two: 2}", "'tier-two' is not of the form: letters, digits and underscores"),
        ("vars: {tier: two}", "vars: 5", "vars: 5 is not a mapping"),
        ("  production:", "  Production:", "'Production' is not of the form: small letters"),
        ("  production:", "  production-:", "'production-' is not of the form"),
        ("address: 10.0.0.1", "address: -oProxyCommand=x", "'-oProxyCommand=x' is not of the form: an address"),
        ("m1:", "'-m1':", "'-m1' is not of the form"),
        ("m1:", "builders:", "it.fleet.yml:12: .*'builders' is the name of a group"),
        ("m1:", "drifted:", "it.fleet.yml:12: .*'drifted' is the name of a group"),
        ("k1:", "m1:", r"it.fleet.yml:23: .*k8s\.nodes\.m1: there is a node 'm1' already, in the cluster 'use1-a'"),
        ("k8s:", "use1-a:", "it.fleet.yml:20: .*there is a cluster 'use1-a' already, in region 'us-east-1'"),
        ("[manager, builder]", "[builder]", "it.fleet.yml:8: .*no node has the role 'manager'"),
        ("[manager, builder]", "[manager, worker]", "cannot have the role 'worker' beside"),
        ("[control_plane]", "[manager]", "the role 'manager' is not one of the platform kubernetes"),
        ("port: 2222", "arch: x86_64", "arch is 'x86_64', but the variant 'armv8.2-a-dotprod' is for aarch64"),
        ("environments:", "keyed_groups: [{kye: tier}]\nenvironments:", "it.fleet.yml:2: keyed_groups.0.kye: .*'key'?"),
        ("environments:", "compose: {a: 5}\nenvironments:", "it.fleet.yml:2: compose.a: 5 is not text"),
        ("bitnet.devops.fleet", "bitnet.devops.docker_swarm", "it.fleet.yml:1: plugin: .*mean 'bitnet.devops.fleet'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_line_and_key(old, new, says):
    assert old in TEXT
    assert re.search(says, refused(TEXT.replace(old, new, 1)))


def test_many_mistakes_are_counted():
    text = TEXT.replace("      eu-west-1:", "".join(f"      Region{n}: {{}}\n" for n in range(20)) + "      eu-west-1:")
    lines = refused(text).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 30 more"


@pytest.mark.parametrize("content", ["", "5", "[]", "plugin", "plugin: bitnet.devops.fleet\nenvironments: {}\n"])
def test_no_fleet_at_all(content):
    assert refused(content)


def test_the_schema_names_the_variants_of_the_catalogue():
    assert RULES["definitions"]["node"]["properties"]["variant"]["enum"] == list(VARIANTS)


def test_a_keyword_that_would_not_be_checked_is_refused():
    with pytest.raises(ValueError, match="maxItems"):
        schema.compiled({"type": "array", "items": {"type": "string"}, "maxItems": 3})


def places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from places(item, (*path, key))


PLACES = [path for path in places(FLEET) if path]
WORDS = some.sampled_from(["", "swarm", "manager", "worker", "x86_64", "eu-west-1", "UPPER", "9", "10.0.0.1", "a_b"])
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(some.sampled_from(PLACES), VALUES, WORDS, some.sampled_from(["replace", "remove", "add"]))
def test_editors_and_the_plugin_agree(path, value, word, change):
    fleet = copy.deepcopy(FLEET)
    inside = fleet
    for step in path[:-1]:
        inside = inside[step]
    if change == "remove":
        del inside[path[-1]]
    elif change == "add" and isinstance(inside, dict):
        inside[word] = value
    else:
        inside[path[-1]] = value
    valid = jsonschema.Draft7Validator(RULES).is_valid(fleet)
    assert valid == (not schema.compiled(RULES)(fleet))


@pytest.mark.parametrize("name", ["fleet", "docker_swarm"])
def test_the_schemas_are_schemas(name):
    jsonschema.Draft7Validator.check_schema(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def test_names_of_nodes_are_looked_up_and_not_compared_with_each_other():
    """Fifty thousand are a second's work, and would be minutes' otherwise."""
    nodes = {f"n{number}": {"roles": ["manager"]} for number in range(50_000)}
    fleet = copy.deepcopy(FLEET)
    fleet["environments"]["production"]["regions"]["us-east-1"]["clusters"]["use1-a"]["nodes"] = nodes
    assert not list(declared.problems_of(fleet))
    assert len(declared.listing_of(fleet).hosts) == 50_001


@pytest.mark.parametrize(
    "roles",
    ["[" + "worker, " * 100_000 + "]", "[" + ", ".join(map(str, range(100_000))) + "]"],
    ids=["alike", "different"],
)
def test_a_megabyte_of_items_that_should_be_different_ends_soon(roles):
    began = time.process_time()
    assert refused(TEXT.replace("[worker]", roles))
    assert time.process_time() - began < 15
