"""Make soft masks with a teacher: a trained salient object detection (SOD) network in the ONNX format.

The defaults are those of U²-Net (Qin et al., Pattern Recognition 2020): 320×320 pixels, divided by the
photo's largest value, normalised by ImageNet's mean and standard deviation, the first output stretched from
0 to 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from saliency_r1 import runtime
from saliency_r1.data.teacher.setting import RECORD, Scaling, Stretch, TeacherSetting
from saliency_r1.errors import ImageError, SaliencyError, one_line
from saliency_r1.files import open_atomic, write_bytes_atomic
from saliency_r1.images import load_image
from saliency_r1.pictures.finding import FoundImage
from saliency_r1.pictures.own_files import png_mark

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Teacher:
    """A SOD network in an ONNX file, run by onnxruntime on the CPU.

    Args:
        path: the network's file.
        setting: how photos are preprocessed and which output is the mask.
        threads: CPU threads; default is torch's number, so OMP_NUM_THREADS applies.

    Raises:
        SaliencyError: if onnxruntime is not installed, or the file is no ONNX network with one float32 input
            of the setting's size and a map at the setting's output.

    Example:
        >>> teacher = Teacher("u2net.onnx")  # doctest: +SKIP
        >>> mask = teacher(load_image("dog.jpg"))  # doctest: +SKIP
    """

    def __init__(
        self, path: str | Path, setting: TeacherSetting | None = None, *, threads: int | None = None
    ) -> None:
        self.path = Path(path)
        self.setting = setting or TeacherSetting()
        self._session = _open_session(self.path, threads)
        self._input = self._check_input()
        self._output = self._check_output()
        side = self.setting.size
        self._run(
            np.zeros((1, 3, side, side), np.float32)
        )  # so that a wrong network is found before any photo

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the soft mask of a photo.

        Args:
            image: PIL image of mode RGB, of any size.

        Returns:
            float32 (H, W) in [0, 1] at the photo's size.

        Raises:
            SaliencyError: if the network returns values that are not finite.
        """
        map_ = self._run(self._prepared(image))
        if not np.isfinite(map_).all():
            raise SaliencyError(f"{self.path}: gives values that are not finite")
        small = Image.fromarray(_stretched(map_, self.setting.stretch))
        return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR)).clip(0, 1)

    def record(self) -> dict[str, object]:
        """Return the file's name and SHA-256 and the setting, for JSON."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"teacher": self.path.name, "sha256": digest, **json.loads(json.dumps(asdict(self.setting)))}

    def _prepared(self, image: Image.Image) -> np.ndarray:
        """Return the network's input for a photo, float32 (1, 3, size, size)."""
        setting = self.setting
        resized = image.resize((setting.size, setting.size), Image.Resampling.LANCZOS)
        pixels = np.asarray(resized, dtype=np.float32)
        pixels /= 255 if setting.scaling is Scaling.BYTE else max(float(pixels.max()), 1e-6)
        mean, std = (np.asarray(each, dtype=np.float32) for each in (setting.mean, setting.std))
        normalised: np.ndarray = (pixels - mean) / std
        return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the map at the setting's output, float32 (h, w)."""
        try:
            (map_,) = self._session.run([self._output], {self._input: pixels})
        except Exception as error:  # onnxruntime raises a class of its own for each status
            raise SaliencyError(f"{self.path}: cannot be run ({one_line(error)})") from error
        map_ = np.asarray(map_)
        if map_.size == 0 or map_.ndim < 2 or map_.shape[-2] * map_.shape[-1] != map_.size:
            raise SaliencyError(
                f"{self.path}: output {self.setting.output} ({self._output}) has the shape {map_.shape}, "
                "expected one map (1, 1, height, width); choose another output"
            )
        return map_.reshape(map_.shape[-2:]).astype(np.float32)

    def _check_input(self) -> str:
        """Return the name of the only input."""
        inputs, side = self._session.get_inputs(), self.setting.size
        wanted = f"expected one float32 input (1, 3, {side}, {side})"
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise SaliencyError(f"{self.path}: has {len(inputs)} inputs ({names}), {wanted}")
        (only,) = inputs
        fits = len(only.shape) == 4 and all(
            not isinstance(given, int) or given == asked
            for given, asked in zip(only.shape, (1, 3, side, side), strict=True)
        )
        if only.type != "tensor(float)" or not fits:
            shape = ", ".join(map(str, only.shape))
            raise SaliencyError(
                f"{self.path}: its input {only.name} is {only.type} ({shape}), {wanted}; "
                "the option size is the side in pixels"
            )
        return only.name

    def _check_output(self) -> str:
        """Return the name of the output that the setting chooses."""
        outputs = self._session.get_outputs()
        if self.setting.output >= len(outputs):
            raise SaliencyError(
                f"{self.path}: has {len(outputs)} outputs, got output {self.setting.output}; "
                f"expected 0 to {len(outputs) - 1}"
            )
        return outputs[self.setting.output].name


