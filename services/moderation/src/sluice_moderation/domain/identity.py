"""Words that name a group of people, and a text with them made neutral or marked.

A classifier trained on comments has learnt that the bare word "gay" is toxic. Two remedies are here. `neutralise` puts everyday
words in the place of identity terms (counterfactual token replacement; Garg et al. 2019, "Counterfactual Fairness in Text
Classification through Robustness"). `marked` puts one mark in the place of all of them: a model that reads marked text knows that
some group is named, and cannot know which; swapping one listed term for another then changes nothing at all.

The list names groups; it is no guess about persons. Slurs are not in it: they stay and they count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# group -> adjectives and nouns that name it. `adjective` words vanish before a person noun ("a gay man" -> "a man").
_ADJECTIVES: dict[str, str] = {
    "sexual_orientation": "gay lesbian homosexual heterosexual bisexual pansexual asexual queer lgbt lgbtq lgbtq+ lgbtqia lgbtqia+",
    "gender_identity": "trans transgender transgendered transsexual nonbinary non-binary genderqueer genderfluid intersex cisgender",
    "gender": "female male",
    "religion": "muslim islamic jewish christian hindu buddhist sikh atheist agnostic catholic protestant mormon orthodox evangelical "
    "pagan rastafarian shia sunni baptist quaker zoroastrian jain bahai amish anglican methodist hasidic",
    "ethnicity": "asian latino latina latinx hispanic african african-american afro-american arab arabic arabian indigenous aboriginal "
    "romani roma sinti chinese japanese korean indian pakistani bangladeshi mexican nigerian jamaican turkish kurdish "
    "russian iranian iraqi persian afghan syrian lebanese palestinian israeli egyptian moroccan algerian tunisian ethiopian eritrean "
    "somali sudanese kenyan ghanaian ugandan congolese vietnamese filipino thai indonesian malaysian cambodian burmese nepalese "
    "tibetan mongolian uyghur brazilian argentinian colombian venezuelan peruvian chilean cuban haitian dominican puerto-rican "
    "ukrainian romanian bulgarian hungarian serbian croatian bosnian albanian greek italian spanish portuguese irish scottish welsh "
    "british american canadian australian austrian belgian norwegian maori inuit caucasian semitic jewish-american bipoc biracial "
    "mixed-race native-american asian-american southeast-asian south-asian latin-american caribbean polynesian hawaiian samoan",
    "migration": "immigrant refugee migrant undocumented asylum-seeking foreign-born",
    "disability": "disabled autistic handicapped paralysed paralyzed dyslexic neurodivergent neurodiverse wheelchair-bound quadriplegic "
    "paraplegic bipolar schizophrenic epileptic dyspraxic hard-of-hearing",
    "age": "elderly middle-aged teenage",
    "body": "obese overweight plus-size",
    "class": "homeless working-class lower-class upper-class low-income unemployed",
}
_PLURALS: dict[str, str] = {
    "sexual_orientation": "gays lesbians homosexuals heterosexuals bisexuals queers",
    "gender_identity": "transsexuals transgenders",
    "gender": "women men females males girls boys ladies",
    "religion": "muslims jews christians hindus buddhists sikhs atheists catholics protestants mormons evangelicals pagans shias sunnis "
    "baptists quakers",
    "ethnicity": "blacks whites asians latinos latinas hispanics africans african-americans arabs mexicans indians pakistanis "
    "bangladeshis turks kurds poles russians ukrainians romanians bulgarians hungarians serbs croats bosnians albanians greeks italians "
    "spaniards irishmen englishmen scots germans frenchmen americans canadians australians austrians nigerians jamaicans somalis "
    "ethiopians eritreans sudanese kenyans ghanaians egyptians moroccans algerians tunisians syrians iraqis iranians persians afghans "
    "palestinians israelis koreans vietnamese filipinos thais brazilians colombians venezuelans cubans haitians dominicans "
    "puerto-ricans gypsies travellers aborigines natives europeans caucasians jamaicans samoans hawaiians bolivians ecuadorians",
    "migration": "immigrants refugees migrants foreigners asylum-seekers expats newcomers",
    "disability": "autistics paraplegics cripples schizophrenics epileptics",
    "age": "pensioners seniors elders teenagers teens boomers millennials oldies",
    "class": "peasants",
}
_SINGULARS: dict[str, str] = {
    "gender": "woman man girl boy lady",
    "religion": "jew",
    "ethnicity": "turk pole spaniard frenchman englishman irishman scot european arab serb croat kurd gypsy filipina swede dane finn",
    "migration": "foreigner asylum-seeker",
    "age": "pensioner teenager",
}
# Words with another everyday meaning name people only before a person noun or after "am", "is", "are" or "being".
_AMBIGUOUS: dict[str, str] = {
    "ethnicity": "black white brown polish german french english dutch swiss swedish danish finnish czech colored coloured native european",
    "disability": "blind deaf mute",
    "sexual_orientation": "straight",
    "age": "old young aged",
    "body": "fat skinny thin short",
    "class": "poor rich wealthy",
    "migration": "foreign",
}
_PERSON_NOUN = frozenset(
    [
        "people",
        "person",
        "persons",
        "peoples",
        "man",
        "men",
        "woman",
        "women",
        "guy",
        "guys",
        "folk",
        "folks",
        "community",
        "communities",
        "couple",
        "couples",
        "americans",
        "friend",
        "friends",
        "kid",
        "kids",
        "child",
        "children",
        "family",
        "families",
        "neighbour",
        "neighbours",
        "neighbor",
        "neighbors",
        "student",
        "students",
        "colleague",
        "colleagues",
        "girl",
        "girls",
        "boy",
        "boys",
        "coworker",
        "coworkers",
        "son",
        "sons",
        "daughter",
        "daughters",
        "worker",
        "workers",
        "lives",
        "lady",
        "ladies",
        "individual",
        "individuals",
        "population",
        "immigrant",
        "immigrants",
        "refugee",
        "refugees",
        "migrant",
        "migrants",
        "teenager",
        "teenagers",
        "citizens",
        "actors",
        "players",
        "doctor",
        "doctors",
        "teacher",
        "teachers",
        "parents",
        "mother",
        "mothers",
        "father",
        "fathers",
        "husband",
        "wife",
        "youth",
        "voters",
        "employees",
        "employee",
        "patients",
        "patient",
        "residents",
    ]
)
_BEFORE_PREDICATE = frozenset(
    ["am", "is", "are", "being", "was", "were", "be", "i'm", "he's", "she's", "they're", "you're", "we're", "im"]
)
_MASS = frozenset(["only", "not", "just", "also", "very", "too", "so", "both", "proudly", "openly"])


def _words(table: dict[str, str]) -> dict[str, str]:
    return {word: group for group, words in table.items() for word in words.split()}


_ADJECTIVE, _PLURAL, _SINGULAR, _AMBIGUOUS_WORD = map(_words, (_ADJECTIVES, _PLURALS, _SINGULARS, _AMBIGUOUS))
_GROUP_OF = {**_AMBIGUOUS_WORD, **_ADJECTIVE, **_SINGULAR, **_PLURAL}
TERMS = frozenset(_GROUP_OF)
"""Every term of the list, in lower case."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*\+?")
_LETTERS = re.compile(r"[a-z]+")
_FIRST_WORDS = frozenset(_LETTERS.findall(word)[0] for word in _GROUP_OF)
_NEUTRAL = {"before_noun": "", "plural": "people", "singular": "person", "adjective": "human", "predicate": "human"}
MARK = "idterm"
_MARKED = {
    "before_noun": MARK,
    "plural": MARK + "s",
    "singular": MARK + " person",
    "adjective": MARK,
    "predicate": MARK,
}
# "man" alone is the everyday word for a person: it is made neutral, never marked.
_UNMARKED_SINGULARS = frozenset(["man", "girl", "boy", "lady", "woman"])
_ARTICLE = re.compile(rf"\b(a|A)n(?= {MARK}\b)")
_REPEATED = re.compile(rf"\b{MARK}(?:(?:,? and |, | or |-| ){MARK})*(?: and | or |-| )(?={MARK}s?\b)")


