# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients may send. These models check requests and are the schemas of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from .errors import ApiError

Text = Annotated[str, StringConstraints(strict=True)]
StopText = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]
Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class StreamOptions(_Strict):
    include_usage: bool | None = None


class Sampling(_Strict):
    """Fields that every kind of generation shares; null means not given."""

    model: str | None = Field(None, max_length=256, description="The served model's name; see /v1/models.")
    max_tokens: int | None = Field(None, ge=1, le=1_048_576, description="128 when not given.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=0, le=4_294_967_294)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    n: Literal[1] | None = Field(None, description="One choice for a request.")
    user: str | None = Field(None, max_length=256, description="Accepted and not used.")

    def engine_options(self) -> dict[str, Any]:
        """The same in the engine's words."""
        options: dict[str, Any] = {"n_predict": self.max_tokens or 128}
        for name in ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"):
            value = getattr(self, name)
            if value is not None:
                options[name] = value
        if self.stop:
            options["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return options


def _only_one(prompt: Any) -> Any:
    return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


class CompletionRequest(Sampling):
    prompt: Annotated[Text, BeforeValidator(_only_one)] = Field(description="A string, or a list of one string.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="How many of each token's most probable rivals to name."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def engine_options(self) -> dict[str, Any]:
        options = super().engine_options()
        if self.logprobs is not None:
            options["n_probs"] = max(self.logprobs, 1)
        return options


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = Field(None, max_length=256, description="Accepted and not used.")

    def for_engine(self) -> dict[str, str]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatRequest(Sampling):
    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_048_576, description="The newer name of max_tokens.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def engine_options(self) -> dict[str, Any]:
        options = super().engine_options()
        if self.max_completion_tokens is not None:
            options["n_predict"] = self.max_completion_tokens
        return options


class JobRequest(_Strict):
    """A request that is made later, as a line of OpenAI's batches has it."""

    url: Literal["/v1/completions", "/v1/chat/completions"]
    body: dict[str, Any] = Field(description="What would be sent there, without stream.")


class WsAuth(_Strict):
    type: Literal["auth"]
    token: str = Field(min_length=1, max_length=4096)


class WsGenerate(Sampling):
    """Exactly one of prompt and messages."""

    type: Literal["generate"]
    id: str = Field(min_length=1, max_length=64)
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=1024)


class WsCancel(_Strict):
    type: Literal["cancel"]
    id: str = Field(min_length=1, max_length=64)


class WsKind(BaseModel):
    """Only what kind of message it is; the kind's own model checks the rest."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    type: Literal["auth", "generate", "cancel"]


def parse(model: type[Model], body: bytes | str) -> Model:
    """Check a JSON body; the error names the first field that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"The body is not valid JSON ({first['msg']}).", code="invalid_json") from None
        field = str(first["loc"][0]) if first["loc"] else "body"
        where = ".".join(str(part) for part in first["loc"]) or "body"
        if first["type"] == "extra_forbidden":
            message = f"{field}: this field is not known here; leave it out. Known: {', '.join(model.model_fields)}."
        else:
            message = f"{where}: {first['msg']}."
        raise ApiError(400, message[:1000], code="invalid_value", param=field[:100]) from None
