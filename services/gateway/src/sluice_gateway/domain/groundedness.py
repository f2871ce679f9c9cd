"""Whether the context that a request gave supports what the answer says: words against words, no model.

A context is what tools returned, and whatever follows a mark such as `Context:` or `<documents>` in a system or user
message. A sentence is supported when most of its content words, and each of its numbers, stand in the context or in the
question. It finds what was added; what was turned round ("rose" for "fell", two names swapped) it cannot see.
"""

import re
from collections.abc import Iterable, Iterator

from sluice_gateway.domain.chat import ChatMessage, ChatRequest, Role

CONTEXT_CHARACTERS = 20_000
LEAST_CONTEXT_WORDS = 12
LEAST_SENTENCE_WORDS = 3
LEAST_SUPPORT = 0.6
"""Chosen on the development half of tests/eval/answers: see its table."""
STEM_CHARACTERS = 5
"""Words are alike when they begin alike: `refund` and `refunded`, `Lieferung` and `liefern`."""

_MARK = re.compile(
    r"^[#*\s]*<?(?:retrieved |given |relevant |search )?(?:context|contexts|documents?|sources?|passages?|excerpts?|"
    r"knowledge|background|results?|kontext|dokumente?|quellen?|contexte|sources|contexto|documentos|contesto)\b[^\n:>]{0,30}"
    r"(?::|>|\*\*:?|\n)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(r"(?<=[.!?。])\s+|\n+")
_TOKEN = re.compile(r"\d[\d.,:]*\d|\d|[^\W\d_]{3,}")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*)_(\d+)>")
_STOP_WORDS = """
the and for are was were has have had been being this that these those with from into onto about your you our their
his her its they them who whom which what when where why how will would can could should may might must not but also
there here than then such some any all each other more most very just only does did done please yes according based
context document documents information provided given following answer question however therefore because while
der die das den dem des ein eine einen einem einer und oder aber nicht ist sind war waren wird werden hat haben mit
von für auf aus bei nach über unter auch sie ihr wir ich laut les des une est sont pour dans avec par sur que qui pas
vous nous ils elle los las una del con por para que como más está son según
"""
_STOP = frozenset(_STOP_WORDS.split())


def grounded_sentences(request: ChatRequest, answer: str) -> tuple[int, int]:
    """Sentences of the answer that could be judged, and those of them that the context supports; (0, 0) without a context."""
    context = context_of(request.messages)
    if not context:
        return 0, 0
    known = set(_tokens(context))
    if len(known) < LEAST_CONTEXT_WORDS:
        return 0, 0
    for message in reversed(request.messages):
        if message.role is Role.USER:
            known.update(_tokens(message.content[:CONTEXT_CHARACTERS]))
            break
    judged = [support for sentence in _SENTENCE.split(answer) if (support := _support(sentence, known)) is not None]
    return len(judged), sum(support >= LEAST_SUPPORT for support in judged)


def context_of(messages: Iterable[ChatMessage]) -> str:
    """What the request gave the model to answer from; empty when it gave nothing."""
    found: list[str] = []
    for message in messages:
        if message.role is Role.TOOL:
            found.append(message.content)
        elif message.role in (Role.SYSTEM, Role.USER) and (mark := _MARK.search(message.content)):
            found.append(message.content[mark.end() :])
    return "\n".join(found)[:CONTEXT_CHARACTERS]


def _support(sentence: str, known: set[str]) -> float | None:
    tokens = list(_tokens(sentence))
    if len(tokens) < LEAST_SENTENCE_WORDS:
        return None
    missing = [token for token in tokens if token not in known]
    if any(token[0].isdigit() for token in missing):
        return 0.0
    return 1 - len(missing) / len(tokens)


def _tokens(text: str) -> Iterator[str]:
    # A placeholder of redaction stands for a value: the same one in both texts is the same value.
    for token in _TOKEN.findall(_PLACEHOLDER.sub(_as_word, text).casefold()):
        if token[0].isdigit():
            yield token.replace(",", "")
        elif token not in _STOP:
            yield token[:STEM_CHARACTERS]


def _as_word(match: re.Match[str]) -> str:
    return f" {match[1].replace('_', '').lower()[:4]}{_letters(int(match[2]))} "


def _letters(number: int) -> str:
    return chr(ord("a") + number % 26)
