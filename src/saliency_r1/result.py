"""The result of one picture: masks with their expressions, the reasoning, and the files made from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from itertools import count
from json import dumps
from math import isfinite
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from saliency_r1.errors import SaliencyError
from saliency_r1.files import printable, write_bytes_atomic
from saliency_r1.overlay import paint_masks, to_grey, with_legend
from saliency_r1.pictures.encoding import save_jpeg, save_png
from saliency_r1.saved_names import claim_name
from saliency_r1.tasks import Task
from saliency_r1.wording import shown_name

_SHOWN = 800

FILES = ("mask", "overlay", "cutout", "json")
"""The kinds of files that `SaliencyResult.save` writes, by the names of its options."""

_ENDINGS = {
    "mask": ("_mask.png",),
    "overlay": ("_overlay.jpg", "_overlay.png"),
    "cutout": ("_cutout.png",),
    "json": (".json",),
}


def _is_file(path: Path) -> bool:
    """Whether a path is a file; one with a name that the file system cannot hold is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def kinds_on_disk(folder: str | Path, stem: str, kinds: Sequence[str] = FILES) -> tuple[str, ...]:
    """Return those of the given kinds of files that a folder already has for a photo.

    Args:
        folder: where results were saved.
        stem: name of the photo's files, may hold sub-folders.
        kinds: some of FILES.
    """
    base = Path(folder, stem)
    return tuple(
        kind
        for kind in kinds
        if any(_is_file(base.with_name(base.name + ending)) for ending in _ENDINGS[kind])
    )


@dataclass(frozen=True, eq=False)
class Instance:
    """One expression and the mask that the segmenter found for it.

    Attributes:
        expression: the policy's name for it.
        mask: probability of each pixel, float32 (H, W) in [0, 1], at the photo's size. Read only.
        score: the IoU that the mask is expected to have, in [0, 1]. In SIS it ranks the instances of all
            photos, see `saliency_r1.sis`.

    Raises:
        TypeError: if the mask is not a float32 array.
        ValueError: if a shape or a value is out of range.
    """

    expression: str
    mask: np.ndarray
    score: float

    def __post_init__(self) -> None:
        mask: object = self.mask
        if not isinstance(mask, np.ndarray) or mask.dtype != np.float32:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"mask of {self.expression!r}: found {kind}, expected a float32 array")
        if mask.ndim != 2 or not mask.size:
            raise ValueError(f"mask of {self.expression!r}: found shape {mask.shape}, expected (H, W)")
        low, high = float(mask.min()), float(mask.max())
        if not (low >= 0 and high <= 1):  # also for NaN
            raise ValueError(
                f"mask of {self.expression!r}: found values {low:g} to {high:g}, expected 0 to 1"
            )
        object.__setattr__(self, "score", _fraction(self.score, f"score of {self.expression!r}"))

    @property
    def binary(self) -> np.ndarray:
        """Bool (H, W): where the probability is at least 0.5."""
        return self.mask >= 0.5

    @property
    def area(self) -> int:
        """Pixels of the binary mask."""
        return int(np.count_nonzero(self.binary))

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The binary mask's bounding box (x, y, width, height) in pixels, None if the mask is empty."""
        binary = self.binary
        columns, rows = np.flatnonzero(binary.any(axis=0)), np.flatnonzero(binary.any(axis=1))
        if not columns.size:
            return None
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y

    @property
    def rle(self) -> dict[str, Any]:
        """The binary mask as compressed COCO run lengths: {"size": [H, W], "counts": str}."""
        from pycocotools import mask as coco

        # PIL transposes a large picture several times faster than numpy copies it column by column.
        columns = Image.fromarray(self.binary.view(np.uint8)).transpose(Image.Transpose.TRANSPOSE)
        encoded = coco.encode(np.asarray(columns).T)
        return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


