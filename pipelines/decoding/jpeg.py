"""The markers of a JPEG file, which say whether it is whole."""

from __future__ import annotations

import struct

import numpy as np

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_STUFFED_OR_RESTART = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8)])


def is_whole_jpeg(encoded: bytes) -> bool:
    """Say whether each segment and scan of a JPEG ends where the next marker is, up to the end-of-image marker.

    True only of one frame, Huffman-coded and not lossless, of which no component is in two sequential scans: of such
    files DALI and PIL decode the same. Definition: ITU-T T.81, annex B.
    """
    if not encoded.startswith(_SOI):
        return False
    content = np.frombuffer(encoded, np.uint8)
    at_ff = np.flatnonzero(content[:-1] == 0xFF)
    at_marker = at_ff[~_STUFFED_OR_RESTART[content[at_ff + 1]]]
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
            position = int(min(at_marker[np.searchsorted(at_marker, position) :][:1], default=len(encoded)))
    return has_scan and frame != 0 and components_left >= 0 and encoded[position : position + 2] == _EOI
