"""SOD data: a folder of photos and a folder of masks of the same stems.

A row, as read: `Sample(name="0001", image=…/images/0001.jpg, mask=…/ground_truth_mask/0001.png)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from saliency_r1.data.folders import find_folders, listed, pictures_by_stem, subfolders
from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError


def read_pairs(root: str | Path) -> Iterator[Sample]:
    """The photos with their masks, sorted by name; no picture is opened.

    Args:
        root: folder with one folder of photos and one of masks (see `saliency_r1.data.folders` for the
            names), or a folder of such a folder.

    Raises:
        SaliencyError: before the first sample, if the folders are not there, are empty, hold two files of one
            stem, or a photo has no mask or a mask no photo.
    """
    images_folder, masks_folder = find_folders(Path(root))
    images, masks = pictures_by_stem(images_folder, "photos"), pictures_by_stem(masks_folder, "masks")
    if not images and not masks and (groups := subfolders(images_folder)):
        raise SaliencyError(
            f"{images_folder}: holds {len(groups)} folders, as a set of groups does, and no photos: "
            f"{listed(group.name for group in groups)}; give it to `saliency-r1 evaluate cosod`, or give the "
            "folder of one set"
        )
    check_complete(images_folder, images, masks_folder, masks)
    return (Sample(name, path, masks[name]) for name, path in images.items())


def check_complete(
    images_folder: Path, images: dict[str, Path], masks_folder: Path, masks: dict[str, Path]
) -> None:
    """Check that there are photos, and masks for exactly these.

    Raises:
        SaliencyError: if not; it lists the first ten of each and says how many there are.
    """
    if not images and not masks:
        raise SaliencyError(f"{images_folder}: empty, expected photos, with their masks in {masks_folder}")
    without_mask, without_photo = images.keys() - masks.keys(), masks.keys() - images.keys()
    if without_mask:
        raise SaliencyError(
            f"{len(without_mask)} photos in {images_folder} have no mask in {masks_folder}: "
            f"{listed(without_mask)}; add the masks or move the photos away"
        )
    if without_photo:
        raise SaliencyError(
            f"{len(without_photo)} masks in {masks_folder} have no photo in {images_folder}: "
            f"{listed(without_photo)}; add the photos or move the masks away"
        )
