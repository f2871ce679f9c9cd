"""What stands in the slots of the templates, and which of it is personal.

`GOLD` gives each slot its kind; a slot that is absent holds nothing personal, and one with a kind from `NEUTRAL` is a matter of
policy and counts neither way. The development set and the held-out set are filled with other formats.
"""

import datetime as dt
import re
from collections.abc import Callable

from . import credentials, identifiers
from .identifiers import digits, pattern
from .people import People, Person

GOLD: dict[str, str] = {
    **dict.fromkeys(["name", "first", "last", "last_first", "initials_last", "first_upper"], "PERSON"),
    **dict.fromkeys(["street", "address", "road"], "ADDRESS"),
    **dict.fromkeys(["city", "postcode"], "PLACE"),
    "phone": "PHONE",
    "email": "EMAIL",
    "url": "URL",
    **dict.fromkeys(["ip", "ipv6"], "IP"),
    "mac": "MAC",
    "dob": "BIRTH",
    "age": "AGE",
    "ssn": "US_SSN",
    "itin": "US_ITIN",
    "nino": "UK_NINO",
    "aadhaar": "IN_AADHAAR",
    "pan": "IN_PAN",
    "tfn": "AU_TFN",
    "nric": "SG_NRIC",
    "dni": "ES_DNI",
    "codice_fiscale": "IT_FISCAL_CODE",
    "steuer_id": "DE_TAX_ID",
    "bsn": "NL_BSN",
    "cpf": "BR_CPF",
    "pesel": "PL_PESEL",
    "nir": "FR_NIR",
    "sin": "CA_SIN",
    "passport": "PASSPORT",
    "licence": "DRIVING_LICENCE",
    "card": "CARD",
    "iban": "IBAN",
    **dict.fromkeys(["account", "routing", "sort_code", "bsb"], "BANK"),
    **dict.fromkeys(["btc", "eth"], "CRYPTO"),
    **dict.fromkeys(["api_key", "aws_id", "aws_secret", "azure_key"], "API_KEY"),
    "token": "TOKEN",
    "private_key": "PRIVATE_KEY",
    "password": "PASSWORD",
    "username": "USERNAME",
    "mrn": "MEDICAL_RECORD",
    "member_id": "HEALTH_PLAN",
    "mbi": "HEALTH_PLAN",
    "npi": "NPI",
    "dea": "DEA",
    "nhs": "UK_NHS",
    "device_id": "DEVICE_ID",
    "plate": "PLATE",
    "vin": "VIN",
    **dict.fromkeys(["org", "nationality", "date", "year", "weekday", "isodate", "job", "house"], "OTHER"),
}
# A place by itself, an organisation, a date: whether they are replaced is the caller's policy.
NEUTRAL = frozenset({"PLACE", "OTHER"})
# Written as they are whatever the case of the text: a lower-case key is no key.
CASE_KEPT = frozenset({"API_KEY", "TOKEN", "PRIVATE_KEY", "PASSWORD", "CRYPTO", "URL", "USERNAME", "IBAN", "VIN"})

_ORGANISATIONS = (
    "Northwind Traders|Halberd & Co|Oakline Insurance|Brightwater Clinic|Ferro Logistics|Contoso|Blue Heron Bank".split(
        "|"
    )
)
_JOBS = "nurse|carpenter|software engineer|teacher|electrician|accountant|bus driver|chemist|baker|paralegal".split("|")
_MAIL_HOSTS = (
    "gmail.com",
    "example.org",
    "outlook.com",
    "yahoo.co.uk",
    "web.de",
    "orange.fr",
    "company-mail.net",
    "proton.me",
)
_BIRTHS = ("%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d.%m.%Y")
_BIRTHS_HELD_OUT = (*_BIRTHS, "%d-%m-%Y", "%b %d, %Y", "%d %b %Y", "%m/%d/%y", "%-d.%-m.%Y", "%dth of %B %Y")
_PLATES = {
    "en_US": ("#???###", "??? ####"),
    "en_GB": ("??## ???",),
    "en_IN": ("MH ## ?? ####", "KA##??####"),
    "en_AU": ("??? ###",),
}
_PASSPORTS = {
    "en_US": ("%########", "?########"),
    "en_GB": ("%########",),
    "en_IN": ("?#######",),
    "en_AU": ("P?#######", "?#######"),
    "de_DE": ("C^^^^^^^%",),
    "fr_FR": ("##??#####",),
    "es_ES": ("???######",),
    "it_IT": ("??#######",),
}
_LICENCES = {
    "en_US": ("?#######", "?############", "#########"),
    "en_GB": ("?????#######??#??",),
    "en_IN": ("MH%%-20#########",),
    "en_AU": ("########",),
}


