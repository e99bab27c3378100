"""Read CoSOD data: photos and masks with a folder for each group. The photos of a group share an object.

A row, as read: `Sample(name="Accordion/51499", image=…/images/CoCA/Accordion/51499.jpg,
mask=…/gts/CoCA/Accordion/51499.png)`: the group is part of the name, because file names repeat across groups.

Three layouts are known: `images/<set>/<group>` with `gts/<set>/<group>`, `<set>/image/<group>` with
`<set>/gt/<group>`, and `<group>` folders under `images` and `masks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from saliency_r1.data.folders import find_folders, listed, pictures_by_stem, subfolders
from saliency_r1.data.pairs import check_complete
from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError


def read_groups(root: str | Path) -> Iterator[Sample]:
    """Yield the photos with their masks, group by group; no picture is opened.

    Args:
        root: folder of the set. For the layout `images/<set>/<group>` it may be the folder above with the
            set's name after it, which need not exist (`DATA/CoCA` for `DATA/images/CoCA`).

    Raises:
        SaliencyError: before the first sample, if the folders are missing or empty, if a group's masks are
            missing, if two files of a group have one stem, or if photos and masks do not match.
    """
    images, masks = group_folders(Path(root))
    groups, groups_of_masks = _names(images), _names(masks)
    if groups != groups_of_masks:
        raise SaliencyError(
            f"the groups in {images} and {masks} differ: {listed(groups ^ groups_of_masks)}; "
            "each group needs a folder of photos and one of masks"
        )
    found = []
    for group in sorted(groups):
        pair = images / group, masks / group
        photos, truths = pictures_by_stem(pair[0], "photos"), pictures_by_stem(pair[1], "masks")
        check_complete(pair[0], photos, pair[1], truths)
        found.append((group, photos, truths))
    return (
        Sample(f"{group}/{stem}", path, truths[stem])
        for group, photos, truths in found
        for stem, path in photos.items()
    )


def group_folders(root: Path) -> tuple[Path, Path]:
    """Return the folder of the groups of photos and the folder of the groups of masks.

    Raises:
        SaliencyError: if there are none, or several sets.
    """
    if not root.exists() and root.parent.is_dir():
        images, masks = find_folders(root.parent)
        if not (images / root.name).is_dir():
            raise SaliencyError(f"{root}: no such folder, and {images} has no set {root.name!r}")
        return images / root.name, masks / root.name
    images, masks = find_folders(root)
    groups = subfolders(images)
    if not groups:
        raise SaliencyError(f"{images}: no folders, expected one a group of photos")
    if any(pictures_by_stem(group) for group in groups):
        return images, masks
    sets = [group for group in groups if subfolders(group)]
    if len(sets) > 1:
        raise SaliencyError(
            f"{images} holds several sets, give one of them: "
            + ", ".join(str(images.parent / one.name) for one in sets)
        )
    if not sets:
        raise SaliencyError(f"{images}: its folders are empty, expected one a group of photos")
    return sets[0], masks / sets[0].name


def group_of(name: str) -> str:
    """Return the group in a sample's name."""
    return name.rpartition("/")[0]


def by_group(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Yield the samples of each group, in order."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(group_of(sample.name), []).append(sample)
    return groups


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise SaliencyError(f"{folder}: no such folder, expected one a group of masks")
    return {child.name for child in subfolders(folder)}
