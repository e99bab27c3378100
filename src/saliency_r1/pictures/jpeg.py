"""JPEG files as viewers take them: without what only describes the picture, where that is damaged."""

from __future__ import annotations

_ADOBE, _COMMENT, _SCAN = 0xEE, 0xFE, 0xDA
_APPLICATION = range(0xE0, 0xF0)


def without_descriptions(content: bytes) -> bytes | None:
    """Give a JPEG file without its application segments and comments; None if there are none.

    Adobe's segment stays, which tells how colours are kept.
    """
    kept, place, found = [content[:2]], 2, False
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _SCAN:
        marker = content[place + 1]
        if marker == 0xFF:  # a filler
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _COMMENT or (marker in _APPLICATION and marker != _ADOBE):
            found = True
        else:
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]]) if found else None
