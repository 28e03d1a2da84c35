# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters about kernels and models, and the test of levels."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.filter import (
    image_platform,
    model_size,
    variant_flags,
    variants_for_hosts,
)
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, cpu
from ansible_collections.bitnet.devops.plugins.test import at_least_level

from tests.unit import cpuinfo_texts as texts

PUBLISHED = {"vocabulary": 128256, "width": 2560, "hidden": 6912, "layers": 30, "heads": 20, "heads_kv": 5}


def result_of(host: str, *variants: str):
    found = cpu.read(texts.HOSTS[host])
    return cpu.document(found, cpu.judge(found, list(variants)))


def test_hosts_get_the_smallest_set_that_gives_each_its_best():
    hosts = {name: result_of(name) for name in ("graviton4", "zen-4", "haswell", "cortex-a76", "neoverse-n1")}
    needed = ["x86-64-v3", "x86-64-v4-vnni", "armv8.2-a-dotprod"]
    assert variants_for_hosts.variants_for_hosts(hosts) == needed
    assert variants_for_hosts.variants_for_hosts(list(hosts.values())) == needed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"old": result_of("nehalem")}, "variants_for_hosts: no variant fits old: this CPU runs none"),
        ([result_of("haswell"), result_of("nehalem")], "no variant fits host 2 of 2: .*x86-64-v3 needs abm avx"),
        ({}, "at least one host"),
        ([], "at least one host"),
        ("haswell", "a dictionary by host name or as a list"),
        ({"web": {"changed": False}}, "web: is no result of cpu_info"),
        ({"web": None}, "web: is no result of cpu_info"),
        ({"web": {"best": "pentium", "why": ""}}, "'pentium' is not in the catalogue"),
    ],
)
def test_a_host_that_nothing_fits_is_named(value, message):
    with pytest.raises(AnsibleFilterError, match=message):
        variants_for_hosts.variants_for_hosts(value)


def test_flags_are_the_catalogues():
    for name, variant in catalogue.VARIANTS.items():
        assert variant_flags.variant_flags(name) == list(variant.flags)
    for value in ("pentium", None, {}, []):
        with pytest.raises(AnsibleFilterError, match=r"variant_flags: .*is not in the catalogue, which"):
            variant_flags.variant_flags(value)


@pytest.mark.parametrize(
    ("value", "platform"),
    [
        ({"architecture": "x86_64", "distribution": "Debian"}, "linux/amd64"),
        ({"architecture": "aarch64"}, "linux/arm64"),
        (result_of("apple-m2"), "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("x86-64-v3", "linux/amd64"),
        ("armv8.0-a", "linux/arm64"),
    ],
)
def test_platforms(value, platform):
    assert image_platform.image_platform(value) == platform


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "image_platform: has no architecture; gather"),
        ({"architecture": "ppc64le"}, "'ppc64le' is neither an architecture"),
        (None, "None is neither a variant"),
        (["x86_64"], "is neither a variant"),
    ],
)
def test_what_has_no_platform(value, message):
    with pytest.raises(AnsibleFilterError, match=message):
        image_platform.image_platform(value)


@pytest.mark.parametrize("kind", ["iq2_bn", "iq2_bn_r4", "i2_s"])
@pytest.mark.parametrize("layers", [1, 3])
def test_sizes_are_those_of_the_workloads_own_writer(tmp_path, kind, layers):
    from swarm_intelligence import synthetic
    from swarm_intelligence.gguf_file import GGUFFile

    path = tmp_path / "model.gguf"
    synthetic.write(path, layers=layers, kind=kind)
    file = GGUFFile(path)
    dimensions = {
        "vocabulary": synthetic.VOCABULARY,
        "width": synthetic.WIDTH,
        "hidden": synthetic.HIDDEN,
        "layers": layers,
        "heads": synthetic.HEADS,
        "heads_kv": synthetic.HEADS_KV,
    }
    tensors = path.stat().st_size - min(tensor.start for tensor in file.tensors.values())
    embeddings = "q6_k" if kind == "iq2_bn_r4" else "f16"
    assert model_size.model_size(dimensions, kind, embeddings) == tensors


def test_sizes_of_the_published_model():
    # 2,084,044,800 ternary weights, 328,335,360 of the embeddings: two bits and two bytes each, and a little.
    ternary = 30 * 2560 * (2 * 2560 + 2 * 640 + 3 * 6912)
    for kind, bits in (("iq2_bn", 2), ("i2_s", 2), ("iq1_bn", 1.625), ("tq2_0", 2.0625), ("f16", 16)):
        plain = ternary * bits / 8 + 128256 * 2560 * 2
        assert plain < model_size.model_size(PUBLISHED, kind) < plain * 1.006
    with_output = model_size.model_size(PUBLISHED, "iq2_bn", "q8_0", "q6_k")
    embeddings, output = 128256 * 2560 // 32 * 34, 128256 * 2560 // 256 * 210
    without = model_size.model_size(PUBLISHED) - 128256 * 2560 * 2
    assert with_output == without + embeddings + output


@pytest.mark.parametrize(
    ("dimensions", "types", "message"),
    [
        ({**PUBLISHED, "width": 0}, [], "model_size: width: 0 is no whole number above zero"),
        ({**PUBLISHED, "layers": True}, [], "layers: True is no whole number"),
        ({**PUBLISHED, "hidden": "6912"}, [], "hidden: '6912' is no whole number"),
        ({**PUBLISHED, "heads": 7}, [], "heads: 7 does not divide the width 2560"),
        ({**PUBLISHED, "heads_kv": 3}, [], "heads_kv: 3 does not divide the heads 20"),
        ({**PUBLISHED, "extra": 1}, [], "exactly vocabulary, width, .*not of extra, heads"),
        ([], [], "wants a dictionary"),
        (PUBLISHED, ["q9"], "the type 'q9' is not known; known are bf16"),
        (PUBLISHED, [["f16"]], "is not known"),
        ({**PUBLISHED, "hidden": 6900}, ["iq2_bn"], "down have rows of 6900 weights, which iq2_bn cannot hold"),
    ],
)
def test_what_has_no_size(dimensions, types, message):
    with pytest.raises(AnsibleFilterError, match=message):
        model_size.model_size(dimensions, *types)


def test_levels():
    assert at_least_level.at_least_level("x86-64-v4", "x86-64-v3")
    assert not at_least_level.at_least_level("x86-64-v2", "x86-64-v3")
    assert not at_least_level.at_least_level("armv9.0-a", "x86-64-v3")
    assert not at_least_level.at_least_level(None, "x86-64-v1")
    with pytest.raises(AnsibleFilterError, match="at_least_level: 'x86-64-v9' is not a level"):
        at_least_level.at_least_level("x86-64-v3", "x86-64-v9")


@pytest.mark.parametrize("plugin", [image_platform, model_size, variant_flags, variants_for_hosts, at_least_level])
def test_each_has_its_documentation(plugin):
    names = list(plugin.TestModule().tests() if plugin is at_least_level else plugin.FilterModule().filters())
    text = yaml.safe_load(Path(plugin.__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    assert names == [text["DOCUMENTATION"]["name"]]
    assert text["EXAMPLES"] and text["RETURN"]
