# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from api_lab import AUTHORIZED, TOKEN, wait_until
from openai import AuthenticationError, OpenAI

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PATHS = [("/v1/completions", {"prompt": "Hi"}), ("/v1/chat/completions", CHAT)]


def events(text):
    return [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]


def test_completion_is_openai_shaped(api):
    answer = api.post("/v1/completions", {"prompt": "Hi", "max_tokens": 2}).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": " one two", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert api.metric('bitnet_tokens_total{kind="generated"}') == 2
    assert api.metric('bitnet_tokens_total{kind="prompt"}') == 3


def test_the_engine_gets_the_options(api):
    options = {"max_tokens": 7, "temperature": 0.5, "stop": "x", "seed": 1, "user": "u"}
    api.post("/v1/completions", {"prompt": ["Hi"], **options})
    assert api.injector.payloads[-1] == {
        "prompt": "Hi",
        "n_predict": 7,
        "temperature": 0.5,
        "stop": ["x"],
        "seed": 1,
        "stream": True,
        "cache_prompt": True,
    }


def test_an_answer_is_bounded_by_the_context(api):
    assert api.post("/v1/completions", {"prompt": "one two " * 1000, "max_tokens": 4095}).status_code == 200
    assert api.injector.payloads[-1]["n_predict"] == 4096 - 4 - 2000
    answer = api.post("/v1/completions", {"prompt": "x " * 5000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(("path", "body"), PATHS)
def test_stream(api, path, body):
    answer = api.post(path, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(answer.text)
    assert done == "[DONE]"
    assert json.loads(usage)["usage"]["total_tokens"] == 5
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content", "") for choice in choices)
    assert text == " one two"
    assert [choice["finish_reason"] for choice in choices][-1] == "length"


def test_openai_sdk(api):
    client = OpenAI(base_url=api.url + "/v1", api_key=TOKEN, max_retries=0)
    assert client.models.list().data[0].id == "fault-injector"
    assert client.completions.create(model="fault-injector", prompt="Hi").choices[0].text == " one two"
    chat = client.chat.completions.create(model="fault-injector", messages=CHAT["messages"])
    assert chat.choices[0].message.content == " one two"
    stream = client.chat.completions.create(model="fault-injector", messages=CHAT["messages"], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == " one two"
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=api.url + "/v1", api_key="another", max_retries=0).models.list()


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_that_are_no_utf8(api, stream):
    api.injector.behaviour = "bytes"
    answer = api.post("/v1/completions", {"prompt": "Hi", "stream": stream})
    assert answer.status_code == 200
    if stream:
        text = "".join(json.loads(chunk)["choices"][0]["text"] for chunk in events(answer.text)[:-1])
    else:
        text = answer.json()["choices"][0]["text"]
    assert text == "ab\ufffd\ufffd\ufffd\ufffd"  # the last one is what the engine had kept back


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [("error", 502, "engine_error"), ("loading", 503, "engine_loading"), ("silent", 504, "engine_timeout"),
     ("cut", 503, "engine_lost"), ("error-in-stream", 502, "engine_error"), ("garbage", 502, "engine_error")],
)  # fmt: skip
def test_faults_of_the_engine(start_api, behaviour, status, code):
    api = start_api(stall_seconds="1")
    api.injector.behaviour = behaviour
    answer = api.post("/v1/completions", {"prompt": "Hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    assert api.service.intake.running == 0


@pytest.mark.parametrize("behaviour", ["cut", "error-in-stream"])
def test_a_fault_in_mid_stream_is_announced(api, behaviour):
    api.injector.behaviour = behaviour
    answer = api.post("/v1/completions", {"prompt": "Hi", "stream": True})
    *_unused, error, done = events(answer.text)
    assert answer.status_code == 200
    assert json.loads(error)["error"]["type"] == "server_error"
    assert done == "[DONE]"


def test_no_engine(api):
    api.injector.stop()
    answer = api.post("/v1/completions", {"prompt": "Hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_lost")


def test_a_request_has_a_deadline(start_api):
    api = start_api(request_seconds="1")
    api.injector.behaviour = "slow"
    answer = api.post("/v1/completions", {"prompt": "Hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
    wait_until(lambda: api.injector.open == 0)


@pytest.mark.parametrize("behaviour", ["silent", "slow"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_the_engine(api, behaviour, stream):
    api.injector.behaviour = behaviour
    body = json.dumps({"prompt": "Hi", "stream": stream}).encode()
    client = socket.create_connection(("127.0.0.1", int(api.url.rsplit(":", 1)[1])))
    client.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    wait_until(lambda: api.injector.open == 1 and api.service.intake.running == 1)
    client.close()
    wait_until(lambda: api.injector.open == 0 and api.service.intake.running == 0)
    assert api.metric("bitnet_client_disconnects_total") == 1


def test_queue_is_bounded(start_api):
    api = start_api(parallel="1", queue="1", queue_seconds="1.5")
    api.injector.behaviour = "slow"
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(
            api.post,
            "/v1/completions",
            {"prompt": "Hi"},
        )
        wait_until(lambda: api.service.intake.running == 1)
        waiting = pool.submit(api.post, "/v1/completions", {"prompt": "Hi"})
        wait_until(lambda: api.metric("bitnet_queue_depth") == 1)
        refused = api.post("/v1/completions", {"prompt": "Hi"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"]
        assert (waiting.result().status_code, waiting.result().json()["error"]["code"]) == (503, "queue_timeout")
        for generation in list(api.service.generations):
            api.loop.call_soon_threadsafe(generation.interrupt, "drain")
        assert running.result().status_code == 503


def test_not_ready(start_api):
    api = start_api(ready=False)
    assert api.get("/health", authorized=False).status_code == 200
    assert api.get("/ready", authorized=False).status_code == 503
    answer = api.post("/v1/completions", {"prompt": "Hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"]


def test_closed_by_default(api):
    for method, path in [("GET", "/v1/models"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("GET", "/openapi.json")]:  # fmt: skip # noqa: E501
        for headers in (
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer"},
        ):
            answer = httpx.request(method, api.url + path, headers=headers, trust_env=False)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["error"]["type"] == "authentication_error"


def test_api_says_nothing_to_strangers(api):
    assert api.get("/api", authorized=False).json() == {"name": "bitnet"}
    assert httpx.get(api.url + "/api", headers={"Authorization": "Bearer x"}, trust_env=False).status_code == 401
    answer = api.get("/api").json()
    assert answer["slot"] == "blue"
    assert answer["model"] == {"name": "fault-injector", "sha256": None}
    assert answer["load"]["parallel"] == 2
    assert answer["ready"] is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": "Hi", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "Hi", "max_tokens": 4096}, "max_tokens"),
        ({"prompt": "Hi", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "Hi", "max_tokens": True}, "max_tokens"),
        ({"prompt": "Hi", "temperature": 2.1}, "temperature"),
        ({"prompt": "Hi", "temperature": "1"}, "temperature"),
        ({"prompt": "Hi", "top_p": 0}, "top_p"),
        ({"prompt": "Hi", "seed": -1}, "seed"),
        ({"prompt": "Hi", "stop": ["a"] * 5}, "stop"),
        ({"prompt": "Hi", "n": 2}, "n"),
        ({"prompt": "Hi", "stream": "yes"}, "stream"),
        ({"prompt": "Hi", "logprobs": 21}, "logprobs"),
        ({"prompt": "Hi", "grammar": "root ::= x"}, "grammar"),
    ],
)
def test_wrong_fields_are_named(api, body, field):
    answer = api.post("/v1/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert field in answer.json()["error"]["message"]
    assert api.injector.payloads == []


def test_wrong_messages_are_named(api):
    for messages in ([], [{"role": "robot", "content": "x"}], [{"role": "user"}], "Hi"):
        answer = api.post("/v1/chat/completions", {"messages": messages})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"prompt": "\\ud800"}', b"[" * 100_000, b"NaN"]
)
def test_malformed_bodies(api, body):
    answer = httpx.post(api.url + "/v1/completions", content=body, headers=AUTHORIZED, trust_env=False)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_model(api):
    answer = api.post("/v1/completions", {"prompt": "Hi", "model": "gpt-4"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_large_bodies_are_refused(start_api):
    api = start_api(max_body_bytes="2048")
    large = json.dumps({"prompt": "x" * 5000}).encode()
    declared = httpx.post(api.url + "/v1/completions", content=large, headers=AUTHORIZED, trust_env=False)
    chunked = httpx.post(
        api.url + "/v1/completions", content=iter([large[:1000], large[1000:]]), headers=AUTHORIZED, trust_env=False
    )
    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_unknown_paths_and_methods(api):
    assert (api.get("/nothing").status_code, api.get("/nothing").json()["error"]["code"]) == (404, "not_found")
    answer = api.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"], answer.json()["error"]["code"]) == (
        405,
        "POST",
        "method_not_allowed",
    )


def test_labels_of_metrics_are_bounded(api):
    for number in range(20):
        httpx.request("PROPFIND", f"{api.url}/{number}", trust_env=False)
    paths = {line for line in api.get("/metrics").text.splitlines() if line.startswith("http_requests_total{")}
    assert [line.rsplit("{", 1)[1] for line in paths if "404" in line or "other" in line] == [
        'method="other",path="other",status="404"} 20.0'
    ]
    assert "bitnet_info{" in api.get("/metrics").text


def test_drain_finishes_streams_and_takes_no_new_work(start_api):
    api = start_api(request_seconds="2")
    api.injector.behaviour = "slow"
    found = []

    def read():
        with httpx.stream(
            "POST",
            api.url + "/v1/completions",
            json={"prompt": "Hi", "stream": True},
            headers=AUTHORIZED,
            timeout=20,
            trust_env=False,
        ) as answer:
            found.append(answer.read().decode())

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: api.injector.open == 1)
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        api.begin_drain()
        wait_until(lambda: api.service.intake.draining)
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        answer = client.post("/v1/completions", json={"prompt": "Hi"}, headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert answer.headers["retry-after"]
    reader.join(20)
    assert events(found[0])[-1] == "[DONE]"
    assert "request_timeout" in found[0]  # it ran on to its own deadline, not the drain's
    api.thread.join(10)
    assert not api.thread.is_alive()


def test_drain_announces_what_it_cuts(start_api):
    api = start_api()
    object.__setattr__(api.service.settings, "grace_seconds", 0.5)
    api.injector.behaviour = "slow"
    with httpx.stream(
        "POST",
        api.url + "/v1/completions",
        json={"prompt": "Hi", "stream": True},
        headers=AUTHORIZED,
        timeout=20,
        trust_env=False,
    ) as answer:
        wait_until(lambda: api.injector.open == 1)
        began = time.monotonic()
        api.begin_drain()
        *_unused, error, done = events(answer.read().decode())
    assert time.monotonic() - began < 5
    assert json.loads(error)["error"]["code"] == "draining"
    assert done == "[DONE]"
    wait_until(lambda: api.injector.open == 0)
