"""Disguise: values that a reader sees and a pattern does not, the way back to their exact place, and what is no disguise."""

import base64
import re
import time
import urllib.parse
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.offline import use_packaged_suffix_list
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.detection import STREAM, WHOLE_TEXT, detect
from sluice_redaction.domain.disguise import Edit, View, find
from sluice_redaction.domain.disguise.seeing import as_it_reads
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.policy import Policy


@pytest.fixture(scope="module")
def patterns() -> PatternDetector:
    use_packaged_suffix_list()
    return PatternDetector(pattern_sources(("US", "GB")))


def spaced(value: str) -> str:
    return " ".join(value)


_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def spoken(digits: str) -> str:
    return " ".join(_WORDS[int(digit)] for digit in digits)


_KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"
_ACCOUNT_KEY = "AcT0ismHT2eVd7TmJeUX0yqLXS7/+CBjNL2cEa/5W3eaVR+zr4L0KnTUbPovVXG2nlIgCg70uWpMpMXd5F2mYg=="
_DISGUISED = [
    # value as it stands in the text, kind, disguise
    ("john.sm\u200bith@exa\u00admple.com", "EMAIL_ADDRESS", "invisible"),
    ("john\u2060@\ufeffexample.com", "EMAIL_ADDRESS", "invisible"),
    ("4111\u202e 1111\u202c 1111 1111", "CREDIT_CARD", "invisible"),
    ("4111\u200b1111 1111 1111", "CREDIT_CARD", "invisible"),
    ("4\ufe0f111 1111 1111 1111", "CREDIT_CARD", "invisible"),
    ("AKIA\U000e0001IOSFODNN7EXAMPLE", "API_KEY", "invisible"),
    ("".join(chr(0xE0000 + ord(character)) for character in "john@example.com"), "EMAIL_ADDRESS", "tags"),
    ("joh\x00n@exam\x7fple.com", "EMAIL_ADDRESS", "invisible"),
    ("４１１１ １１１１ １１１１ １１１１", "CREDIT_CARD", "width"),
    ("ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "EMAIL_ADDRESS", "width"),
    ("4111\u00a01111\u20091111\u30001111", "CREDIT_CARD", "width"),
    ("𝗷𝗼𝗵𝗻@𝗲𝘅𝗮𝗺𝗽𝗹𝗲.𝗰𝗼𝗺", "EMAIL_ADDRESS", "styled"),
    ("ⓙⓞⓗⓝ@example.com", "EMAIL_ADDRESS", "styled"),
    ("🅹🅾🅷🅽@example.com", "EMAIL_ADDRESS", "styled"),
    ("④①①① 1111 1111 1111", "CREDIT_CARD", "styled"),
    ("٤١١١ ١١١١ ١١١١ ١١١١", "CREDIT_CARD", "digits"),
    ("४१११ ११११ ११११ ११११", "CREDIT_CARD", "digits"),
    ("4️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣1️⃣", "CREDIT_CARD", "accent"),
    ("4̶1̶1̶1̶ 1111 1111 1111", "CREDIT_CARD", "accent"),
    ("АКІАIOSFODNN7EXAMPLE", "API_KEY", "look-alike"),
    ("sk-proj-аbсdеfghijklmnopqrstuvwxyz123456", "API_KEY", "look-alike"),
    ("4111–1111–1111–1111", "CREDIT_CARD", "dash"),
    ("john\\u0040example.com", "EMAIL_ADDRESS", "escape"),
    ("john\\\\u0040example\\\\u002ecom", "EMAIL_ADDRESS", "escape"),
    ("john\\_smith\\@example\\.com", "EMAIL_ADDRESS", "escape"),
    ("john%40example.com", "EMAIL_ADDRESS", "percent"),
    ("john%2540example.com", "EMAIL_ADDRESS", "percent"),
    ("%6a%6f%68%6e%40%65%78%61%6d%70%6c%65%2e%63%6f%6d", "EMAIL_ADDRESS", "percent"),
    ("john&#64;example.com", "EMAIL_ADDRESS", "entity"),
    ("john&#x40;example&period;com", "EMAIL_ADDRESS", "entity"),
    ("john&commat;example.com", "EMAIL_ADDRESS", "entity"),
    ("john dot smith at example dot com", "EMAIL_ADDRESS", "spelled"),
    ("john [at] example (dot) com", "EMAIL_ADDRESS", "spelled"),
    ("john(AT)example.com", "EMAIL_ADDRESS", "spelled"),
    ("john_at_example.com", "EMAIL_ADDRESS", "spelled"),
    ("john underscore smith at example dot co dot uk", "EMAIL_ADDRESS", "spelled"),
    ("john.smith @ example . com", "EMAIL_ADDRESS", "spelled"),
    (spaced("john@example.com"), "EMAIL_ADDRESS", "spaced"),
    (spaced("4111111111111111"), "CREDIT_CARD", "spaced"),
    ("4 1 1 1  1 1 1 1  1 1 1 1  1 1 1 1", "CREDIT_CARD", "spaced"),
    ("4111.1111.1111.1111", "CREDIT_CARD", "spaced"),
    ("41.11.11.11.11.11.11.11", "CREDIT_CARD", "spaced"),
    ("4111 | 1111 | 1111 | 1111", "CREDIT_CARD", "spaced"),
    ("2 1 2 5 5 5 0 1 2 3", "PHONE_NUMBER", "spaced"),
    ("+ 1 2 1 2 5 5 5 0 1 2 3", "PHONE_NUMBER", "spaced"),
    ("21.25.55.01.23", "PHONE_NUMBER", "spaced"),
    (spoken("4111111111111111"), "CREDIT_CARD", "spoken"),
    ("four triple one, one one one one, one one one one, double one double one", "CREDIT_CARD", "spoken"),
    ("forty-one eleven eleven eleven eleven eleven eleven eleven", "CREDIT_CARD", "spoken"),
    ("two one two, five five five, oh one two three", "PHONE_NUMBER", "spoken"),
    ("five three six dash nine oh dash four three nine nine", "US_SSN", "spoken"),
    ("4111 1111\n1111 1111", "CREDIT_CARD", "line-break"),
    ("4111 1111\n> 1111 1111", "CREDIT_CARD", "line-break"),
    ("john.smith@exam\nple.com", "EMAIL_ADDRESS", "line-break"),
    ("john.smith\n@example.com", "EMAIL_ADDRESS", "line-break"),
    ("john.smith@mail.example.\ncom", "EMAIL_ADDRESS", "line-break"),
    ("sk-proj-abcdefghijklmnop\n> qrstuvwxyz123456", "API_KEY", "line-break"),
    ("4111** 1111 1111 1111", "CREDIT_CARD", "markup"),
    ("john**@**example.com", "EMAIL_ADDRESS", "markup"),
    ("john<wbr>@example.com", "EMAIL_ADDRESS", "markup"),
    (base64.b64encode(_KEY.encode()).decode(), "API_KEY", "base64"),
    (base64.b64encode(b"please write to john.smith@example.com soon").decode(), "EMAIL_ADDRESS", "base64"),
    (base64.urlsafe_b64encode("ÿþ mail john@example.com ÿþ".encode()).decode().rstrip("="), "EMAIL_ADDRESS", "base64"),
    (base64.b64encode(base64.b64encode(b"mail john.smith@example.com")).decode(), "EMAIL_ADDRESS", "base64"),
    (b"mail john.smith@example.com".hex(), "EMAIL_ADDRESS", "hex"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "disguise"), _DISGUISED)
def test_a_disguised_value_is_found_at_its_exact_place(
    patterns: PatternDetector, value: str, kind: str, disguise: str
) -> None:
    before = "The social security number, the phone, whatever you asked for: "
    text = f"{before}{value}, and that is all."
    found = detect(text, patterns, Policy())
    assert [(text[one.start : one.end], one.kind, one.disguise) for one in found] == [(value, kind, disguise)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": "x\\u0040example.com\\nmary@example.org"}', ["x\\u0040example.com", "mary@example.org"]),
        ('{"a": "{\\"mail\\": \\"mary@example.org\\"}"}', ["mary@example.org"]),
        ("`john@example.com` and *mary@example.org*", ["john@example.com", "mary@example.org"]),
        ("[john@example.com](mailto:john@example.com)", ["john@example.com"] * 2),
        ("**4111** **1111** **1111** **1111**", ["4111** **1111** **1111** **1111"]),
        ("MRN **40694742** and IP `10.1.2.34`", ["40694742", "10.1.2.34"]),
        (f"AccountKey=**{_ACCOUNT_KEY}**", [_ACCOUNT_KEY]),
        ("SSN: 440-6\n1-4925 <b>john@example.com</b>", ["440-6\n1-4925", "john@example.com"]),
        ("https://example.com/?to=john%40example.com&x=%20y", ["john%40example.com"]),
        ("> so my card\n> is 4111 1111\n> 1111 1111, ok", ["4111 1111\n> 1111 1111"]),
        ("To ann@example.com.\nThanks", ["ann@example.com"]),
        ("jоhn.smіth@ехаmple.com", ["jоhn.smіth@ехаmple.com"]),
        ("ÁKIAÍOSFÓDNN7EXÁMPLE", ["ÁKIAÍOSFÓDNN7EXÁMPLE"]),
    ],
)  # fmt: skip
def test_what_stands_around_a_value_stays(patterns: PatternDetector, text: str, values: list[str]) -> None:
    assert [text[one.start : one.end] for one in detect(text, patterns, Policy())] == values


