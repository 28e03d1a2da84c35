# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document, made from the models that check the requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from . import __version__
from .schemas import ChatRequest, CompletionRequest, JobRequest

_ERROR_TEXTS = {
    "400": "The request is not understood; the error names the field.",
    "401": "A known bearer token is needed.",
    "403": "The key has not the scope that this needs.",
    "404": "The model is not served here, or there is no such job of this key.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "429": "The queue is full or the key's rate used up; Retry-After says when to try again.",
    "502": "The engine failed on this request.",
    "503": "No new work is taken now; Retry-After says when to try again.",
    "504": "The answer took too long.",
}


def _errors(*codes: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": _ERROR_TEXTS[code], "content": content} for code in codes}


def _answer(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}


def _get(summary: str, *errors: str, closed: bool = True) -> dict[str, Any]:
    responses = {"200": _answer("The answer."), **_errors(*errors)}
    return {"get": {"summary": summary, "responses": responses, **({} if closed else {"security": []})}}


def _generate(summary: str, model: str) -> dict[str, Any]:
    ok = _answer("The whole answer, or server-sent events when stream is true.")
    ok["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
            },
            "responses": {"200": ok, **_errors(*_ERROR_TEXTS)},
        }
    }


def _jobs() -> dict[str, Any]:
    job = _answer("The job: its id, its status (queued, running, completed, failed, cancelled), its response or error.")
    errors = _errors("401", "403", "404", "503")
    id_ = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    submit = _generate("Have a completion made later.", "JobRequest")
    submit["post"]["responses"] = {"202": job, **_errors("400", "401", "403", "404", "408", "413", "429", "503")}
    return {
        "/v1/jobs": submit,
        "/v1/jobs/{id}": {
            "get": {"summary": "How a job is.", "parameters": [id_], "responses": {"200": job, **errors}}
        },
        "/v1/jobs/{id}/cancel": {
            "post": {"summary": "Stop a job.", "parameters": [id_], "responses": {"200": job, **errors}}
        },
    }


def document(jobs: bool = False) -> dict[str, Any]:
    """With jobs where the service has them."""
    models: list[type[BaseModel]] = [CompletionRequest, ChatRequest, *([JobRequest] if jobs else [])]
    _unused, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {name: {"type": "string"} for name in ("message", "type", "code", "param")},
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "bitnet", "version": __version__, "license": {"name": "GPL-3.0-or-later"}},
        "security": [{"bearer": []}],
        "paths": {
            "/api": {"get": {**_get("What runs here.", "401")["get"], "security": [{}, {"bearer": []}]}},
            "/v1/models": _get("The served model.", "401"),
            "/v1/completions": _generate("Continue a text.", "CompletionRequest"),
            "/v1/chat/completions": _generate("Answer a conversation.", "ChatRequest"),
            "/health": _get("Whether the process lives.", closed=False),
            "/ready": _get("Whether new work is taken.", "503", closed=False),
            "/openapi.json": _get("This document.", "401"),
            **(_jobs() if jobs else {}),
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas["$defs"], "Error": error},
        },
    }