@dataclass(frozen=True, eq=False)
class SaliencyResult:
    """The result of one picture: what stands out, and why.

    Attributes:
        name: stem of the files that `save` writes, may hold sub-folders (`holiday/dog`).
        source: the path it was read from, None if it was not read from a file.
        image: the picture, RGB in sRGB; transparent parts have a plain background.
        task: the task that was asked.
        text: the policy's response, unchanged.
        reasoning: the explanation, parsed from the text.
        expressions: the names of what is salient, parsed from the text; "the object" for a group whose
            expression the segmenter does not find, see `saliency_r1.cosod`.
        instances: the masks with their expressions; empty if nothing is salient.
        confidence: the IoU that the mask is expected to have, in [0, 1]; over several masks the mean. Without
            a mask it is the policy's confidence that nothing stands out; None if unknown.
        model: names of policy and segmenter.
        seconds: seconds by part: `policy`, `segmenter`, after saving `writing`, and `total`.
        policy_confidence: the policy's confidence in the words of its answer, in [0, 1], times the
            probability of the name in it if the policy reads names; None if unknown.
        names: the five best names of what is salient, or shared by a group, with their probabilities, the
            most probable first. Each counts only the narrowest word of its classes, so that "cat" and
            "tabby" are separate. Empty if the policy gives none.
        retries: number of second tries after a response that did not parse; for a group, over all chunks.
        tokens: a server's counts of prompt and completion tokens, for a group over all chunks; None if it
            counted none.
        layer: the picture with its own transparency, RGBA of the same size; None if it is fully opaque.

    Raises:
        TypeError, ValueError: if a part has a wrong type, size or range.
        SaliencyError: if there is no such task.
    """

    name: str
    source: str | None
    image: Image.Image
    task: Task
    text: str
    reasoning: str
    expressions: tuple[str, ...]
    instances: tuple[Instance, ...]
    confidence: float | None
    model: str
    seconds: dict[str, float] = field(default_factory=dict)
    policy_confidence: float | None = None
    names: tuple[tuple[str, float], ...] = ()
    retries: int = 0
    tokens: tuple[int, int] | None = None
    layer: Image.Image | None = None

    def __post_init__(self) -> None:
        image: object = self.image
        if not isinstance(image, Image.Image):
            raise TypeError(f"image: found {type(image).__name__}, expected a PIL image")
        if image.mode != "RGB":
            raise ValueError(f"image: found mode {image.mode}, expected RGB")
        if self.layer is not None and (self.layer.mode, self.layer.size) != ("RGBA", image.size):
            found = f"{self.layer.mode} of {self.layer.width}x{self.layer.height} pixels"
            raise ValueError(f"layer: found {found}, expected RGBA of {image.width}x{image.height}")
        object.__setattr__(self, "source", None if self.source is None else str(self.source))
        object.__setattr__(self, "task", Task.parse(self.task))
        object.__setattr__(self, "expressions", tuple(self.expressions))
        object.__setattr__(self, "instances", tuple(self.instances))
        for instance in self.instances:
            if instance.mask.shape != (image.height, image.width):
                height, width = instance.mask.shape
                raise ValueError(
                    f"mask of {instance.expression!r}: found {width}x{height} pixels, "
                    f"expected the image's {image.width}x{image.height}"
                )
        for kind in ("confidence", "policy_confidence"):
            if getattr(self, kind) is not None:
                object.__setattr__(self, kind, _fraction(getattr(self, kind), kind))
        object.__setattr__(self, "seconds", {part: float(value) for part, value in self.seconds.items()})
        for part, duration in self.seconds.items():
            if not (isfinite(duration) and duration >= 0):
                raise ValueError(f"seconds of {part}: found {duration}, expected 0 or more")

    @property
    def mask(self) -> np.ndarray:
        """Probability that a pixel is salient, float32 (H, W) in [0, 1]: the largest over the instances.

        With one instance it is that instance's array, read only.
        """
        if not self.instances:
            return np.zeros((self.image.height, self.image.width), np.float32)
        if len(self.instances) == 1:
            return self.instances[0].mask
        return np.maximum.reduce([instance.mask for instance in self.instances])

    @property
    def binary(self) -> np.ndarray:
        """Bool (H, W): where the probability is at least 0.5."""
        return self.mask >= 0.5

    def overlay(self, *, legend: bool = False) -> Image.Image:
        """Draw what is salient in colour on dimmed surroundings, see `saliency_r1.overlay`.

        In SIS the instances are numbered in the order of `instances`.

        Args:
            legend: whether to list the numbered expressions below the photo.

        Returns:
            RGB image of the photo's size; with a legend it is higher, and at least 320 pixels wide.
        """
        numbered = self.task.spec.several_expressions
        picture = paint_masks(self.image, [one.mask for one in self.instances], numbered=numbered)
        return (
            with_legend(picture, [shown_name(one.expression) for one in self.instances])
            if legend
            else picture
        )

    def _repr_png_(self) -> bytes:
        """Return the overlay for notebooks as PNG, with at most 800 pixels on its longer side."""
        picture = self.overlay(legend=self.task.spec.several_expressions)
        picture.thumbnail((_SHOWN, _SHOWN))
        content = BytesIO()
        picture.save(content, "PNG")
        return content.getvalue()

    def cutout(self, *, matting: bool = False) -> Image.Image:
        """Cut what is salient out of the photo, with sharp edges and without the background's colours.

        `saliency_r1.cutting` explains the method. The alpha is at most the photo's own.

        Args:
            matting: whether to refine alpha for hair and fur, which takes longer.

        Returns:
            RGBA image of the photo's size; what is fully transparent is black, not the photo.
        """
        from saliency_r1.cutting import cut_out

        if self.layer is None:
            return cut_out(self.image, self.mask, matting=matting)
        own = self.layer.getchannel("A")
        share = np.asarray(own, np.float32) / 255
        # The mask ends at the photo's own alpha; that edge must not be sharpened.
        mask = np.divide(self.mask, share, out=np.zeros_like(share), where=share > 0).clip(max=1)
        result = cut_out(self.image, mask, matting=matting)
        alpha = ImageChops.darker(result.getchannel("A"), own)
        result.paste(self.layer, mask=own.point([255] * 255 + [0]))  # translucent pixels keep their colour
        result.putalpha(alpha)
        result.paste((0, 0, 0, 0), mask=alpha.point([255] + [0] * 255))
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pixels, for JSON: masks as COCO run lengths, boxes as [x, y, width, height]."""
        return {
            "name": self.name,
            "source": self.source,
            "width": self.image.width,
            "height": self.image.height,
            "task": self.task.value,
            "text": self.text,
            "reasoning": self.reasoning,
            "expressions": list(self.expressions),
            "confidence": self.confidence,
            "policy_confidence": self.policy_confidence,
            "names": [{"name": name, "probability": value} for name, value in self.names],
            "retries": self.retries,
            "tokens": dict(zip(("prompt", "completion"), self.tokens, strict=True)) if self.tokens else None,
            "instances": [
                {
                    "expression": instance.expression,
                    "score": instance.score,
                    "box": list(box) if (box := instance.box) else None,
                    "area": instance.area,
                    "segmentation": instance.rle,
                }
                for instance in self.instances
            ],
            "model": self.model,
            "version": version("saliency-r1"),
            "seconds": dict(self.seconds),
        }

    def to_json(self) -> str:
        """Return `to_dict` as one line of ASCII JSON, which every terminal and pipe can show."""
        return dumps(self.to_dict(), allow_nan=False)

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        mask: bool = True,
        overlay: bool = True,
        cutout: bool = True,
        json: bool = True,
        overwrite: bool = False,
        matting: bool = False,
    ) -> dict[str, Path]:
        """Write the files of this result, each of them completely or not at all.

        - `<stem>_mask.png`: the probability in 8-bit grey, at the photo's size; 128 and above is salient. In
          SIS also `<stem>_mask_1.png`, … for the instances in order; files with higher numbers, from an
          earlier run that found more, are removed.
        - `<stem>_overlay.jpg` (`.png` if it is too long for JPEG, 65,500 pixels), in SIS with a legend
        - `<stem>_cutout.png`: RGBA
        - `<stem>.json`: `to_json`, one line

        Files of an earlier run are replaced. If this process has written another photo's files of that name,
        this photo's are called `<stem>-2`, with a warning. The time for drawing and writing, without the
        JSON, is added to `seconds` as `writing`, and to the total.

        Args:
            folder: output folder; created if necessary.
            stem: name of the files, may hold sub-folders; `name` by default.
            mask: whether to write the masks.
            overlay: whether to write the overlay.
            cutout: whether to write the cut-out.
            json: whether to write the JSON.
            overwrite: whether to replace even another photo's files of this process.
            matting: see `cutout`.

        Returns:
            The files written, by `mask`, `mask_1`, …, `overlay`, `cutout`, `json`.

        Raises:
            SaliencyError: if a file cannot be written, or the stem leads outside the folder.
        """
        stem = self.name if stem is None else stem
        inner = PurePosixPath(Path(stem).as_posix())
        if not inner.name or Path(stem).is_absolute() or ".." in inner.parts:
            raise SaliencyError(f"stem {stem!r}: expected a relative name, without '..'")
        base = Path(folder, inner)
        if not overwrite:
            base = self._claimed(base)
        start = perf_counter()
        masks = {"": self.mask} if mask else {}
        if mask and self.task.spec.several_expressions:
            masks |= {f"_{number}": one.mask for number, one in enumerate(self.instances, start=1)}
            for number in count(len(self.instances) + 1):
                old = base.with_name(f"{base.name}_mask_{number}.png")  # from a run that found more
                if not old.is_file():
                    break
                old.unlink()

        def draw() -> Path:
            picture = self.overlay(legend=self.task.spec.several_expressions)
            return save_jpeg(picture, base.with_name(f"{base.name}_overlay.jpg"))

        def cut() -> Path:
            return save_png(self.cutout(matting=matting), base.with_name(f"{base.name}_cutout.png"))

        def write_mask(number: str) -> Path:
            return save_png(to_grey(masks[number]), base.with_name(f"{base.name}_mask{number}.png"))

        # The two large pictures in parallel: drawing and encoding release Python's lock.
        with ThreadPoolExecutor(2) as pool:
            drawn = pool.submit(draw) if overlay else None
            cut_out = pool.submit(cut) if cutout else None
            described = pool.submit(self.to_dict) if json else None
            paths = {f"mask{number}": write_mask(number) for number in masks}
            if drawn is not None:
                paths["overlay"] = drawn.result()
            if cut_out is not None:
                paths["cutout"] = cut_out.result()
        if paths:
            self._count_writing(perf_counter() - start)
        if described is not None:
            paths["json"] = base.with_name(f"{base.name}.json")
            line = dumps({**described.result(), "seconds": self.seconds}, allow_nan=False)
            write_bytes_atomic(paths["json"], f"{line}\n".encode())
        return paths

    def _claimed(self, base: Path) -> Path:
        """Return folder and stem of this photo's files, with a number if another photo has the stem."""
        if self.source is not None:
            photo: object = os.path.abspath(self.source)  # noqa: PTH100
        else:
            photo = self.image.tobytes()
        claimed = claim_name(base, photo)
        if claimed != base:
            whose = printable(self.source or self.name)
            warnings.warn(
                f"{printable(str(base))}: holds another photo's files of this run; those of {whose} are "
                f"written as {printable(claimed.name)}",
                stacklevel=3,
            )
        return claimed

    def _count_writing(self, seconds: float) -> None:
        before = self.seconds.get("writing", 0.0)
        self.seconds["writing"] = seconds
        if "total" in self.seconds:
            self.seconds["total"] += seconds - before


def _fraction(value: float, what: str) -> float:
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{what}: found {value}, expected 0 to 1")
    return float(value)
