# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the tasks of a slot may run. What Swarm would do with the constraints is computed for every set of variants."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.catalogue import VARIANTS
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import convergence, placement
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.placement import judge, place, require_one
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused

V3, V4 = "x86-64-v3", "x86-64-v4-vnni"
DOTPROD = "armv8.2-a-dotprod"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def node(name, variant="", machine="x86_64", state="ready", availability="active", **labels):
    ours = {placement.SLOTS_LABEL: "true", placement.VARIANT_LABEL: variant} if variant else {}
    return {
        "ID": f"id-{name}",
        "Spec": {
            "Role": "worker",
            "Availability": availability,
            "Labels": {"io.bitnet.node": name, **ours, **{f"io.bitnet.{key}": value for key, value in labels.items()}},
        },
        "Status": {"State": state},
        "Description": {"Hostname": name, "Platform": {"OS": "linux", "Architecture": machine}},
    }


def test_one_machine_is_told_little():
    found = place([V3, V4], [], [], [], [])
    assert found.platforms == ["linux/amd64"]
    assert found.constraints == ["node.labels.io.bitnet.slots==true"]
    assert found.preferences == ["node.labels.io.bitnet.failure-domain"]
    assert judge([node("a", V3)], found).fitting == ["a"]


def test_what_the_user_says_is_added():
    found = place([V3], [], [], ["node.role==worker"], ["node.labels.rack"])
    assert found.constraints[-1] == "node.role==worker"
    assert found.preferences == ["node.labels.io.bitnet.failure-domain", "node.labels.rack"]
    both = ["node.labels.rack", "node.labels.io.bitnet.failure-domain"]
    assert place([V3], [], [], [], both).preferences == both


def test_a_newer_cpu_falls_back_and_an_older_one_is_left_out():
    nodes = [node("old", V3), node("new", V4), node("arm", DOTPROD, "aarch64"), node("none", slots="false")]
    assert judge(nodes, place([V3], [], [], [], [])).fitting == ["old", "new"]
    verdict = judge(nodes, place([V4], [], [], [], []))
    assert verdict.fitting == ["new"]
    assert verdict.excluded == {
        "old": f"is labelled io.bitnet.variant={V3}, and not {V4}",
        "arm": "is linux/aarch64, and not linux/amd64",
        "none": "is labelled io.bitnet.slots=false: its CPU runs no variant, or it was set so",
    }


def test_named_variants_and_architectures():
    nodes = [node("old", V3), node("new", V4), node("arm", DOTPROD, "aarch64")]
    built = [V3, V4, DOTPROD]
    assert judge(nodes, place(built, [], [], [], [])).fitting == ["old", "new", "arm"]
    assert judge(nodes, place(built, [], ["arm64"], [], [])).fitting == ["arm"]
    assert judge(nodes, place(built, [V4], [], [], [])).fitting == ["new"]
    assert judge(nodes, place(built, [V4, DOTPROD], [], [], [])).fitting == ["new", "arm"]
    assert place(built, [V4], ["amd64"], [], []).constraints[1:] == [f"node.labels.io.bitnet.variant=={V4}"]


def test_every_image_on_every_fleet():
    """For each set of variants in the image and asked for: a node fits exactly if it runs one and is one asked for."""
    nodes = {name: node(name, name, variant.architecture) for name, variant in VARIANTS.items()}
    sets = [list(some) for size in (1, 2, 3, 4) for some in itertools.combinations(VARIANTS, size)]
    asked = 0
    for built, wanted in itertools.product(sets, [[], *sets]):
        expected = [
            name
            for name, variant in VARIANTS.items()
            if (not wanted or name in wanted)
            and any(
                VARIANTS[one].architecture == variant.architecture
                and set(VARIANTS[one].requires) <= set(variant.requires)
                for one in built
            )
        ]
        if not expected:
            with pytest.raises(Refused, match="variants: nodes of "):
                place(built, wanted, [], [], [])
            continue
        found = place(built, wanted, [], [], [])
        assert judge(list(nodes.values()), found).fitting == expected, (built, wanted, found)
        # Swarm comes to the same, and a node that was never labelled is left out, whatever was asked for.
        platforms = [dict(zip(("OS", "Architecture"), name.split("/"))) for name in found.platforms]
        spec = {"TaskTemplate": {"Placement": {"Platforms": platforms, "Constraints": found.constraints}}}
        assert [name for name, each in nodes.items() if convergence.takes(each, spec)] == expected
        assert not convergence.takes(node("strange"), spec)
        asked += 1
    assert asked > 100


def test_no_node_fits():
    nodes = [
        node("arm", DOTPROD, "aarch64"), node("down", V3, state="down"), node("drained", V4, availability="drain"),
        node("strange"), node("manager", V3, rack="7"),
    ]  # fmt: skip
    verdict = judge(nodes, place([V3, V4], [], [], ["node.labels.io.bitnet.rack==8"], []))
    assert verdict.fitting == []
    verdict = judge(nodes[:4], place([V3, V4], [], [], [], []))
    with pytest.raises(Refused) as refused:
        require_one(verdict, "registry.example.org/it")
    for part in (
        "image: no node can run a task of registry.example.org/it: ",
        "arm is linux/aarch64, and not linux/amd64",
        "down is down",
        "drained is drained",
        "strange has no label io.bitnet.slots: run bitnet.devops.platform for it",
        "Nothing was changed",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("built", "variants", "architectures", "message"),
    [
        ([V3], ["pentium"], [], r"variants: 'pentium' is not in the catalogue, which knows x86-64-v3, "),
        ([V3], [], ["sparc"], r"architectures: 'sparc' is neither an architecture .*; write amd64 or arm64"),
        (["tomorrow"], [], [], r"built: 'tomorrow' is not in the catalogue"),
        (
            [V3],
            [],
            ["arm64"],
            r"architectures: arm64 was asked for, and the image has kernels for x86-64-v3 only",
        ),
        ([V4], [V3], [], r"variants: nodes of x86-64-v3 were asked for, and the image has kernels for x86-64-v4-vnni"),
    ],
)
def test_what_cannot_be_is_refused(built, variants, architectures, message):
    with pytest.raises(Refused, match=message):
        place(built, variants, architectures, [], [])
