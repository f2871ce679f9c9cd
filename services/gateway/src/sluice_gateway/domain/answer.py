"""Cheap facts about an answer that quality metrics count. How each is found is stated in the README, and measured in tests/eval."""

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from sluice_gateway.domain.chat import ChatRequest, Role
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.groundedness import grounded_sentences
from sluice_gateway.domain.refusal import HEAD_CHARACTERS, is_refusal

JUDGED_CHARACTERS = 8_000
"""An answer is judged by its beginning: what a request costs is bounded whatever the model says."""
LANGUAGE_CHARACTERS = 1_000
LEAST_LETTERS = 12
RUN_WORDS = 4
LEAST_WORDS = 24
REPETITIVE_PERMILLE = 200
"""From here on an answer counts as repetitive; quality counts by the same bound, and tests/eval judges it."""

_WORD = re.compile(r"\w+")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
# Placeholders of redaction, such as `<EMAIL_ADDRESS_2>`, are no language; neither are addresses.
_NO_LANGUAGE = re.compile(r"<[A-Z][A-Z_]*_\d+>|\bhttps?://\S+")
# Whoever asks for a language or a translation gets another language by right.
_ASKS_FOR_LANGUAGE = re.compile(
    r"\btranslat|übersetz|\btradu[cisz]|\bvertaal|\btłumacz|перев[ео]д|翻[译譯訳]|"
    r"\b(?:english|german|french|spanish|italian|portuguese|dutch|polish|russian|chinese|japanese|korean|arabic|latin|"
    r"deutsch|englisch|französisch|spanisch|italienisch|anglais|allemand|français|espagnol|italien|"
    r"inglés|alemán|francés|español|italiano|inglese|tedesco|francese|spagnolo|inglês|alemão)\b"
)


class LanguageDetector(Protocol):
    """Tells the language of a text."""

    def detect(self, text: str) -> str:
        """A code such as `en`; empty when it cannot be told reliably."""


def judge(request: ChatRequest, pieces: Sequence[str], completion: Completion, detector: LanguageDetector) -> None:
    """Note what is to be said of an answer. `request` is redacted, `pieces` is the answer before values are restored."""
    answer = _beginning(pieces, JUDGED_CHARACTERS)
    completion.refusal, completion.empty_answer = is_refusal(answer[:HEAD_CHARACTERS]), is_empty(pieces)
    if completion.empty_answer:
        return
    prompt = _last_user_text(request)
    completion.input_language = _language(prompt, detector)
    completion.output_language = _language(answer, detector)
    completion.language_mismatch = _mismatch(prompt, completion.input_language, completion.output_language)
    completion.repetition_permille = repetition_permille(answer)
    if not completion.refusal:  # a refusal claims nothing about the context
        completion.context_sentences, completion.grounded_sentences = grounded_sentences(request, answer)


def is_empty(pieces: Iterable[str]) -> bool:
    """Whether there is nothing but white space."""
    return not any(piece.strip() for piece in pieces)


def repetition_permille(text: str) -> int | None:
    """Of the text's runs of 4 words, the share in thousandths that stood in it before; None under 24 words."""
    words = _WORD.findall(text.casefold())
    if len(words) < LEAST_WORDS:
        return None
    runs = list(zip(*(words[offset:] for offset in range(RUN_WORDS)), strict=False))
    return (len(runs) - len(set(runs))) * 1000 // len(runs)


def _beginning(pieces: Iterable[str], most: int) -> str:
    kept, length = [], 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length >= most:
            break
    return "".join(kept).lstrip()[:most]


def _last_user_text(request: ChatRequest) -> str:
    return next((message.content for message in reversed(request.messages) if message.role is Role.USER), "")


def _language(text: str, detector: LanguageDetector) -> str:
    head = _NO_LANGUAGE.sub(" ", _FENCED.sub(" ", text[: 2 * LANGUAGE_CHARACTERS]))[:LANGUAGE_CHARACTERS]
    if sum(map(str.isalpha, head)) < LEAST_LETTERS:
        return ""
    return detector.detect(head)


def _mismatch(prompt: str, asked_in: str, answered_in: str) -> bool | None:
    if not asked_in or not answered_in:
        return None
    if asked_in != answered_in and _ASKS_FOR_LANGUAGE.search(prompt[:JUDGED_CHARACTERS].casefold()):
        return None
    return asked_in != answered_in
