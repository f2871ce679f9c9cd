"""Evaluation sets: templates filled with invented people, with the place of every personal value.

Four sets, the same on every run with the same seed: `dev` (anybody may look, and tune on it), `held_out` (other templates, other
formats; nobody tunes on it), `public` (the templates of presidio-evaluator, MIT), and the negatives of each.
"""

import importlib.util
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .fillers import CASE_KEPT, GOLD, NEUTRAL, Fillers
from .people import People

TEXTS = Path(__file__).parent / "texts"
_SLOT = re.compile(r"\{\{\s*([a-z_0-9]+)\s*\}\}")
# Of a hundred texts of a register, how many are written without capitals, and how many in capitals.
_LOWER = {"chat": 35, "support": 10, "transcript": 15, "medical": 10}
_UPPER = {"form": 15, "medical": 10, "table": 5}
# Slots of presidio-evaluator's templates in our words.
_PUBLIC = {
    "person": "name",
    "name_female": "name",
    "name_male": "name",
    "first_name": "first",
    "first_name_male": "first",
    "first_name_female": "first",
    "first_name_nonbinary": "first",
    "last_name": "last",
    "last_name_male": "last",
    "last_name_female": "last",
    "credit_card_number": "card",
    "phone_number": "phone",
    "ip_address": "ip",
    "street_name": "road",
    "date_of_birth": "dob",
    "us_driver_license": "licence",
    "organization": "org",
    "country": "city",
    "zipcode": "postcode",
    "nation_woman": "nationality",
    "nation_plural": "nationality",
    "date_time": "date",
    "day_of_week": "weekday",
}
# Parts of an address that stand beside its street there, and titles: they count neither way.
_PUBLIC_NEUTRAL = {"building_number": "house", "secondary_address": "house", "state_abbr": "house"}
_PUBLIC_TITLES = {"prefix": "", "prefix_male": "Mr.", "prefix_female": "Ms."}


@dataclass(frozen=True)
class Gold:
    """`text[start:end]` is a value of a kind; origin: of the name, for PERSON."""

    start: int
    end: int
    kind: str
    origin: str = ""

    @property
    def neutral(self) -> bool:
        return self.kind in NEUTRAL


@dataclass(frozen=True)
class Sample:
    """A text, the personal values in it, the register, and the case it is written in: as_is, lower or upper."""

    text: str
    gold: tuple[Gold, ...]
    register: str
    case: str = "as_is"
    template: int = 0


@dataclass(frozen=True)
class Template:
    register: str
    text: str
    number: int


def templates(name: str) -> list[Template]:
    """The templates of a file in texts/."""
    found: list[Template] = []
    for part in (TEXTS / f"{name}.txt").read_text(encoding="utf-8").split("\n## ")[1:]:
        register, body = part.split("\n", 1)
        found += [Template(register.strip(), one.strip("\n"), 0) for one in body.split("\n%%\n")]
    return [replace(one, number=number) for number, one in enumerate(found)]


def public_templates() -> list[Template]:
    spec = importlib.util.find_spec("presidio_evaluator")
    if spec is None or spec.origin is None:
        raise SystemExit("presidio-evaluator is not installed: run this with make eval-filters")
    file = Path(spec.origin).parent / "data_generator/raw_data/templates.txt"
    lines = [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return [Template("public", _in_our_words(line.replace("\\n", "\n")), n) for n, line in enumerate(lines)]


def _in_our_words(line: str) -> str:
    def slot(found: re.Match[str]) -> str:
        name = found[1]
        if name in _PUBLIC_TITLES:
            return _PUBLIC_TITLES[name]
        return "{{" + _PUBLIC_NEUTRAL.get(name, _PUBLIC.get(name, name)) + "}}"

    return _SLOT.sub(slot, line).strip()


def samples(name: str, *, rounds: int, seed: int) -> list[Sample]:
    """name: dev, held_out, public, negatives_dev, negatives_held_out. Each template is filled `rounds` times."""
    made = public_templates() if name == "public" else templates(name if "negatives" in name else f"redaction_{name}")
    return list(_filled(made, rounds=rounds, seed=seed, held_out=name.endswith("held_out")))


def _filled(made: list[Template], *, rounds: int, seed: int, held_out: bool) -> Iterator[Sample]:
    people, chance = People(seed), random.Random(seed)
    for _ in range(rounds):
        for template in made:
            sample = fill(template, Fillers(people, held_out=held_out))
            yield _in_case(sample, chance.randrange(100))


def fill(template: Template, fillers: Fillers) -> Sample:
    text, position, gold = "", 0, []
    for slot in _SLOT.finditer(template.text):
        value, kind, origin = fillers.value(slot[1])
        text += template.text[position : slot.start()]
        if kind is not None:
            gold.append(Gold(len(text), len(text) + len(value), kind, origin if kind == "PERSON" else ""))
        text, position = text + value, slot.end()
    return Sample(text + template.text[position:], tuple(gold), template.register, template=template.number)


def _in_case(sample: Sample, draw: int) -> Sample:
    lower = _LOWER.get(sample.register, 0)
    if draw < lower:
        return recased(sample, "lower")
    if draw < lower + _UPPER.get(sample.register, 0):
        return recased(sample, "upper")
    return sample


def recased(sample: Sample, case: str) -> Sample:
    """The sample in `lower` or `upper` case; keys and the like stay as they are, and so does every offset."""
    kept = {place for one in sample.gold if one.kind in CASE_KEPT for place in range(one.start, one.end)}
    changed = (c if place in kept else _cased(c, case) for place, c in enumerate(sample.text))
    return replace(sample, text="".join(changed), case=case)


def _cased(character: str, case: str) -> str:
    other = character.lower() if case == "lower" else character.upper()
    return other if len(other) == 1 else character


def unknown_slots() -> set[str]:
    """Slots of our templates that nothing fills; a test wants none."""
    people, unknown = People(0), set()
    for name in ("redaction_dev", "redaction_held_out", "negatives_dev", "negatives_held_out"):
        for template in templates(name):
            for slot in _SLOT.finditer(template.text):
                try:
                    Fillers(people, held_out=True).value(slot[1])
                except (AttributeError, KeyError):
                    unknown.add(slot[1])
    return unknown


KINDS = sorted(set(GOLD.values()) - NEUTRAL)
