"""Web addresses.

Presidio's has 700 endings behind an open-ended head: 8 s for 8,000 characters of "a.a.a.". Ours starts only where a word
starts, and takes a name without a scheme for an address only with an ending that is no file extension.
"""

from .recognizer import Pattern, Recognizer

_CLOSED = r"(?<![.,;:!?)\]}])"
_SCHEME = rf"(?<![A-Za-z0-9])(?:https?|s?ftp|wss?|ldaps?|smb|s3|gs)://[^\s<>\"'`]{{1,2000}}{_CLOSED}"
_WWW = rf"(?<![A-Za-z0-9_.@\-])www\.[^\s<>\"'`@]{{2,2000}}{_CLOSED}"
_DOMAIN = (
    r"(?<![A-Za-z0-9_.@\-/])(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.){1,5}(?:com|org|net|edu|gov|info|biz|io|ai|dev|app|eu|uk|de"
    r"|fr|es|it|nl|ch|at|us|ca|au|jp|cn|in|br|ie|be|pl|se|no|dk|fi|pt|nz|za|sg|me|co)(?![A-Za-z0-9_.\-@(])"
    rf"(?:/[^\s<>\"'`]{{0,2000}}{_CLOSED})?"
)


def urls() -> Recognizer:
    """The recognizer of URL."""
    return Recognizer(
        "UrlRecognizer",
        "URL",
        [
            Pattern.of("with scheme", _SCHEME, 0.8, ignore_case=True),
            Pattern.of("www", _WWW, 0.7, ignore_case=True),
            Pattern.of("domain", _DOMAIN, 0.5, ignore_case=True),
        ],
    )
