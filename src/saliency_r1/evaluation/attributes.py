"""Compute numbers by attribute: means over photos that are small, dark or occluded, as a CSV file says.

name,size,occluded
0001,small,1
0002,large,0
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saliency_r1.errors import SaliencyError

if TYPE_CHECKING:
    from saliency_r1.evaluation.evaluation import Row


@dataclass(frozen=True)
class Split:
    """The photos of a set that share a value of an attribute.

    Attributes:
        attribute, value: the entries of the CSV file.
        data: name of the set.
        photos: number of photos.
        means: the mean over these photos by method and metric; NaN where none of them has the metric.
    """

    attribute: str
    value: str
    data: str
    photos: int
    means: dict[tuple[str, str], float]


def read_attributes(path: Path) -> dict[str, dict[str, str]]:
    """Read the attributes of photos.

    Args:
        path: a CSV with a header. The first column holds the names of photos as in `per_image.csv`; each
            other column is an attribute. An empty cell says nothing.

    Returns:
        Value by attribute by photo.

    Raises:
        SaliencyError: if it cannot be read, has no attribute, or names a photo twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [line for line in csv.reader(file) if line] or [[]]
    except OSError as error:
        raise SaliencyError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise SaliencyError(f"{path}: is not a CSV file ({error})") from None
    if len(header) < 2:
        raise SaliencyError(f"{path}: expected a column with the names of photos and one for each attribute")
    found: dict[str, dict[str, str]] = {}
    for name, *cells in lines:
        if name in found:
            raise SaliencyError(f"{path}: {name} is there twice")
        if len(cells) != len(header) - 1:
            raise SaliencyError(f"{path}: {name} has {len(cells) + 1} columns, expected {len(header)}")
        values = zip(header[1:], (cell.strip() for cell in cells), strict=True)
        found[name] = {attribute: value for attribute, value in values if value}
    return found


def by_attribute(
    runs: Mapping[tuple[str, str], Mapping[str, Row]],
    attributes: Mapping[str, Mapping[str, str]],
    metrics: Sequence[str],
) -> list[Split]:
    """Compute the means of each method over the photos of each value of each attribute, set by set.

    Args:
        runs: the photos of runs, by method and set; those of a set have the same photos.
        attributes: see `read_attributes`.
        metrics: the metrics, whose means are taken over the photos' own values.

    Raises:
        SaliencyError: if no photo of the runs has an attribute.
    """
    splits = []
    for data in dict.fromkeys(data for _, data in runs):
        of_set = {method: run for (method, name), run in runs.items() if name == data}
        names = list(next(iter(of_set.values())))
        members: dict[tuple[str, str], list[str]] = {}
        for name in names:
            for pair in attributes.get(name, {}).items():
                members.setdefault(pair, []).append(name)
        for (attribute, value), photos in sorted(members.items()):
            means = {
                (method, metric): _mean([run[name].values.get(metric, np.nan) for name in photos])
                for method, run in of_set.items()
                for metric in metrics
            }
            splits.append(Split(attribute, value, data, len(photos), means))
    if not splits:
        example = next(iter(next(iter(runs.values()))))
        raise SaliencyError(
            f"the attributes are of no photo of these runs: expected names as in per_image.csv, such as "
            f"{example}"
        )
    return splits


def attributes_csv(splits: Sequence[Split]) -> bytes:
    """Return a CSV with a line for each set, attribute, value and method, with the means of the metrics."""
    metrics = list(dict.fromkeys(metric for split in splits for _, metric in split.means))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "attribute", "value", "photos", "method", *metrics])
    for split in splits:
        for method in dict.fromkeys(method for method, _ in split.means):
            values = [split.means[method, metric] for metric in metrics]
            cells = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([split.data, split.attribute, split.value, split.photos, method, *cells])
    return text.getvalue().encode()


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