@pytest.mark.parametrize(
    "text",
    [
        "Meet me at noon. Dot your i's and cross your t's.",
        "She arrived at the dot, at last, at home.",
        "Look at example dot com for details, or visit us at example.com.",
        "It was the peak of the boom at the dot com companies.",
        "One of the two is fine, three at most; four or five would be six too many.",
        "Count: one two three four five six seven eight nine ten. And back: nine eight seven six five four three two one.",
        "The score was four to one, then two to nothing, seven minutes before the end.",
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
        "0 1 1 2 3 5 8 13 21 34 55 89 144",
        "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "commit 741f7c5e0b28c8488242b7e32817a4fd65d5741f and md5 d41d8cd98f00b204e9800998ecf8427e",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
        "The text " + base64.b64encode(b"the quick brown fox jumps over the lazy dog").decode() + " says little.",
        "https://example.com/a%20page/with%20blanks?q=100%25&lang=en",
        "if (a < b && c > d) { return a*b*c; } // **bold** `code` __init__",
        "Привет, меня интересует погода в Москве; цена 100 рублей.",
        "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
        "Größe: 5 µm, Δt = 3 s, naïve café, ½ cup, 10² m², ™ and © and №5",
        "👩‍💻 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿 and ❤️ are emoji.",
        "Versions 10.4.2, 2024-01-15 and 2024.01.15.2024.01.16 differ.",
        "C:\\new\\table\\readme.txt and \\d+\\.\\d+",
        "option (a) at 10.30 am, room [at] floor 3",
        "3141\n2718\n1618\n1414",
        "class A:\n    @property\n    @abc.abstractmethod\n    def b(self): ...\n\n@pytest.mark.slow\n@pytest.mark.parametrize('x', [1])",
        "Use @pytest.fixture below, or many @click.option lines.",
        'oids = ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")',
        "ops.adam(one, one, one, one, 0.0, 0.0, 0.0, 0.0)",
        "assert out.size_at_t.ndim == 2",
        "phone pattern='8(?:00|33|44|55|66|77|88)[2-9]'",
    ],
)  # fmt: skip
def test_what_is_no_disguise_is_left_alone(patterns: PatternDetector, text: str) -> None:
    assert [(text[one.start : one.end], one.kind) for one in detect(text, patterns, Policy())] == []


