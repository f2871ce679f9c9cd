"""Disguise by encoding: base64 and hexadecimal of a text. What decodes to no readable text is left alone."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOB = re.compile(r"(?<![A-Za-z0-9+/_\-=])[A-Za-z0-9+/_\-]{16,8000}={0,2}(?![A-Za-z0-9+/_\-])")
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}){8,}")
_TO_STANDARD = str.maketrans("-_", "+/")
_UNREADABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_PARTS = bytes(range(0x80, 0x100))  # of characters beyond ASCII
_HEAD = 64  # characters decoded first: an image or a hash is known after these


@dataclass(frozen=True, slots=True)
class Blob:
    """`[start, end)` of a text is an encoding of `decoded`."""

    start: int
    end: int
    decoded: str
    encoding: str


def blobs(text: str) -> Iterator[Blob]:
    """The encoded texts in a text, each up to 8,000 characters."""
    for match in _BLOB.finditer(text):
        encoded = match[0].rstrip("=")
        if _HEXADECIMAL.fullmatch(encoded):
            decoded, encoding = _readable(bytes.fromhex(encoded)), "hex"
        else:
            decoded, encoding = _decoded(encoded), "base64"
        if decoded:
            yield Blob(*match.span(), decoded, encoding)


def _decoded(encoded: str) -> str:
    """The text, or nothing. A long one may begin in the middle of another, where a text was cut: then it begins to make
    sense one to three characters later."""
    for shift in range(4 if len(encoded) >= _HEAD else 1):
        rest = encoded[shift:]
        if _readable(_unbase64(rest[:_HEAD]), cut=len(rest) > _HEAD or shift > 0):
            return _readable(_unbase64(rest[: len(rest) - len(rest) % 4] if shift else rest), cut=shift > 0)
    return ""


def _unbase64(encoded: str) -> bytes:
    body = encoded.translate(_TO_STANDARD)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error:
        return b""


def _readable(content: bytes, *, cut: bool = False) -> str:
    """The text, or nothing if it is none. cut: the first and the last character may be parts."""
    if cut:
        content = content.strip(_PARTS)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return ""
    return "" if _UNREADABLE.search(text) else text
