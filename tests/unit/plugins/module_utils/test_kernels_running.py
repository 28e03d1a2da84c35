# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, running

V3, VNNI, DOTPROD = (catalogue.VARIANTS[name] for name in ("x86-64-v3", "x86-64-v4-vnni", "armv8.2-a-dotprod"))
QEMU = {
    "qemu-aarch64-static": "qemu-aarch64 version 7.2.22",
    "qemu-x86_64-static": "qemu-x86_64 version 7.2.22",
}


def test_what_the_cpu_has_runs_natively():
    way = running.find_way(V3, "x86_64", set(V3.requires), QEMU)
    assert (way.possible, way.emulator, way.how) == (True, (), "natively")
    assert running.find_way(DOTPROD, "aarch64", set(DOTPROD.requires), {}).how == "natively"


def test_another_architecture_takes_an_emulator_and_its_libraries():
    way = running.find_way(DOTPROD, "x86_64", set(DOTPROD.requires), QEMU)
    assert way.emulator == ("qemu-aarch64-static", "-cpu", "cortex-a76", "-L", "/usr/aarch64-linux-gnu")
    assert way.how == "under qemu-aarch64 version 7.2.22 with -cpu cortex-a76"


def test_a_lesser_cpu_takes_an_emulator_with_the_libraries_that_are_there():
    way = running.find_way(DOTPROD, "aarch64", {"asimd", "fp"}, QEMU)
    assert way.emulator == ("qemu-aarch64-static", "-cpu", "cortex-a76")


@pytest.mark.parametrize(
    ("variant", "emulators", "reason"),
    [
        (VNNI, QEMU, "the CPU of the building host lacks avx512f, avx512bw, avx512cd, avx512dq, avx512vl, avx512_vnni"),
        (DOTPROD, {}, "the building host is x86_64, and the verifier image has no qemu-aarch64-static"),
    ],
)
def test_what_nothing_runs_says_why(variant, emulators, reason):
    way = running.find_way(variant, "x86_64", set(V3.requires), emulators)
    assert not way.possible
    assert way.reason.startswith(reason)


def test_the_look_at_an_image_finds_its_emulators(tmp_path):
    program = tmp_path / "qemu-aarch64-static"
    program.write_text('#!/bin/sh\necho "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)"\necho "Copyright"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", running.LOOK], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    found = running.parse_look(done.stdout)
    assert found["qemu-aarch64-static"] == "qemu-aarch64 version 7.2.22"


def test_an_image_without_emulators_is_no_error():
    done = subprocess.run(
        ["/bin/sh", "-c", running.LOOK], capture_output=True, text=True, check=False, env={"PATH": "/nowhere"}
    )
    assert (done.returncode, running.parse_look(done.stdout)) == (0, {})


def test_every_variant_for_arm_can_be_run_somewhere():
    for variant in catalogue.VARIANTS.values():
        if variant.architecture == "aarch64":
            assert running.find_way(variant, "x86_64", set(), QEMU).possible
