"""Operators: tables of what they make, and the laws they keep."""

import base64
import re
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.keys import BadKey, TenantKeys, read_keys
from sluice_redaction.adapters.surrogates import SurrogateMaker
from sluice_redaction.adapters.toolbox import Toolbox
from sluice_redaction.domain.arbitration import arbitrate
from sluice_redaction.domain.checksums import CHECKSUMS, luhn, mod11, mod97
from sluice_redaction.domain.detection import detect
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.operators import Operation, Operator, masked
from sluice_redaction.domain.policy import KindRule, Policy
from sluice_redaction.domain.redaction import RedactingStream, redact
from sluice_redaction.domain.replacing import KeyMissing, Replacing
from sluice_redaction.domain.restoring import restore
from sluice_redaction.domain.surrogate_dates import moved
from sluice_redaction.domain.vault import Entry, Vault

SECRETS = (bytes(range(32)),)
TOOLBOX = Toolbox(SECRETS)
RESTORABLE = [Operation.REPLACE, Operation.ENCRYPT, Operation.SURROGATE]
REPLACING = [operation for operation in Operation if operation is not Operation.KEEP]
_KNOWN = {
    "PERSON": re.compile(r"\b(?:Ann|Bob)(?: (?:Lee|Ray))?\b"),
    "EMAIL_ADDRESS": re.compile(r"\b\w{1,40}@corp\.local\b"),
    "PHONE_NUMBER": re.compile(r"\+44 7911 12345[0-9]"),
}


class Patterns:
    """Finds what `_KNOWN` says."""

    def detect(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
        for kind, pattern in _KNOWN.items():
            for match in pattern.finditer(text):
                yield Finding(*match.span(), kind, 0.9, "patterns")

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
        return self.detect(text, kinds)


def replacing_by(operation: Operation, vault: Vault, *, request_id: str = "r1", tenant: str = "") -> Replacing:
    policy = Policy(operator=Operator(operation))
    return Replacing(policy, vault, TOOLBOX.tools(policy, tenant=tenant, request_id=request_id))


def redacted_by(operation: Operation, texts: list[str], vault: Vault, *, request_id: str = "r1") -> list[str]:
    replacing = replacing_by(operation, vault, request_id=request_id)
    found = [detect(text, Patterns(), Policy()) for text in texts]
    return [one.text for one in redact(texts, found, vault, replacing).texts]


def surrogate_of(value: str, kind: str, *, regions: Iterable[str] = ("US",), request_id: str = "r1") -> str | None:
    maker = SurrogateMaker(SECRETS[0]).for_request(request_id, regions=tuple(regions))
    return next(iter(maker.candidates(value, kind, Vault())), None)


# --- laws ---


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=4),
    spans=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 20)), max_size=8),
    kind=st.sampled_from(["PERSON", "PHONE_NUMBER", "DATE_TIME", "CREDIT_CARD", "STREET_ADDRESS", "STAFF_NUMBER"]),
    operation=st.sampled_from(RESTORABLE),
)
def test_whatever_can_be_restored_comes_back_exactly(
    texts: list[str], spans: list[tuple[int, int, int]], kind: str, operation: Operation
) -> None:
    findings = [
        arbitrate([Finding(start, start + size, kind, 0.9, "any") for at, start, size in spans if at == n], text)
        for n, text in enumerate(texts)
    ]
    vault = Vault()
    redaction = redact(texts, findings, vault, replacing_by(operation, vault))
    again = Vault(list(vault))  # as it comes back from the caller
    assert [restore(one.text, again).text for one in redaction.texts] == texts


