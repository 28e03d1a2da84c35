# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugins have in common: how their file is read and judged, cached, and told to Ansible."""

from __future__ import annotations

import abc
import functools
import hashlib
import json
import typing as t
from pathlib import Path

from ansible.errors import AnsibleParserError
from ansible.inventory.helpers import get_group_vars
from ansible.parsing.vault import is_encrypted_file
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.template import trust_as_template
from ansible.utils.vars import combine_vars
from ansible_collections.bitnet.devops.plugins.module_utils._fleet import schema
from ansible_collections.bitnet.devops.plugins.module_utils._fleet.listing import Json, Listing

from . import _document

SCHEMAS = Path(__file__).resolve().parents[2] / "files" / "schemas"
# What the user's file has as expressions; all else is data, and is never rendered.
_EXPRESSIONS = ("compose", "groups", "keyed_groups")
_HEAD = 4096

Make = t.Callable[[], "tuple[Listing, bool]"]
"""Gives the inventory, and whether a cache may keep it."""


class Inventory(BaseInventoryPlugin, Constructable, Cacheable):
    """A plugin says its C(NAME), how its files and its schema are named, and what it lists."""

    NAME: str
    FILE: str
    OWN = False
    """Whether all values are the user's own: one that cannot be a template then prints as it is."""

    vaulted = False
    """Whether a file that this inventory is made of was encrypted; what it says is not left in a cache."""

    def verify_file(self, path: str) -> bool:
        """C(FILE.yml), C(NAME.FILE.yml), and C(inventory), which AWX offers in its menu, if it is this plugin's."""
        if not super().verify_file(path):
            return False
        name = Path(path).name
        if name == "inventory":
            with Path(path).open(encoding="utf-8", errors="replace") as file:
                return f"plugin: {self.NAME}" in file.read(_HEAD).splitlines()
        stem, _dot, extension = name.rpartition(".")
        return extension in ("yml", "yaml") and (stem == self.FILE or stem.endswith(f".{self.FILE}"))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self.vaulted = False  # one plugin reads all its files
        try:
            text = str(self.text_of(path))
            document = self.read(path, text, self.FILE)
            options = {key: _trusted(value) if key in _EXPRESSIONS else value for key, value in document.items()}
            self.set_options(direct=options, var_options=self._vars)
            key, make = self.prepare(document, path, text)
            listing = self.cached(f"{path}\n{text}\n{key}", cache, make)
        except _document.DocumentError as error:
            raise AnsibleParserError(str(error)) from error
        self.tell(listing)

    def text_of(self, path: str) -> str:
        text = t.cast("t.Any", self.loader).get_text_file_contents(path)
        with Path(path).open("rb") as file:
            self.vaulted |= is_encrypted_file(file)
        return t.cast(str, text)

    def read(self, path: str, text: str, kind: str) -> Json:
        """The content of a file that its schema allows."""
        document = _document.read(text, path)
        rules = json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8"))
        problems = schema.compiled(rules)(document)
        if problems:
            raise _document.refusal(text, path, problems)
        return t.cast(Json, document)

    @abc.abstractmethod
    def prepare(self, document: Json, path: str, text: str) -> tuple[str, Make]:
        """What the inventory depends on beside the file itself, and how it is made."""

    def cached(self, key: str, cache: bool, make: Make) -> Listing:
        if not self.get_option("cache") or self.vaulted:
            return make()[0]
        self.load_cache_plugin()
        # Ansible's own key keeps 24 bits of the hash, and what is found under it would be taken for this file's.
        name = f"{self.ansible_name}_{hashlib.sha256(key.encode()).hexdigest()}"
        if cache and name in self._cache:
            return Listing(self._cache[name])
        listing, keep = make()
        if keep:
            self._cache[name] = listing.data
        return listing

    def tell(self, listing: Listing) -> None:
        inventory = t.cast("t.Any", self.inventory)
        value_of: t.Callable[[t.Any], t.Any] = data_of if self.OWN else lambda value: value
        for name, group in listing.groups.items():
            inventory.add_group(name)
            for variable, value in group["vars"].items():
                inventory.set_variable(name, variable, value_of(value))
        for name, group in listing.groups.items():
            for child in group["children"]:
                inventory.add_child(name, child)
        for name, host in listing.hosts.items():
            inventory.add_host(name)
            for group in host["groups"]:
                inventory.add_child(group, name)
            for variable, value in host["vars"].items():
                inventory.set_variable(name, variable, value_of(value))
        if any(self.get_option(option) for option in _EXPRESSIONS):
            for name in listing.hosts:
                self.construct(inventory, name)

    def construct(self, inventory: t.Any, name: str) -> None:
        strict = self.get_option("strict")
        host = inventory.get_host(name)
        of_groups = get_group_vars(host.get_groups())
        self._set_composite_vars(
            self.get_option("compose"), combine_vars(of_groups, host.get_vars()), name, strict=strict
        )
        known = combine_vars(of_groups, host.get_vars())
        self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), known, name, strict=strict, fetch_hostvars=False
        )


def data_of(value: t.Any) -> t.Any:
    """Marked as the user's own, but for what Ansible would take for a template: its header may do without braces."""
    return _trusted(value, lambda text: "{" in text or text.startswith("#jinja2:"))


def _trusted(value: t.Any, unless: t.Callable[[str], bool] = lambda _text: False) -> t.Any:
    """Marked as Ansible marks what it may render."""
    if isinstance(value, str):
        return value if unless(value) else _marked(value)
    if isinstance(value, list):
        return [_trusted(item, unless) for item in value]
    if isinstance(value, dict):
        return {key: _trusted(item, unless) for key, item in value.items()}
    return value


# Most values are there many times.
_marked = functools.lru_cache(65536)(trust_as_template)
