"""Match prediction files with photos; report every file that does not fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saliency_r1.data.folders import listed, pictures_by_stem, subfolders
from saliency_r1.data.groups import group_of
from saliency_r1.data.mask_files import ARRAY_SUFFIX, picture_size
from saliency_r1.data.samples import Sample
from saliency_r1.errors import ImageError, SaliencyError


@dataclass(frozen=True)
class Pair:
    """A photo's ground truth and its prediction.

    Attributes:
        name: the sample's name.
        truth: path of the mask.
        prediction: path of the map; None where an empty mask stands in.
    """

    name: str
    truth: Path
    prediction: Path | None


@dataclass(frozen=True)
class Problem:
    """A prediction that cannot be scored as it is.

    Attributes:
        name: the sample's name.
        reason: why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Matched:
    """The samples with their predictions.

    Attributes:
        folder: folder of the predictions.
        pairs: one for each sample, in order.
        problems: reasons for predictions that are missing or differ in size from the truth; they have no
            prediction in `pairs`.
        extra: predictions of no sample, by path in the folder.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...]
    extra: tuple[str, ...]

    def refuse_problems(self) -> None:
        """Stop if there are problems.

        Raises:
            SaliencyError: if so; it lists the first ten and the count.
        """
        if self.problems:
            raise refuse(self.problems, len(self.pairs), self.folder)


def match_predictions(samples: Sequence[Sample], folder: str | Path, *, resize: bool = False) -> Matched:
    """Find each sample's prediction by its stem, and check its size by the headers.

    The prediction of `0001` is `0001.png` (or of another picture format, or `.npy`) or, as `saliency-r1
    predict` names it, `0001_mask.png`; that of `Accordion/0001` is in the folder `Accordion`.

    Args:
        samples: samples with masks.
        folder: folder of the predictions.
        resize: whether predictions of another size are to be resized, and so no problem.

    Raises:
        SaliencyError: if there is no such folder, it holds no picture, or two of one stem.
        ImageError: if a mask cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SaliencyError(
            f"{folder}: no such folder, expected the predictions as pictures named like the photos"
        )
    groups = dict.fromkeys(group_of(sample.name) for sample in samples)
    found = {
        group: pictures_by_stem(folder / group, "predictions", (ARRAY_SUFFIX,))
        if (folder / group).is_dir()
        else {}
        for group in groups
    }
    if not any(found.values()):
        raise SaliencyError(f"{folder}: no pictures, expected the predictions, named like the photos")
    pairs, problems, used = [], [], set()
    for sample in samples:
        group = group_of(sample.name)
        stem = sample.name.removeprefix(f"{group}/") if group else sample.name
        path = found[group].get(stem) or found[group].get(f"{stem}_mask")
        if sample.mask is None:
            raise SaliencyError(f"{sample.name}: has no mask, nothing can be scored against it")
        if path is not None:
            used.add(path)
        problem = "missing" if path is None else _size_problem(sample.mask, path, resize)
        if problem:
            problems.append(Problem(sample.name, problem))
        pairs.append(Pair(sample.name, sample.mask, None if problem else path))
    stems = {group: {path.stem for path in used if path.parent == folder / group} for group in groups}
    extra = [
        path.relative_to(folder).as_posix()
        for group, files in found.items()
        for path in files.values()
        if path not in used and not _goes_with(path.stem, stems[group])
    ]
    if "" not in groups:
        extra += [f"{child.name}/" for child in subfolders(folder) if child.name not in groups]
    return Matched(folder, tuple(pairs), tuple(problems), tuple(sorted(extra)))


def _size_problem(mask: Path, prediction: Path, resize: bool) -> str | None:
    truth = picture_size(mask)
    try:
        size = picture_size(prediction)
    except ImageError as error:
        return f"unreadable, {error}"
    if size != truth and not resize:
        return f"{size[1]}x{size[0]} pixels, expected {truth[1]}x{truth[0]}"
    return None


def _goes_with(stem: str, used: set[str]) -> bool:
    """Whether `saliency-r1 predict` writes such a file beside a mask that is used."""
    match = re.fullmatch(r"(.+)_(?:overlay|cutout|mask_\d+)", stem)
    return match is not None and f"{match[1]}_mask" in used


def refuse(problems: Sequence[Problem], total: int, folder: str | Path) -> SaliencyError:
    """The error that lists the problems: the first ten and how many there are."""
    first = listed(f"{problem.name} ({problem.reason})" for problem in problems)
    sizes = any(" pixels, expected " in problem.reason for problem in problems)
    resizing = "resize them to their masks with --resize-predictions, " if sizes else ""
    return SaliencyError(
        f"{folder}: {len(problems)} of {total} predictions cannot be scored: {first}; "
        f"mend them, {resizing}or score each as an empty mask with --missing empty"
    )
