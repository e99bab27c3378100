"""Convert results for other tools: supervision's detections, COCO JSON, Label Studio's pre-annotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from saliency_r1.errors import SaliencyError
from saliency_r1.result import SaliencyResult

if TYPE_CHECKING:
    from supervision import Detections


def to_detections(result: SaliencyResult) -> Detections:
    """Convert a result for `supervision`, which draws, counts and tracks.

    This needs the package `supervision`, which is not installed with this one.

    Args:
        result: a result of any task; each mask becomes one detection.

    Returns:
        `supervision.Detections` of the instances with at least one pixel: `xyxy` the box of the binary mask,
        `mask` bool (N, H, W), `confidence` the score, `class_id` the number of the expression from 0, and
        `data["class_name"]` the expression.

    Raises:
        SaliencyError: if supervision is not installed.

    Example:
        >>> detections = to_detections(pipe("dog.jpg", task="sis"))  # doctest: +SKIP
        >>> supervision.MaskAnnotator().annotate(image, detections)  # doctest: +SKIP
    """
    try:
        from supervision import Detections
    except ImportError:
        raise SaliencyError("converting to detections needs supervision: pip install supervision") from None
    found = [instance for instance in result.instances if instance.area]
    if not found:
        return Detections.empty()
    names = [instance.expression for instance in found]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    boxes = np.array([instance.box for instance in found], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        xyxy=boxes,
        mask=np.stack([instance.binary for instance in found]),
        confidence=np.array([instance.score for instance in found], np.float32),
        class_id=np.array([numbers[name] for name in names]),
        data={"class_name": np.array(names)},
    )


def to_coco(results: Iterable[SaliencyResult]) -> dict[str, Any]:
    """Convert results to one COCO JSON object, with a category for each expression.

    Args:
        results: results, one for each image; they are read one by one, and none is kept.

    Returns:
        `images` (id, file_name, width, height), `annotations` (id, image_id, category_id, segmentation as
        compressed run lengths, area, bbox, iscrowd, score) and `categories` (id, name), ready for
        `json.dump`. All ids begin at 1. An empty mask has no annotation.

    Example:
        >>> Path("coco.json").write_text(json.dumps(to_coco(pipe.stream(paths))))  # doctest: +SKIP
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for result in results:
        images.append(
            {
                "id": len(images) + 1,
                "file_name": result.source or result.name,
                "width": result.image.width,
                "height": result.image.height,
            }
        )
        for instance in result.instances:
            if not instance.area:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": categories.setdefault(instance.expression, len(categories) + 1),
                    "segmentation": instance.rle,
                    "area": instance.area,
                    "bbox": list(instance.box or ()),
                    "iscrowd": 0,
                    "score": instance.score,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def to_label_studio(
    result: SaliencyResult,
    image_url: str,
    *,
    from_name: str = "brush",
    to_name: str = "image",
    label: str | None = None,
) -> dict[str, Any]:
    """Convert a result to a Label Studio task with masks that can be corrected.

    It fits a labelling configuration with `<Image name="image" value="$image"/>` and
    `<BrushLabels name="brush" toName="image">`.

    Args:
        result: a result of any task.
        image_url: address of the photo for Label Studio.
        from_name: name of the configuration's brush labels.
        to_name: name of its image.
        label: one label for all masks; by default each mask's label is its expression, which must be in the
            configuration.

    Returns:
        The task, with `data` and `predictions`. Label Studio imports a list of such tasks as JSON.
    """
    regions = [
        {
            "id": f"mask{number}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": result.image.width,
            "original_height": result.image.height,
            "image_rotation": 0,
            "score": instance.score,
            "value": {
                "format": "rle",
                "rle": _brush_strokes(instance.binary),
                "brushlabels": [label or instance.expression],
            },
        }
        for number, instance in enumerate(result.instances, start=1)
        if instance.area
    ]
    prediction = {"model_version": result.model, "score": result.confidence or 0.0, "result": regions}
    return {"data": {"image": image_url}, "predictions": [prediction]}


# The possible bit widths of a run's length, from which Label Studio's reader chooses (thi.ng's rle-pack).
_LENGTH_BITS = (3, 4, 8, 16)


def _brush_strokes(mask: np.ndarray) -> list[int]:
    """Pack a mask as Label Studio packs brushes: runs over the four channels of an RGBA picture.

    The format is that of https://github.com/thi-ng/umbrella, package rle-pack, with words of 8 bits.
    """
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    bits = [f"{4 * flat.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for start, length in zip(starts[:-1].tolist(), (4 * np.diff(starts)).tolist(), strict=True):
        word = "11111111" if flat[start] else "00000000"
        for rest in range(length, 0, -(1 << _LENGTH_BITS[-1])):
            part = min(rest, 1 << _LENGTH_BITS[-1]) - 1
            kind = next(kind for kind, size in enumerate(_LENGTH_BITS) if part < 1 << size)
            bits.append(f"1{kind:02b}{part:0{_LENGTH_BITS[kind]}b}{word}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
