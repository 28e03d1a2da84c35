# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload chooses from its manifest as cpu_info chooses from the catalogue, for the same reason."""

from __future__ import annotations

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import cpu as ours
from swarm_intelligence import cpu as theirs

from tests.unit import cpuinfo_texts as texts

MANIFESTS = {
    architecture: {
        variant.name: theirs.Variant(variant.name, frozenset(variant.requires), variant.rank, proven=True)
        for variant in catalogue.VARIANTS.values()
        if variant.architecture == architecture
    }
    for architecture in catalogue.PLATFORMS
}


@pytest.mark.parametrize("host", texts.HOSTS)
def test_both_choose_alike(host, tmp_path):
    found = ours.read(texts.HOSTS[host])
    verdict = ours.judge(found, [])
    (tmp_path / "cpuinfo").write_text(texts.HOSTS[host])
    flags = theirs.cpu_flags(tmp_path / "cpuinfo")
    assert sorted(flags) == found.features
    manifest = MANIFESTS[found.architecture]
    if verdict.best is None:
        with pytest.raises(theirs.CpuError, match=f"{next(iter(manifest))} needs"):
            theirs.candidates(manifest, flags)
        return
    fitting = theirs.candidates(manifest, flags)
    assert [variant.name for variant in fitting] == verdict.fitting
    _head, *ours_needs = verdict.why.split("; ")
    first, *their_needs = theirs.why(fitting[0], fitting, manifest, flags).split("; ")
    assert verdict.why.startswith(f"{fitting[0].name} is {first}")
    assert [sorted(text.split()) for text in ours_needs] == [sorted(text.split()) for text in their_needs]


def test_the_bits_that_the_kernel_tells_cover_all_that_a_variant_requires():
    named = {*theirs.HWCAP.split(), *theirs.HWCAP2.split()}
    for variant in catalogue.VARIANTS.values():
        if variant.architecture == "aarch64":
            assert set(variant.requires) <= named
