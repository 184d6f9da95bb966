"""The markers of a JPEG file, which say whether it is whole."""

from __future__ import annotations

import re
import struct

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
"""In entropy-coded data, where FF 00 is a byte and restarts belong to the scan."""


def is_whole_jpeg(encoded: bytes) -> bool:
    """Say whether each segment and scan of a JPEG ends where the next marker is, up to the end-of-image marker.

    True only of one frame, Huffman-coded and not lossless, of which no component is in two sequential scans: of such
    files DALI and PIL decode the same. Definition: ITU-T T.81, annex B.
    """
    if not encoded.startswith(_SOI):
        return False
    position, frame, components_left, has_scan = len(_SOI), 0, 0, False
    while position + 4 < len(encoded):
        ff, marker, length, first = struct.unpack_from(">BBHB", encoded, position)
        if ff != 0xFF or marker == _EOI[1]:
            break
        if marker in _FRAMES:
            if frame or marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE) or length < 8:
                return False
            frame, components_left = marker, encoded[min(position + 9, len(encoded) - 1)]
        position += 2 + length
        if marker == _SOS:
            has_scan = True
            components_left -= first if frame != _PROGRESSIVE else 0
            found = _MARKER.search(encoded, position)
            position = len(encoded) if found is None else found.start()
    return has_scan and frame != 0 and components_left >= 0 and encoded[position : position + 2] == _EOI