_FILLER = st.text(alphabet="abcde ,.\n\"'{}<>_", max_size=12)
_VALUE = st.sampled_from(["Ann Lee", "Bob", "Bob Ray", "zed@corp.local", "+44 7911 123456"])
_TEXTS = st.lists(
    st.lists(st.tuples(_FILLER, _VALUE), max_size=5).map(lambda pairs: " ".join(f"{a} {b} " for a, b in pairs)),
    min_size=1, max_size=3,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(texts=_TEXTS, operation=st.sampled_from(REPLACING))
def test_no_value_is_left_in_what_any_operator_but_keep_makes(texts: list[str], operation: Operation) -> None:
    redacted = " ".join(redacted_by(operation, texts, Vault()))
    for value in ("Ann", "Lee", "Bob", "Ray", "zed@corp.local", "7911 123456"):
        assert not re.search(rf"\b{value}\b", redacted) or not any(value in text for text in texts)


@settings(max_examples=60, deadline=None)
@given(texts=_TEXTS, operation=st.sampled_from([Operation.REPLACE, Operation.ENCRYPT, Operation.SURROGATE]))
def test_redacting_twice_is_redacting_once(texts: list[str], operation: Operation) -> None:
    vault = Vault()
    once = redacted_by(operation, texts, vault)
    replacing = replacing_by(operation, vault)
    found = [
        [one for one in detect(text, Patterns(), Policy()) if not _inside(one, replacing.own_tokens(text))] for text in once
    ]  # fmt: skip
    assert [one.text for one in redact(once, found, vault, replacing).texts] == once


def _inside(finding: Finding, spans: Iterable[tuple[int, int]]) -> bool:
    return any(start <= finding.start and finding.end <= end for start, end in spans)


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.tuples(_FILLER, _VALUE), max_size=6).map(lambda pairs: " ".join(f"{a} {b} " for a, b in pairs)),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    operation=st.sampled_from(list(Operation)),
)
def test_a_stream_gives_the_same_in_any_pieces_whatever_the_operator(
    text: str, cuts: list[int], operation: Operation
) -> None:
    def streamed(pieces: Iterable[str]) -> str:
        policy, vault = Policy(operator=Operator(operation)), Vault([Entry("<PERSON_1>", "Ann Lee", "PERSON")])
        stream = RedactingStream(policy, vault, tools=TOOLBOX.tools(policy, tenant="", request_id="r1"))
        out = []
        for piece in pieces:
            stream.push(piece)
            while stream.has_work():
                out.append(stream.step(Patterns()).text)
        while stream.has_work(final=True):
            out.append(stream.step(Patterns(), final=True).text)
        return "".join([*out, stream.finish().text])

    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    assert streamed(text[a:b] for a, b in pairwise(edges)) == streamed([text])


# --- consistency ---


@pytest.mark.parametrize("operation", REPLACING)
def test_a_value_becomes_the_same_in_all_texts_and_in_a_later_call(operation: Operation) -> None:
    vault = Vault()
    texts = redacted_by(operation, ["I am Ann Lee.", "Ann Lee? Ann Lee!"], vault)
    token = texts[0].removeprefix("I am ").removesuffix(".")
    assert texts[1] == f"{token}? {token}!"
    assert redacted_by(operation, ["So, Ann Lee"], Vault(list(vault))) == [f"So, {token}"]


@pytest.mark.parametrize("operation", REPLACING)
def test_only_what_can_be_restored_leaves_an_entry(operation: Operation) -> None:
    vault = Vault()
    redacted_by(operation, ["Write to zed@corp.local"], vault)
    assert [entry.operation for entry in vault] == ([operation] if operation in RESTORABLE else [])


def test_what_leaves_no_entry_is_replaced_where_detectors_missed_it_all_the_same() -> None:
    text = "Ann Lee came. I saw Ann Lee."
    replacing = replacing_by(Operation.MASK, vault := Vault())
    redaction = redact([text], [[Finding(0, 7, "PERSON", 0.9, "test")]], vault, replacing)
    assert redaction.texts[0].text == "******* came. I saw *******."


def test_what_is_kept_is_told_and_hides_nothing() -> None:
    text = "See bob@corp.local today"
    policy = Policy(kinds=frozenset({"URL", "EMAIL_ADDRESS"}), rules={"URL": KindRule(Operator(Operation.KEEP))})

    class Both(Patterns):
        def detect(self, text: str, kinds: frozenset[str]) -> Iterator[Finding]:
            yield Finding(0, len(text), "URL", 1.0, "test")
            yield from super().detect(text, kinds)

    found = detect(text, Both(), policy)
    assert [(one.kind, text[one.start : one.end]) for one in found] == [("EMAIL_ADDRESS", "bob@corp.local")]
    alone = detect("See www.corp.local today", Both(), policy)
    redaction = redact(["See www.corp.local today"], [alone], vault := Vault(), Replacing(policy, vault))
    assert redaction.texts[0].text == "See www.corp.local today"
    assert [one.kind for one in redaction.texts[0].findings] == ["URL"]
    assert list(redaction.texts[0].replaced()) == []


# --- mask ---


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Operator(Operation.MASK), "*********"),
        (Operator(Operation.MASK, "#", 4), "####56789"),
        (Operator(Operation.MASK, "*", 4, True), "12345****"),
        (Operator(Operation.MASK, "*", 40), "*********"),
    ],
)
def test_a_mask_covers_as_many_as_it_is_told(operator: Operator, expected: str) -> None:
    assert masked("123456789", operator) == expected


# --- hash and encrypt ---


