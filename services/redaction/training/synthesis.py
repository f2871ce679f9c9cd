"""Labelled texts from templates: `{slots}` filled with names of all origins, `[this|that]` chosen, then roughened as
people write: small letters, capitals, typos, no punctuation.
"""

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faker import Faker
from names_data import NATIONALITIES, Culture, Markov, Places
from word_lists import word_list

Span = tuple[int, int, str]
IGNORED = "?"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([a-z_0-9]+)\}")
_TITLES = word_list("titles")
_JOBS = word_list("jobs")
_JOB_TITLES = word_list("job titles")
_DEGREES = word_list("degrees")
_MONTHS = word_list("months")
_DAYS = word_list("days")
_DATES = word_list("date formats")
_COMPANIES = word_list("companies")
_SUFFIXES = word_list("company suffixes")
_ADJECTIVES = word_list("company words")
_PRODUCTS = word_list("products")
_WORKS = word_list("works")
_STREET_TYPES = word_list("street types")
_STREET_NAMES = word_list("street names")
_SLOTS = {
    "PERSON": "person first last upper_person upper_last first_lower last_lower",
    "LOCATION": "city country state place zip",
    "ORGANIZATION": "org",
    "NRP": "nrp",
    "DATE_TIME": "date weekday month year time",
    "STREET_ADDRESS": "street",
    "PHONE_NUMBER": "phone",
    "US_BANK_NUMBER": "bank",
    "GOVERNMENT_ID": "govid passport license",
    IGNORED: "email age user ip mrn title_of_work jobtitle",
}
_TO_LABEL = {slot: label for label, slots in _SLOTS.items() for slot in slots.split()}


@dataclass(frozen=True)
class Example:
    """A text and what stands where. Labels as the tagger's; IGNORED: counted neither way."""

    text: str
    spans: Sequence[Span]
    source: str


