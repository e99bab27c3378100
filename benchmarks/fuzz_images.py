"""Damages small pictures of all formats, seeded, and sees that each is read or refused within bounds.

    python benchmarks/fuzz_images.py --count 100000

Picture N of a seed is always the same bytes. Each is read as a photo and as a mask, in a worker process. What
kills it, takes over 10 s, raises anything but an `ImageError` or needs over 2 GB is a failure, and is written
to --out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageCms

HANG_SECONDS, ASLEEP_SECONDS = 10.0, 300.0
MOST_BYTES = 2 << 30
SIZE = (24, 16)

READ, REFUSED = "read", "refused"


@cache
def originals() -> dict[str, bytes]:
    """A small picture of every format, mode and kind of compression that is read, by name."""
    photo = _photo()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    frames = [photo.rotate(90 * turn) for turn in range(1, 3)]
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * np.uint16(257))
    floats = Image.fromarray(np.asarray(photo.convert("L")).astype(np.float32) / 255)
    found: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, kind: str, **options: Any) -> None:
        file = BytesIO()
        if "append_images" in options:  # JPEG's writer leaves its settings on the images it wrote
            options["append_images"] = [frame.copy() for frame in options["append_images"]]
        image.copy().save(file, format=kind, **options)
        found[name] = file.getvalue()

    add("jpeg", photo, "JPEG", exif=exif, icc_profile=profile)
    add("jpeg progressive", photo, "JPEG", progressive=True, restart_marker_rows=1)
    add("jpeg grey", photo.convert("L"), "JPEG")
    add("jpeg cmyk", photo.convert("CMYK"), "JPEG")
    add("jpeg mpo", photo, "MPO", save_all=True, append_images=frames)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        add(f"png {mode}", photo.convert(mode), "PNG", exif=exif, icc_profile=profile)
    add("png P transparent", photo.convert("P"), "PNG", transparency=bytes(range(200)))
    add("png I;16", deep, "PNG", transparency=500)
    add("png animated", photo, "PNG", save_all=True, append_images=frames)
    found["png interlaced"] = _interlaced(np.asarray(photo))
    add("webp", photo, "WEBP", exif=exif, icc_profile=profile)
    add("webp lossless", photo.convert("RGBA"), "WEBP", lossless=True)
    add("webp animated", photo, "WEBP", save_all=True, append_images=frames)
    add("gif", photo, "GIF", transparency=3)
    add("gif animated", photo, "GIF", save_all=True, append_images=frames)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"tiff {compression}", photo, "TIFF", compression=compression, exif=exif)
    add("tiff 1 group4", photo.convert("1"), "TIFF", compression="group4")
    add("tiff CMYK", photo.convert("CMYK"), "TIFF", icc_profile=profile)
    add("tiff P", photo.convert("P"), "TIFF")
    add("tiff LAB", photo.convert("LAB"), "TIFF")
    add("tiff I;16", deep, "TIFF")
    add("tiff F", floats, "TIFF")
    add("tiff pages", photo, "TIFF", save_all=True, append_images=frames, big_tiff=True)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        add(f"bmp {mode}", photo.convert(mode), "BMP")
    for mode in ("1", "L", "RGB"):
        add(f"ppm {mode}", photo.convert(mode), "PPM")
    add("ppm I", deep.convert("I"), "PPM")
    add("ppm F", floats, "PPM")
    found["ppm plain"] = b"P3 4 3 255\n" + b" ".join(b"%d" % (value * 7 % 256) for value in range(36)) + b"\n"
    add("avif", photo, "AVIF", exif=exif)
    add("avif RGBA", photo.convert("RGBA"), "AVIF")
    add("jpeg2000", photo, "JPEG2000")
    add("jpeg2000 stream", photo.convert("L"), "JPEG2000", no_jp2=True)
    try:
        import pillow_heif
    except ImportError:
        return found
    file = BytesIO()
    pillow_heif.from_pillow(photo.resize((64, 64))).save(file, quality=60)
    found["heic"] = file.getvalue()
    return found


def _photo() -> Image.Image:
    columns, rows = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    noise = np.random.default_rng(0).uniform(0, 60, (SIZE[1], SIZE[0], 3))
    pixels = np.stack([200 * columns, 180 * rows, 150 * np.hypot(columns - 0.5, rows - 0.5)], axis=2) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _interlaced(pixels: np.ndarray) -> bytes:
    passes = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx])
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def damaged(number: int, seed: int = 0) -> tuple[str, bytes]:
    """Picture `number` of the seed: the name of its original, and its bytes."""
    random = Random(f"{seed}:{number}")
    names = sorted(originals())
    name = names[number % len(names)]
    data = bytearray(originals()[name])
    for _ in range(1 + int(random.expovariate(0.7))):
        if data:
            random.choice(_MUTATIONS)(data, random)
    return name, _with_checksums(bytes(data)) if random.random() < 0.5 else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that what is in them is looked at; others as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, place = [data[:8]], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        content = data[place + 4 : place + 8 + length]
        parts += [data[place : place + 4], content, struct.pack(">I", zlib.crc32(content))]
        place += 12 + length
    return b"".join(parts)


def _flip(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data))
    data[place] ^= 1 << random.randrange(8)


def _set(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, random.randrange(256)))


def _head(data: bytearray, random: Random) -> None:
    """Where sizes, depths and counts stand."""
    data[random.randrange(min(len(data), 80))] = random.randrange(256)


def _number(data: bytearray, random: Random) -> None:
    value = random.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, random.getrandbits(16)))
    place = random.randrange(len(data))
    data[place : place + 4] = value.to_bytes(4, random.choice(("big", "little")))


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data)) :]


def _drop(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data))
    del data[place : place + random.randrange(1, 40)]


def _repeat(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data))
    part = data[place : place + random.randrange(1, 60)]
    data[place:place] = part * random.randrange(1, 5)


def _insert(data: bytearray, random: Random) -> None:
    place = random.randrange(len(data))
    data[place:place] = random.randbytes(random.randrange(1, 20))


def _zeros(data: bytearray, random: Random) -> None:
    place, length = random.randrange(len(data)), random.randrange(1, 60)
    data[place : place + length] = bytes(min(length, len(data) - place))


def _splice(data: bytearray, random: Random) -> None:
    """The end of another picture."""
    other = originals()[random.choice(sorted(originals()))]
    place = random.randrange(len(data))
    data[place:] = other[min(place, len(other) - 1) :]


_MUTATIONS: Sequence[Callable[[bytearray, Random], None]] = (
    *(_flip, _flip, _set, _set, _head, _head, _number, _number),
    *(_cut, _drop, _repeat, _insert, _zeros, _splice),
)


def outcome(content: bytes, *, accept_truncated: bool) -> str:
    """What became of a damaged picture as a photo and as a mask: `read`, `refused`, or what went wrong."""
    from saliency_r1.data.mask_files import read_mask
    from saliency_r1.errors import ImageError
    from saliency_r1.images import load_layers

    came = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (
            lambda: load_layers(content, accept_truncated=accept_truncated).image.mode,
            lambda: read_mask(content).grey.dtype.name,
        ):
            try:
                kind = read()
                came.append(READ if kind in ("RGB", "uint8") else f"gave {kind}")
            except ImageError as error:
                came.append(REFUSED if len(str(error).splitlines()) == 1 else "an error of several lines")
            except Exception as error:
                came.append(f"{type(error).__name__}: {error}")
    wrong = [each for each in came if each not in (READ, REFUSED)]
    return wrong[0] if wrong else came[0]


@dataclass(frozen=True)
class Done:
    """One picture that was tried.

    Attributes:
        number: of the picture.
        name: of its original.
        outcome: see `outcome`.
        seconds: of CPU time that it took.
        peak_bytes: of the worker's memory so far.
    """

    number: int
    name: str
    outcome: str
    seconds: float
    peak_bytes: int


def _work(connection: Connection, seed: int) -> None:
    """A worker: try the pictures of each range that comes, and tell of each."""
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    while (numbers := connection.recv()) is not None:
        for number in numbers:
            name, content = damaged(number, seed)
            start = time.process_time()  # unlike the clock's it does not depend on what else runs
            came = outcome(content, accept_truncated=bool(number % 2))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
            connection.send(Done(number, name, came, time.process_time() - start, peak))


def fuzz(numbers: range, seed: int = 0) -> Iterator[Done]:
    """Try pictures in a worker process; one that dies or hangs is replaced, and its picture told."""
    context: Any = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    left = list(numbers)
    while left:
        here, there = context.Pipe()
        worker = context.Process(target=_work, args=(there, seed), daemon=True)
        worker.start()
        there.close()
        here.send(left)
        try:
            if not here.poll(120):  # its imports
                raise TimeoutError
            while left:
                _wait(here, worker.pid)
                done: Done = here.recv()
                left.pop(0)
                yield done
            here.send(None)
            worker.join()
        except (EOFError, OSError, psutil.Error) as error:
            worker.kill()
            worker.join()
            number = left.pop(0)
            what = "hangs" if isinstance(error, TimeoutError) else f"kills the process ({worker.exitcode})"
            yield Done(number, damaged(number, seed)[0], what, HANG_SECONDS, 0)
        finally:
            here.close()


def _wait(connection: Connection, pid: int) -> None:
    """Wait for the next picture, as long as the worker has not worked on it for too long.

    Raises:
        TimeoutError: if it has, or if it sleeps.
    """
    process = psutil.Process(pid)
    before, start = sum(process.cpu_times()[:2]), time.monotonic()
    while not connection.poll(1.0):
        worked = sum(process.cpu_times()[:2]) - before
        if worked > HANG_SECONDS or time.monotonic() - start > ASLEEP_SECONDS:
            raise TimeoutError


def is_failure(done: Done) -> bool:
    """Whether a picture was neither read nor refused, or not within the bounds."""
    return done.outcome not in (READ, REFUSED) or done.seconds > HANG_SECONDS or done.peak_bytes > MOST_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the pictures that fail")
    given = parser.parse_args()
    outcomes: dict[str, Counter[str]] = {}
    failures: list[Done] = []
    slowest, peak, count = 0.0, 0, 0
    for done in fuzz(range(given.start, given.start + given.count), given.seed):
        count += 1
        came = done.outcome if done.outcome in (READ, REFUSED) else "failed"
        outcomes.setdefault(done.name.partition(" ")[0], Counter())[came] += 1
        slowest, peak = max(slowest, done.seconds), max(peak, done.peak_bytes)
        if is_failure(done):
            failures.append(done)
            took = f"{done.seconds:.1f} s, {done.peak_bytes:,} bytes"
            print(f"{done.number}: {done.name}: {done.outcome}, {took}", flush=True)
            if given.out is not None:
                given.out.mkdir(parents=True, exist_ok=True)
                (given.out / f"{given.seed}-{done.number}").write_bytes(damaged(done.number, given.seed)[1])
        if count % 5000 == 0:
            print(f"{count:,} pictures, {len(failures)} failures", file=sys.stderr, flush=True)
    print("| format | pictures | read | refused | failed |\n|---|--:|--:|--:|--:|")
    for kind, counts in sorted(outcomes.items()):
        cells = counts.total(), counts[READ], counts[REFUSED], counts["failed"]
        print(f"| {kind} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    print(
        f"\n{count:,} pictures of seed {given.seed} from {given.start:,} on, {len(failures)} failures, "
        f"slowest {slowest:.2f} s, peak {peak / 1e9:.2f} GB"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
