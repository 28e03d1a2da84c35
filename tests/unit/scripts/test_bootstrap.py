# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bootstrap.sh with a PATH on which uv is a script that writes down how it was called, and no Python is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
TOOLS = ("bash", "cat", "cp", "cut", "dirname", "id", "mkdir", "sha256sum")
UV = """#!/bin/bash
echo "$*" >> "{folder}/calls"
[ ! -e "{folder}/fails" ] || { echo "error: no download" >&2; exit 2; }
case "$1 $2" in
"python find") echo "{python}" ;;
"venv --quiet") mkdir -p "{folder}/venv/bin"; cp "{folder}/python" "{folder}/venv/bin/python" ;;
esac
"""


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "venv"
        self.programs = folder / "bin"
        self.programs.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.programs / tool).symlink_to(found)
        self.script(self.programs / "uv", UV.replace("{folder}", str(folder)).replace("{python}", sys.executable))
        self.script(folder / "python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')

    def script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def stamp(self) -> None:
        lock = (CHECKOUT / "requirements" / "controller.txt").read_bytes()
        self.venv.mkdir(exist_ok=True)
        (self.venv / ".lock").write_text(hashlib.sha256(lock).hexdigest() + "\n")

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "HOME": str(self.folder), "BITNET_VENV": str(self.venv), **variables}
        return subprocess.run(
            [str(CHECKOUT / "scripts" / "bootstrap.sh"), "controller"],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_where_no_python_is_found_it_says_how_to_get_one(host):
    (host.folder / "fails").touch()
    done = host.run()
    assert done.returncode == 1
    assert "ansible-core needs Python 3.12 to 3.14, none was found, and uv could not download one" in done.stderr
    for way in ("apt-get install python3", "Ubuntu 24.04", "pyenv install", "BITNET_PYTHON=/path/to/python3 make site"):
        assert way in done.stderr
    assert host.calls() == ["python install --quiet 3.13"]
    assert not host.venv.exists()


def test_an_interpreter_that_is_too_old_is_passed_over(host):
    host.script(host.programs / "python3", "#!/bin/bash\nexit 1\n")
    (host.folder / "fails").touch()
    assert host.run(BITNET_PYTHON=str(host.programs / "python3")).returncode == 1
    host.script(host.programs / "python3.13", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (host.folder / "fails").unlink()
    assert host.run().returncode == 0
    assert f"venv --quiet --clear --python {host.programs}/python3.13 {host.venv}" in host.calls()


def test_a_matching_stamp_is_believed_only_if_the_interpreter_runs(host):
    host.stamp()
    host.script(host.venv / "bin" / "python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    assert host.run().returncode == 0
    assert host.calls() == []  # nothing to do

    host.script(host.venv / "bin" / "python", "#!/nonexistent/python3\n")
    done = host.run()
    assert done.returncode == 0, done.stderr
    assert any(call.startswith("venv --quiet --clear") for call in host.calls())
    assert any(call.startswith("pip install") for call in host.calls())
