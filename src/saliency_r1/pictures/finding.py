"""Find the pictures of files, folders and globs, and report what is skipped."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from saliency_r1.errors import ImageError
from saliency_r1.files import printable
from saliency_r1.pictures.decoding import can_read_heif, is_picture
from saliency_r1.pictures.own_files import is_own

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The endings of pictures in folders and globs, in lower case."""

_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_UNREAD_SUFFIXES = frozenset(
    {".3fr", ".ai", ".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".ico", ".iiq", ".jxl", ".kdc"}
    | {".nef", ".nrw", ".orf", ".pef", ".psb", ".psd", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".svg"}
    | {".svgz", ".tga", ".x3f", ".xcf"}
)
"""Endings of pictures and drawings in formats that are not read."""

_NAMED = 3


@dataclass(frozen=True)
class FoundImage:
    """A picture to read, with the name of its outputs.

    Attributes:
        path: the file.
        stem: relative path without suffix, with `/` between folders; unique within one `find_images`
            call, ignoring case.
    """

    path: Path
    stem: str


class LeftOut:
    """The skipped pictures in folders and globs: file names by kind, and what to do.

    Args:
        out: the folder that results go to.
    """

    HEIF = "HEIC without pillow-heif (pip install 'saliency-r1[heif]')"
    UNREAD = "of a format that is not read (convert to JPEG, PNG or TIFF)"
    ENDING = "without a picture's ending (give them by name)"
    NAME = "with a name that is not UTF-8 (rename them)"
    OWN = "written by saliency-r1 (give them by name to process them)"

    def __init__(self, out: Path | None) -> None:
        self.out = os.path.realpath(out) if out is not None else None
        self._paths: dict[str, dict[Path, None]] = {}

    def add(self, kind: str, path: Path) -> None:
        """Skip a file."""
        self._paths.setdefault(kind, {})[path] = None

    @property
    def count(self) -> int:
        """The number of pictures."""
        return sum(map(len, self._paths.values()))

    def takes(self, path: Path, *, is_local: bool = True) -> bool:
        """Whether a file is skipped or is no picture; a skipped one is added.

        Args:
            path: the file; only its name matters if it is not local.
            is_local: whether it can be read at no cost.
        """
        suffix = path.suffix.lower()
        if suffix in _UNREAD_SUFFIXES:
            self.add(self.UNREAD, path)
        elif suffix not in IMAGE_SUFFIXES:
            if is_local and is_picture(path):
                self.add(self.ENDING, path)
        elif suffix in _HEIF_SUFFIXES and not can_read_heif():
            self.add(self.HEIF, path)
        elif is_local and is_own(path):
            self.add(self.OWN, path)
        else:
            return False
        return True

    def warn(self) -> None:
        """Report the skipped pictures, if there are any."""
        if self.count:
            warnings.warn(self.line(), stacklevel=3)

    def line(self) -> str:
        """Return all of them on one line."""
        kinds = []
        for kind, paths in self._paths.items():
            shown = ", ".join(printable(path.name) for path in list(paths)[:_NAMED])
            more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
            kinds.append(f"{len(paths):,} {kind}: {shown}{more}")
        return f"pictures left out: {'; '.join(kinds)}"


def find_images(
    inputs: Sequence[str | Path], *, out: str | Path | None = None
) -> list[FoundImage | ImageError]:
    """Find the pictures that files, folders and globs name.

    A file may have any name. A folder is searched recursively for pictures with an ending in
    `IMAGE_SUFFIXES`, sorted; so are the folders that a glob (`holiday/**/*.jpg`) matches. Hidden files and
    folders are skipped. A name that exists is never read as a glob. A file that is reached twice is listed
    once.

    In folders and globs these pictures are skipped too, and one warning counts and names them: pictures that
    `saliency-r1` wrote, files in `out`, HEIC if pillow-heif is not installed, formats that are not read
    (camera raw files, SVG, …), and pictures without a picture's ending.

    The stem of a file is its name; in a folder or glob it includes the path from there. If stems would be
    equal (`a/dog.jpg b/dog.jpg`), the first keeps its own and the others get `-2`, `-3`, … in the order
    given.

    Args:
        inputs: paths and globs.
        out: the output folder.

    Returns:
        In the given order, a `FoundImage` for each picture, and an `ImageError` for each input without one
        (not raised, so that the other pictures can be processed).
    """
    found: list[tuple[Path, str] | ImageError] = []
    seen: set[tuple[str, str]] = set()
    left_out = LeftOut(None if out is None else Path(out))
    for given in inputs:
        for item in _expand(given, left_out):
            if isinstance(item, ImageError):
                found.append(item)
                continue
            # The link's own name counts: two links to one file are two pictures.
            key = (os.path.realpath(item[0].parent), item[0].name)
            if key not in seen:
                seen.add(key)
                found.append(item)
    left_out.warn()

    wanted = Counter(item[1].casefold() for item in found if not isinstance(item, ImageError))
    taken: set[str] = set()
    result: list[FoundImage | ImageError] = []
    for item in found:
        if isinstance(item, ImageError):
            result.append(item)
            continue
        path, stem = item
        number = 1
        unique = stem
        while unique.casefold() in taken or (number > 1 and unique.casefold() in wanted):
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        result.append(FoundImage(path, unique))
    return result


def _expand(given: str | Path, left_out: LeftOut) -> Iterator[tuple[Path, str] | ImageError]:
    """Return the pictures of one input, each with the stem that it would have alone."""
    text, path = str(given), Path(given)
    name = printable(text)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        yield ImageError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error})")
        return
    before = left_out.count
    nothing = True
    if text and is_folder:
        for item in _walk(path, path, left_out):
            nothing = False
            yield item
        if nothing:
            yield ImageError(f"{name}: no pictures in this folder{_but(left_out.count - before)}")
    elif text and exists:
        yield path, path.stem
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        yield ImageError(f"{name}: is an address, and files are read here; download it first")
    elif text == "-":
        yield ImageError("-: standard input is not read here; give a file, a folder or a glob")
    elif _is_glob(text):
        base = _glob_base(path)
        for match in sorted(map(Path, glob.glob(text, recursive=True))):  # noqa: PTH207
            for item in _walk(match, base, left_out) if match.is_dir() else _picture(match, base, left_out):
                nothing = False
                yield item
        if nothing:
            yield ImageError(f"{name}: no picture matches{_but(left_out.count - before)}")
    else:
        yield ImageError(f"{name or repr('')}: no such file or folder")


