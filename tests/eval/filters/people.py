"""Invented people: a name with an origin, and a country whose addresses, telephones and numbers they have."""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from faker import Faker

# Faker has these names in Arabic script only; written as they are in English sentences.
_ARABIC_GIVEN = (
    "Fatima Aisha Mariam Layla Yasmin Huda Salma Noura Rania Dina Ahmed Mohammed Omar Khalid Yusuf Hassan Tariq Karim Samir Walid "
    "Abdullah Ibrahim Faisal Nabil Bilal"
).split()
_ARABIC_FAMILY = (
    "Al-Masri|El Sayed|Haddad|Khoury|Al Rashid|Mansour|Nasser|Ben Ali|Abu Bakr|Hariri|Al-Farsi|Darwish|Saleh|Qasim|Bouzid|Rahman|"
    "Shaheen|Aziz|Al-Harbi|Zayed"
).split("|")
_KOREAN_FAMILY = "Kim Lee Park Choi Jung Kang Cho Yoon Jang Lim Han Shin".split()
_KOREAN_GIVEN = "Min-jun Seo-yeon Ji-hoon Ha-eun Do-yun Ji-woo Hyun-woo Su-bin Eun-ji Jae-won Yu-na Sung-min".split()
_RUSSIAN_GIVEN = "Dmitri Olga Sergei Natalia Ivan Svetlana Alexei Irina Mikhail Ekaterina Yuri Anastasia".split()
_RUSSIAN_FAMILY = "Volkov Petrov Smirnov Kuznetsov Morozov Lebedev Sokolov Popov Orlov Fedorov Nikitin Zaitsev".split()

# origin -> Faker locale of the name; None: one of the lists above.
ORIGINS: dict[str, str | None] = {
    "American": "en_US",
    "British": "en_GB",
    "Indian": "en_IN",
    "Australian": "en_AU",
    "Spanish": "es_ES",
    "German": "de_DE",
    "French": "fr_FR",
    "Italian": "it_IT",
    "Dutch": "nl_NL",
    "Brazilian": "pt_BR",
    "Polish": "pl_PL",
    "Chinese": "zh_CN",
    "Japanese": "ja_JP",
    "Arabic": None,
    "Korean": None,
    "Russian": None,
    "Nigerian": "yo_NG",
    "Ghanaian": "tw_GH",
    "Turkish": "tr_TR",
    "Vietnamese": "vi_VN",
    "Swedish": "sv_SE",
    "Pakistani": "en_PK",
}
# Locales whose addresses and telephones are used; the others live in one of these.
COUNTRIES = ("en_US", "en_GB", "en_IN", "en_AU", "es_ES", "de_DE", "fr_FR", "it_IT", "nl_NL", "pt_BR", "pl_PL")
_ENGLISH = ("en_US", "en_US", "en_GB", "en_AU", "en_IN")


@dataclass(frozen=True)
class Person:
    """first and last as written in English text; origin: key of ORIGINS; country: one of COUNTRIES."""

    first: str
    last: str
    origin: str
    country: str

    @property
    def ascii(self) -> tuple[str, str]:
        return _ascii(self.first), _ascii(self.last)


class People:
    """Draws people; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._fakes: dict[str, Faker] = {}
        self._seed = seed

    def fake(self, locale: str) -> Faker:
        if locale not in self._fakes:
            self._fakes[locale] = Faker(locale)
            self._fakes[locale].seed_instance(f"{self._seed}{locale}")
        return self._fakes[locale]

    def person(self, *, country: str | None = None) -> Person:
        # Two of five have an English-language name, the others are spread over all origins.
        pool = ["American", "British"] if self.chance.random() < 0.3 else list(ORIGINS)
        origin = self.chance.choice(pool)
        locale = ORIGINS[origin]
        if country is None:
            at_home = locale in COUNTRIES and self.chance.random() < 0.7
            country = locale if at_home and locale else self.chance.choice(_ENGLISH)
        first, last = self._name(origin, locale)
        return Person(first, last, origin, country)

    def _name(self, origin: str, locale: str | None) -> tuple[str, str]:
        if origin == "Arabic":
            return self.chance.choice(_ARABIC_GIVEN), self.chance.choice(_ARABIC_FAMILY)
        if origin == "Korean":
            return self.chance.choice(_KOREAN_GIVEN), self.chance.choice(_KOREAN_FAMILY)
        if origin == "Russian":
            return self.chance.choice(_RUSSIAN_GIVEN), self.chance.choice(_RUSSIAN_FAMILY)
        assert locale is not None
        fake = self.fake(locale)
        if origin in ("Chinese", "Japanese"):
            first, last = str(fake.romanized_name()).split(" ", 1)
            return first, last
        # Faker writes the Akan open e with a Greek letter.
        return str(fake.first_name()).replace("ε", "e"), str(fake.last_name()).replace("ε", "e")


def _ascii(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.translate(str.maketrans("łŁøØßđĐıæ", "lLoOsdDia")))
    return "".join(c for c in plain if c.isascii() and c.isalnum())


Draw = Callable[[], str]
