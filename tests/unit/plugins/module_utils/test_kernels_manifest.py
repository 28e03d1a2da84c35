# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import manifest, verification
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.cache import Cache
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError


@pytest.fixture
def library(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.so").write_bytes(b"12345")
    return tmp_path, [manifest.describe(tmp_path, "lib/a.so")]


def test_an_untouched_file_is_intact(library):
    assert manifest.is_intact(*library, deep=False)
    assert manifest.is_intact(*library, deep=True)


def test_a_copy_with_another_time_is_intact(library):
    os.utime(library[0] / "lib" / "a.so", (1, 1))
    assert manifest.is_intact(*library, deep=False)


@pytest.mark.parametrize("content", [b"1234", b"12346"])
def test_a_changed_file_is_noticed(library, content):
    (library[0] / "lib" / "a.so").write_bytes(content)
    os.utime(library[0] / "lib" / "a.so", (1, 1))
    assert not manifest.is_intact(*library, deep=False)


def test_a_missing_file_is_noticed(library):
    (library[0] / "lib" / "a.so").unlink()
    assert not manifest.is_intact(*library, deep=False)


def test_a_change_behind_time_and_size_is_noticed_on_demand(library):
    path = library[0] / "lib" / "a.so"
    before = path.stat()
    path.write_bytes(b"54321")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifest.is_intact(*library, deep=False)
    assert not manifest.is_intact(*library, deep=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}'])
def test_a_record_that_cannot_be_understood_is_none(tmp_path, text):
    (tmp_path / "component.json").write_text(text)
    assert manifest.load(tmp_path / "component.json") is None


def test_a_record_is_written_whole(tmp_path):
    manifest.save(tmp_path / "a.json", {"schema": 1, "x": [1]})
    assert manifest.load(tmp_path / "a.json") == {"schema": 1, "x": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_manifest_has_the_layout_of_the_image():
    file = {"sha256": "0" * 64, "size": 1, "mtime_ns": 5}
    programs = {"files": [{"path": "bin/server", **file}], "system_libraries": ["libc.so.6"]}
    variant = {
        "files": [{"path": "lib/libggml.so", **file}],
        "system_libraries": ["libm.so.6"],
        "flags": ["-march=x86-64-v3"],
        "requires": ["avx2"],
        "rank": 30,
        "disassembly": {"passed": True},
        "run": {"ran": False, "reason": "no"},
    }
    made = manifest.make_manifest(
        "abc", {"kind": "path"}, {"image": "b"}, programs, {"x86-64-v3": variant}, architecture="x86_64"
    )
    assert made["architecture"] == "x86_64"
    assert made["programs"] == [{"path": "bin/server", "sha256": "0" * 64, "size": 1}]
    assert made["variants"]["x86-64-v3"]["files"][0]["path"] == "lib/x86-64-v3/libggml.so"
    assert made["system_libraries"] == ["libc.so.6", "libm.so.6"]
    assert made["variants"]["x86-64-v3"]["verified"] == {
        "disassembly": {"passed": True},
        "run": {"ran": False, "reason": "no"},
    }


def test_what_the_cache_remembers_it_finds_again(tmp_path):
    cache = Cache(str(tmp_path))
    assert cache.remembered("path", "/a") is None
    cache.remember("path", "/a", {"sha256": "x"})
    assert cache.remembered("path", "/a")["sha256"] == "x"
    assert cache.remembered("path", "/b") is None


@pytest.mark.parametrize("after", ["", "\n", "\nIllegal instruction\n"])
def test_a_run_that_agrees_is_recorded_with_its_figures(after):
    output = f'{{starting}}\n{{"cosine": 0.99998, "relative_l2": 0.003, "passed": true}}{after}'
    assert verification.judge_run("v", 0, output) == {
        "ran": True,
        "reason": "",
        "cosine": 0.99998,
        "relative_l2": 0.003,
    }


@pytest.mark.parametrize(
    ("status", "output"),
    [
        (0, '{"cosine": 0.9, "relative_l2": 0.003, "passed": true}'),
        (0, '{"cosine": 0.9999, "relative_l2": 0.02, "passed": true}'),
        (1, '{"cosine": 0.9999, "relative_l2": 0.001}'),
        (0, '{"cosine": NaN, "relative_l2": 0.001}'),
        (1, '{"ran": true, "cosine": null, "relative_l2": null, "reason": "the engine crashed"}'),
        (0, ""),
        (127, "bitnet-cli: not found"),
        (0, '{"cosine": 1}'),
    ],
)
def test_a_run_that_does_not_prove_the_variant_refuses_it(status, output):
    with pytest.raises(KernelError, match="variant v is refused"):
        verification.judge_run("v", status, output)


def test_a_command_of_the_user_judges_by_its_exit_code():
    assert verification.judge_command("v", 0, "fine") == {"ran": True, "reason": ""}
    with pytest.raises(KernelError, match="variant v is refused: verify_command ended with exit code 3: 'off by one'"):
        verification.judge_command("v", 3, "off by one\n")


def test_a_variant_that_the_verifier_did_not_run_is_not_passed():
    record = verification.judge_run("v", 4, '{\n "ran": false, "reason": "this CPU lacks avx512f", "cosine": null\n}')
    assert record == {"ran": False, "reason": "the verifier did not run it: this CPU lacks avx512f"}
