"""The HTTP API: masks and words for pictures, and endpoints for monitoring."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, Request, Response, UploadFile
from prometheus_client import CONTENT_TYPE_LATEST

from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import ImageError, ImageSizeError
from saliency_r1.images import check_header
from saliency_r1.policy.given import LONGEST_PHRASE
from saliency_r1.serving import problems
from saliency_r1.serving.answers import JSON, View, body, choose_media, picture_names, renderer
from saliency_r1.serving.engine import Engine, Picture, State, Work, broken
from saliency_r1.serving.gate import SALIENCY
from saliency_r1.serving.problems import Problem
from saliency_r1.serving.schemas import Models, ProblemShape, SaliencyAnswer, Status
from saliency_r1.serving.settings import Limits, ServerSettings
from saliency_r1.tasks import Task

_DESCRIPTION = """What stands out in pictures, as masks and in words.

Every error is a problem detail (RFC 9457), `application/problem+json`. Its `detail` is one line for
people, and its `type`, where it is not `about:blank`, names the kind of error for programs."""

_IMAGES = (
    "The pictures: JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, JPEG 2000 or MPO, and HEIC if the server "
    "has pillow-heif. In CoSOD they are one group."
)
_PROBLEM_CODES = {
    400: "The form cannot be read.",
    401: "The token is missing or wrong.",
    403: "The request came from a page of another site.",
    405: "Another method is expected.",
    406: "None of the accepted types is available.",
    408: "The request took too long to arrive.",
    413: "The request or one of its pictures is larger than the limit.",
    415: "The request is not a multipart form.",
    421: "The Host header is not this machine.",
    422: "A field is wrong, or a picture cannot be read.",
    429: "Too many requests are waiting.",
    500: "A fault of the server.",
    503: "The model is not loaded yet, or the server is stopping.",
    504: "The answer took longer than the limit.",
}
_RETRY = {"Retry-After": {"description": "Seconds until then.", "schema": {"type": "integer", "minimum": 1}}}
_RETRIED = (429, 503)
_GONE = 499  # only for the count of requests; no client receives it


def _problem_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {
        code: {
            "description": _PROBLEM_CODES[code],
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemShape"}}},
            **({"headers": _RETRY} if code in _RETRIED else {}),
        }
        for code in codes
    }


def _require_form(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "multipart/form-data":
        raise Problem(415, f"the body is {given or 'of no type'!r}, expected multipart/form-data", "no-form")


def create_api(engine: Engine, settings: ServerSettings) -> FastAPI:
    """Make the API, without the page, the gate and the start and stop of its engine.

    Args:
        engine: the engine that answers.
        settings: limits, and whether a token is required.
    """
    limits = settings.limits
    app = FastAPI(
        title="Saliency-R1",
        version=version("saliency-r1"),
        description=_DESCRIPTION,
        docs_url=None,  # both would load scripts from other hosts
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    problems.install(app)
    every = (405, 421, 500) if settings.is_local else (405, 500)
    asked = (401, *every) if settings.token else every
    operation = partial(app.get, tags=["operation"])

    @app.post(
        SALIENCY,
        summary="Find what stands out in pictures",
        tags=["saliency"],
        dependencies=[Depends(_require_form)],
        response_class=Response,
        responses={
            200: {
                "description": "By `Accept`: JSON; a PNG, for one picture alone; or a zip of all files.",
                "content": {
                    JSON: {"schema": {"$ref": "#/components/schemas/SaliencyAnswer"}},
                    "image/png": {"schema": {"type": "string", "format": "binary"}},
                    "application/zip": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **_problem_responses(400, 403, 406, 408, 413, 415, 422, 429, 503, 504, *asked),
        },
    )
    async def saliency(
        request: Request,
        task: Annotated[
            Task,
            Form(
                description="sod: one mask; sis: a mask for each object; cosod: what a group shares.",
                examples=["sis"],
            ),
        ],
        images: Annotated[
            list[UploadFile], File(description=_IMAGES, min_length=1, max_length=limits.images)
        ],
        # Not bool: a form would also accept yes, on and 1, which are not documented.
        reasoning: Annotated[
            Literal["true", "false"], Form(description="Whether the policy reasons first.")
        ] = "true",
        group_images: Annotated[
            int,
            Form(ge=2, le=limits.images, description="CoSOD: pictures that the policy sees at a time."),
        ] = min(GROUP_IMAGES, limits.images),
        view: Annotated[View, Form(description="The picture in a PNG answer.")] = View.MASK,
        find: Annotated[
            str,
            Form(
                description="Find this phrase in each picture, as task sod does; the policy is not asked.",
                examples=["the cat on the left"],
                max_length=LONGEST_PHRASE,
                pattern=r"^[^<>]*$",
            ),
        ] = "",
    ) -> Response:
        start = time.perf_counter()
        phrase = find.strip() or None
        task = Task.SOD if phrase else task
        media = choose_media(request.headers.get("accept"), len(images))
        names = picture_names([image.filename for image in images])
        for index, (name, image) in enumerate(zip(names, images, strict=True)):
            _check_picture(name, index, image, limits)
        # Their content stays where the form put it, on disk if it is large, until their batch.
        pictures = [Picture(name, _reader(image)) for name, image in zip(names, images, strict=True)]
        work = Work(pictures, task, renderer(media, view), reasoning == "true", group_images, phrase)
        parts = await _while_there(request, engine.answer(work, request.state.deadline))
        if parts is None:
            return Response(status_code=_GONE)
        assert engine.pipe is not None
        facts = {
            "task": task.value,
            "model": engine.pipe.name,
            "version": version("saliency-r1"),
            "seconds": time.perf_counter() - start,
        }
        return _answer(media, parts, facts, names)

    @app.get(
        "/v1/models",
        summary="What answers here, and within which limits",
        tags=["saliency"],
        response_model=Models,
        responses=_problem_responses(*asked),
    )
    async def models() -> dict[str, Any]:
        known = [
            {
                "name": pipe.name,
                "policy": pipe.policy.name,
                "segmenter": pipe.segmenter.name,
                "device": pipe.device,
                "tasks": [one.value for one in Task],
            }
            for pipe in [engine.pipe]
            if pipe is not None
        ]
        return {"version": version("saliency-r1"), "models": known, "limits": asdict(limits)}

    @operation(
        "/healthz",
        summary="Whether the server lives",
        response_model=Status,
        responses=_problem_responses(*every),
    )
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @operation(
        "/readyz",
        summary="Whether it takes requests",
        response_model=Status,
        responses=_problem_responses(503, *every),
    )
    async def readyz() -> dict[str, str]:
        if engine.state != State.READY:
            raise Problem(503, f"the model is {engine.state}", str(engine.state), retry_after=1)
        return {"status": "ready"}

    @operation(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **_problem_responses(*asked),
        },
    )
    async def metrics() -> Response:
        return Response(engine.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    app.openapi = _described(app, bool(settings.token))  # type: ignore[method-assign]
    return app


async def _while_there(request: Request, answer: Coroutine[Any, Any, list[Any]]) -> list[Any] | None:
    """Return the answer; None as soon as the client disconnects, and then the work is dropped."""
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_leaves(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await answering if answering.done() else None
    finally:
        answering.cancel()
        leaving.cancel()


async def _leaves(request: Request) -> None:
    """Wait until the connection is closed, after the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_picture(name: str, index: int, image: UploadFile, limits: Limits) -> None:
    """Refuse files that are no picture, or too large; broken pictures are found when they are decoded."""
    try:
        check_header(image.file, name, max_pixels=limits.pixels)
    except ImageSizeError as error:
        raise Problem(
            413, str(error), "too-many-pixels", picture=name, index=index, limit=limits.pixels
        ) from None
    except ImageError as error:
        raise broken(name, index, error) from None


