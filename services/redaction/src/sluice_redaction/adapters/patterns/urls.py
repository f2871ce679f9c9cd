"""Web addresses, by patterns of our own in Presidio's recognizer."""

from presidio_analyzer import Pattern

# Presidio's has 700 endings behind an open-ended head: 8 s for 8,000 characters of "a.a.a.". Ours starts only where a
# word starts, and takes a name without a scheme for an address only with an ending that is no file extension.
URLS = [
    Pattern("with scheme", r"(?<![a-z0-9])(?:https?|ftp|wss?)://[^\s<>\"'`]{1,2000}(?<![.,;:!?)\]}])", 0.8),
    Pattern("www", r"(?<![\w.@\-])www\.[^\s<>\"'`@]{2,2000}(?<![.,;:!?)\]}])", 0.7),
    Pattern(
        "domain",
        r"(?<![\w.@\-/])(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.){1,5}(?:com|org|net|edu|gov|info|biz|io|ai|dev|app|eu|uk|de"
        r"|fr|es|it|nl|ch|at|us|ca|au|jp|cn|in|br)(?![\w.\-])(?:/[^\s<>\"'`]{0,2000}(?<![.,;:!?)\]}]))?",
        0.5,
    ),
]