def _but(count: int) -> str:
    return f" but the {count:,} left out" if count else ""


def _walk(folder: Path, base: Path, left_out: LeftOut) -> Iterator[tuple[Path, str] | ImageError]:
    failures: list[OSError] = []
    top = os.path.realpath(folder)
    visited = {top}
    for root, folders, files in os.walk(folder, onerror=failures.append, followlinks=True):
        for failure in failures:
            yield ImageError(f"{printable(str(failure.filename))}: {failure.strerror}")
        failures.clear()
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(Path(root, name))
            if name.startswith(".") or real in visited:  # a link may lead back up
                continue
            visited.add(real)
            if real == left_out.out:
                for picture in _pictures_below(Path(root, name)):
                    left_out.add(LeftOut.OWN, picture)
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            yield from _picture(Path(root, name), base, left_out)
    for failure in failures:
        yield ImageError(f"{printable(str(failure.filename))}: {failure.strerror}")


def _pictures_below(folder: Path) -> Iterator[Path]:
    for root, _, files in os.walk(folder):
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(root, name)


def _picture(path: Path, base: Path, left_out: LeftOut) -> Iterator[tuple[Path, str]]:
    """Return the file with its stem relative to `base`, if its name is a picture's."""
    if path.name.startswith(".") or left_out.takes(path):
        return
    relative = Path(os.path.relpath(path, base))
    if ".." in relative.parts:
        relative = Path(path.name)
    yield path, relative.with_name(path.stem).as_posix()


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _glob_base(pattern: Path) -> Path:
    """Return the folders before the first wildcard."""
    plain: list[str] = []
    for part in pattern.parts[:-1]:
        if _is_glob(part):
            break
        plain.append(part)
    return Path(*plain)
