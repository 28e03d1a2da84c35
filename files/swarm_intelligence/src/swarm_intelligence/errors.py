# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that reach a client, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def document(self) -> dict[str, Any]:
        error = {"message": self.message, "type": _TYPES.get(self.status, "server_error"), "code": self.code}
        if self.param:
            error["param"] = self.param
        return {"error": error}


def unauthorized() -> ApiError:
    return ApiError(
        401,
        "A bearer token that this service knows is needed: send the header 'Authorization: Bearer <token>'.",
        code="invalid_token",
        headers={"WWW-Authenticate": 'Bearer realm="bitnet"'},
    )


def forbidden(scope: str) -> ApiError:
    return ApiError(403, f"This key has not the scope {scope!r}: ask for one that has.", code="insufficient_scope")


def unavailable(message: str, code: str, retry_after: int = 2) -> ApiError:
    return ApiError(503, message, code=code, headers={"Retry-After": str(retry_after)})