def _birth(people: People, held_out: bool) -> str:
    day = dt.date(1935, 1, 1) + dt.timedelta(days=people.chance.randrange(75 * 365))
    written = day.strftime(people.chance.choice(_BIRTHS_HELD_OUT if held_out else _BIRTHS))
    return re.sub(r"\b(\d)1th\b|\b(\d)([23])th\b", lambda found: found[0][:-2] + "th", written)


def _phone(people: People, person: Person, held_out: bool) -> str:
    chance = people.chance
    if person.country in ("en_US", "en_GB", "en_AU", "en_IN"):
        shapes = {
            "en_US": ["(2##) %##-####", "2##-%##-####", "+1 2## %## ####", "+12##%######"],
            "en_GB": ["07### ######", "020 7### ####", "+44 7### ######", "0161 4## ####"],
            "en_AU": ["04## ### ###", "(02) 9### ####", "+61 4## ### ###"],
            "en_IN": ["+91 9#### #####", "98########", "+91-98########"],
        }[person.country]
        if held_out:
            shapes = (
                shapes
                + {
                    "en_US": ["2##.%##.####", "1-2##-%##-####", "2## %## ####", "(2##)%##-#### ext. 4##"],
                    "en_GB": ["+44 (0)20 7### ####", "01632 96####", "+447#########"],
                    "en_AU": ["04########", "+61-2-9###-####"],
                    "en_IN": ["0091 9#########", "9####-#####"],
                }[person.country]
            )
        return pattern(chance, chance.choice(shapes))
    return str(people.fake(person.country).phone_number())


def _email(people: People, person: Person, held_out: bool) -> str:
    first, last = (part.lower() or "x" for part in person.ascii)
    local = [f"{first}.{last}", f"{first}{last}", f"{first[0]}{last}"]
    if held_out:
        local = [
            f"{last}.{first}",
            f"{first}_{last}{people.chance.randint(1, 99)}",
            f"{first}+shop",
            f"{first[0]}-{last}",
        ]
    return f"{people.chance.choice(local)}@{people.chance.choice(_MAIL_HOSTS)}"


def _url(people: People, person: Person) -> str:
    first, last = (part.lower() for part in person.ascii)
    host = people.chance.choice(["www.", "blog.", ""]) + last
    return f"https://{host}.example.{people.chance.choice(['com', 'org', 'net'])}/{first}"


def _username(people: People, person: Person, held_out: bool) -> str:
    first, last = (part.lower() or "x" for part in person.ascii)
    number = people.chance.randint(1, 99)
    names = [f"{first}{number}", f"{first[0]}{last}", f"{last}_{first[0]}"]
    return people.chance.choice(
        [f"{last[:4]}{first[:3]}", f"the_real_{first}", f"{first}-{number}"] if held_out else names
    )


def _street(people: People, person: Person, held_out: bool) -> str:
    fake, chance = people.fake(person.country), people.chance
    if person.country in ("en_US", "en_AU"):
        house = f"{chance.randint(1, 9999)} {fake.street_name()}"
        extra = [", Apt {}", ", Unit {}", " #{}", " Suite {}"] if held_out else [" Apt. {}", ", Suite {}"]
        return house + (chance.choice(extra).format(chance.randint(1, 400)) if chance.random() < 0.3 else "")
    if person.country in ("en_GB", "en_IN"):
        flat = f"Flat {chance.randint(1, 40)}, " if chance.random() < 0.2 else ""
        road = (
            fake.street_name()
            if person.country == "en_GB"
            else f"{fake.last_name()} {chance.choice(['Road', 'Marg', 'Nagar', 'Street'])}"
        )
        return f"{flat}{chance.randint(1, 250)}{chance.choice(['', '', 'A'])} {road}"
    return str(fake.street_address()).replace("\n", ", ")


