"""Check a data set: compare it with what is expected, and find its faults, with a fix for each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.benchmarks import Benchmark, find_benchmark
from saliency_r1.data.duplicates import Fingerprint, duplicates, fingerprint
from saliency_r1.data.groups import group_of
from saliency_r1.data.layouts import load_instances, load_maps, task_of
from saliency_r1.data.mask_files import Doubt, MaskPicture, read_mask
from saliency_r1.data.samples import Sample
from saliency_r1.data.true_instances import InstanceImage
from saliency_r1.errors import SaliencyError
from saliency_r1.images import load_image
from saliency_r1.masks import THRESHOLD
from saliency_r1.pictures.finding import FoundImage, find_images
from saliency_r1.tasks import Task
from saliency_r1.workers import map_unordered

CHUNK = 20

SOFT = (8, 247)
"""Grey values between these are neither black nor white; a little off is JPEG or rounding."""


class Fault(StrEnum):
    """A fault of a photo or its mask."""

    UNREADABLE_PHOTO = "unreadable photo"
    UNREADABLE_MASK = "unreadable mask"
    SIZE = "photo and mask of different sizes"
    EMPTY = "empty mask"
    NOTHING = "photo without an instance"
    LOW = "mask without a value above 127"
    COLOURS = "mask in colours (a palette, often), which are no brightness"
    ALPHA = "mask kept in the alpha channel"
    FULL = "mask that covers the whole photo"
    NON_BINARY = "non-binary mask"
    DUPLICATE = "exact duplicate"
    NEAR_DUPLICATE = "near duplicate"
    AGAINST = "exact duplicate in the other set"
    NEAR_AGAINST = "near duplicate in the other set"

    @property
    def fix(self) -> str:
        """The fix, in a line."""
        return _FIXES[self]

    @property
    def fatal(self) -> bool:
        """Whether an evaluation stops at it, or has wrong numbers."""
        return self in (Fault.UNREADABLE_PHOTO, Fault.UNREADABLE_MASK, Fault.SIZE)

    @property
    def fatal_if_most(self) -> bool:
        """Whether numbers are wrong if most masks have it; in a few masks it may be right."""
        return self in (Fault.LOW, Fault.COLOURS, Fault.ALPHA)


_BROKEN = "download it again; if it is broken at its source, move photo and mask away and say so"
_FIXES = {
    Fault.UNREADABLE_PHOTO: _BROKEN,
    Fault.UNREADABLE_MASK: _BROKEN,
    Fault.SIZE: "resize the mask to the photo by nearest neighbour; if EXIF turns the photo, save it upright",
    Fault.EMPTY: "F is 0 there whatever is predicted; keep it if nothing is salient",
    Fault.LOW: "multiply masks of 0 and 1 by 255, or evaluate with --mask-values nonzero",
    Fault.COLOURS: "save the object white (255) on black, or evaluate with --mask-values nonzero",
    Fault.ALPHA: "save the alpha channel as the mask, or evaluate with --mask-values alpha",
    Fault.NOTHING: "keep it if nothing is salient: whatever is predicted there is a false positive",
    Fault.FULL: "check that the mask is not inverted",
    Fault.NON_BINARY: "nothing, if a cut above 127 is right; else cut it at the threshold you report",
    Fault.DUPLICATE: "keep one of them, or say how many there are",
    Fault.NEAR_DUPLICATE: "look at them; keep one, or say how many there are",
    Fault.AGAINST: "leave these photos out of training, or the test is on what was learnt",
    Fault.NEAR_AGAINST: "look at them; leave them out of training, or the test is on what was learnt",
}


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        fault: the fault.
        name: the photo's name.
        detail: what was found.
    """

    fault: Fault
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Looked:
    """The findings of the check in one photo.

    Attributes:
        name: the sample's name.
        findings: its faults.
        fingerprint: the photo's fingerprint, for duplicates; None if it cannot be read.
    """

    name: str
    findings: tuple[Finding, ...]
    fingerprint: Fingerprint | None


def look(samples: Sequence[Sample]) -> list[Looked]:
    """Read photos and their masks, if they have one; runs in a worker."""
    return [_look(sample) for sample in samples]


def _look(sample: Sample) -> Looked:
    found: list[Finding] = []
    seen, size = None, None
    try:
        content = sample.image.read_bytes()
        photo = load_image(content)
        size = photo.size
        seen = fingerprint(sample.name, hashlib.sha256(content).hexdigest(), photo)
    except (SaliencyError, OSError) as error:
        found.append(Finding(Fault.UNREADABLE_PHOTO, sample.name, f"{sample.image}: {error}"))
    if sample.mask is not None:
        found += _look_at_mask(sample.name, sample.mask, size)
    return Looked(sample.name, tuple(found), seen)


def _look_at_mask(name: str, path: Path, size: tuple[int, int] | None) -> Iterator[Finding]:
    try:
        picture = read_mask(path)
    except SaliencyError as error:
        yield Finding(Fault.UNREADABLE_MASK, name, str(error))
        return
    values = picture.grey
    if size is not None and values.shape[::-1] != size:
        yield Finding(
            Fault.SIZE, name, f"photo {size[0]}x{size[1]}, mask {values.shape[1]}x{values.shape[0]}"
        )
    yield from _mask_findings(name, picture)


