# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that speak to Docker have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Requirements and the option of the address."""

    DOCUMENTATION = r"""
requirements:
  - "Docker SDK for Python 5.0.3 or newer on the target (Debian and Ubuntu: python3-docker)"
  - "Docker 20.10 or newer"
options:
  docker_host:
    description: Docker's API on the target. Left out, it is E(DOCKER_HOST), or else the socket V(unix:///var/run/docker.sock).
    type: str
"""
