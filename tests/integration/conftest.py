# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One machine on which `make site` ran serves the whole session; the image that it built serves the other tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.site import UNDER_TEST, Site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The machine of the session is used by several files; what tears it down comes after all of them."""
    items.sort(key=lambda item: item.path.name == "test_teardown.py")


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A machine that had nothing, after its first `make site`."""
    made = Site("first-light")
    made.export_workload_image()  # while it is there: the last test is a teardown
    yield made
    made.down()


@pytest.fixture(scope="session")
def workload_image(request: pytest.FixtureRequest) -> str:
    """The image under test on the host's daemon: BITNET_TEST_IMAGE, or the one that `make site` built."""
    given = os.environ.get("BITNET_TEST_IMAGE")
    if given:
        return given
    request.getfixturevalue("site")
    return UNDER_TEST