def templates(folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    return {
        name: [
            line.replace("\\n", "\n").replace("\\t", "\t")
            for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        for name in names
    }


class Filler:
    """Draws values for slots. One random source, so that a seed gives the same texts."""

    def __init__(
        self, cultures: Sequence[Culture], places: Places, chance: random.Random, plain: Sequence[str] = ("word",)
    ) -> None:
        """plain: words that are nobody's name, for what stands round about."""
        self.chance, self._plain = chance, plain
        self._census = [culture for culture in cultures if " " in culture.name or culture.name[0].isupper()]
        self._faker = [
            culture
            for culture in cultures
            if culture not in self._census and culture.first.words and culture.last.words
        ]
        self._places = places
        self._markov = Markov(
            [word for culture in self._faker for word in culture.first.words + culture.last.words if word.isascii()]
        )
        self._fakes = []
        for locale in ("en_US", "en_GB", "en_IN", "en_AU", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pt_BR"):
            fake = Faker(locale)
            fake.seed_instance(chance.randrange(1 << 30))
            self._fakes.append(fake)

    def culture(self) -> Culture:
        if self.chance.random() < 0.55:
            return self.chance.choices(self._census, [5, 2, 3, 3])[0]
        return self.chance.choice(self._faker)

    def first(self, culture: Culture | None = None) -> str:
        if self.chance.random() < 0.05:
            return self._markov.draw(self.chance)
        return (culture or self.culture()).first.draw(self.chance)

    def last(self, culture: Culture | None = None) -> str:
        draw = self.chance.random()
        if draw < 0.06:
            return self._markov.draw(self.chance)
        name = (culture or self.culture()).last.draw(self.chance)
        if draw < 0.08 and name.isascii():
            return (
                self.chance.choice(
                    ["O'", "D'", "Mac", "de ", "van ", "von ", "al-", "El-", "Di ", "Le", "St. ", "bin "]
                )
                + name
            )
        return name

    def part_of_a_name(self) -> str:
        return self.first() if self.chance.random() < 0.45 else self.last()

    def person(self) -> str:
        chance, culture = self.chance, self.culture()
        first, last = self.first(culture), self.last(culture)
        form = chance.random()
        if form < 0.66:
            return f"{first} {last}"
        if form < 0.73:
            return f"{first} {chance.choice(string.ascii_uppercase)}. {last}"
        if form < 0.79:
            return f"{first} {self.first(culture)} {last}"
        if form < 0.84:
            return (
                f"{first} {last} {self.last(culture)}"
                if chance.random() < 0.5
                else f"{first} {last}-{self.last(culture)}"
            )
        if form < 0.87:
            return f"{first}-{self.first(culture)} {last}"
        if form < 0.90:
            return f"{chance.choice(string.ascii_uppercase)}. {last}"
        if form < 0.91:
            return f"{chance.choice(string.ascii_uppercase)}.{chance.choice(string.ascii_uppercase)}. {last}"
        if form < 0.94 and (culture.family_first or chance.random() < 0.2):
            return f"{last} {first}"
        if form < 0.96:
            return f"{first} {last} {chance.choice(['Jr.', 'Sr.', 'III', 'II'])}"
        return first if form < 0.985 else f"{first} {last}"

    def street(self) -> str:
        chance = self.chance
        if chance.random() < 0.5:
            return chance.choice(self._fakes).street_address().replace("\n", ", ")
        name = chance.choice(_STREET_NAMES) if chance.random() < 0.5 else self.last()
        line = f"{chance.randint(1, 9999 if chance.random() < 0.3 else 250)} {name} {chance.choice(_STREET_TYPES)}"
        extra = chance.random()
        if extra < 0.15:
            unit = chance.choice(["Apt", "Apt.", "Suite", "Unit", "Flat", "Floor", "#"])
            line += f", {unit} {chance.randint(1, 400)}{chance.choice(['', '', 'B'])}"
        elif extra < 0.2:
            line = f"P.O. Box {chance.randint(10, 9999)}"
        return line

    def postcode(self) -> str:
        return self.chance.choice(self._fakes).postcode()

    def org(self) -> str:
        chance, draw = self.chance, self.chance.random()
        if draw < 0.3:
            return chance.choice(_COMPANIES)
        if draw < 0.5:
            return f"{self.last()} {chance.choice(_SUFFIXES)}"
        if draw < 0.58:
            return f"{self.last()} & {self.last()}" + chance.choice(["", " LLP", " Associates"])
        if draw < 0.75:
            return f"{chance.choice(_ADJECTIVES)} {chance.choice(_SUFFIXES)}"
        if draw < 0.8:
            return chance.choice(self._fakes).company()
        city = self._places.cities.draw(chance)
        return chance.choice(
            [
                "University of {}",
                "{} University",
                "{} General Hospital",
                "{} High School",
                "{} City Council",
                "Bank of {}",
                "{} FC",
                "St. Mary's Hospital",
                "{} Police Department",
                "Royal {} Infirmary",
                "{} Medical Center",
                "{} Times",
            ]
        ).format(city)

    def words(self, least: int, most: int) -> str:
        """Some plain words in a row, with the short ones that hold sentences together."""
        chance = self.chance
        count = chance.randint(least, most)
        glue = [
            "the",
            "a",
            "of",
            "to",
            "in",
            "and",
            "is",
            "was",
            "it",
            "for",
            "on",
            "with",
            "not",
            "this",
            "that",
            "are",
            "my",
            "your",
        ]
        return " ".join(
            chance.choice(glue) if chance.random() < 0.35 and at else chance.choice(self._plain) for at in range(count)
        )

    def number(self) -> str:
        return "".join(self.chance.choice(string.digits) for _ in range(self.chance.randint(3, 9)))

    def code(self) -> str:
        shape = self.chance.choice(
            [
                "#########",
                "?########",
                "??#######",
                "##-#######",
                "###-###-###",
                "#### #### ####",
                "?####-#####-#####",
                "????######",
                "########?",
                "???#####?",
            ]
        )
        return "".join(
            self.chance.choice(string.digits)
            if sign == "#"
            else self.chance.choice(string.ascii_uppercase)
            if sign == "?"
            else sign
            for sign in shape
        )

    def value(self, slot: str) -> list[tuple[str, str | None]]:
        """The text of a slot in labelled parts."""
        chance = self.chance
        fake = chance.choice(self._fakes)
        if slot == "address":
            parts: list[tuple[str, str | None]] = [
                (self.street(), "STREET_ADDRESS"),
                (chance.choice([", ", ", ", " ", "\n"]), None),
            ]
            city, zipcode, state = (
                self._places.cities.draw(chance),
                self.postcode(),
                chance.choice(self._places.states)[1],
            )
            return parts + chance.choice(
                [
                    [
                        (city, "LOCATION"),
                        (", ", None),
                        (state, "LOCATION"),
                        (" ", None),
                        (fake.numerify("#####"), "LOCATION"),
                    ],
                    [(zipcode, "LOCATION"), (" ", None), (city, "LOCATION")],
                    [(city, "LOCATION"), (" ", None), (zipcode, "LOCATION")],
                    [(city, "LOCATION"), (", ", None), (chance.choice(self._places.countries), "LOCATION")],
                    [(city, "LOCATION")],
                ]
            )
        match slot:
            case "person":
                text = self.person()
            case "upper_person":
                text = self.person().upper()
            case "first":
                text = self.first()
            case "last":
                text = self.last()
            case "upper_last":
                text = self.last().upper()
            case "first_lower":
                text = self.first().lower()
            case "last_lower":
                text = self.last().lower()
            case "initial":
                return [(chance.choice(string.ascii_uppercase) + ".", "PERSON")]
            case "city":
                text = self._places.cities.draw(chance)
            case "country":
                text = chance.choice(self._places.countries)
            case "place":
                text = (
                    self._places.cities.draw(chance) if chance.random() < 0.7 else chance.choice(self._places.countries)
                )
            case "state":
                text = chance.choice(chance.choice(self._places.states))
            case "street":
                text = self.street()
            case "zip":
                text = self.postcode()
            case "org":
                text = self.org()
            case "nrp":
                text = chance.choice(NATIONALITIES)
            case "date":
                text = fake.date_time().strftime(chance.choice(_DATES))
            case "weekday":
                text = chance.choice(_DAYS)
            case "month":
                text = chance.choice(_MONTHS)
            case "year":
                text = str(chance.randint(1850, 2030))
            case "time":
                text = chance.choice(
                    [fake.time("%H:%M"), fake.time("%I:%M %p"), fake.time("%I %p").lstrip("0"), fake.time("%H:%M:%S")]
                )
            case "age":
                text = str(chance.randint(1, 99))
            case "phone":
                text = chance.choice(
                    [
                        fake.phone_number(),
                        fake.phone_number(),
                        fake.numerify("###-###-####"),
                        fake.numerify("(###) ### ####"),
                        fake.numerify("+## ### ### ####"),
                        fake.numerify("0#### ######"),
                    ]
                )
            case "email":
                text = chance.choice(
                    [fake.email(), f"{self.first()}.{self.last()}@{fake.domain_name()}".lower().replace(" ", "")]
                )
            case "ip":
                text = fake.ipv4()
            case "user":
                text = fake.user_name()
            case "title":
                return [(chance.choice(_TITLES), None)]
            case "job":
                text = chance.choice(_JOBS)
            case "jobtitle":
                text = chance.choice(_JOB_TITLES)
            case "degree":
                text = chance.choice(_DEGREES)
            case "money":
                text = chance.choice(["$", "€", "£", "USD "]) + f"{chance.randint(5, 90_000):,}"
            case "num":
                text = self.number()
            case "num2":
                text = str(chance.randint(1, 60))
            case "num4":
                text = fake.numerify("####")
            case "bank":
                text = "".join(chance.choice(string.digits) for _ in range(chance.randint(8, 14)))
            case "govid" | "passport" | "license":
                text = self.code()
            case "mrn":
                text = chance.choice(["", "MRN-", "A"]) + self.number()
            case "ver":
                text = f"{chance.randint(0, 20)}.{chance.randint(0, 30)}.{chance.randint(0, 9)}"
            case "product":
                text = chance.choice(_PRODUCTS)
            case "title_of_work":
                text = chance.choice(_WORKS)
            case "word":
                text = chance.choice(self._plain)
            case "words":
                text = self.words(1, 7)
            case "title_words":
                text = self.words(1, 4).title()
            case "caps_words":
                text = self.words(1, 5).upper()
            case "punct":
                text = chance.choice([".", ".", "!", ""])
            case _:
                raise KeyError(f"no such slot: {slot}")
        return [(text, _TO_LABEL.get(slot))]

    def fill(self, template: str) -> tuple[str, list[Span]]:
        chosen = template
        for _ in range(3):
            chosen = _CHOICE.sub(lambda found: self.chance.choice(found[1].split("|")), chosen)
        chosen = chosen.replace("{{", "\x01").replace("}}", "\x02")
        text, spans, at = "", [], 0
        for slot in _SLOT.finditer(chosen):
            text += chosen[at : slot.start()]
            for part, label in self.value(slot[1]):
                if label and part:
                    spans.append((len(text), len(text) + len(part), label))
                text += part
            at = slot.end()
        text += chosen[at:]
        return text.replace("\x01", "{").replace("\x02", "}"), spans


def joined(parts: Sequence[tuple[str, Sequence[Span]]], glue: str, source: str) -> Example:
    text, spans = "", []
    for part, found in parts:
        if text:
            text += glue
        spans += [(start + len(text), end + len(text), label) for start, end, label in found]
        text += part
    return Example(text, spans, source)


def roughened(example: Example, chance: random.Random) -> Example:
    """As it might be typed. Lengths stay, except where letters are dropped or doubled outside of names."""
    text, draw = example.text, chance.random()
    if draw < 0.16:
        lower = text.lower()
        text = lower if len(lower) == len(text) else text
    elif draw < 0.20:
        upper = text.upper()
        text = upper if len(upper) == len(text) else text
    elif draw < 0.24:
        text = "".join(" " if sign in ",.!?" and chance.random() < 0.8 else sign for sign in text)
    elif draw < 0.30:
        letters = list(text)
        for at in range(1, len(letters) - 1):
            if chance.random() < 0.02 and letters[at].isalpha() and letters[at + 1].isalpha():
                letters[at], letters[at + 1] = letters[at + 1], letters[at]
        text = "".join(letters)
    elif draw < 0.33:
        # Names in small letters within otherwise usual text.
        for start, end, label in example.spans:
            lower = text[start:end].lower()
            if label == "PERSON" and len(lower) == end - start:
                text = text[:start] + lower + text[end:]
    return Example(text, example.spans, example.source)


class Writer:
    """Makes examples out of templates: one, or a few of one register in a row."""

    def __init__(self, filler: Filler, registers: dict[str, list[str]]) -> None:
        self._filler, self._registers = filler, registers
        self._names = list(registers)
        self._sizes = [len(lines) ** 0.7 for lines in registers.values()]

    def example(self) -> Example:
        chance = self._filler.chance
        register = chance.choices(self._names, self._sizes)[0]
        count = chance.choices([1, 2, 3, 5], [6, 3, 2, 1])[0]
        parts = []
        for _ in range(count):
            other = "negatives" if chance.random() < 0.3 and "negatives" in self._registers else register
            parts.append(self._filler.fill(chance.choice(self._registers[other])))
        glue = chance.choice([" ", " ", "\n", ". ", "\n\n", ", "])
        return roughened(joined(parts, glue, register), chance)
