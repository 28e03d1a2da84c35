# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets plain pytest import this checkout as ansible_collections.bitnet.devops."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
COLLECTIONS = CHECKOUT / ".cache" / "collections"


def _link_checkout() -> None:
    link = COLLECTIONS / "ansible_collections" / "bitnet" / "devops"
    if link.resolve() != CHECKOUT:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(CHECKOUT)


_link_checkout()
sys.path.insert(0, str(COLLECTIONS))
sys.path.insert(0, str(CHECKOUT))

import ansible_collections  # noqa: E402

# The ansible package brings a regular package of that name, which hides ours.
folder = str(COLLECTIONS / "ansible_collections")
if folder not in ansible_collections.__path__:
    ansible_collections.__path__.append(folder)
