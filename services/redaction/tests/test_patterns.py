"""What the pattern recognizers find, as people write it, and what only looks like it."""

import re
import time
from collections.abc import Callable

import pytest
from sluice_redaction.adapters.patterns import checksums
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.recognizer import Recognizer
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.arbitration import arbitrate
from sluice_redaction.domain.kinds import DEFAULT_KINDS, KINDS

_VALUE = re.compile(r"\[([^\[\]]*)\]")


@pytest.fixture(scope="module")
def detector() -> PatternDetector:
    return PatternDetector(pattern_sources())


def marked(detector: PatternDetector, text: str, kinds: frozenset[str]) -> list[tuple[str, str]]:
    """Values and kinds as the default threshold and arbitration leave them."""
    candidates = [one for one in detector.detect(text, kinds) if one.score >= 0.4]
    return [(text[one.start : one.end], one.kind) for one in arbitrate(candidates, text)]


# Values in brackets, in order; the kinds of all of them behind.
_POSITIVES = [
    ("Mail [john.smith@example.com] or [t.brackenwold@quillmoor.local].", "EMAIL_ADDRESS"),
    ("Schreib an [jürgen.müller@straße.de] bitte", "EMAIL_ADDRESS"),
    ("[root@10.0.0.1] was tried", "EMAIL_ADDRESS"),
    ("from [192.168.10.24] to [2001:db8::ff00:42:8329]", "IP_ADDRESS"),
    ("NIC [00:1B:44:11:3A:B7] and [00-1b-44-11-3a-b8]", "MAC_ADDRESS"),
    ("Call me at [+1 212 555 0123] or [(415) 555-2671].", "PHONE_NUMBER"),
    ("UK: [020 7946 0958], [07700 900123], [+44 (0)20 7946 0958]", "PHONE_NUMBER"),
    ("Tel. [030 901820], Mobil [0171 2345678]", "PHONE_NUMBER"),
    ("Téléphone [01 42 68 53 00], portable [06 12 34 56 78]", "PHONE_NUMBER"),
    ("mobile [98765 43210], whatsapp [+91 98765-43210]", "PHONE_NUMBER"),
    ("phone [6123 4567] in Singapore, móvil [612 345 678]", "PHONE_NUMBER"),
    ("Reach us on [001-340-909-1714x521].", "PHONE_NUMBER"),
    ("amex [3782 822463 10005], visa [4012888888881881]", "CREDIT_CARD"),
    ("my card [5555-5555-5555-4444] exp 12/27", "CREDIT_CARD"),
    ("IBAN [GB82 WEST 1234 5698 7654 32] please, [FR1420041010050500013M02606] too", "IBAN_CODE"),
    ("wallet [bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq]", "CRYPTO"),
    ("0x is [0x742d35Cc6634C0532925a3b844Bc454e4438f44e]", "CRYPTO"),
    ("her social security number is [536-90-4399]", "US_SSN"),
    ("ssn [536904399]", "US_SSN"),
    ("CPF [529.982.247-25]", "BR_CPF"),
    ("ma sécu: numéro de sécurité sociale [2 55 08 14 168 025 38]", "FR_NIR"),
    ("mi DNI es [12345678Z]", "ES_NIF"),
    ("driver's license number [D1234567]", "US_DRIVER_LICENSE"),
    ("VIN [1HGCM82633A004352]", "VIN"),
    ("INFO login user=[tokamoto] ok", "USERNAME"),
    ("Passport no. [X4RTBPFW4] issued in Bonn", "PASSPORT"),
    ("MRN: [00123456], chart no. [AB-998877]", "MEDICAL_RECORD_NUMBER"),
    ("Member ID [XYZ123456789]; subscriber number: [W2345-11]", "HEALTH_PLAN_NUMBER"),
    ("IMEI [490154203237518], serial no. [SN-0099-AX12]", "DEVICE_ID"),
    ("DOB: [12/03/1980], geb. [12.03.1980], née le [3 mars 1975]", "DATE_OF_BIRTH"),
    ("fecha de nacimiento: [3 de abril de 1985]", "DATE_OF_BIRTH"),
    ("My birthday is [March 3rd].", "DATE_OF_BIRTH"),
    ("Patient aged [47], a [52]-year-old man, [33] yo, age: [29].", "AGE"),
    ("I am [61], my son is [five] years old", "AGE"),
    ("I live at [12 Main Street, Springfield, IL 62704].", "STREET_ADDRESS"),
    ("Ship to [Flat 4, 12 Baker Street, London NW1 6XE].", "STREET_ADDRESS"),
    ("Adresse: [Hauptstraße 12, 10115 Berlin]", "STREET_ADDRESS"),
    ("J'habite [12 bis rue de la Paix, 75002 Paris].", "STREET_ADDRESS"),
    ("Vivo en [Calle Mayor 10, 28013 Madrid].", "STREET_ADDRESS"),
    ("Abito in [Via Giuseppe Verdi 12, 00184 Roma].", "STREET_ADDRESS"),
    ("Ik woon op [Keizersgracht 123, 1015 CJ Amsterdam].", "STREET_ADDRESS"),
    ("Send it to [Flat No. 12, MG Road, Bengaluru 560001].", "STREET_ADDRESS"),
    ("Write to [P.O. Box 1234, Portland, OR 97201].", "STREET_ADDRESS"),
    ("the postcode is [SW1A 1AA]", "UK_POSTCODE"),
    ("key [sk-proj-abcdefghijklmnopqrstuvwxyz123456]", "API_KEY"),
    ("[AKIAIOSFODNN7EXAMPLE] and [glpat-x1Y2z3A4b5C6d7E8f9G0]", "API_KEY"),
    ("STRIPE=[sk_live_4eC39HqLyjWDarjtT1zdp7dc]", "API_KEY"),
    ('{"api_key": "[9f8e7d6c5b4a39281706f5e4d3c2b1a0]"}', "API_KEY"),
    ("Authorization: Bearer [abcdef0123456789abcdef]", "API_KEY"),
    ("password: [hunter2!!]", "PASSWORD"),
    ("my password is [hunter2], the pin is [4821]", "PASSWORD"),
    ('"password": "[correct horse battery]"', "PASSWORD"),
    ("username: [jdoe], user id = [a.lee42]", "USERNAME"),
    ("follow me on twitter [@jdoe_92]", "USERNAME"),
    ("Charge it, exp 09/27 cvv [737]; the other: CVC: [4821], card security code is [112]", "PASSWORD"),
    ("the wifi key is [Canary-Boat-2024]", "PASSWORD"),
    ("[AKIAIOSFODNN7EXAMPLE] / [wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY]", "API_KEY"),
]