def test_a_hash_needs_the_key_and_differs_by_tenant_kind_and_value() -> None:
    one = TenantKeys(SECRETS, "acme")
    token = one.hashed("Ann Lee", "PERSON")
    assert re.fullmatch(r"<PERSON_HASH_[A-Z2-7]{24}>", token)
    assert one.hashed("Ann Lee", "PERSON") == token
    others = {
        TenantKeys(SECRETS, "other").hashed("Ann Lee", "PERSON"),
        TenantKeys((bytes(32),), "acme").hashed("Ann Lee", "PERSON"),
        one.hashed("Ann Lee", "NRP"),
        one.hashed("Ann Ray", "PERSON"),
    }
    assert len({token, *others}) == 5


def test_an_encrypted_token_comes_back_with_the_key_for_its_tenant_only() -> None:
    keys = TenantKeys(SECRETS, "acme")
    token = keys.encrypted("Ann Lee 🙂", "PERSON")
    assert keys.decrypted(token) == "Ann Lee 🙂"
    assert TenantKeys(SECRETS, "other").decrypted(token) is None
    assert keys.decrypted(token.replace("PERSON", "NRP")) is None
    assert keys.decrypted(token[:-5] + "AAAA>") is None
    assert keys.decrypted("<PERSON_1>") is None


def test_a_new_key_in_front_still_reads_what_the_old_one_wrote() -> None:
    old, new = TenantKeys(SECRETS, "t"), TenantKeys((bytes(32), *SECRETS), "t")
    assert new.decrypted(old.encrypted("Ann", "PERSON")) == "Ann"
    assert new.is_ours(old.hashed("Ann", "PERSON"))
    assert old.decrypted(new.encrypted("Ann", "PERSON")) is None


def test_what_somebody_typed_in_the_form_of_our_tokens_is_not_ours() -> None:
    keys = TenantKeys(SECRETS)
    for typed in ("<PERSON_HASH_JOHNSMITHLIVESATELMROADX>", "<PERSON_ENC_JOHNSMITHLIVESATELMROADX>"):
        assert not keys.is_ours(typed)
    replacing = replacing_by(Operation.HASH, Vault())
    real = keys.hashed("Ann", "PERSON")
    text = f"{real.lower()} <PERSON_HASH_JOHNSMITHLIVESATELMROADX>"
    assert [text[start:end] for start, end in replacing.own_tokens(text)] == [real.lower()[1:-1]]


@pytest.mark.parametrize("operation", [Operation.HASH, Operation.ENCRYPT])
def test_without_a_key_nothing_is_hashed_or_encrypted(operation: Operation) -> None:
    with pytest.raises(KeyMissing):
        Replacing(Policy(operator=Operator(operation)), Vault()).of("Ann", "PERSON")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no key"),
        ("# only this\n", "holds no key"),
        ("???", "1: is not base64"),
        ("c2hvcnQ=", "1: has 5 bytes"),
    ],
)
def test_a_bad_key_file_is_refused_without_telling_what_is_in_it(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(BadKey, match=re.escape(says)) as caught:
        read_keys(path)
    assert not content.strip("# \n") or content not in str(caught.value)


def test_keys_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        "# new\n" + base64.b64encode(b"n" * 32).decode() + "\n\n" + base64.b64encode(b"o" * 40).decode() + "\n"
    )
    assert read_keys(path) == (b"n" * 32, b"o" * 40)


# --- surrogates ---


def test_a_surrogate_is_the_same_in_a_request_and_another_in_the_next() -> None:
    first, again, next_one = (surrogate_of("Ann Lee", "PERSON", request_id=request) for request in ("a", "a", "b"))
    assert first == again
    assert first != next_one


