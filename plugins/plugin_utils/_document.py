# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as plain data, with the line of whatever is wrong in it.

From events and not by a loader: a loader takes three times as long, lets the later of two equal keys win, and follows
nesting as deep as a file has it, until the C stack ends. Anchors are refused: what refers to itself never ends.
"""

from __future__ import annotations

import typing as t

import yaml

LOADER: t.Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 40
LARGEST = 64 << 20

_NO_KEY = object()
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}
_MOST_SHOWN = 10


class DocumentError(Exception):
    """The document cannot be used; the text names its file and line."""


def read(text: str, name: str) -> t.Any:
    """The content of a document in plain types of JSON; C(name) is what its errors begin with."""
    if len(text) > LARGEST:
        raise DocumentError(f"{name}: has more than {LARGEST >> 20} MiB")
    try:
        return _Reader(name).read(LOADER(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise DocumentError(f"{name}{line}: is no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"{name}: is no YAML: {error}") from error


def _line_of(node: t.Any, path: t.Iterable[str | int]) -> int:
    """The line of what these keys lead to; of what holds it, where there is none."""
    line = 0
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        else:
            node = node.value[step]
            line = node.start_mark.line
    return line + 1


def refusal(text: str, name: str, problems: t.Sequence[t.Any]) -> DocumentError:
    """All that is wrong, each with its line and its keys."""
    root = yaml.compose(text, Loader=LOADER)
    told = [
        f"{name}:{_line_of(root, problem.path)}: {'.'.join(map(str, problem.path)) or 'the document'}: {problem.text}"
        for problem in problems[:_MOST_SHOWN]
    ]
    if len(problems) > _MOST_SHOWN:
        told.append(f"and {len(problems) - _MOST_SHOWN} more")
    return DocumentError("\n".join(told))


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.scalars: dict[str, t.Any] = {}
        self.resolver: t.Any = yaml.SafeLoader("")

    def fail(self, event: t.Any, text: str) -> t.NoReturn:
        raise DocumentError(f"{self.name}:{event.start_mark.line + 1}: {text}")

    def scalar(self, value: str) -> t.Any:
        """What YAML takes a word without quotes for. Dates stay text, since JSON has none."""
        if value not in self.scalars:
            tag = self.resolver.resolve(yaml.ScalarNode, value, (True, False))
            known = tag in _PLAIN
            self.scalars[value] = self.resolver.construct_object(yaml.ScalarNode(tag, value)) if known else value
        return self.scalars[value]

    def value_of(self, event: t.Any) -> t.Any:
        kind = type(event)
        if kind is yaml.AliasEvent or event.anchor:
            self.fail(event, "anchors and aliases are not used here; write the value out, or give it to a group")
        if event.tag and event.tag != "!":
            self.fail(event, f"the tag {event.tag} is not used here")
        if kind is yaml.ScalarEvent:
            try:
                return self.scalar(event.value) if event.implicit[0] else event.value
            except ValueError as error:
                self.fail(event, f"is no YAML: {error}")
        return {} if kind is yaml.MappingStartEvent else []

    def read(self, loader: t.Any) -> t.Any:
        content: list[t.Any] = []  # the document as the only item of a list
        here: t.Any = content
        key: t.Any = _NO_KEY
        stack: list[tuple[t.Any, t.Any]] = []
        while loader.check_event():
            event = loader.get_event()
            kind = type(event)
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                here, key = stack.pop()
                continue
            if not isinstance(event, yaml.NodeEvent):
                if kind is yaml.DocumentStartEvent and content:
                    self.fail(event, "a second document begins; one file has one")
                continue
            value = self.value_of(event)
            if isinstance(here, list):
                here.append(value)
            elif key is _NO_KEY:
                key = self.key(event, value, here)
                continue
            else:
                here[key] = value
                key = _NO_KEY
            if kind is not yaml.ScalarEvent:
                stack.append((here, key))
                here, key = value, _NO_KEY
                if len(stack) > DEEPEST:
                    self.fail(event, f"is nested more than {DEEPEST} deep")
        return content[0] if content else None

    def key(self, event: t.Any, value: t.Any, here: dict[str, t.Any]) -> str:
        if not isinstance(value, str):
            self.fail(event, f"the key {getattr(event, 'value', 'of several values')!r} is not text; put it in quotes")
        if value in here:
            self.fail(event, f"the key {value!r} is there twice")
        return value
