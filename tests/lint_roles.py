# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role has its README, argument spec and molecule scenario, and the spec tells the truth about the defaults."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


def problems_of(role: Path) -> list[str]:
    """Return a sentence for each thing in which this role falls short."""
    found = [
        f"{role.name}: {path} is missing"
        for path in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "defaults/main.yml", "tasks/main.yml")
        if not (role / path).is_file()
    ]
    if not (ROOT / "molecule" / role.name / "molecule.yml").is_file():
        found.append(f"{role.name}: there is no molecule/{role.name}/molecule.yml")
    if found:
        return found
    spec: dict[str, Any] = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    options: dict[str, Any] = {}
    for entry_point in spec.values():
        options |= entry_point.get("options") or {}
    defaults: dict[str, Any] = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    readme = (role / "README.md").read_text()
    for name in sorted(options.keys() | defaults.keys()):
        found += [f"{role.name}: {name} {wrong}" for wrong in wrongs_of(name, role.name, options, defaults)]
        if name not in readme:
            found.append(f"{role.name}: README.md does not name {name}")
    return found


def wrongs_of(name: str, role: str, options: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with one option, as the rest of a sentence that begins with its name."""
    if name not in options:
        yield "has a default and no argument spec"
        return
    option, value = options[name], defaults.get(name)
    if "description" not in option:
        yield "has no description"
    if not name.startswith((f"{role}_", "bitnet_")):
        yield "does not carry the role's name"
    if name not in defaults:
        if "default" in option:
            yield "has a default in the argument spec only"
    elif option.get("required"):
        yield "is required in the argument spec and has a default"
    elif "default" in option:
        if option["default"] != value:
            yield f"is {value!r} in defaults and {option['default']!r} in the argument spec"
    elif value not in (None, "", [], {}) and "{{" not in str(value):
        yield f"has the default {value!r}, which the argument spec does not give"


def main() -> int:
    """Check all roles; print what is wrong; return the exit status."""
    roles = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
    found = [problem for role in roles for problem in problems_of(role)]
    print("\n".join(found) or f"{len(roles)} roles agree with their argument specs")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
