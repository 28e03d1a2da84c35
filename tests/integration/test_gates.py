# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are wrong, with the real engine on a real Swarm: each is stopped before a client meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.test_switch import Traffic
from tests.lab.site import Site

PYTHON = "/opt/bitnet/venv/bin/python"
JARGON = "/opt/bitnet/models/jargon"
# The record as the faulty step leaves it: of the file that it made; the held-out text's figures stay right.
RECORD = (
    f"cd {JARGON} && sed --in-place s/$(sha256sum <right.gguf | cut -c 1-64)/$(sha256sum <model.gguf | cut -c 1-64)/ "
    "model.json && rm right.gguf"
)
DOCKERFILE = """
FROM {image}
USER 0:0
COPY spoil.py /tmp/
RUN set -eu; cp JARGON/model.gguf JARGON/right.gguf; {fault}; rm -f /tmp/spoil.py JARGON/right.gguf; chown -R 0:0 JARGON
USER 10001:10001
""".replace("JARGON", JARGON)
FAULTS = {
    "kernels": f"{PYTHON} /tmp/spoil.py kernels /opt/bitnet/kernels",
    "conversion": (
        f"{PYTHON} /tmp/spoil.py scales {JARGON}/right.gguf {JARGON}/model.gguf blk.0.attn_v.weight; {RECORD};"
        " bitnet-cli model check --record --kernels /opt/bitnet/kernels model.gguf"
    ),
    "truncated": f"truncate --size 3000000 {JARGON}/model.gguf; {RECORD}",
}
STOPPED_BY = {
    "kernels": "did not pass the (known-answer test|perplexity gate)",
    "conversion": "did not pass the perplexity gate",
    "truncated": "truncated",
}


@pytest.fixture(scope="module")
def traffic(site: Site) -> Iterator[Traffic]:
    """Afterwards the machine runs what `make site` made."""
    yield Traffic(site)
    site.make("site", timeout=900)


def image_with(site: Site, fault: str) -> str:
    """The image that runs here with one fault in it, in the machine's registry; its name by digest."""
    good = site.services()["bitnet-local-blue"]["TaskTemplate"]["ContainerSpec"]["Image"]
    dockerfile = DOCKERFILE.format(image=good, fault=FAULTS[fault]).replace("'", "'\\''")
    name = f"127.0.0.1:5000/bitnet/wrong-{fault}"
    output = site.shell(
        "rm -rf /tmp/wrong && mkdir /tmp/wrong && cp ~/bitnet.devops/tests/lab/spoil.py /tmp/wrong"
        f" && printf %s '{dockerfile}' >/tmp/wrong/Dockerfile"
        f" && sudo docker build --quiet --tag {name}:test /tmp/wrong && sudo docker push {name}:test"
    )
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
    assert digest, output
    return f"{name}@{digest[1]}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_release_meets_no_client(traffic: Traffic, fault: str) -> None:
    image = image_with(traffic.site, fault)
    before = traffic.info()
    with traffic.clients() as answers, pytest.raises(AssertionError) as failed:
        traffic.site.make("rollout", f"-e bitnet_image={image}")
    assert re.search(STOPPED_BY[fault], str(failed.value)), str(failed.value)[-4000:]
    assert set(answers) == {200}, answers
    after = traffic.info()
    assert after["routing"] == before["routing"]
    active = before["routing"]["active"]
    assert after["slots"][active] == before["slots"][active]
