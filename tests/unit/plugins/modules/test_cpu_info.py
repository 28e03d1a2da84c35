# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue
from ansible_collections.bitnet.devops.plugins.modules import cpu_info

from tests.unit import cpuinfo_texts as texts


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(cpu_info.AnsibleModule, "warn", lambda self, text: said.append(text))
    return said


@pytest.fixture
def run(tmp_path, capsys, warnings):
    def module(text=None, check=False, **options):
        if text is not None:
            (tmp_path / "cpuinfo").write_bytes(text.encode("utf-8", "surrogateescape"))
            options["cpuinfo"] = str(tmp_path / "cpuinfo")
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            cpu_info.main()
        return json.loads(capsys.readouterr().out)

    return module


@pytest.mark.parametrize("check", [False, True])
def test_a_saved_file_is_judged_as_its_host(run, warnings, check):
    result = run(texts.HOSTS["graviton4"], check, variants=["armv8.0-a", "armv8.2-a-dotprod", "x86-64-v3"])
    assert not result["changed"] and not warnings
    assert (result["architecture"], result["vendor"], result["model"]) == ("aarch64", "ARM", "Neoverse-V2")
    assert (result["level"], result["best"], result["cpus"]) == ("armv9.0-a", "armv8.2-a-dotprod", 2)
    assert (result["fitting"], result["lacking"]) == (["armv8.2-a-dotprod", "armv8.0-a"], {})
    assert result["why"] == "armv8.2-a-dotprod is the best of 2 that this CPU runs"


def test_this_host(run):
    result = run()
    assert result["architecture"] == os.uname().machine
    assert not result["changed"] and result["cpus"] == os.cpu_count()
    assert {*result["fitting"], *result["lacking"]} < set(catalogue.VARIANTS)


@pytest.mark.parametrize("text", ["", "flags\t: \n", "\udcff\udc80\x00" * 100])
def test_a_file_that_says_nothing_is_a_result_with_a_warning(run, warnings, text):
    result = run(text)
    assert not result.get("failed") and not result["changed"]
    assert (result["best"], result["level"]) == (None, None)
    assert len(warnings) == 1 and "cpuinfo: it names no CPU features" in warnings[0]
    assert result["why"].startswith("cpuinfo cannot be used: it names no CPU features")


def test_errors_name_the_option_and_the_value(run, tmp_path):
    result = run(cpuinfo=str(tmp_path / "absent"))
    assert result["failed"] and result["msg"].startswith(f"cpuinfo: '{tmp_path}/absent' cannot be read (No such file")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        result = run(cpuinfo=str(path))
        assert result["failed"] and f"cpuinfo: '{path}' is no regular file" in result["msg"]
    result = run(texts.HOSTS["haswell"], variants=["pentium"])
    assert result["failed"] and "variants: 'pentium' is not in the catalogue, which knows x86-64-v3" in result["msg"]
