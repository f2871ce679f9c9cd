"""Policies and recognizers from files: what they mean, and how a bad one is refused."""

from io import StringIO
from pathlib import Path
from textwrap import dedent

import pytest
from sluice_kit.configuration import ConfigurationRefused, source_files
from sluice_kit.process import StartFailed
from sluice_redaction.adapters.linear_patterns import LinearPattern
from sluice_redaction.adapters.policy_files import SHIPPED, Surroundings, read_book
from sluice_redaction.adapters.policy_folder import check, watched_policies
from sluice_redaction.domain.book import NoSuchPolicy, PolicyBook
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.kinds import DEFAULT_KINDS, KINDS
from sluice_redaction.domain.operators import Operation
from sluice_redaction.domain.policy import Direction, Policy

STAFF = """
    policy: acme
    version: 3
    description: Staff numbers and code names of Acme.
    tenants: [acme]
    include: default
    kinds:
      PERSON: {min_score: 0.7}
      CREDIT_CARD: {operator: mask, mask: {count: 12}}
      URL: {operator: keep, direction: output}
    allow:
      values: [Support Team]
      patterns: ['ACME-[0-9]{4}']
    deny:
      CODE_NAME: [Bluebird, Operation Nightfall]
    recognizers:
      - name: staff number
        kind: STAFF_NUMBER
        patterns: [{name: prefixed, regex: '\\b(?:staff|emp)[ #]{1,2}(?P<value>\\d{7})\\b', score: 0.3}]
        context: [badge]
        checksum: luhn
"""


def folder_with(tmp_path: Path, **files: str) -> Path:
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(dedent(content), encoding="utf-8")
    return tmp_path


def book_of(folder: Path, surroundings: Surroundings | None = None) -> PolicyBook:
    return read_book((*source_files(SHIPPED), *source_files(folder)), surroundings or Surroundings(has_key=True))


def found_by(policy: Policy, text: str) -> list[tuple[str, str, float]]:
    found = [finding for one in policy.recognizers for finding in one.find(text)]
    return [(text[one.start : one.end], one.kind, one.score) for one in found]


@pytest.fixture
def acme(tmp_path: Path) -> Policy:
    return book_of(folder_with(tmp_path, acme=STAFF)).find("", tenant="acme")


def test_the_shipped_policies_are_sound_and_need_no_key() -> None:
    out = StringIO()
    assert check(SHIPPED, out) == 0
    assert out.getvalue().endswith("OK\n")
    book = read_book(source_files(SHIPPED), Surroundings())
    assert {policy.id for policy in book} == {"default", "everything", "secrets", "healthcare", "children"}
    assert book.find("").kinds == DEFAULT_KINDS
    assert book.find("everything").replaced_kinds == frozenset(KINDS)
    assert book.find("secrets").kinds == {"API_KEY", "PASSWORD"}


def test_the_healthcare_policy_replaces_all_but_nationalities() -> None:
    healthcare = read_book(source_files(SHIPPED), Surroundings()).find("healthcare")
    assert frozenset(KINDS) - healthcare.replaced_kinds == {"NRP"}


def test_a_policy_file_means_what_it_says(acme: Policy) -> None:
    assert (acme.id, acme.version) == ("acme", 3)
    assert acme.kinds == DEFAULT_KINDS | {"URL", "CODE_NAME", "STAFF_NUMBER"}
    assert acme.custom_kinds == {"CODE_NAME", "STAFF_NUMBER"}
    assert acme.min_score_for("PERSON") == 0.7
    assert acme.min_score_for("EMAIL_ADDRESS") == 0.4
    assert acme.operator_for("CREDIT_CARD").operation is Operation.MASK
    assert acme.operator_for("EMAIL_ADDRESS").operation is Operation.REPLACE
    assert acme.replaced_kinds == acme.kinds - {"URL"}
    assert "URL" not in acme.toward(Direction.INPUT).kinds
    assert "URL" in acme.toward(Direction.OUTPUT).kinds
    assert acme.toward(Direction.INPUT).digest == acme.digest


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("support team", False), ("SUPPORT TEAM", False), ("ACME-1234", False), ("xACME-1234", True), ("Support", True)],
)
def test_what_is_allowed_is_left_alone(acme: Policy, value: str, accepted: bool) -> None:
    assert acme.accepts(Finding(0, len(value), "PERSON", 0.9, "test"), value) is accepted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the bluebird flies", [("bluebird", "CODE_NAME", 1.0)]),
        ("Bluebirds and blue bird", []),
        ("OPERATION\n nightfall!", [("OPERATION\n nightfall", "CODE_NAME", 1.0)]),
        ("emp 7992738 here", [("7992738", "STAFF_NUMBER", 1.0)]),
        ("emp 7992739 here", []),
        ("ünïcode 🙂 emp #7992738", [("7992738", "STAFF_NUMBER", 1.0)]),
    ],
)
def test_recognizers_from_a_file_find_their_values(
    acme: Policy, text: str, found: list[tuple[str, str, float]]
) -> None:
    assert found_by(acme, text) == found


