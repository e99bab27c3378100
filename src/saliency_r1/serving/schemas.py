"""The shapes of the answers, for OpenAPI. Answers are made without them; tests compare the two."""

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
    """Base of all shapes: other fields are not allowed."""

    model_config = ConfigDict(extra="forbid")


class RunLengths(Shape):
    """A mask as compressed COCO run lengths, column by column from the upper left."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="Height and width.")]
    counts: str


class InstanceShape(Shape):
    """An expression and its mask."""

    expression: str
    score: Annotated[Share, Field(description="The IoU that the mask is expected to have.")]
    box: Annotated[
        list[int] | None,
        Field(min_length=4, max_length=4, description="x, y, width, height; null for an empty mask."),
    ]
    area: Annotated[int, Field(ge=0, description="Pixels of the mask.")]
    segmentation: RunLengths


class Seconds(Shape):
    """Seconds of a picture, by part."""

    policy: Annotated[float, Field(ge=0)]
    segmenter: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(ge=0)]


class TokensShape(Shape):
    """The tokens of a question and its answer, over all tries."""

    prompt: int
    completion: int


class ResultShape(Shape):
    """The result of one picture, as `saliency-r1 predict --json` prints it."""

    name: Annotated[str, Field(description="Name of the uploaded file, without its ending.")]
    source: None
    width: int
    height: int
    task: str
    text: Annotated[str, Field(description="The policy's response, unchanged.")]
    reasoning: str
    expressions: list[str]
    confidence: Annotated[Share | None, Field(description="The expected IoU, mean over the masks.")]
    names: Annotated[
        list[dict[str, str | float]], Field(description="Possible names with their probabilities.")
    ] = []
    policy_confidence: Annotated[Share | None, Field(description="The policy's confidence in its words.")]
    retries: int
    tokens: Annotated[TokensShape | None, Field(description="Tokens that the policy's server counted.")]
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
    seconds: Annotated[float, Field(ge=0, description="Seconds since the request's first byte.")]
    results: Annotated[list[ResultShape], Field(description="One for each picture, in order.")]


class LimitsShape(Shape):
    """Limits of a request."""

    bytes: int
    pixels: Annotated[int, Field(description="Maximum pixels of a picture.")]
    images: int
    seconds: float
    waiting: Annotated[int, Field(description="Maximum number of accepted requests.")]


class ModelShape(Shape):
    """A loaded model."""

    name: str
    policy: str
    segmenter: str
    device: str
    tasks: list[str]


class Models(Shape):
    """The models, none until they are loaded, and the limits."""

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
    """The state of the server."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: str


class ProblemShape(BaseModel):
    """An error as in RFC 9457; there may be further members."""

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
