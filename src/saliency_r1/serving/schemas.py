"""The shapes of the answers, for OpenAPI. Answers are made without them; the tests hold the two together."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]

_RUN_LENGTHS = {"size": [64, 96], "counts": "e2g0X1;F6K4L4M2N2N1O1O2N1O1O1O001O00000000001O0O2O1N2N3M4L5JnW2"}
_INSTANCE = {
    "expression": "the cat in the middle",
    "score": 0.91,
    "box": [12, 8, 60, 50],
    "area": 2210,
    "segmentation": _RUN_LENGTHS,
}
_SECONDS = {"policy": 0.041, "segmenter": 0.028, "total": 0.073}
_RESULT: dict[str, Any] = {
    "name": "cat",
    "source": None,
    "width": 96,
    "height": 64,
    "task": "sod",
    "text": "<think>The cat is large and sharp.</think><answer><rg>the cat in the middle</rg></answer>",
    "reasoning": "The cat is large and sharp.",
    "expressions": ["the cat in the middle"],
    "confidence": 0.91,
    "policy_confidence": 0.84,
    "retries": 0,
    "tokens": None,
    "instances": [_INSTANCE],
    "model": "nano",
    "version": "0.1.0",
    "seconds": _SECONDS,
}


class Shape(BaseModel):
    """What all have in common: nothing but what is listed."""

    model_config = ConfigDict(extra="forbid")


class RunLengths(Shape):
    """A mask as compressed COCO run lengths, column by column from the upper left."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="Height and width.")]
    counts: str


class InstanceShape(Shape):
    """An expression and its mask."""

    expression: str
    score: Annotated[Share, Field(description="How sure the segmenter is of the mask.")]
    box: Annotated[
        list[int] | None,
        Field(min_length=4, max_length=4, description="x, y, width, height; null for an empty mask."),
    ]
    area: Annotated[int, Field(ge=0, description="Pixels of the mask.")]
    segmentation: RunLengths


class Seconds(Shape):
    """What a picture took."""

    policy: Annotated[float, Field(ge=0)]
    segmenter: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(ge=0)]


class TokensShape(Shape):
    """The tokens of a question and its answer, of all tries."""

    prompt: int
    completion: int


class ResultShape(Shape):
    """What stands out in one picture, and why; the same as `saliency-r1 predict --json` prints."""

    name: Annotated[str, Field(description="Of the uploaded file, without its ending.")]
    source: None
    width: int
    height: int
    task: str
    text: Annotated[str, Field(description="The policy's response as it came.")]
    reasoning: str
    expressions: list[str]
    confidence: Annotated[Share | None, Field(description="The IoU that the masks are expected to have.")]
    names: Annotated[
        list[dict[str, str | float]], Field(description="What it may be called, with probabilities.")
    ] = []
    policy_confidence: Annotated[Share | None, Field(description="The policy's own, in its words.")]
    retries: int
    tokens: Annotated[TokensShape | None, Field(description="What the policy's server counted.")]
    instances: list[InstanceShape]
    model: str
    version: str
    seconds: Seconds


class SaliencyAnswer(Shape):
    """The answer of a request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task": "sod", "model": "nano", "version": "0.1.0", "seconds": 0.112, "results": [_RESULT]}
            ]
        }
    )

    task: str
    model: str
    version: str
    seconds: Annotated[float, Field(ge=0, description="From the request's first byte, waiting included.")]
    results: Annotated[list[ResultShape], Field(description="One a picture, in their order.")]


class LimitsShape(Shape):
    """What one request may be."""

    bytes: int
    pixels: Annotated[int, Field(description="Of a picture.")]
    images: int
    seconds: float
    waiting: Annotated[int, Field(description="Requests that are taken at a time.")]


class ModelShape(Shape):
    """A model that answers here."""

    name: str
    policy: str
    segmenter: str
    device: str
    tasks: list[str]


class Models(Shape):
    """What answers here, none until it is loaded, and within which limits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "0.1.0",
                    "models": [
                        {
                            "name": "nano",
                            "policy": "nano",
                            "segmenter": "nano",
                            "device": "cpu",
                            "tasks": ["sod", "sis", "cosod"],
                        }
                    ],
                    "limits": {
                        "bytes": 32000000,
                        "pixels": 50000000,
                        "images": 16,
                        "seconds": 60.0,
                        "waiting": 64,
                    },
                }
            ]
        }
    )

    version: str
    models: list[ModelShape]
    limits: LimitsShape


class Status(Shape):
    """How the server is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: str


class ProblemShape(BaseModel):
    """An error as RFC 9457 has it; there may be further members."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:problem:saliency-r1:broken-picture",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "scan: not a picture (the content is of no picture format known here)",
                    "picture": "scan",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