def test_a_context_word_raises_a_score_and_is_told(tmp_path: Path) -> None:
    policy = book_of(
        folder_with(
            tmp_path,
            a="""
            policy: a
            version: 1
            description: a
            recognizers:
              - name: badge
                kind: BADGE
                patterns: [{name: digits, regex: '[0-9]{5}', score: 0.2}]
                context: [badge]
            """,
        )
    ).find("a")
    without, beside = (next(iter(policy.recognizers[0].find(text))) for text in ("no 12345", "Badge: 12345"))
    assert (without.score, without.context, without.confirmed) == (0.2, "", False)
    assert (beside.score, beside.context, beside.pattern) == (pytest.approx(0.55), "badge", "digits")
    assert beside.original_score == 0.2


def test_a_kind_of_another_country_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    text = """
        policy: uk
        version: 1
        description: British formats.
        include: everything
        regions: [GB]
        kinds: {US_PASSPORT: {}}
    """
    kinds = book_of(folder_with(tmp_path, uk=text)).find("uk").kinds
    assert {"UK_NHS", "PERSON", "IP_ADDRESS", "US_PASSPORT"} <= kinds
    assert not kinds & {"US_SSN", "US_ITIN", "ABA_ROUTING_NUMBER"}


def test_every_mistake_of_every_file_is_told_with_its_line(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        one="""
        policy: one
        version: 0
        description: x
        kinds: {PERSN: {}}
        """,
        two="""
        policy: two
        version: 1
        description: x
        languages: [de]
        operator: hash
        mask: {character: a}
        kinds:
          PERSN: {}
        deny:
          A_1: ['***']
        recognizers:
          - name: r
            kind: R
            needs_context: true
            patterns:
              - {name: a, regex: '(?=x)y'}
              - {name: b, regex: 'x*'}
          - name: r
            kind: R
        """,
    )
    with pytest.raises(ConfigurationRefused) as caught:
        book_of(folder, Surroundings(has_key=False))
    told = [(mistake.path.name, mistake.line) for mistake in caught.value.mistakes]
    assert told == [("one.yaml", 3)] + [("two.yaml", line) for line in (5, 6, 7, 7, 9, 11, 11, 15, 17, 18, 19, 19)]
    message = str(caught.value)
    assert "did you mean PERSON?" in message
    assert "invalid perl operator: (?=" in message
    assert "SLUICE_REDACTION_KEY_FILE" in message


def test_two_files_must_not_claim_one_id_or_one_tenant(tmp_path: Path) -> None:
    text = "policy: {}\nversion: 1\ndescription: x\ninclude: default\ntenants: [t]\n"
    with pytest.raises(ConfigurationRefused, match=r"b.yaml:1: policy: policy a also stands in a.yaml"):
        book_of(folder_with(tmp_path, a=text.format("a"), b=text.format("a")))
    with pytest.raises(ConfigurationRefused, match=r"b.yaml:5: tenants\[0\]: this tenant already has policy a"):
        book_of(folder_with(tmp_path, a=text.format("a"), b=text.format("b")))
    with pytest.raises(ConfigurationRefused, match="the default policy is for everybody"):
        book_of(folder_with(tmp_path, a=text.format("default"), b=text.format("b")))


