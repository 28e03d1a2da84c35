# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a document, by a JSON Schema: the schema that editors read is the one that decides.

A general validator takes longer over ten thousand nodes than all the rest, names no near miss, and would be one more
package on every controller. The schema is compiled to functions once; keywords that they do not know are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t

_SAYS_NOTHING = {"$schema", "title", "description", "definitions"}
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "object": ((dict,), "a mapping"),
    "array": ((list,), "a list"),
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
}


@dataclasses.dataclass
class Problem:
    """One thing that is wrong, and the keys that lead to it."""

    path: list[str | int]
    text: str


Check = t.Callable[[t.Any], t.Sequence[Problem]]


def meant(word: t.Any, known: t.Iterable[str]) -> str:
    """The end of a sentence that suggests what was meant, or lists what there is."""
    names = list(known)
    near = difflib.get_close_matches(str(word), names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"


def shown(value: t.Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def compiled(schema: t.Mapping[str, t.Any]) -> Check:
    return _Compiler(schema).check_of(schema)


class _Compiler:
    def __init__(self, root: t.Mapping[str, t.Any]) -> None:
        self.root = root
        self.known: dict[str, Check] = {}

    def check_of(self, schema: t.Mapping[str, t.Any]) -> Check:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in self.known:
                self.known[name] = self.check_of(self.root["definitions"][name])
            return self.known[name]
        keywords = set(schema) - _SAYS_NOTHING
        if keywords == {"enum"}:
            return _enum(schema["enum"])
        kind = schema.get("type")
        inner: Check | None
        if kind == "object":
            inner, allowed = self._object(schema), {"properties", "required", "additionalProperties", "propertyNames"}
            allowed.add("minProperties")
        elif kind == "array":
            inner, allowed = self._array(schema), {"items", "minItems", "uniqueItems"}
        elif kind == "integer":
            inner, allowed = _number(schema), {"minimum", "maximum"}
        else:
            inner, allowed = _text(schema), {"pattern"} if kind == "string" else set()
        if keywords - allowed - {"type"}:
            raise ValueError(f"the schema has keywords that are not known here: {sorted(keywords - allowed)}")
        return _typed(kind, inner)

    def _object(self, schema: t.Mapping[str, t.Any]) -> Check:
        properties = {name: self.check_of(part) for name, part in schema.get("properties", {}).items()}
        required: list[str] = schema.get("required", [])
        more = schema.get("additionalProperties", True)
        other = None if isinstance(more, bool) else self.check_of(more)
        name_check = self.check_of(schema["propertyNames"]) if "propertyNames" in schema else None
        fewest = schema.get("minProperties", 0)

        def check(value: dict[str, t.Any]) -> t.Sequence[Problem]:
            found: list[Problem] = []
            for key, item in value.items():
                if name_check:
                    found += [Problem([key], problem.text) for problem in name_check(key)]
                inner = properties.get(key, other)
                if inner:
                    problems = inner(item)
                    for problem in problems:
                        problem.path.insert(0, key)
                    found += problems
                elif more is False:
                    found.append(Problem([key], f"unknown key {shown(key)}; {meant(key, properties)}"))
            found += [Problem([], f"the key {name!r} is missing") for name in required if name not in value]
            if len(value) < fewest:
                found.append(Problem([], "is empty"))
            return found

        return check

    def _array(self, schema: t.Mapping[str, t.Any]) -> Check:
        item_check = self.check_of(schema["items"])
        fewest, unique = schema.get("minItems", 0), schema.get("uniqueItems", False)

        def check(value: list[t.Any]) -> t.Sequence[Problem]:
            found: list[Problem] = []
            there: list[t.Any] = []  # short where the items come from an enum
            for index, item in enumerate(value):
                problems = item_check(item)
                for problem in problems:
                    problem.path.insert(0, index)
                found += problems
                if unique and not problems:
                    if item in there:
                        found.append(Problem([index], f"{shown(item)} is there twice"))
                    else:
                        there.append(item)
            if len(value) < fewest:
                found.append(Problem([], "is empty"))
            return found

        return check


def _typed(kind: t.Any, inner: Check | None) -> Check:
    types, wanted = _TYPES[kind]

    def check(value: t.Any) -> t.Sequence[Problem]:
        if type(value) not in types:
            return [Problem([], f"{shown(value)} is not {wanted}")]
        return inner(value) if inner else ()

    return check


def _text(schema: t.Mapping[str, t.Any]) -> Check | None:
    if "pattern" not in schema:
        return None
    fits = re.compile(schema["pattern"]).fullmatch

    def check(value: str) -> t.Sequence[Problem]:
        return () if fits(value) else [Problem([], f"{shown(value)} is not of the form: {schema['description']}")]

    return check


def _number(schema: t.Mapping[str, t.Any]) -> Check | None:
    if "minimum" not in schema:
        return None

    def check(value: int) -> t.Sequence[Problem]:
        if schema["minimum"] <= value <= schema["maximum"]:
            return ()
        return [Problem([], f"{shown(value)} is not of the form: {schema['description']}")]

    return check


def _enum(values: list[str]) -> Check:
    def check(value: t.Any) -> t.Sequence[Problem]:
        if isinstance(value, str) and value in values:
            return ()
        return [Problem([], f"{shown(value)} is not known; {meant(value, values)}")]

    return check