def _mask_findings(name: str, picture: MaskPicture) -> Iterator[Finding]:
    """Return the faults of a mask."""
    values, doubt = picture.grey, picture.doubt
    if doubt is not None:
        detail = f"largest value {picture.high:g}" if doubt is Doubt.LOW else ""
        yield Finding(_DOUBTFUL[doubt], name, detail)
        return
    if not values.any():
        yield Finding(Fault.EMPTY, name)
    elif int(values.min()) > THRESHOLD:
        yield Finding(Fault.FULL, name)
    soft = np.count_nonzero((values > SOFT[0]) & (values < SOFT[1])) / max(values.size, 1)
    if soft:
        yield Finding(Fault.NON_BINARY, name, f"{soft:.1%} of its pixels are grey")


_DOUBTFUL = {Doubt.LOW: Fault.LOW, Doubt.COLOURS: Fault.COLOURS, Doubt.ALPHA: Fault.ALPHA}


def look_at_instances(images: Sequence[InstanceImage]) -> Iterator[Looked]:
    """Do the same for SIS: compare sizes of photos and instances; masks are checked as they are read."""
    for image in images:
        looked = _look(Sample(image.name, image.image))
        found = list(looked.findings)
        if looked.fingerprint is not None:
            with Image.open(image.image) as photo:
                size = photo.size
            if size != (image.width, image.height):
                found.append(
                    Finding(
                        Fault.SIZE,
                        image.name,
                        f"photo {size[0]}x{size[1]}, truth {image.width}x{image.height}",
                    )
                )
        if not image.instances:
            found.append(Finding(Fault.NOTHING, image.name))
        yield Looked(image.name, tuple(found), looked.fingerprint)


@dataclass(frozen=True)
class Checked:
    """A checked data set.

    Attributes:
        task: the task of its layout.
        benchmark: the benchmark, if its folder is named like one.
        photos: number of photos.
        groups: number of groups, for CoSOD.
        findings: all faults, by photo.
    """

    task: Task
    benchmark: Benchmark | None
    photos: int
    groups: int | None
    findings: tuple[Finding, ...]

    @property
    def as_expected(self) -> bool:
        """Whether the counts are those of the benchmark; True for other sets."""
        known = self.benchmark
        if known is None or known.task is not self.task:
            return True
        return known.part_of(self.photos) is not None and known.groups in (None, self.groups)

    @property
    def good(self) -> bool:
        """Whether an evaluation can run on the whole benchmark."""
        counts = Counter(finding.fault for finding in self.findings)
        return self.as_expected and not any(
            fault.fatal or (fault.fatal_if_most and 2 * count > self.photos)
            for fault, count in counts.items()
        )


def check_data(
    root: str | Path,
    task: Task | None = None,
    against: str | Path | None = None,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Check a data set.

    Args:
        root: the data set's folder, see `saliency_r1.data.layouts`.
        task: the task; by default from the benchmark's name, otherwise from the layout.
        against: a second set, or any folder of photos, in which to find duplicates.
        workers: number of processes; 0 uses this one.
        progress: called with the number of finished photos and of all photos.

    Raises:
        SaliencyError: if the layout is unknown, or photos and masks do not match.
    """
    root = Path(root)
    benchmark = find_benchmark(root.parent.name if root.suffix == ".json" else root.name)
    task = task or (benchmark.task if benchmark else task_of(root))
    second = photos_of(against) if against is not None else []
    if task is Task.SIS:
        images = list(load_instances(root))
        samples = [Sample(image.name, image.image) for image in images]
        looked = list(_report(look_at_instances(images), len(images) + len(second), progress))
    else:
        samples = load_maps(root, task)
        looked = _look_at_all(samples, workers, lambda done: progress(done, len(samples) + len(second)))
    first = len(samples)
    others = _look_at_all(second, workers, lambda done: progress(first + done, first + len(second)))
    findings = [finding for one in looked for finding in one.findings]
    seen = [one.fingerprint for one in looked if one.fingerprint is not None]
    for name, other, exact in duplicates(seen):
        findings.append(Finding(Fault.DUPLICATE if exact else Fault.NEAR_DUPLICATE, name, f"= {other}"))
    for name, other, exact in duplicates(
        seen, [one.fingerprint for one in others if one.fingerprint is not None]
    ):
        findings.append(Finding(Fault.AGAINST if exact else Fault.NEAR_AGAINST, name, f"= {other}"))
    groups = len({group_of(sample.name) for sample in samples}) if task is Task.COSOD else None
    return Checked(task, benchmark, len(samples), groups, tuple(findings))


def photos_of(root: str | Path) -> list[Sample]:
    """Return the photos of a data set, or of any folder, without masks.

    Raises:
        SaliencyError: if there are no photos.
    """
    try:
        task = task_of(root)
        if task is Task.SIS:
            return [Sample(image.name, image.image) for image in load_instances(root)]
        return [Sample(sample.name, sample.image) for sample in load_maps(root, task)]
    except SaliencyError:
        found = [item for item in find_images([root]) if isinstance(item, FoundImage)]
    if not found:
        raise SaliencyError(f"{root}: no photos to compare with")
    return [Sample(item.stem, item.path) for item in found]


def _look_at_all(samples: Sequence[Sample], workers: int, progress: Callable[[int], None]) -> list[Looked]:
    chunks = (tuple(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK))
    looked: list[Looked] = []
    for _, found in map_unordered(look, chunks, workers, preload=(__name__,)):
        looked += found
        progress(len(looked))
    return sorted(looked, key=lambda one: one.name)


def _report(looked: Iterator[Looked], total: int, progress: Callable[[int, int], None]) -> Iterator[Looked]:
    for done, one in enumerate(looked, 1):
        progress(done, total)
        yield one