@pytest.mark.parametrize(
    ("value", "kind", "shape"),
    [
        ("Ann Lee", "PERSON", r"[A-Z][\w'-]+ [A-Z][\w'-]+"),
        ("ANN LEE", "PERSON", r"[A-Z'-]+ [A-Z'-]+"),
        ("ann lee", "PERSON", r"[a-z'-]+ [a-z'-]+"),
        ("Dr. Ann B. van Lee", "PERSON", r"Dr\. [A-Z]\w+ [A-Z]\. van [A-Z][\w'-]+"),
        ("Анна Иванова", "PERSON", r"[а-яёА-ЯЁ-]+ [а-яёА-ЯЁ-]+"),
        ("zed@corp.local", "EMAIL_ADDRESS", r"[a-z'.-]+\d+@example\.(?:com|org|net)"),
        ("https://corp.local/x", "URL", r"https://www\.example\.(?:com|org|net)/[0-9a-f]{8}"),
        ("10.1.2.3", "IP_ADDRESS", r"(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}"),
        ("fe80::1", "IP_ADDRESS", r"2001:db8:[0-9a-f:]+"),
        ("3C:22:FB:01:02:03", "MAC_ADDRESS", r"00:00:5E:00:53:[0-9A-F]{2}"),
        ("3c22.fb01.0203", "MAC_ADDRESS", r"0000\.5e00\.53[0-9a-f]{2}"),
        ("536-90-4399", "US_SSN", r"666-\d\d-\d{4}"),
        ("912-70-1234", "US_ITIN", r"9\d\d-6[6-9]-\d{4}"),
        ("AB 12 34 56 C", "UK_NINO", r"QQ \d\d \d\d \d\d [A-D]"),
        ("MRN-004512", "MEDICAL_RECORD_NUMBER", r"MRN-\d{6}"),
        ("EMP-7B-1234", "STAFF_NUMBER", r"EMP-\d[A-Z]-\d{4}"),
        ("Acme Corp", "ORGANIZATION", r".{3,}"),
        ("Paris", "LOCATION", r".{3,}"),
        ("12 Main Street, Springfield, IL 62704", "STREET_ADDRESS", r"\d+ .+, .+ \d{5}"),
    ],
)
def test_a_surrogate_has_the_type_and_format_of_its_original(value: str, kind: str, shape: str) -> None:
    made_up = surrogate_of(value, kind)
    assert made_up is not None
    assert re.fullmatch(shape, made_up), made_up
    assert value.casefold() not in made_up.casefold()


@pytest.mark.parametrize(
    ("number", "begins"),
    [
        ("4539 1488 0343 6467", ("4111 11", "4000 00")),
        ("5425-2334-3010-9903", ("5555-55", "2223-00")),
        ("374245455400126", ("378282", "371449")),
        ("6011000990139424", ("601111",)),
    ],
)
def test_a_made_up_card_keeps_brand_grouping_and_checksum(number: str, begins: tuple[str, ...]) -> None:
    made_up = surrogate_of(number, "CREDIT_CARD") or ""
    assert made_up.startswith(begins)
    assert luhn(made_up)
    assert [len(part) for part in re.split("[ -]", made_up)] == [len(part) for part in re.split("[ -]", number)]


def test_made_up_account_and_health_numbers_pass_their_checks() -> None:
    account = surrogate_of("DE89 3704 0044 0532 0130 00", "IBAN_CODE") or ""
    assert account.startswith("DE")
    assert mod97(account)
    health = surrogate_of("943 476 5919", "UK_NHS") or ""
    assert health.startswith("999 ")
    assert mod11(health)


@pytest.mark.parametrize(
    ("value", "regions", "shape"),
    [
        ("(212) 456-7890", ("US",), r"\(\d{3}\) 555-01\d\d"),
        ("+1 212 456 7890", ("US",), r"\+1 \d{3} 555 01\d\d"),
        ("07911 123456", ("GB",), r"0(?:7700 900|2079 460|1632 960)\d{3}"),
        ("+44 7911 123456", ("US",), r"\+44 (?:7700 900|2079 460|1632 960)\d{3}"),
        ("06 12 34 56 78", ("FR",), r"0(?:1 99 00|2 61 91|6 39 98) \d\d \d\d"),
        ("+39 06 1234 5678", ("US",), r"\+39 \d\d \d{4} \d{4}"),
    ],
)
def test_a_made_up_phone_number_is_from_a_range_for_fiction_in_the_same_format(
    value: str, regions: tuple[str, ...], shape: str
) -> None:
    made_up = surrogate_of(value, "PHONE_NUMBER", regions=regions) or ""
    assert re.fullmatch(shape, made_up), made_up
    assert made_up != value


def test_every_range_for_fiction_gives_a_possible_number_of_its_country() -> None:
    examples = {"US": "2125551234", "CA": "4165551234", "GB": "02012345678", "FR": "0612345678", "DE": "03012345678",
                "AU": "0212345678", "SE": "084650000", "IE": "012345678"}  # fmt: skip
    for region, national in examples.items():
        maker = SurrogateMaker(SECRETS[0]).for_request(region, regions=(region,))
        made_up = next(iter(maker.candidates(national, "PHONE_NUMBER", Vault())))
        assert phonenumbers.is_possible_number(phonenumbers.parse(made_up, region)), (region, made_up)