@pytest.mark.parametrize("shift", range(4))
def test_a_long_encoding_is_seen_through_from_any_place_of_it(patterns: PatternDetector, shift: int) -> None:
    secret = "Größe, Länge, Weite. " * 130 + "Write to john.smith@example.com soon. " + "And so on. " * 10
    blob = base64.b64encode(secret.encode()).decode()[4 + shift :]
    found = detect(f"See {blob} there.", patterns, Policy())
    covered = "".join(f"See {blob} there."[one.start : one.end] for one in found)
    assert covered.rstrip("=").endswith(blob.rstrip("=")[-80:])


# --- laws -------------------------------------------------------------------------------------------------------------
_ANY = st.text(
    st.sampled_from("ab1@. \n\\%&#;u0040x\u200b\u00ad\ufeffＡ１𝗮٤ёЖаоé\u0301é🙂*`_<>-\u2013\u3000ﬁ") | st.characters(), max_size=60
)  # fmt: skip


@st.composite
def _text_and_edits(draw: st.DrawFn) -> tuple[str, list[Edit]]:
    text = draw(st.text(max_size=40))
    places = draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    edits = [
        Edit(start, end, draw(st.text(max_size=4)), "test")
        for start, end in zip(places[::2], places[1::2], strict=False)
        if start < end
    ]
    return text, edits


