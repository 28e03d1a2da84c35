# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is sent, the answer is never a 5xx: requests made from our own OpenAPI document, and arbitrary bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from api_lab import AUTHORIZED, TOKEN, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["prompt", "messages", "max_tokens", "temperature", "stop", "stream", "seed", "n", "model", "logprobs"]


@pytest.mark.parametrize("kept", ["nothing", "data"])
def test_requests_from_the_openapi_document(start_api, request, tmp_path, kept):
    api = start_api(**(request.getfixturevalue("data") if kept == "data" else {}))
    if kept == "data":
        wait_until(lambda: api.service.data.database.up and api.service.data.redis.up)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", api.url + "/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
    command += [
        "--max-examples",
        "40",
        "--checks",
        "not_a_server_error,content_type_conformance,status_code_conformance",
    ]
    command += ["--mode", "all", "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]


def test_arbitrary_fields_and_bytes(api):
    bodies = st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON, max_size=5).map(
        lambda value: json.dumps({"prompt": "x", **value}).encode("utf-8", "surrogatepass")
    ) | st.binary(max_size=200)
    statuses = set()
    with httpx.Client(headers=AUTHORIZED, trust_env=False, timeout=20) as client:

        @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from(["/v1/completions", "/v1/chat/completions"]), body=bodies)
        def send(path, body):
            answer = client.post(api.url + path, content=body)
            statuses.add(answer.status_code)
            assert answer.status_code in (200, 400, 404), answer.text
            if answer.status_code != 200:
                assert answer.json()["error"]["message"]

        send()
    assert {200, 400} <= statuses