@pytest.mark.parametrize(("text", "kind"), _POSITIVES)
def test_a_value_is_found_at_its_place_as_its_kind(detector: PatternDetector, text: str, kind: str) -> None:
    values = [(value, kind) for value in _VALUE.findall(text)]
    found = marked(detector, _VALUE.sub(r"\1", text), DEFAULT_KINDS | {kind})
    assert [one for one in found if one[1] == kind] == values


def test_a_login_is_a_name_and_a_password(detector: PatternDetector) -> None:
    assert marked(detector, "login is jdoe / pw hunter2", DEFAULT_KINDS) == [
        ("jdoe", "USERNAME"),
        ("hunter2", "PASSWORD"),
    ]


_NEGATIVES = """
Order 123456789 ships in 3 to 5 days; the total is 1,299.00 dollars.
Version 10.4.2 of the library fixes bug 48213; see release 2.3.4.5 and v1.2.3-rc.1.
Solve 3x + 12 = 48, then 4111 + 1111. Chapter 12 Main Results: see Table 4 on page 173.
commit 9fceb02d0ae598e95dc970b74767f19372d61af8 and uuid 123e4567-e89b-12d3-a456-426614174000
sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
The password is wrong and the token has expired. Reset your password: click here. password: required
User: hello, can you help me? Login: required. username: string; password: str = Field(...)
token = os.environ["GITHUB_TOKEN"]; password = getpass(); api_key=config.api_key; secret: process.env.SECRET
In Excel, put =SUM(A1:A10) into B12. The image is 1920x1080 and 300 dpi, 16:9.
ISBN 978-3-16-148410-0, DOI 10.1000/182, RFC 2616, ISO 8601, port 8080, HTTP 404, error 0x80070005
Revenue grew from 1 234 567 to 2 345 678 in 2023-2024. $1,234,567.89 and 100 000 000 people; pi 3.14159265358979
1609459200 is a unix timestamp, 20240131 a date, 2024-01-31T10:00:00Z another, 12:30:45 a time.
The game ended 101-99; call of duty 4; from 1990 to 2020; 24/7; 50/50; 9-to-5
std::vector<int> a::b::c and std::cout << x; time 12:34:56; ratio 3:2:1; fe80 is a prefix; ::1 is localhost
The Boeing 747-400 and Airbus A320-200, BMW 320d, iPhone 15 Pro Max, Windows 11 22H2, Python 3.12.1
x = 4155552671; n = 98765432109876; arr[123456789]; 0xdeadbeef; 1e-10; 100000000000
Invoice 2024-000123 of 1200 EUR, ticket #4567890, PR 12345, issue 67890, SKU 12345678, tracking 1Z999AA10123456784
My account is locked. The account has 12345678 followers. bank holiday 2024. The member states are 27.
We sold 12345678 units on account of demand. A license to use 123456 seats.
plate of 12 cookies; registration opens 2024; car 54 where are you; reg exp [A-Z]{3}; MOT test 2023
PIN diode; pass 2 of 3; pass the test with 95%; login to the site; the user name is required; handle errors
eyes only; SG-1; sk-learn; sk-ate; AC/DC; hf_transfer is a package; npm_config_cache; key-value
The CVC 30 form, a CVV is three digits, CVC words; the wifi key is wrong; wifi key figures 2024
00:00:00:00:00:00 and ff:ff:ff:ff:ff:ff
Temperature 98.6, BP 120/80, HR 72, SpO2 98%, dose 500 mg every 8 hours, WBC 11.2, glucose 110-140
The 1st, 2nd and 3rd Avenue of research; the 5th Way; 21st Century Road map
Call 911 or 112. Dial 0 for operator. Step 1: call the API 3 times. text 1234
Population: 67 081 000; area 643 801 km2; GDP 2 920 000 000 000
I have 2 cats and 12 Angry Men on DVD. 5 Great Ways to Drive.
Number plate of the ZX Spectrum, VIN unknown; user=user
max_tokens: 4096, token_count=12345678, "secret": null, key: value
""".strip().splitlines()


