"""Image features of the frozen vision tower, computed once and kept on disk.

With a frozen tower a photo has the same features in every epoch, so that fine-tuning need not read the
picture again. The file `features.f16` is a plain array of float16, one block a photo; `features.json` says
which photo each block is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.images import load_image
from saliency_r1.memory import BoundedMemory

Key = tuple[str, bool]
"""A photo's path and whether it is mirrored."""


def read_photo(key: Key, root: Path) -> Image.Image:
    """The photo, RGB, mirrored left to right if the key says so; the path is looked up from `root`."""
    path, mirrored = key
    image = load_image(root / path)
    return ImageOps.mirror(image) if mirrored else image


class FeatureCache:
    """Features before the adapter, float16 (cells, features) a photo.

    Args:
        folder: where the two files lie; made if need be.
        model: a `NanoForImageTextToText` with a frozen tower.
        processor: its processor.
        root: where relative photo paths begin.
    """

    def __init__(self, folder: str | Path, model: Any, processor: Any, root: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._model, self._processor, self._root = model, processor, Path(root)
        tower = model.model.vision_tower
        self._shape = (model.config.cells, tower.features)
        self._block = 2 * self._shape[0] * self._shape[1]
        self._tower = _fingerprint(tower, self._shape)
        self._rows: dict[Key, int] = {}
        self._read_index()
        self._array: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def photos(self) -> tuple[Key, ...]:
        """Those that were added."""
        return tuple(self._rows)

    def add(self, keys: Iterable[Key], batch_size: int = 32) -> int:
        """Compute what is missing; a run that was killed continues after its last batch.

        Returns:
            How many photos were computed.

        Raises:
            SaliencyError: if a photo cannot be read.
        """
        from rich.progress import track

        missing = sorted(set(keys) - self._rows.keys())
        if not missing:
            return 0
        self._array = None
        with open(self.folder / "features.f16", "ab") as file:
            file.truncate(len(self._rows) * self._block)
            starts = range(0, len(missing), batch_size)
            for start in track(starts, f"vision features of {len(missing)} photos"):
                chosen = missing[start : start + batch_size]
                file.write(self._compute(chosen).tobytes())
                file.flush()
                for key in chosen:
                    self._rows[key] = len(self._rows)
                if start // batch_size % 16 == 15:
                    self._write_index()
        self._write_index()
        return len(missing)

    def read(self, keys: Sequence[Key]) -> torch.Tensor:
        """Features of photos that were added, float16 (photos, cells, features)."""
        if self._array is None:
            shape = (len(self._rows), *self._shape)
            self._array = np.memmap(self.folder / "features.f16", np.float16, "r", shape=shape)
        return torch.from_numpy(self._array[[self._rows[key] for key in keys]])

    @torch.inference_mode()
    def _compute(self, keys: Sequence[Key]) -> np.ndarray:
        with ThreadPoolExecutor(4) as pool:
            images = list(pool.map(lambda key: read_photo(key, self._root), keys))
        pixels = self._processor.image_processor(images, return_tensors="pt")["pixel_values"]
        # In float32, as at inference: bfloat16 through 16 blocks changes the features by several percent.
        # A CPU is twice as fast on two photos at a time as on 32: the maps stay in its cache.
        step = 2 if self._model.device.type == "cpu" else len(keys)
        parts = [self._model.model.encode_images(part.to(self._model.device)) for part in pixels.split(step)]
        return torch.cat(parts).to(torch.float16).cpu().numpy()

    def _read_index(self) -> None:
        try:
            index = json.loads((self.folder / "features.json").read_text())
            file_size = (self.folder / "features.f16").stat().st_size
        except FileNotFoundError:
            return
        except ValueError:
            raise SaliencyError(f"{self.folder / 'features.json'} is damaged: delete the folder") from None
        if index.get("tower") != self._tower:
            raise SaliencyError(
                f"{self.folder} holds the features of another vision tower: delete the folder"
            )
        rows = index["photos"][: file_size // self._block]
        self._rows = {(path, mirrored): row for row, (path, mirrored) in enumerate(rows)}

    def _write_index(self) -> None:
        index = {"tower": self._tower, "shape": self._shape, "photos": list(self._rows)}
        write_bytes_atomic(self.folder / "features.json", json.dumps(index).encode())


class FeatureMemory:
    """Features of a frozen tower kept in memory, by the pixels they were computed from.

    Reinforcement learning shows a photo to the policy at least three times a step (to sample, to score the
    sample, to learn from it) and again in the next epoch. The tower then runs once.

    Args:
        model: a `NanoForImageTextToText` with a frozen tower; its `encode_images` is replaced.
        memory_bytes: the most that kept features may take.

    Raises:
        ValueError: if the tower is not frozen.
    """

    def __init__(self, model: Any, memory_bytes: int) -> None:
        if not model.config.freeze_vision:
            raise ValueError("the vision tower is trained: its features cannot be kept")
        self.computed = 0
        self._tower = model.model.vision_tower
        self._kept = BoundedMemory(memory_bytes)
        model.model.encode_images = self

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """As `NanoModel.encode_images`, in float32 whatever the precision around it."""
        keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in _rows_of(pixel_values)]
        found = {key: self._kept.get(key) for key in keys}
        fresh = [row for row, key in enumerate(keys) if found[key] is None and keys.index(key) == row]
        # One at a time on a CPU, which is no slower and makes the last digits independent of the batch.
        step = 1 if pixel_values.device.type == "cpu" else max(1, len(fresh))
        device = pixel_values.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            for start in range(0, len(fresh), step):
                rows = fresh[start : start + step]
                pixels = pixel_values[rows].float().contiguous(memory_format=torch.channels_last)
                for row, features in zip(rows, self._tower(pixels), strict=True):
                    found[keys[row]] = features.clone()
                    self._kept.put(keys[row], found[keys[row]])
        self.computed += len(fresh)
        return torch.stack([found[key] for key in keys])


def _rows_of(pixel_values: torch.Tensor) -> np.ndarray:
    return pixel_values.detach().float().cpu().contiguous().numpy()


def _fingerprint(tower: torch.nn.Module, shape: tuple[int, int]) -> str:
    """A hash of the tower's weights and of what it puts out."""
    digest = hashlib.sha256(repr(shape).encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