@settings(max_examples=300, deadline=None)
@given(given_=_text_and_edits(), more=st.data())
def test_a_span_of_a_view_leads_back_to_exactly_what_made_it_up(
    given_: tuple[str, list[Edit]], more: st.DataObject
) -> None:
    text, edits = given_
    view = View.plain(text).edited(edits)
    # Written down character by character: where each came from.
    came_from: list[tuple[int, int]] = []
    position = 0
    for edit in edits:
        came_from += [(place, place + 1) for place in range(position, edit.start)]
        came_from += [(edit.start, edit.end)] * len(edit.becomes)
        position = edit.end
    came_from += [(place, place + 1) for place in range(position, len(text))]
    assert len(came_from) == len(view.text)
    if view.text:
        start = more.draw(st.integers(0, len(view.text) - 1))
        end = more.draw(st.integers(start + 1, len(view.text)))
        assert view.original(start, end) == (came_from[start][0], came_from[end - 1][1])


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(
        alphabet=st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\%&*_~`<"), max_size=200
    )
)
def test_plain_text_reads_as_it_is_written(text: str) -> None:
    view = as_it_reads(text)
    assert view.is_plain
    assert view.text == text


class Letters:
    """Finds every run of a, b, 1 and @: enough to see where findings land."""

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        return [Finding(*match.span(), "EMAIL_ADDRESS", 1.0, "letters") for match in re.finditer("[ab1@]+", text)]

    detect_patterns = detect


@settings(max_examples=300, deadline=None)
@given(text=_ANY)
def test_findings_of_any_text_lie_inside_it_in_order_and_read_as_what_was_found(text: str) -> None:
    found = find(text, Letters(), frozenset(), lambda candidates, _: sorted(candidates))
    end = 0
    for one in found:
        assert end <= one.start < one.end <= len(text)
        end = one.end
        if not one.disguise:
            assert re.fullmatch("[ab1@]+", text[one.start : one.end])


@settings(max_examples=200, deadline=None)
@given(
    value=st.sampled_from(["john.smith@example.com", "4111 1111 1111 1111", "536-90-4399", _KEY]),
    unseen=st.lists(st.tuples(st.integers(1, 100), st.sampled_from("\u200b\u200d\u00ad\u2060\ufeff\u202a\ufe0f")), max_size=20),
)  # fmt: skip
def test_no_number_of_invisible_characters_hides_a_value(
    patterns: PatternDetector, value: str, unseen: list[tuple[int, str]]
) -> None:
    hidden = value
    for place, character in unseen:
        cut = 1 + place % (len(hidden) - 1)
        hidden = hidden[:cut] + character + hidden[cut:]
    text = f"It is {hidden} you know."
    found = detect(text, patterns, Policy())
    assert [text[one.start : one.end] for one in found] == [hidden]


@settings(max_examples=100, deadline=None)
@given(
    value=st.sampled_from(["john.smith@example.com", "jane_doe@mail.example.org"]),
    rule=st.sampled_from([STREAM, WHOLE_TEXT]),
)
def test_percent_encoding_any_or_all_of_an_address_hides_nothing(
    patterns: PatternDetector, value: str, rule: object
) -> None:
    quoted = "".join(f"%{ord(character):02X}" for character in value)
    for text in (f"to={quoted} x", f"to {urllib.parse.quote(value, safe='')} x"):
        assert len(detect(text, patterns, Policy(), rule)) == 1  # type: ignore[arg-type]


_HOSTILE = [
    "\u200b", "a\u0301", "＠", "а", "aа", "%40", "%25", "&#64;", "&", "\\u0040", "\\", "\\\\", "*", "1*", "`1` ", "<b>", "<b", "<!--",
    "\n", "1\n", "> ", "\n> ", "a.\n", "@\n", " at ", " dot ", "a dot ", "a at b dot ", "(at)", "(", "[ at ", "a-", "a_", "one ", "one,",
    "double ", "twenty one ", "1 ", "1.", "1 | ", "a ", "a  ", "QUJD", "aGVsbG8gd29ybGQg", "6a", "\U000e0041", "é1", "@ ", ". ", " .",
]  # fmt: skip


@pytest.mark.parametrize("unit", _HOSTILE)
def test_seeing_through_stays_linear_on_hostile_texts(unit: str) -> None:
    class Nothing:
        def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
            return ()

        detect_patterns = detect

    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        begun = time.process_time()
        find(text, Nothing(), frozenset(), lambda found, _: [])
        return time.process_time() - begun

    # About 0.1 s on an idle core; a quadratic scan needs minutes. Process time, so that neighbours do not count.
    assert seconds(40_000) < 4
