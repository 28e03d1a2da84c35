# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured under the binding of each environment, side by side, so that the best can be taken over."""

from __future__ import annotations

import json
import typing as t

from .._release import binding_id
from .signing import Json
from .statements import Verdict, printable

# Of these it is known which end is the better one; of the rest the report says nothing.
_LESS_IS_BETTER = ("_ms", "_ratio", "_seconds", "errors")
_MORE_IS_BETTER = ("_per_second",)


def flat(value: t.Mapping[str, t.Any], prefix: str = "") -> dict[str, t.Any]:
    """Nested keys as one, with dots. A list is one value."""
    result: dict[str, t.Any] = {}
    for key, part in value.items():
        if isinstance(part, t.Mapping):
            result.update(flat(part, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = part
    return result


def _measured(verdict: Verdict) -> dict[str, float]:
    """The numbers in a verdict by name. Those of the gates' baseline tell of another release.

    Of two gates of one name it is the later, which judged after the switch.
    """
    figures = flat(verdict.figures)
    for gate in verdict.gates:
        figures.update(flat(gate["figures"], f"{gate['name']}."))
    return {
        name: value
        for name, value in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and "baseline" not in name.split(".")
    }


def _by_name(tables: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """environment → name → value, turned to name → environment → value."""
    names = sorted({name for table in tables.values() for name in table})
    return {name: {who: tables[who][name] for who in sorted(tables) if name in tables[who]} for name in names}


def _best(name: str, values: t.Mapping[str, float], promoting: t.Container[str]) -> list[str]:
    """Who measured the best value, of those that say promote: a strategy that failed is not to be taken over."""
    judged = {who: value for who, value in values.items() if who in promoting}
    if len(judged) < 2 or not name.endswith(_LESS_IS_BETTER + _MORE_IS_BETTER):
        return []
    best = min(judged.values()) if name.endswith(_LESS_IS_BETTER) else max(judged.values())
    return [who for who, value in judged.items() if value == best]


def comparison(verdicts: t.Mapping[str, Verdict], promoting: t.Container[str]) -> Json:
    """Of verdicts by environment (of several clusters: ENVIRONMENT/CLUSTER)."""
    bindings = {who: flat(verdict.binding) for who, verdict in verdicts.items()}
    differing = {
        key: values
        for key, values in _by_name(bindings).items()
        if len(values) < len(bindings) or len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1
    }
    return {
        "bindings": {
            who: {"id": binding_id(verdict.binding), "binding": verdict.binding}
            for who, verdict in sorted(verdicts.items())
        },
        "differing": differing,
        "measured": {
            name: {"values": values, "best": _best(name, values, promoting)}
            for name, values in _by_name({who: _measured(verdict) for who, verdict in verdicts.items()}).items()
        },
    }


def lines(compared: Json) -> list[str]:
    """The comparison for people: what differs between the bindings, then what was measured."""
    told = []
    for key, values in compared["differing"].items():
        told.append(f"binding {key}: {_values(values)}")
    for name, found in compared["measured"].items():
        best = f"; best: {', '.join(found['best'])}" if found["best"] else ""
        told.append(f"measured {name}: {_values(found['values'])}{best}")
    return [printable(line) for line in told]


def _values(values: t.Mapping[str, t.Any]) -> str:
    return ", ".join(f"{who} {json.dumps(value)}" for who, value in values.items())
