"""E-mail addresses."""

import re

from presidio_analyzer import Pattern, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.predefined_recognizers import EmailRecognizer

# Presidio's own pattern lets the local part run on without end, which is quadratic on a long line of dots; 64 is the
# standard's limit (RFC 5321). The domain is bounded likewise.
EMAIL = Pattern(
    "e-mail address",
    r"(?<![\w.+\-])[\w!#$%&'*+\-/=?^`{|}~.]{1,64}@(?:[\w](?:[\w\-]{0,62})\.){1,8}[^\W\d_][\w\-]{1,62}(?![\w\-])",
    0.8,
)

# `scheme://user:` before it makes it the password of a URL, which is a secret and no address.
_URL_USER = re.compile(r"://[^\s/@:]{1,64}:$")


class AnyDomainEmailRecognizer(EmailRecognizer):
    """E-mail addresses by their syntax. Presidio's drops every address outside of the public suffix list, and with it the
    addresses of a company's own network (`.local`, `.internal`, `.corp`), which name people just as well."""

    def validate_result(self, pattern_text: str) -> bool | None:
        """True for a public suffix (full score), None otherwise (the pattern's own score)."""
        return super().validate_result(pattern_text) or None

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None, regex_flags: int | None = None
    ) -> list[RecognizerResult]:
        found = super().analyze(text, entities, nlp_artifacts, regex_flags)
        return [result for result in found if not _URL_USER.search(text[max(0, result.start - 80) : result.start])]