def _reader(image: UploadFile) -> Callable[[], bytes]:
    def read() -> bytes:
        image.file.seek(0)
        return image.file.read()

    return read


def _answer(media: str, parts: Sequence[Any], facts: dict[str, Any], names: Sequence[str]) -> Response:
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if media not in (JSON, "image/png"):
        headers["Content-Disposition"] = 'attachment; filename="saliency.zip"'
    return Response(body(media, parts, facts), media_type=media, headers=headers)


def _described(app: FastAPI, token: bool) -> Callable[[], dict[str, Any]]:
    """Return the function for the app's OpenAPI: FastAPI's, with the shapes sent as bytes and the token."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = made()
        schemas = document["components"]["schemas"]
        for shape in (SaliencyAnswer, ProblemShape):
            schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[shape.__name__] = schema
        form = schemas["SaliencyRequest"] = schemas.pop("Body_saliency_v1_saliency_post")
        form["title"] = "SaliencyRequest"
        form["properties"]["images"]["items"] = {"type": "string", "format": "binary"}
        document["paths"][SALIENCY]["post"]["requestBody"]["content"]["multipart/form-data"] = {
            "schema": {"$ref": "#/components/schemas/SaliencyRequest"},
            "encoding": {"images": {"contentType": "image/*"}},
        }
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        if token:
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                if path not in ("/healthz", "/readyz"):
                    for operation in operations.values():
                        operation["security"] = [{"token": []}]
        return document

    return openapi
