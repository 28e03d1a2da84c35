# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that no package of Debian 12 has, built from the Go module proxy, once for each version."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.lab import machine

PACKAGES = {
    "cosign": ("github.com/sigstore/cosign/v2/cmd/cosign", "v2.6.5"),
    "buildx": ("github.com/docker/buildx/cmd/buildx", "v0.30.1"),
    "buildkitd": ("github.com/moby/buildkit/cmd/buildkitd", "v0.34.2"),
}


def build(name: str) -> Path:
    """The command as a static program. It takes minutes the first time, and Go on the PATH."""
    package, version = PACKAGES[name]
    target = machine.cache_dir() / "tools" / f"{name}-{version}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # A module of its own: `go install` refuses what has exclude directives, as buildx does.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
        made = Path(folder) / name
        for command in (
            ["go", "mod", "init", "local/tool"],
            ["go", "get", "-tool", f"{package}@{version}"],
            ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(made), package],
        ):
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=2400, check=False
            )
            if done.returncode:
                raise machine.LabError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        made.replace(target)
    return target
