"""The prompt of a writer model: the photo with the true mask drawn on it, and what was measured."""

from __future__ import annotations

import numpy as np
from PIL import Image

from saliency_r1.language.cues import Cues
from saliency_r1.language.naming import OBJECT, is_person
from saliency_r1.language.statements import COMPARATIVES, PHRASES, Kind
from saliency_r1.overlay import paint_masks
from saliency_r1.writing.rationale import LONGEST_EXPRESSION

SHORTEST, LONGEST = 25, 80
"""Words in a reasoning."""

FORM = "<think>reasoning</think><answer><rg>expression</rg></answer>"


def show(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """The photo with the mask outlined in orange and faintly tinted.

    What is around it stays as it is: the writer is to see how the object stands out from it.

    Args:
        photo: RGB.
        mask: bool (H, W), of the photo's size.

    Returns:
        RGB image of the photo's size.
    """
    return paint_masks(photo, [mask.astype(np.float32)], dimmed=False)


def writer_prompt(cues: Cues, name: str) -> str:
    """The question to a writer model about a photo as `show` draws it.

    Args:
        cues: measured on the mask, which is not empty.
        name: what the object is called; `object` if that is not known.
    """
    filed = (
        "" if name == OBJECT else f' The photo is filed under "{name}"; the region may hold more than that.'
    )
    measured = "\n".join(f"- {statement}" for statement in clear_statements(cues, name))
    return "\n\n".join(
        [
            "In this photo an orange line surrounds the region that draws the eye first. The line and its "
            "tint were added: your reader sees the photo without them, so never mention them, nor that "
            f"anything was measured or given to you.{filed}",
            f"Measured on the region:\n{measured or '- nothing that is clear'}",
            "Write the reasoning of a viewer who looks at the plain photo and finds this region: what is "
            "there and where, how it looks, why it draws the eye more than the rest. "
            f"{SHORTEST} to {LONGEST} words, plain sentences. State what was measured in exactly the words "
            "above, and of place, size, colour, brightness and sharpness state nothing else. Put a colour "
            "directly before a noun only if the region itself has it; of what lies behind it say "
            '"green background".',
            'Then the expression: a noun phrase that begins with "the", of at most '
            f"{LONGEST_EXPRESSION} words, by which someone who has only these words finds the whole region "
            "and nothing else.",
            f"Write exactly this form and nothing around it:\n{FORM}",
        ]
    )


def clear_statements(cues: Cues, name: str = OBJECT) -> list[str]:
    """Return what may be said of an object, in phrases that `parse_statements` reads back.

    A person's own colour is left out: it is that of the clothes.
    """
    said = []
    for kind in (Kind.PLACE, Kind.SIZE, Kind.COLOUR, Kind.CONTRAST):
        for value in cues.clear(kind):
            if kind is Kind.COLOUR and is_person(name) and not value.startswith("background"):
                continue
            phrase = PHRASES[kind][value][0]
            if value in COMPARATIVES:
                phrase += " than the background" if value == "sharper" else " than the surroundings"
            elif kind is Kind.CONTRAST:
                phrase += " with the surroundings" if value == "little" else " to the surroundings"
            said.append(phrase)
    return said
