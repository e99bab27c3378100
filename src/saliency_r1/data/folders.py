"""Find the folders and files of a data set by their usual names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from saliency_r1.errors import SaliencyError
from saliency_r1.pictures.finding import IMAGE_SUFFIXES

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "im", "rgb")
MASK_FOLDERS = ("masks", "mask", "gts", "gt", "ground_truth_mask", "pixelwisegt-new-png", "binary")
INSTANCE_FOLDERS = ("instances", "instance", "gt_instance", "instance_gt", *MASK_FOLDERS)
"""Names in lower case; upper case and names that end in `-Image`, `-Mask`, `-Instance` are known too."""


def find_folders(root: Path, truth: Collection[str] = MASK_FOLDERS) -> tuple[Path, Path]:
    """Find the folders of pictures and ground truth, in `root` or in the one folder in it that has both.

    Args:
        root: folder of a data set.
        truth: the names of the ground truth's folder, in lower case, the best first.

    Raises:
        SaliencyError: if there are none, or several that could be meant.
    """
    if not root.is_dir():
        raise SaliencyError(f"{root}: no such folder, expected a data set with pictures and masks")
    found = _folders_in(root, truth)
    if found is not None:
        return found
    below = {child: _folders_in(child, truth) for child in subfolders(root)}
    complete = {child: pair for child, pair in below.items() if pair is not None}
    if len(complete) > 1:
        names = ", ".join(str(child) for child in complete)
        raise SaliencyError(f"{root}: holds several data sets, give one of them: {names}")
    for pair in complete.values():
        return pair
    raise SaliencyError(
        f"{root}: expected a folder of pictures ({', '.join(IMAGE_FOLDERS)}, *-Image) and one of truth "
        f"({', '.join(truth)}), found {listed(child.name for child in root.iterdir()) or 'nothing'}"
    )


def _folders_in(root: Path, truth: Collection[str]) -> tuple[Path, Path] | None:
    images = _named(root, IMAGE_FOLDERS, "-image")
    if images is None:
        return None
    for name in truth:
        masks = _named(root, (name,), "")
        if masks is not None:
            return images, masks
    for ending in ("-instance", "-mask") if "instances" in truth else ("-mask",):
        masks = _named(root, (), ending)
        if masks is not None:
            return images, masks
    return None


def _named(root: Path, names: Collection[str], ending: str) -> Path | None:
    """Return the one folder in root with such a name."""
    found = [
        child
        for child in subfolders(root)
        if child.name.lower() in names or (ending and child.name.lower().endswith(ending))
    ]
    if len(found) > 1:
        raise SaliencyError(
            f"{root}: {listed(child.name for child in found)} could each be meant; move all but one away"
        )
    return found[0] if found else None


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def pictures_by_stem(
    folder: Path, what: str = "pictures", more_suffixes: Collection[str] = ()
) -> dict[str, Path]:
    """Return the picture files in a folder, sorted by stem; other and hidden files are skipped.

    Args:
        folder: folder of the files.
        what: their name in errors.
        more_suffixes: further endings besides those of pictures, in lower case.

    Raises:
        SaliencyError: if there is no such folder, or two files have one stem.
    """
    if not folder.is_dir():
        raise SaliencyError(f"{folder}: no such folder, expected one of {what}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        is_one = path.suffix.lower() in IMAGE_SUFFIXES or path.suffix.lower() in more_suffixes
        if not is_one or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise SaliencyError(
                f"{folder}: two {what} for one stem, {found[path.stem].name} and {path.name}; keep one"
            )
        found[path.stem] = path
    return dict(sorted(found.items()))


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Return the first names of many and how many more there are, on one line."""
    every = sorted(names)
    more = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {more} more" if more > 0 else "")