@pytest.mark.parametrize(
    ("value", "month_first", "expected"),
    [
        ("2024-02-28", True, "2024-03-01"),
        ("02/28/2024", True, "03/01/2024"),
        ("28/02/2024", True, "01/03/2024"),
        ("1.3.24", False, "3.3.24"),
        ("February 28, 2024", True, "March 1, 2024"),
        ("Feb 28 2024", True, "Mar 1 2024"),
        ("28th of February 2024", True, "1st of March 2024"),
        ("yesterday", True, None),
        ("2024-02-31", True, None),
        ("12/2024", True, None),
    ],
)
def test_a_date_moves_and_keeps_how_it_is_written(value: str, month_first: bool, expected: str | None) -> None:
    assert moved(value, 2, month_first=month_first) == expected


def test_dates_of_a_request_move_alike() -> None:
    first, second = (date.fromisoformat(surrogate_of(day, "DATE_TIME") or "") for day in ("2024-01-10", "2024-03-10"))
    assert (second - first).days == 60
    assert first != date(2024, 1, 10)


def test_the_parts_of_a_made_up_name_stand_for_the_parts_of_the_name() -> None:
    vault = Vault()
    text = redacted_by(Operation.SURROGATE, ["I am Ann Lee. Ann Ray is my aunt."], vault)[0]
    first, last = re.fullmatch(r"I am (\S+) (\S+)\. \1 \S+ is my aunt\.", text).groups()  # type: ignore[union-attr]
    answer = restore(f"Dear {first}, dear Ms {last}, dear {first} {last}!", vault)
    assert answer.text == "Dear Ann, dear Ms Lee, dear Ann Lee!"


def test_a_first_name_that_was_found_by_itself_is_replaced_wherever_it_stands() -> None:
    text = r"I am Ann Lee. Ann wrote C:\Users\Ann\x"
    vault = Vault()
    found = [Finding(5, 12, "PERSON", 0.9, "test"), Finding(14, 17, "PERSON", 0.9, "test")]
    redacted = redact([text], [found], vault, replacing_by(Operation.SURROGATE, vault)).texts[0].text
    assert "Ann" not in redacted
    assert restore(redacted, vault).text == text


def test_a_surrogate_is_nothing_that_stands_in_the_request() -> None:
    taken = {surrogate_of("Ann Lee", "PERSON", request_id="r1")}
    text = f"I am Ann Lee and know {taken}."
    vault = Vault()
    redacted = redacted_by(Operation.SURROGATE, [text], vault)[0]
    tokens = [token for token, value in vault.tokens() if value == "Ann Lee"]
    assert tokens
    assert not taken & set(tokens)
    assert restore(redacted, vault).text == text


def test_a_made_up_name_in_the_middle_of_a_word_gives_way_to_a_placeholder() -> None:
    text = "Mr. Ann Lee and xAnn Lee"
    vault = Vault()
    found = [Finding(4, 11, "PERSON", 0.9, "test"), Finding(17, 24, "PERSON", 0.9, "test")]
    redacted = redact([text], [found], vault, replacing_by(Operation.SURROGATE, vault)).texts[0].text
    assert redacted.endswith("and x<PERSON_1>")
    assert restore(redacted, vault).text == text


@pytest.mark.parametrize(
    ("value", "kind"), [("last Tuesday", "DATE_TIME"), ("German", "NRP"), ("the blue one", "CODE_NAME")]
)
def test_what_cannot_be_made_up_gets_a_placeholder_and_says_so(value: str, kind: str) -> None:
    replacement = replacing_by(Operation.SURROGATE, Vault()).of(value, kind)
    assert (replacement.text, replacement.operation) == (f"<{kind}_1>", Operation.REPLACE)


def test_a_vault_refuses_what_no_operator_makes() -> None:
    for entry in (
        Entry("Ann", "x", "PERSON"),
        Entry("<PERSON_1>", "x", "PERSON", Operation.ENCRYPT),
        Entry("...", "x", "PERSON", Operation.SURROGATE),
        Entry("***", "x", "PERSON", Operation.MASK),
    ):
        with pytest.raises(ValueError, match=r"vault|surrogate|form"):
            Vault([entry])


# --- checks ---


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("luhn", "4539 1488 0343 6467", "4539 1488 0343 6468"),
        ("mod97", "GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 33"),
        ("verhoeff", "2363", "2364"),
        ("damm", "5724", "5742"),
        ("mod11", "0-306-40615-2", "0-306-40615-3"),
        ("mod11_2", "0000-0002-1825-0097", "0000-0002-1825-0098"),
    ],
)
def test_check_digits_tell_a_valid_number_from_one_with_a_slip(name: str, valid: str, invalid: str) -> None:
    assert CHECKSUMS[name](valid)
    assert not CHECKSUMS[name](invalid)
    assert not CHECKSUMS[name]("")