def _town(people: People, person: Person) -> str:
    return str(people.fake(person.country).city())


def _address(people: People, person: Person, held_out: bool) -> str:
    fake, street, town = people.fake(person.country), _street(people, person, held_out), _town(people, person)
    postcode = str(fake.postcode())
    if person.country == "en_US":
        return f"{street}, {town}, {fake.state_abbr()} {postcode}"
    if person.country == "en_AU":
        return f"{street}, {town} {fake.state_abbr()} {postcode}"
    if person.country in ("en_GB", "en_IN"):
        return f"{street}, {town}{' ' if person.country == 'en_GB' else ' - '}{postcode}"
    return f"{street}, {postcode} {town}"


def _by_country(people: People, person: Person, shapes: dict[str, tuple[str, ...]]) -> str:
    return pattern(people.chance, people.chance.choice(shapes.get(person.country, shapes["en_US"])))


def _licence(people: People, person: Person) -> str:
    if person.country == "en_GB":  # DVLA: surname, decade, month, day, year, initials, check
        chance = people.chance
        born = f"{chance.randint(0, 9)}{chance.randint(1, 12):02d}{chance.randint(1, 28):02d}{chance.randint(0, 9)}"
        return (person.ascii[1].upper() + "9999")[:5] + born + pattern(chance, "??9??")
    return _by_country(people, person, _LICENCES)


def _card(people: People) -> str:
    chance = people.chance
    prefix, length = chance.choice([("4", 16), ("51", 16), ("55", 16), ("37", 15), ("6011", 16), ("2221", 16)])
    body = prefix + digits(chance, length - len(prefix) - 1)
    number = body + identifiers.luhn(body)
    groups = [number[:4], number[4:10], number[10:]] if length == 15 else [number[i : i + 4] for i in range(0, 16, 4)]
    return chance.choice(["", " ", "-"]).join(groups)


def _iban(people: People, person: Person, held_out: bool) -> str:
    locale = (
        person.country if person.country in ("en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL") else "de_DE"
    )
    number = str(people.fake(locale).iban())
    spaced = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    return people.chance.choice([number, spaced] if held_out else [number, number, spaced])


def _mrn(people: People, held_out: bool) -> str:
    shapes = ["########", "MRN-######", "??######"]
    return pattern(
        people.chance, people.chance.choice(["H#######", "###-##-##", "#######", "??-####-##"] if held_out else shapes)
    )


