"""E-mail addresses by their syntax.

Presidio's recognizer drops every address outside of the public suffix list, and with it the addresses of a company's own
network (`.local`, `.internal`, `.corp`), which name people just as well.
"""

import re

from presidio_analyzer.predefined_recognizers import EmailRecognizer

from .recognizer import Check, Pattern, Recognizer

# Presidio's own pattern lets the local part run on without end, which is quadratic on a long line of dots; 64 is the
# standard's limit (RFC 5321). The domain is bounded likewise. Letters of other alphabets count (RFC 6531).
_LETTER = "A-Za-z0-9À-ɏͰ-ӿ一-鿿"
_EMAIL = (
    rf"(?<![{_LETTER}_.+\-])[{_LETTER}_!#$%&'*+\-/=?^`{{|}}~.]{{1,64}}@(?:[{_LETTER}](?:[{_LETTER}_\-]{{0,62}})\.){{1,8}}"
    rf"[A-Za-zÀ-ɏͰ-ӿ一-鿿][{_LETTER}\-]{{1,62}}(?![{_LETTER}\-])"
)
_AT_HOST = rf"(?<![{_LETTER}_.+\-])[{_LETTER}_.+\-]{{1,64}}@\[?(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}\]?(?![0-9])"
# `scheme://user:` before it makes it the password of a URL, which is a secret and no address.
_URL_USER = re.compile(r"://[^\s/@:]{1,64}:$")


def _in_a_url(text: str, start: int, _end: int) -> bool:
    return _URL_USER.search(text[max(0, start - 80) : start]) is not None


def emails() -> Recognizer:
    """The recognizer of EMAIL_ADDRESS. A public suffix gives the full score."""
    theirs = EmailRecognizer()
    suffix = Check("public suffix", lambda value: theirs.validate_result(value) or None)
    return Recognizer(
        "EmailRecognizer",
        "EMAIL_ADDRESS",
        [Pattern.of("address", _EMAIL, 0.8, check=suffix), Pattern.of("address at a number", _AT_HOST, 0.7)],
        confirmed=True,
        veto=_in_a_url,
    )