@dataclass(frozen=True)
class Neutralised:
    """A text whose identity terms were replaced, and the groups they named (sorted)."""

    text: str
    groups: tuple[str, ...]


def neutralise(text: str) -> Neutralised:
    """Replace every identity term by a neutral word; `groups` is empty and the text untouched where there is none."""
    return _replaced(text, lambda kind, _: _NEUTRAL[kind])


def marked(text: str) -> str:
    """Replace every identity term by the same mark, its grammatical form kept."""
    found = _replaced(text, lambda kind, word: "person" if word in _UNMARKED_SINGULARS else _MARKED[kind])
    return _REPEATED.sub("", _ARTICLE.sub(r"\1", found.text)) if found.groups else text


def _replaced(text: str, replacement: Callable[[str, str], str]) -> Neutralised:
    if _FIRST_WORDS.isdisjoint(_LETTERS.findall(text.lower())):
        return Neutralised(text, ())  # most texts; looking at every word costs five times as much
    words = list(_WORD.finditer(text))
    lowered = [word.group().lower() for word in words]
    groups, parts, at = set(), [], 0
    for i, word in enumerate(words):
        kind = _kind(lowered, i)
        if not kind:
            continue
        groups.add(_GROUP_OF[lowered[i]])
        new = replacement(kind, lowered[i])
        parts += [text[at : word.start()], new]
        at = word.end()
        if not new and text[at : at + 1] in (" ", "-"):
            at += 1
    return Neutralised("".join([*parts, text[at:]]), tuple(sorted(groups)))


def _kind(words: list[str], i: int) -> str:
    """The grammatical form in which word `i` names a group; empty where it names none."""
    word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
    if word not in TERMS:
        return ""
    describes = following in _PERSON_NOUN or following in _ADJECTIVE
    if word in _PLURAL:
        return "plural"
    if word in _ADJECTIVE:
        return "before_noun" if describes else "singular" if word in _SINGULAR else "adjective"
    if word in _SINGULAR:
        return "singular"
    if describes:
        return "before_noun"
    before = words[i - 2] if i > 1 and words[i - 1] in _MASS else words[i - 1] if i else ""
    return "predicate" if before in _BEFORE_PREDICATE else ""
