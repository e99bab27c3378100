"""The foregrounds that scenes are composed of: photos of one whole object, with name and typical length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.samples import Sample, Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.naming import OBJECT, NameBook
from saliency_r1.scenes.cutouts import SIDES
from saliency_r1.scenes.packed import PackedPhotos

# Typical lengths in metres by lemma or hypernym; the nearest in the chain counts.
_METRES = {
    lemma: metres
    for metres, lemmas in (
        (0.03, "insect|arthropod"),
        (0.1, "edible fruit|vegetable|produce|food|toiletry|frog|invertebrate|cosmetic|ware|ball"),
        (
            0.2,
            "rodent|finch|passerine|container|bottle|drinking vessel|dish|toy dog|crab|lobster|device|tool",
        ),
        (
            0.35,
            "bird|lizard|saurian|turtle|headdress|handbag|bag|home appliance|electronic equipment|leporid",
        ),
        (
            0.6,
            "cat|dog|canine|monkey|fish|snake|equipment|implement|musical instrument|garment|aquatic bird",
        ),
        (1.0, "guitar|furniture|wild dog|working dog|swine|sheep|sea turtle|white goods|primate"),
        (
            1.8,
            "person|seal|ungulate|bear|big cat|bicycle|motorcycle|table|sofa|piano|stringed instrument|bovid",
        ),
        (2.5, "horse|cattle|equine|camel|cart|wagon|alligator|elasmobranch"),
        (4.0, "vehicle|car|motor vehicle|elephant|proboscidean|cetacean|structure|boat"),
        (9.0, "bus|truck|train|public transport|craft|ship|aircraft|building"),
    )
    for lemma in lemmas.split("|")
}
_UNKNOWN_METRES = 0.8


class Foregrounds:
    """The photos of one split for composing scenes.

    A photo gives a foreground if its mask is one object: 2 to 70 % of the picture, at least 90 % of it in one
    connected part, and not cut at two opposite sides. Each photo can be a background.

    Args:
        photos: packed squares of any size.
        synsets: the synset of each photo's object, or None.
        colours: the colour word of each photo's object, or None.
        aspects: width over height of each photo before it was resized to a square; 1 if not given.

    Raises:
        SaliencyError: if the lengths differ or no photo gives a foreground.
    """

    def __init__(
        self,
        photos: PackedPhotos,
        synsets: Sequence[Synset | None],
        colours: Sequence[str | None],
        aspects: Sequence[float] | None = None,
    ) -> None:
        if not len(photos) == len(synsets) == len(colours) == len(aspects or photos.names):
            raise SaliencyError(
                f"{len(photos)} photos with {len(synsets)} synsets and {len(colours)} colours: expected one "
                "of each for each photo"
            )
        self.photos, self.synsets, self.colours = photos, tuple(synsets), tuple(colours)
        self.size = int(photos.images.shape[1])
        self.aspects = np.asarray(aspects if aspects is not None else np.ones(len(photos)), float)
        outlines = [_outline(mask) for mask in photos.masks]
        self.areas = np.array([outline.area for outline in outlines])
        self.small = np.stack([outline.small for outline in outlines])
        self.cut = [outline.cut for outline in outlines]
        book = NameBook(Counter(synset for synset in synsets if synset))
        self.names = [book.name(synset) if synset else None for synset in synsets]
        self.rows = np.array([row for row, outline in enumerate(outlines) if outline.whole], int)
        self.named = np.array([row for row in self.rows if self.names[row] not in (None, OBJECT)], int)
        if len(self.rows) == 0:
            raise SaliencyError(f"none of {len(photos)} photos holds one whole object to cut out")
        if len(self.named) == 0:
            self.named = self.rows
        self.of_name: dict[str | None, np.ndarray] = {}
        self.of_synset: dict[Synset, np.ndarray] = {}
        for name in dict.fromkeys(self.names[row] for row in self.named):
            self.of_name[name] = np.array([row for row in self.named if self.names[row] == name], int)
        for synset in dict.fromkeys(self.synsets[row] for row in self.named):
            if synset is not None:
                self.of_synset[synset] = np.array([row for row in self.named if synsets[row] == synset], int)
        self.metres = np.array([_metres(synset) for synset in synsets])
        shares = np.where(self.areas > 0.002, self.areas, 1.0)
        self.backgrounds = np.argsort(shares, kind="stable")[: max(2, int(0.6 * len(photos)))]

    @classmethod
    def open(cls, samples: Sequence[Sample], cache: str | Path, size: int = 256) -> Foregrounds:
        """Read the foregrounds of samples, in true shapes; `cache` keeps their packed form.

        Raises:
            SaliencyError: see `PackedPhotos.open`.
        """
        photos = PackedPhotos.open(samples, cache, size)
        aspects = []
        for sample in samples:
            with Image.open(sample.image) as image:
                aspects.append(image.width / image.height)
        return cls(photos, [sample.synset for sample in samples], photos.colours(), aspects)


@dataclass(frozen=True)
class _Outline:
    small: np.ndarray  # bool (32, 32), every cell that the mask touches
    area: float
    whole: bool
    cut: frozenset[str]


def _outline(mask: np.ndarray) -> _Outline:
    from scipy.ndimage import label

    step = max(1, mask.shape[0] // 128)
    solid = np.asarray(mask[::step, ::step]) > 127
    area = float(solid.mean())
    box = Image.fromarray(solid.astype(np.uint8) * np.uint8(255)).resize((32, 32), Image.Resampling.BOX)
    small = np.asarray(box) > 0
    if not 0.02 <= area <= 0.7:
        return _Outline(small, area, False, frozenset())
    labels, _ = label(solid, np.ones((3, 3), int))
    main = np.bincount(labels.ravel())[1:].max() / solid.sum()
    # Drawn masks often end one or two pixels before the side.
    edges = (solid[:, :2].any(1), solid[:, -2:].any(1), solid[:2].any(0), solid[-2:].any(0))
    cut = frozenset(side for side, edge in zip(SIDES, edges, strict=True) if edge.mean() > 0.03)
    whole = main >= 0.9 and not {"left", "right"} <= cut and not {"top", "bottom"} <= cut
    return _Outline(small, area, bool(whole), cut)


def _metres(synset: Synset | None) -> float:
    if synset is None:
        return _UNKNOWN_METRES
    chain = (synset.name, *synset.hypernyms)
    return next((_METRES[lemma] for lemma in chain if lemma in _METRES), _UNKNOWN_METRES)