def _fill(slot: str, people: People, person: Person, held_out: bool) -> str:
    chance = people.chance
    first, last = person.first, person.last
    table: dict[str, Callable[[], str]] = {
        "name": lambda: f"{first} {last}",
        "first": lambda: first,
        "first_upper": first.upper,
        "last": lambda: last,
        "last_first": lambda: f"{last}, {first}",
        "initials_last": lambda: f"{first[0]}. {last}",
        "street": lambda: _street(people, person, held_out),
        "address": lambda: _address(people, person, held_out),
        "road": lambda: str(people.fake(person.country if person.country != "en_IN" else "en_GB").street_name()),
        "house": lambda: str(chance.randint(1, 9999)),
        "city": lambda: _town(people, person),
        "postcode": lambda: str(people.fake(person.country).postcode()),
        "phone": lambda: _phone(people, person, held_out),
        "email": lambda: _email(people, person, held_out),
        "username": lambda: _username(people, person, held_out),
        "url": lambda: _url(people, person),
        "ip": lambda: (
            f"{chance.choice([81, 93, 145, 188, 203, 62])}.{chance.randint(0, 255)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
        ),
        "ipv6": lambda: (
            "2a02:" + ":".join(f"{chance.randint(1, 65535):x}" for _ in range(7))
            if held_out
            else f"2001:db8:{chance.randint(1, 65535):x}::{chance.randint(1, 65535):x}"
        ),
        "mac": lambda: chance.choice([":", "-"]).join(f"{byte:02x}" for byte in chance.randbytes(6)),
        "dob": lambda: _birth(people, held_out),
        "age": lambda: str(chance.randint(2, 94)),
        "codice_fiscale": lambda: str(people.fake("it_IT").ssn()),
        "passport": lambda: _by_country(people, person, _PASSPORTS),
        "licence": lambda: _licence(people, person),
        "card": lambda: _card(people),
        "iban": lambda: _iban(people, person, held_out),
        "account": lambda: digits(chance, chance.choice([8, 9, 10, 12]), first="123456789"),
        "sort_code": lambda: pattern(chance, "##-##-##"),
        "bsb": lambda: pattern(chance, "0##-###"),
        "btc": lambda: identifiers.bitcoin(chance),
        "eth": lambda: identifiers.ethereum(chance),
        "api_key": lambda: credentials.api_key(chance, held_out=held_out),
        "token": lambda: credentials.token(chance, held_out=held_out),
        "aws_id": lambda: credentials.aws_id(chance, held_out=held_out),
        "aws_secret": lambda: credentials.aws_secret(chance),
        "azure_key": lambda: credentials.azure_key(chance),
        "private_key": lambda: credentials.private_key(chance, held_out=held_out),
        "password": lambda: credentials.password(chance, held_out=held_out),
        "mrn": lambda: _mrn(people, held_out),
        "member_id": lambda: pattern(
            chance, chance.choice(["???#########", "W##########"] if not held_out else ["#########-##", "??########"])
        ),
        "device_id": lambda: pattern(
            chance, chance.choice(["SN######", "???-#####-##"] if not held_out else ["?#?######", "####-??-####"])
        ),
        "plate": lambda: _by_country(people, person, _PLATES),
        "org": lambda: chance.choice(_ORGANISATIONS),
        "job": lambda: chance.choice(_JOBS),
        "nationality": lambda: chance.choice(["Swedish", "Indian", "Brazilian", "British"]),
        "date": lambda: (dt.date(2023, 1, 1) + dt.timedelta(days=chance.randrange(1000))).strftime("%d %B %Y"),
        "year": lambda: str(chance.randint(1990, 2025)),
        "weekday": lambda: chance.choice(["Monday", "Tuesday", "Thursday", "Friday"]),
        "isodate": lambda: dt.datetime.fromtimestamp(1_700_000_000 + chance.randrange(10**7), dt.UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        "n": lambda: str(chance.randint(100, 9999)),
        "order": lambda: pattern(chance, "#####"),
        "uuid": lambda: "-".join(chance.randbytes(n).hex() for n in (4, 2, 2, 2, 6)),
        "sha": lambda: chance.randbytes(chance.choice([4, 20, 32])).hex(),
        "version": lambda: f"{chance.randint(0, 20)}.{chance.randint(0, 40)}.{chance.randint(0, 20)}",
        "money": lambda: f"{chance.randint(1, 99)},{chance.randint(100, 999)}.{chance.randint(10, 99)}",
        "isbn": lambda: pattern(chance, "978-3-##-######-#"),
        "bignum": lambda: digits(chance, chance.choice([6, 7, 8, 11, 12, 13]), first="123456789"),
        "decimal": lambda: f"{chance.random() * 100:.6f}",
        "time": lambda: f"{chance.randint(0, 23):02d}:{chance.randint(0, 59):02d}",
    }
    if slot in table:
        return table[slot]()
    return str(getattr(identifiers, slot)(chance))


class Fillers:
    """Values for one text: the slots of a person (`{{name2}}`, `{{email2}}`) belong together, and repeat when repeated."""

    def __init__(self, people: People, *, held_out: bool) -> None:
        self._people, self._held_out = people, held_out
        self._persons: dict[str, Person] = {}
        self._values: dict[str, str] = {}

    def person(self, number: str) -> Person:
        if number not in self._persons:
            country = next(iter(self._persons.values())).country if self._persons else None
            self._persons[number] = self._people.person(country=country)
        return self._persons[number]

    def value(self, slot: str) -> tuple[str, str | None, str]:
        """(value, gold kind or None, origin of the name) of a slot such as `phone2`."""
        base, number = re.fullmatch(r"([a-z_0-9]*?[a-z])([0-9]?)", slot).groups() if slot != "ipv6" else ("ipv6", "")  # type: ignore[union-attr]
        person = self.person(number)
        if slot not in self._values:
            self._values[slot] = _fill(base, self._people, person, self._held_out)
        return self._values[slot], GOLD.get(base), person.origin
