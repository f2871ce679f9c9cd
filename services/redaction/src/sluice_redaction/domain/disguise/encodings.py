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
            decoded, encoding = _readable(_unhex(encoded)), "hex"
        else:
            decoded, encoding = _readable(_unbase64(encoded[:_HEAD]), cut=len(encoded) > _HEAD), "base64"
            if decoded and len(encoded) > _HEAD:
                decoded = _readable(_unbase64(encoded))
        if decoded:
            yield Blob(*match.span(), decoded, encoding)


def _unhex(encoded: str) -> bytes:
    return bytes.fromhex(encoded)


def _unbase64(encoded: str) -> bytes:
    body = encoded.translate(_TO_STANDARD)
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error:
        return b""


def _readable(content: bytes, *, cut: bool = False) -> str:
    """The text, or nothing if it is none. cut: the last character may be a part."""
    if cut:
        while content and content[-1] >= 0x80:
            content = content[:-1]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return ""
    return "" if _UNREADABLE.search(text) else text
