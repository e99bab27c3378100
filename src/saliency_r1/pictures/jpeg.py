"""Read JPEG files as viewers do: without damaged parts that only describe the picture."""

from __future__ import annotations

_ADOBE, _COMMENT, _SCAN = 0xEE, 0xFE, 0xDA
_APPLICATION = range(0xE0, 0xF0)


def without_descriptions(content: bytes) -> bytes | None:
    """Return a JPEG file without its application segments and comments; None if there are none.

    Adobe's segment is kept, because it defines the colours.
    """
    kept, place, found = [content[:2]], 2, False
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _SCAN:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _COMMENT or (marker in _APPLICATION and marker != _ADOBE):
            found = True
        else:
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]]) if found else None
