# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Which pgBackRest, and where it runs."""

    DOCUMENTATION = r"""
options:
  stanza:
    description: Name of the cluster in pgBackRest's configuration.
    type: str
    default: main
  config_path:
    description:
      - Folder with C(pgbackrest.conf) and C(conf.d). Secrets belong into a file of C(conf.d) with mode C(0600), as
        P(bitnet.devops.pgbackrest_config#filter) keeps them apart.
    type: str
    default: /etc/pgbackrest
  inside:
    description:
      - Command that runs another one where PostgreSQL is, as a list, such as
        C([docker, exec, --interactive, CONTAINER]). All paths are paths there.
      - Left out, commands run on the host itself, as the user of the task. That is the owner of the cluster
        (C(become_user=postgres)).
      - There have to be C(sh), C(timeout) and the other small programs of a Debian.
    type: list
    elements: str
    default: []
requirements:
  - pgbackrest 2.45 or later where PostgreSQL is
"""
