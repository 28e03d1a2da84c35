# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says, as plain data that a cache can keep."""

from __future__ import annotations

import re
import typing as t

Json = dict[str, t.Any]

_UNSAFE = re.compile(r"[^A-Za-z0-9_]")


def group_name(prefix: str, name: str) -> str:
    return f"{prefix}_{_UNSAFE.sub('_', name)}"


class Listing:
    """Groups with their variables and child groups, hosts with their variables and groups."""

    def __init__(self, data: Json | None = None) -> None:
        self.data: Json = data or {"groups": {}, "hosts": {}}

    @property
    def groups(self) -> dict[str, Json]:
        return t.cast("dict[str, Json]", self.data["groups"])

    @property
    def hosts(self) -> dict[str, Json]:
        return t.cast("dict[str, Json]", self.data["hosts"])

    def group(self, name: str, variables: t.Mapping[str, t.Any] | None = None, parents: t.Iterable[str] = ()) -> str:
        entry = self.groups.setdefault(name, {"vars": {}, "children": []})
        entry["vars"].update(variables or {})
        for parent in parents:
            self.group(parent)
            children = self.groups[parent]["children"]
            if name not in children:
                children.append(name)
        return name

    def host(self, name: str, variables: t.Mapping[str, t.Any], groups: t.Iterable[str]) -> None:
        entry = self.hosts.setdefault(name, {"vars": {}, "groups": []})
        entry["vars"].update(variables)
        for group in groups:
            if group not in self.groups:
                self.group(group)
            if group not in entry["groups"]:
                entry["groups"].append(group)
