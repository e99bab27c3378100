"""Errors as problem details (RFC 9457), in JSON of the same shape everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An error with its own answer.

    Args:
        status: HTTP status.
        detail: one line for people: what was given, what is expected, what to do.
        kind: the last part of the problem's type, for programs; without it the status is enough.
        headers: headers of the answer.
        retry_after: seconds after which the same request may succeed.
        extra: further members of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        **extra: Any,
    ) -> None:
        headers = dict(headers or {})
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        super().__init__(status, detail, headers)
        self.kind = kind
        self.extra = extra

    def response(self) -> JSONResponse:
        """Return the answer."""
        content = {
            "type": f"urn:problem:saliency-r1:{self.kind}" if self.kind else "about:blank",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "detail": self.detail,
            **self.extra,
        }
        return JSONResponse(content, self.status_code, self.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the app and of its framework as problem details."""

    async def answer_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if not isinstance(error, Problem):
            detail = {
                404: f"there is nothing at {request.url.path}: see /openapi.json",
                405: f"{request.method} is not for {request.url.path}",
            }.get(error.status_code, str(error.detail))
            error = Problem(error.status_code, detail, headers=error.headers)
        return error.response()

    async def answer_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # The given value is left out: it may be long, or not text.
        errors = [
            {"field": ".".join(str(part) for part in one["loc"][1:]), "message": str(one["msg"])}
            for one in error.errors()
        ]
        detail = "; ".join(f"{one['field'] or 'body'}: {one['message']}" for one in errors)
        return Problem(422, detail, "invalid-request", errors=errors).response()

    async def answer_other(request: Request, error: Exception) -> JSONResponse:
        return Problem(500, "this is a fault of the server; its log tells more").response()

    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(Exception, answer_other)