@pytest.mark.parametrize("text", _NEGATIVES)
def test_ordinary_numbers_and_code_are_left_alone(detector: PatternDetector, text: str) -> None:
    assert marked(detector, text, DEFAULT_KINDS) == []


@pytest.mark.parametrize(
    "text",
    ["He is 5 feet tall and 47 percent sure.", "The age of reason.", "Section 47 yo-yo.", "I am 100 percent sure."],
)
def test_what_is_no_age_is_left_alone(detector: PatternDetector, text: str) -> None:
    assert marked(detector, text, frozenset({"AGE"})) == []


_UNITS = [
    "a", "A", "Aa ", "a.", "1", "1-", "1 ", "1.", "1/", "12 ", "1234 ", "1a", "A1", "A1 ", "@", "a@", "a@b.", "<", "password=", "password is ", "pw ",
    "born ", "born 1 ", "birthday ", "patient id ", "12 A ", "12 Main ", "1st ", "http://", "www.", "eyJ", "aws ", "ab://a:", "+1 ", "+", "(", "(1",
    "phone 1", "Jan 1 ", "DE89 ", "sk-", " ", "\n", "-----BEGIN PRIVATE KEY-----", "x.com/", "ff:", "::", "'\"http", "Abc ", "Abc, ", "A ", "rue ",
    "de la ", "Calle A ", "ul. A ", "Flat 1, ", "key=", "token: a", "é", "Ä1 ", "MRN ", "number ", "# ", "age 1 ", "0x", "bc1", "Vía ", "1,", "1) ",
    "PuTTY-User-Key-File-2:", ".", "-", "_", "/", "*", "Am Abc 1 ", "P.O. Box 1 ", "twenty years ", "P<", "\x1c",
]  # fmt: skip
_LENGTH, _TIMES = 24_000, 8


@pytest.mark.parametrize("recognizer", pattern_sources(), ids=lambda one: f"{one.name}-{one.kind}")
def test_no_pattern_takes_more_than_linear_time(recognizer: Recognizer) -> None:
    """Eight times the text may take at most some twenty times as long: a quadratic pattern takes 64 times. What is over
    in a few milliseconds is not timed again, because the clock is coarse there."""
    for pattern in recognizer.patterns:
        for unit in _UNITS:
            text = (unit * _LENGTH)[:_LENGTH]
            whole = seconds(pattern.expression, text)
            if whole < 0.05:
                continue
            eighth = min(seconds(pattern.expression, text[: _LENGTH // _TIMES]) for _ in range(3))
            again = min(whole, seconds(pattern.expression, text))
            assert again < 2.5 * _TIMES * max(eighth, 0.002), (pattern.name, unit)
            assert again < 4, (pattern.name, unit)


def seconds(expression: re.Pattern[str], text: str) -> float:
    begun = time.process_time()
    for _ in expression.finditer(text):
        pass
    return time.process_time() - begun


def test_every_kind_of_a_recognizer_is_known() -> None:
    assert {recognizer.kind for recognizer in pattern_sources()} <= KINDS.keys()


@pytest.mark.parametrize(
    ("passes", "value"),
    [
        (checksums.czech, "785101/1180"),  # the rest is ten, written as 0 until 1985
        (checksums.cuit, "20-94484881-9"),  # the rest is ten, written as 9
        (checksums.siret, "732 829 320 00074"),
        (checksums.nir, "2 55 08 14 168 025 38"),
        (checksums.bech32, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
        (checksums.base58check, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
        (checksums.mod_11_2, "11010519491231002X"),
        (checksums.vin, "1M8GDM9AXKP042788"),
    ],
)
def test_a_check_passes_what_is_issued_and_no_digit_changed(passes: Callable[[str], bool], value: str) -> None:
    assert passes(value)
    digit = next(place for place in reversed(range(len(value))) if value[place].isdigit())
    assert not passes(value[:digit] + str((int(value[digit]) + 1) % 10) + value[digit + 1 :])
