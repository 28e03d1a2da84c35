# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program against a site that exists: here one api-server, and commands that do or do not what they should."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.switch_loss.__main__ import main


def arguments(server, folder, *more):
    return [
        "--url", f"http://127.0.0.1:{server.port}", "--token-file", str(folder / "token"), "--subjects", "switch",
        "--slot-log-command", f"cat {server.log.path}", "--rate", "20", "--streams", "2", "--sockets", "1",
        "--stream-tokens", "2", "--switches", "2", "--rollbacks", "1", "--seconds", "1",
        "--output", str(folder / "out"), *more,
    ]  # fmt: skip


def result(folder):
    return json.loads((folder / "out" / "result.json").read_text())["subjects"]["switch"]


def test_one_log_for_both_slots_is_a_contradiction(start, tmp_path, capsys):
    """Both slots claim each request: the proof must not hold."""
    server = start()
    assert main(arguments(server, tmp_path, "--switch-command", "true")) == 1
    assert "as well as by blue" in capsys.readouterr().err
    assert result(tmp_path)["outcomes"]["duplicated"] > 10


def test_a_switch_that_is_proved(start, tmp_path):
    server = start()
    only_blue = 'import sys; sys.argv[1] == "blue" and print(open(sys.argv[2]).read())'
    logs = ["--slot-log-command", f"{sys.executable} -c '{only_blue}' {{slot}} {server.log.path}"]
    said = tmp_path / "said"
    switch = f"{sys.executable} -c 'import sys; open(sys.argv[1], \"a\").write(sys.argv[2])' {said} {{slot}}."
    assert main(arguments(server, tmp_path, "--switch-command", switch, *logs)) == 0
    assert said.read_text() == "green.blue.green."
    found = result(tmp_path)
    assert found["proved"]
    assert [move["kind"] for move in found["moves"]] == ["switch", "switch", "rollback"]
    assert found["reconciled"]["sides"] == "client, backend"
    assert "| switch | 3 |" in (tmp_path / "out" / "table.md").read_text()


def test_a_switch_command_that_fails(start, tmp_path, capsys):
    server = start()
    failing = f"{sys.executable} -c 'raise SystemExit(\"no such slot\")'"
    assert main(arguments(server, tmp_path, "--switch-command", failing, "--slot-log-command", "")) == 1
    assert "ended with status 1: no such slot" in capsys.readouterr().err


def test_a_log_that_cannot_be_read(start, tmp_path, capsys):
    server = start()
    assert main(arguments(server, tmp_path, "--switch-command", "true", "--slot-log-command", "cat /nowhere")) == 1
    assert "exit status 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--subjects", "dance"], "there are switch, rolling-start-first"),
        (["--url", "http://127.0.0.1:1"], "a site needs --switch-command"),
        (["--url", "http://8.8.8.8", "--token-file", "/dev/null", "--switch-command", "true"], "is not loaded"),
    ],
)
def test_what_cannot_be_run(options, says, tmp_path, capsys):
    assert main(["--output", str(tmp_path), *options]) == 2
    assert says in capsys.readouterr().out
