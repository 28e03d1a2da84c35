# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.plan import (
    UNKNOWN,
    Found,
    Plan,
    Step,
    Wanted,
    make_diff,
    make_plan,
)

V3, VNNI = "x86-64-v3", "x86-64-v4-vnni"
RAN = {"run": {"ran": True}}
NOT_RUN = {"run": {"ran": False, "reason": "the CPU lacks avx512f"}}


def wanted(*names: str) -> Wanted:
    return Wanted(
        source={"content": "a" * 64, "subdir": ""},
        toolchain={"compiler": "c++ 12.2.0"},
        variants=catalogue.choose(list(names or (V3, VNNI))),
        programs=["server"],
        libraries=["ggml", "llama"],
        hot_objects=["hot.o"],
    )


def test_a_name_depends_on_the_content_and_not_on_the_order_of_lists():
    base = wanted(V3, VNNI)
    assert wanted(VNNI, V3).set_key() == base.set_key()
    assert dataclasses.replace(base, libraries=["llama", "ggml"]).set_key() == base.set_key()


@pytest.mark.parametrize(
    "change",
    [
        {"source": {"content": "b" * 64, "subdir": ""}},
        {"source": {"content": "a" * 64, "subdir": "vendor"}},
        {"toolchain": {"compiler": "c++ 13.1.0"}},
        {"libraries": ["ggml"]},
        {"hot_objects": []},
    ],
)
def test_what_decides_the_bytes_or_their_proof_changes_the_variants_name(change):
    base, other = wanted(), dataclasses.replace(wanted(), **change)
    assert other.variant_key(base.variants[0]) != base.variant_key(base.variants[0])
    assert other.set_key() != base.set_key()


def test_flags_change_the_variants_name_but_not_that_of_the_programs():
    base = wanted(V3)
    variant = dataclasses.replace(base.variants[0], flags=("-march=x86-64-v2",))
    other = dataclasses.replace(base, variants=[variant])
    assert other.variant_key(variant) != base.variant_key(base.variants[0])
    assert other.programs_key() == base.programs_key()
    assert other.set_key() != base.set_key()


def test_another_variant_leaves_the_names_of_the_others():
    one, both = wanted(V3), wanted(V3, VNNI)
    assert one.variant_key(one.variants[0]) == both.variant_key(both.variants[0])
    assert one.set_key() != both.set_key()


def test_from_nothing_programs_are_built_once_with_the_first_variant():
    plan = make_plan(wanted(), Found(False, {}, False), verify=True, runnable={V3})
    assert plan.steps == [Step("build", V3, programs=True), Step("build", VNNI), Step("publish")]
    assert plan.states == {V3: "planned", VNNI: "planned"}
    assert plan.sentences() == [f"build {V3} and the programs", f"build {VNNI}", "publish the set"]


def test_an_added_variant_rebuilds_no_other():
    plan = make_plan(wanted(), Found(True, {V3: RAN}, False), verify=True, runnable={V3})
    assert plan.steps == [Step("build", VNNI), Step("publish")]
    assert plan.states == {V3: "cached", VNNI: "planned"}


def test_lost_programs_are_built_without_replacing_a_variant():
    plan = make_plan(wanted(), Found(False, {V3: RAN, VNNI: NOT_RUN}, False), verify=True, runnable={V3})
    assert plan.steps == [Step("build", V3, programs=True, keep_variant=False), Step("publish")]


def test_nothing_is_done_when_everything_is_there():
    plan = make_plan(wanted(), Found(True, {V3: RAN, VNNI: NOT_RUN}, True), verify=True, runnable={V3})
    assert not plan.changed


@pytest.mark.parametrize(
    ("verify", "runnable", "due"),
    [(True, {V3, VNNI}, True), (True, {V3}, False), (False, {V3, VNNI}, False)],
)
def test_a_variant_never_run_is_proven_once_it_can_be(verify, runnable, due):
    plan = make_plan(wanted(), Found(True, {V3: RAN, VNNI: NOT_RUN}, True), verify, runnable)
    assert plan.steps == ([Step("verify", VNNI), Step("publish")] if due else [])


def test_a_lost_set_is_published_again():
    plan = make_plan(wanted(), Found(True, {V3: RAN, VNNI: RAN}, False), verify=True, runnable=set())
    assert plan.steps == [Step("publish")]


def test_the_diff_says_what_is_there_and_what_will_be():
    want, found = wanted(), Found(True, {V3: RAN}, False)
    diff = make_diff(want, found, make_plan(want, found, True, {V3}), "/cache/kernels")
    assert f'"{V3}": "built"' in diff["before"]
    assert f'"{VNNI}": "absent"' in diff["before"]
    assert f'"{VNNI}": "built"' in diff["after"]
    assert want.set_key() in diff["after"]
    assert want.set_key() not in diff["before"]


def test_the_diff_of_nothing_to_do_is_empty():
    want, found = wanted(), Found(True, {V3: RAN, VNNI: RAN}, True)
    diff = make_diff(want, found, make_plan(want, found, True, {V3}), "/cache/kernels")
    assert diff["before"] == diff["after"]


def test_what_cannot_be_known_yet_is_said_to_be_unknown():
    diff = make_diff(None, None, Plan([Step("publish")], {V3: "planned"}), "/cache/kernels")
    assert UNKNOWN in diff["after"]


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(KernelError, match=r"'x86-64-v9' .*x86-64-v3, .*x86-64-v4-vnni"):
        catalogue.choose([V3, "x86-64-v9"])


def test_no_variant_at_all_is_refused():
    with pytest.raises(KernelError, match="is empty"):
        catalogue.choose([])


def test_variants_come_once_and_in_the_order_of_the_catalogue():
    assert [variant.name for variant in catalogue.choose([VNNI, V3, VNNI])] == [V3, VNNI]


def test_only_flags_that_every_core_has_count():
    text = "processor : 0\nflags\t\t: avx avx2 fma\n\nprocessor : 1\nflags\t\t: avx fma\nbugs : avx512f\n"
    assert catalogue.cpu_flags(text) == {"avx", "fma"}
    assert catalogue.cpu_flags("") == set()


def test_what_a_cpu_lacks_is_named():
    variant = catalogue.VARIANTS[VNNI]
    assert catalogue.lacking(variant, set(variant.requires) - {"avx512_vnni"}) == ["avx512_vnni"]
    assert catalogue.lacking(variant, set(variant.requires)) == []


def test_the_better_variant_requires_more_and_ranks_higher():
    low, high = catalogue.VARIANTS[V3], catalogue.VARIANTS[VNNI]
    assert set(low.requires) < set(high.requires)
    assert low.rank < high.rank
