# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of the testers where no edge runs; molecule's scenario traffic tells a real HAProxy."""

from __future__ import annotations

import json
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.modules import traffic_testers

ONE, TWO = "a" * 64, "B" * 64


@pytest.fixture
def state():
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:  # short: a socket's path has 107 characters at most
        yield Path(folder)


@pytest.fixture
def run(state, capsys):
    (state / "environments" / "local" / "edge").mkdir(parents=True)

    def module(*hashes, check=False, **options):
        arguments = {"sha256": list(hashes), "state_dir": str(state), **options, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            traffic_testers.main()
        return json.loads(capsys.readouterr().out)

    return module


@pytest.fixture
def listed(state) -> Path:
    return state / "environments" / "local" / "edge" / "testers.acl"


def test_the_list_is_written_for_root_alone_and_once(run, listed):
    first = run(TWO, ONE, ONE)
    assert (first["changed"], first["told"]) == (True, False)
    assert listed.read_text().split() == [ONE, TWO.lower()]
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    assert ONE not in json.dumps(first["diff"])
    assert not run(ONE, TWO)["changed"]
    listed.chmod(0o644)
    assert run(ONE, TWO)["changed"], "others could read it"
    assert run()["changed"]
    assert listed.read_text() == ""


def test_check_mode_writes_nothing(run, listed):
    assert run(ONE, check=True)["changed"]
    assert not listed.exists()


@pytest.mark.parametrize(
    ("hashes", "options", "says"),
    [
        ([ONE, "a token"], {}, "sha256: entry 2 of 2 has not 64 hexadecimal digits"),
        ([ONE + "\n"], {}, "sha256: entry 1 of 1"),
        ([ONE], {"environment": "../up"}, "is no name of up to 32"),
        ([ONE], {"environment": "away"}, "testers.acl.next cannot be written (No such file or directory)"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(run, listed, hashes, options, says):
    failed = run(*hashes, **options)
    assert failed["failed"]
    assert says in failed["msg"]
    assert not listed.exists()


def test_an_edge_that_does_not_answer_is_met_with_a_deadline(run, listed):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(listed.parent / "haproxy.sock"))
        mute.listen()
        failed = run(ONE, timeout=0.3)
    assert "did not answer 'show'" in failed["msg"]
    assert not listed.exists()
