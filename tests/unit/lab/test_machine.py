# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests leave on the host's Docker; docker is a table of names here."""

from __future__ import annotations

import pytest

from tests.lab import machine


class Images:
    """The images of a daemon, newest first: name to id and labels."""

    def __init__(self, monkeypatch, tmp_path):
        monkeypatch.setenv("BITNET_TEST_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(machine, "run", self.run)
        monkeypatch.setattr(machine, "_quietly", self.quietly)
        self.rows: list[tuple[str, str, dict[str, str]]] = []
        self.made: list[str] = []

    def add(self, *names, **labels):
        for name in names:
            self.rows.insert(
                0, (name, f"sha256:{name}", {key.replace("_", "."): value for key, value in labels.items()})
            )

    def names(self):
        return {name for name, _id, _labels in self.rows}

    def run(self, *command, check=True, **options):
        if command[1:3] == ("image", "ls") and "dangling=true" in command:
            return "\n".join(id for name, id, labels in self.rows if name == "<none>:<none>" and labels)
        if command[1:3] == ("image", "ls"):
            return "\n".join(f"{name} {id}" for name, id, _labels in self.rows)
        if command[1:3] == ("image", "inspect"):
            found = [row for row in self.rows if row[0] == command[-1]]
            return (found[0][1] if "Id" in command[4] else found[0][2].get(machine.LABEL, "")) if found else ""
        if command[1] == "import":
            self.made.append(command[-1])
            self.add(command[-1], **{machine.LABEL.replace(".", "_"): "base"})
        if command[1] == "tag":
            assert self.quietly(*command)
        return ""

    def quietly(self, *command):
        if command[1:3] == ("image", "inspect"):
            return command[3] in self.names()
        if command[1] == "tag":
            source = [row for row in self.rows if row[0] == command[2]]
            self.rows[:0] = [(command[3], *row[1:]) for row in source]
            return bool(source)
        if command[1:3] == ("image", "rm"):
            before = len(self.rows)
            self.rows = [row for row in self.rows if command[3] not in (row[0], row[0] == "<none>:<none>" and row[1])]
            return len(self.rows) < before
        return command[0] == "mmdebstrap"  # no registry is reached


@pytest.fixture
def images(monkeypatch, tmp_path):
    return Images(monkeypatch, tmp_path)


def test_what_was_there_stays_and_what_saves_time_stays(images):
    images.add("bitnet/builder:1", "theirs:1", machine.BASE)
    machine.note()
    images.add("bitnet/swarm-intelligence:under-test", "bitnet/builder:2", "others:1")
    images.add("bitnet-test-builder:old", "bitnet-test-builder:new", "bitnet-test-verifier:1")
    images.add("bitnet-test-machine:bare-1", "bitnet-test-machine:docker-1")
    images.add("<none>:<none>", io_bitnet_owner="bitnet.devops")
    removed = machine.clean()
    assert images.names() == {
        *("bitnet/builder:1", "theirs:1", "others:1", machine.BASE, "bitnet-test-builder:new"),
        *("bitnet-test-machine:bare-1", "bitnet-test-machine:docker-1"),
    }
    assert len(removed) == 5
    assert machine.clean() == []


def test_a_killed_run_does_not_make_its_leftovers_the_users(images):
    machine.note()
    images.add("bitnet/swarm-intelligence:under-test")
    machine.note()  # by the next run
    machine.clean()
    assert images.names() == set()


def test_the_official_name_is_only_lent_to_a_base_image_of_our_making(images):
    machine.ensure_base()
    assert images.names() == {machine.BASE, machine.KEPT_BASE}
    identity = machine._base_id()
    machine.clean()
    assert images.names() == {machine.KEPT_BASE}
    assert machine._base_id() == identity, "the machines' images are named by it"
    machine.ensure_base()
    assert images.names() == {machine.BASE, machine.KEPT_BASE}
    assert images.made == [machine.KEPT_BASE], "it is made once"
