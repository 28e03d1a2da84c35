# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of llama-server (ik_llama.cpp) on the loopback interface.

Every generation is streamed from the engine, also when our client wants one JSON document: in its streams the engine
writes bytes that are no UTF-8 as replacement characters, while its plain answers fail on them with status 500; and
closing a stream is what frees the engine's slot. The engine closes the connection after each stream, without saying so
before, so no connection is used twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp

from .errors import ApiError, unavailable
from .schemas import ChatRequest, CompletionRequest, Message, WsGenerate

RESERVED_TOKENS = 4  # what a tokenizer may add to a prompt, and the place that the engine keeps free


@dataclass(frozen=True)
class Piece:
    text: str
    probabilities: list[dict[str, Any]] | None = None
    """For each token that was sent with this piece, the engine's {"content", "probs": [{"tok_str", "prob"}]}."""


@dataclass(frozen=True)
class End:
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.generated_tokens,
            "total_tokens": self.prompt_tokens + self.generated_tokens,
        }


class Engine:
    def __init__(self, url: str, context: int, stall_seconds: float) -> None:
        self.url = url
        self.context = context
        self.stall_seconds = stall_seconds
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:  # made when an event loop runs
            self._session = aiohttp.ClientSession(
                self.url,
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=self.stall_seconds),
                read_bufsize=1 << 20,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def generate(
        self, request: CompletionRequest | ChatRequest | WsGenerate
    ) -> AsyncGenerator[Piece | End, None]:
        """Pieces of text, then one End. Closing the generator stops the engine's work on it."""
        try:
            prompt = None if isinstance(request, ChatRequest) else request.prompt
            if prompt is None:
                prompt = await self._apply_template(getattr(request, "messages", None) or [])
            options = await self._fit(prompt, request.engine_options())
            payload = {**options, "prompt": prompt, "stream": True, "cache_prompt": True}
            async with self.session.post("/completion", json=payload) as response:
                if response.status != 200:
                    raise await _refusal(response)
                async with aclosing(_events(response)) as events:
                    async for piece in _pieces(events):
                        yield piece
        except (ValueError, KeyError, TypeError) as error:
            raise ApiError(502, "The engine sent what is not understood.", code="engine_error") from error
        except TimeoutError as error:
            raise ApiError(
                504, "The engine sent nothing for too long; the request was given up.", code="engine_timeout"
            ) from error
        except aiohttp.ClientError as error:
            raise unavailable(
                "The engine went away while it worked on this request; it is being restarted.", "engine_lost"
            ) from error

    async def _fit(self, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
        """Bound the answer by what the prompt leaves of the context: the engine fails when it runs over it.

        A token stands for at least one byte, so that short prompts need no count.
        """
        room = self.context - RESERVED_TOKENS - len(prompt.encode())
        if room < options["n_predict"]:
            async with self.session.post("/tokenize", json={"content": prompt, "add_special": True}) as response:
                if response.status != 200:
                    raise await _refusal(response)
                tokens = (await response.json())["tokens"]
            room = self.context - RESERVED_TOKENS - len(tokens)
            if room < 1:
                raise ApiError(
                    400,
                    f"The prompt leaves no room for an answer in a context of {self.context} tokens: shorten it.",
                    code="context_length_exceeded",
                )
        return {**options, "n_predict": min(options["n_predict"], room)}

    async def _apply_template(self, messages: list[Message]) -> str:
        document = {"messages": [message.for_engine() for message in messages]}
        async with self.session.post("/apply-template", json=document) as response:
            if response.status == 200:
                return str((await response.json())["prompt"])
            refusal = await _refusal(response)
            if refusal.status == 503:
                raise refusal
            raise ApiError(
                400,
                f"messages: the model's chat template refuses them ({refusal.message}).",
                code="invalid_value",
                param="messages",
            )


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[dict[str, Any], None]:
    """Data of each server-sent event of the engine, which writes one line of JSON per event."""
    buffer = b""
    async for chunk in response.content.iter_any():
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                yield json.loads(line[6:].decode("utf-8", "replace"))


async def _pieces(events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[Piece | End, None]:
    sent = ""
    async for event in events:
        if "error" in event:
            raise _engine_error(event["error"])
        if not event.get("stop"):
            probabilities = event.get("completion_probabilities")
            if event["content"] or probabilities:
                sent += event["content"]
                yield Piece(event["content"], probabilities)
            continue
        # The engine keeps back a text's last bytes while they may be half a character: here is the rest of them.
        whole = event.get("generated_text", "")
        if len(whole) > len(sent) and whole.startswith(sent):
            yield Piece(whole[len(sent) :])
        yield End(
            "length" if event.get("stopped_limit") else "stop",
            int(event["tokens_evaluated"]),
            int(event["tokens_predicted"]),
        )
        return
    raise unavailable("The engine ended the answer before it was complete.", "engine_lost")


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    try:
        error = (await response.json(content_type=None))["error"]
        return _engine_error({**error, "code": response.status})
    except (ValueError, KeyError, TypeError):
        return _engine_error({"code": response.status})


def _engine_error(error: dict[str, Any]) -> ApiError:
    message = str(error.get("message", "no reason given"))[:300]
    status = error.get("code")
    if status == 503:
        return unavailable("The engine is loading its model.", "engine_loading")
    if isinstance(status, int) and 400 <= status < 500:
        return ApiError(400, f"The engine refused the request: {message}", code="invalid_value")
    return ApiError(502, f"The engine failed on this request: {message}", code="engine_error")