def write_masks(
    photos: Sequence[FoundImage],
    teacher: Teacher,
    out: Path,
    *,
    resume: bool = False,
    on_done: Callable[[FoundImage, ImageError | None], None] | None = None,
) -> tuple[int, int]:
    """Write the teacher's mask of each photo as an 8-bit grey PNG of the photo's size.

    The mask of `FoundImage.stem` is `out/STEM.png`, with its sub-folders. `out/teacher.json` records the
    teacher and is written first. Every file is written completely or not at all.

    Args:
        photos: the photos.
        teacher: the network.
        out: folder of the masks.
        resume: whether to skip photos whose mask exists.
        on_done: called after each photo, with the error of one that could not be read.

    Returns:
        The numbers of masks that were written and that existed before.

    Raises:
        SaliencyError: if `out` holds masks while `resume` is False, or those of another teacher or setting,
            or if a file cannot be written.
    """
    _begin_record(out / RECORD, teacher.record(), resume)
    written = kept = 0
    for photo in photos:
        target = out / f"{photo.stem}.png"
        if resume and target.exists():
            kept += 1
            error = None
        else:
            error = _write_mask(photo.path, teacher, target)
            written += error is None
        if on_done is not None:
            on_done(photo, error)
    return written, kept


def _write_mask(photo: Path, teacher: Teacher, target: Path) -> ImageError | None:
    try:
        image = load_image(photo)
    except ImageError as error:
        return error
    mask = Image.fromarray(np.rint(teacher(image) * 255).astype(np.uint8))
    with open_atomic(target) as file:
        mask.save(file, format="PNG", pnginfo=png_mark())
    return None


def _begin_record(path: Path, record: dict[str, object], resume: bool) -> None:
    """Write the record of a new folder of masks, or check that an older one is equal."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_bytes_atomic(path, (json.dumps(record, indent=1) + "\n").encode())
        return
    except (OSError, ValueError) as error:
        raise SaliencyError(f"{path}: cannot be read ({one_line(error)}); choose another folder") from error
    if not resume:
        raise SaliencyError(
            f"{path.parent} holds masks already: continue with --resume, or choose another --out"
        )
    # The file's name may differ; only its content counts.
    differing = [key for key in record if key != "teacher" and before.get(key) != record[key]]
    if differing:
        told = "; ".join(f"{key} was {before.get(key)}, is now {record[key]}" for key in differing)
        raise SaliencyError(f"{path}: the masks there were made otherwise ({told}); choose another --out")


def _open_session(path: Path, threads: int | None) -> InferenceSession:
    import onnxruntime

    if not path.is_file():
        raise SaliencyError(f"{path}: no such file, expected a network in the ONNX format")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or runtime.threads()
    options.log_severity_level = 4  # what it finds is raised too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status
        raise SaliencyError(
            f"{path}: not an ONNX network that onnxruntime can run ({one_line(error)})"
        ) from error


def _stretched(map_: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Convert a network's map to float32 in [0, 1]."""
    if stretch is Stretch.SIGMOID:
        return (1 / (1 + np.exp(-map_.clip(-60, 60)))).astype(np.float32)
    if stretch is Stretch.NONE:
        return map_.clip(0, 1)
    least, largest = float(map_.min()), float(map_.max())
    # A constant map means that nothing stands out.
    return (map_ - least) / (largest - least) if largest > least else np.zeros_like(map_)
