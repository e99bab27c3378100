"""SIS data as colour pictures: a folder of photos and one of masks where each instance has its own colour.

Black (or index 0 of a palette or grey picture) is the background. A row, as read: `InstanceImage(key="0001",
name="0001", image=…/images/0001.jpg, height=300, width=400, instances=(…))`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.folders import INSTANCE_FOLDERS, find_folders, pictures_by_stem
from saliency_r1.data.pairs import check_complete
from saliency_r1.data.true_instances import InstanceImage, TrueInstance, encode
from saliency_r1.errors import ImageError, SaliencyError, one_line

MOST_INSTANCES = 100
"""More colours than this in one mask are the mixed colours of soft edges or JPEG, not instances."""


def read_instance_pngs(root: str | Path) -> Iterator[InstanceImage]:
    """The photos with their instances, sorted by name, decoded when their turn comes.

    Args:
        root: folder, see `saliency_r1.data.pairs.read_pairs`; a folder of instance masks (`instances`,
            `Instance`, …) is preferred to one of plain masks.

    Raises:
        SaliencyError: before the first image as of `read_pairs`; at an image as of `load_instances`.
    """
    images_folder, masks_folder = find_folders(Path(root), INSTANCE_FOLDERS)
    images, masks = (
        pictures_by_stem(images_folder, "photos"),
        pictures_by_stem(masks_folder, "instance masks"),
    )
    check_complete(images_folder, images, masks_folder, masks)
    return (_image(name, images[name], masks[name]) for name in images)


def load_instances(path: Path) -> np.ndarray:
    """The instances of a colour mask, bool (N, H, W), in the order of their colours; N may be 0.

    Raises:
        ImageError: if it cannot be read.
        SaliencyError: if it has more colours than instances can have.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
                values = np.asarray(image).astype(np.uint32)
            else:
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.uint32), -1, 0)
                values = red << 16 | green << 8 | blue
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:
        reason = one_line(error)
        raise ImageError(f"{path}: cannot be read as an instance mask ({reason})") from error
    colours = [colour for colour in np.unique(values).tolist() if colour]
    if len(colours) > MOST_INSTANCES:
        raise SaliencyError(
            f"{path}: {len(colours)} colours, expected one an instance, {MOST_INSTANCES} at most; "
            "soft edges or JPEG mix colours: save it without either"
        )
    return (
        np.stack([values == colour for colour in colours]) if colours else np.zeros((0, *values.shape), bool)
    )


def _image(name: str, image: Path, mask: Path) -> InstanceImage:
    instances = load_instances(mask)
    height, width = instances.shape[1:]
    return InstanceImage(
        name, name, image, height, width, tuple(TrueInstance(encode(instance)) for instance in instances)
    )
