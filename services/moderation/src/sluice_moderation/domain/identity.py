"""Words that name a group of people, and a text with them made neutral.

A classifier trained on comments has learnt that the bare word "gay" is toxic. Scoring the text a second time with identity
terms replaced, and taking the lower score for toxicity, removes that (counterfactual token replacement; Garg et al. 2019,
"Counterfactual Fairness in Text Classification through Robustness"). Slurs are not in the list: they stay and they count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# group -> adjectives and nouns that name it. `adjective` words vanish before a person noun ("a gay man" -> "a man").
_ADJECTIVES: dict[str, str] = {
    "sexual_orientation": "gay lesbian homosexual bisexual pansexual asexual queer lgbt lgbtq lgbtq+ lgbtqia",
    "gender_identity": "trans transgender transsexual nonbinary non-binary genderqueer intersex cisgender",
    "gender": "female male",
    "religion": "muslim islamic jewish christian hindu buddhist sikh atheist catholic protestant mormon",
    "ethnicity": "asian latino latina latinx hispanic african african-american arab arabic indigenous romani chinese japanese "
    "korean indian pakistani mexican nigerian jamaican turkish polish russian iranian iraqi",
    "migration": "immigrant refugee foreign",
    "disability": "disabled autistic handicapped paralysed paralyzed dyslexic",
    "age": "elderly",
}
_PLURALS: dict[str, str] = {
    "sexual_orientation": "gays lesbians homosexuals bisexuals queers",
    "gender_identity": "transsexuals",
    "gender": "women men females males girls boys",
    "religion": "muslims jews christians hindus buddhists sikhs atheists catholics protestants mormons",
    "ethnicity": "blacks whites asians latinos latinas hispanics africans arabs mexicans indians pakistanis turks poles "
    "russians",
    "migration": "immigrants refugees migrants foreigners",
    "age": "pensioners",
}
_SINGULARS: dict[str, str] = {
    "gender": "woman man girl boy",
    "religion": "jew",
    "migration": "migrant foreigner",
    "age": "pensioner",
}
# Words with another everyday meaning name people only before a person noun or after "am", "is", "are" or "being".
_AMBIGUOUS: dict[str, str] = {
    "ethnicity": "black white brown",
    "disability": "blind deaf",
    "sexual_orientation": "straight",
    "age": "old young",
}
_PERSON_NOUN = (
    r"(?:people|persons?|m[ae]n|wom[ae]n|guys?|folks?|communit(?:y|ies)|couples?|americans?|friends?|kids?|child(?:ren)?"
    r"|famil(?:y|ies)|neighbou?rs?|students?|colleagues?|girls?|boys?|coworkers?|sons?|daughters?|workers?|lives)"
)

_GROUP_OF = {
    word: group
    for table in (_ADJECTIVES, _PLURALS, _SINGULARS, _AMBIGUOUS)
    for group, words in table.items()
    for word in words.split()
}


def _any(table: dict[str, str]) -> str:
    words = sorted((word for words in table.values() for word in words.split()), key=len, reverse=True)
    return "(?:" + "|".join(re.escape(word) for word in words) + ")"


_TERM = re.compile(
    rf"(?<![\w-])(?:(?P<before_noun>{_any(_ADJECTIVES)}|{_any(_AMBIGUOUS)})[\s-]+(?=(?:{_PERSON_NOUN}|{_any(_ADJECTIVES)})\b)"
    rf"|(?:(?P<plural>{_any(_PLURALS)})|(?P<singular>{_any(_SINGULARS)})|(?P<adjective>{_any(_ADJECTIVES)})"
    rf"|(?:(?<=\bam )|(?<=\bis )|(?<=\bare )|(?<=\bbeing ))(?P<predicate>{_any(_AMBIGUOUS)}))(?!\w))",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[a-z]+")
_FIRST_WORDS = frozenset(_LETTERS.findall(word)[0] for word in _GROUP_OF)
_NEUTRAL = {"before_noun": "", "plural": "people", "singular": "person", "adjective": "human", "predicate": "human"}


@dataclass(frozen=True)
class Neutralised:
    """A text whose identity terms were replaced, and the groups they named (sorted)."""

    text: str
    groups: tuple[str, ...]


def neutralise(text: str) -> Neutralised:
    """Replace every identity term by a neutral word; `groups` is empty and the text untouched where there is none."""
    if _FIRST_WORDS.isdisjoint(_LETTERS.findall(text.lower())):
        return Neutralised(text, ())  # most texts; the full expression costs five times as much
    groups: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        kind = match.lastgroup or "adjective"
        groups.add(_GROUP_OF[match.group(kind).lower()])
        return _NEUTRAL[kind]

    return Neutralised(_TERM.sub(replace, text), tuple(sorted(groups)))