def test_a_file_of_the_folder_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    text = "policy: secrets\nversion: 9\ndescription: x\nkinds: {API_KEY: {operator: redact}}\n"
    assert book_of(folder_with(tmp_path, a=text)).find("secrets").version == 9


def test_settings_change_the_shipped_default_and_not_a_default_from_the_folder(tmp_path: Path) -> None:
    changed = Surroundings(kinds=("PERSON",), min_score=0.9, allowed_words=("Ann",))
    default = read_book(source_files(SHIPPED), changed).find("")
    assert (default.kinds, default.min_score, default.allowed) == ({"PERSON"}, 0.9, {"ann"})
    text = "policy: default\nversion: 2\ndescription: x\ninclude: default\n"
    with pytest.raises(ConfigurationRefused, match="SLUICE_REDACTION_KINDS"):
        book_of(folder_with(tmp_path, a=text), changed)


def test_another_tenants_policy_does_not_exist(tmp_path: Path) -> None:
    book = book_of(folder_with(tmp_path, acme=STAFF))
    assert book.find("acme", tenant="acme").id == "acme"
    told = []
    for policy_id in ("acme", "nobody's"):
        with pytest.raises(NoSuchPolicy) as caught:
            book.find(policy_id, tenant="other")
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "acme" not in told[0]
    assert book.find("", tenant="other").id == "default"


def test_the_digest_tells_what_a_policy_does_and_not_how_it_is_written(tmp_path: Path) -> None:
    first = book_of(folder_with(tmp_path, acme=STAFF)).find("acme", tenant="acme")
    spaced = STAFF.replace("tenants: [acme]", "# a comment\n    tenants: [acme]")
    assert book_of(folder_with(tmp_path, acme=spaced)).find("acme", tenant="acme").digest == first.digest
    for old, new in (
        ("0.7", "0.8"),
        ("Bluebird", "Redbird"),
        ("luhn", "damm"),
        ("{4}", "{5}"),
        ("count: 12", "count: 11"),
    ):
        changed = book_of(folder_with(tmp_path, acme=STAFF.replace(old, new))).find("acme", tenant="acme")
        assert changed.digest != first.digest, (old, new)


def test_a_bad_file_stops_the_start_and_later_leaves_the_last_good_policies(tmp_path: Path) -> None:
    folder_with(tmp_path, acme=STAFF.replace("version: 3", "version: x"))
    with pytest.raises(StartFailed, match=r"acme.yaml:3: version: must be a valid integer"):
        watched_policies(tmp_path, Surroundings())
    folder_with(tmp_path, acme=STAFF)
    watched = watched_policies(tmp_path, Surroundings())
    folder_with(tmp_path, acme=STAFF.replace("STAFF_NUMBER", "staff"))
    assert not watched.reload()
    assert watched.current.find("", tenant="acme").version == 3
    folder_with(tmp_path, acme=STAFF.replace("version: 3", "version: 4"))
    assert watched.reload()
    assert watched.current.find("", tenant="acme").version == 4


def test_checking_a_folder_tells_mistakes_and_fails(tmp_path: Path) -> None:
    out = StringIO()
    assert check(folder_with(tmp_path, acme=STAFF), out) == 0
    assert f"acme version 3: {len(DEFAULT_KINDS) + 2} kinds, for acme only\n" in out.getvalue()
    assert check(folder_with(tmp_path, acme=STAFF.replace("luhn", "lunh")), out) == 1
    assert "acme.yaml:21: recognizers[0].checksum: must be 'luhn'" in out.getvalue()
    assert check(tmp_path / "nowhere", out) == 1


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(?:a|a)*b", r"(?:a+a+)+y", r"(?:a?){40}a{40}"])
def test_a_pattern_that_would_keep_pythons_re_busy_for_years_comes_to_an_end(pattern: str) -> None:
    spans = list(LinearPattern(pattern).spans("a" * 8_000 + "x"))
    assert all(start < end <= 8_000 for start, end in spans)
