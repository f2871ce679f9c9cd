"""API keys: how they are made, stored and compared."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.domain.api_key import ApiKey, Keyring, digest, mint


def _configured(key: str, sha256: str, **fields: bool) -> ApiKey:
    return ApiKey(key.removeprefix("sk-sluice-").rpartition("-")[0], sha256, "acme", "default", **fields)


def test_a_minted_key_is_found_by_its_hash_and_the_formula_is_the_documented_one() -> None:
    key, sha256 = mint("team-a")
    assert key.startswith("sk-sluice-team-a-")
    assert sha256 == hashlib.sha256(key[-64:].encode("ascii")).hexdigest() == digest(key[-64:])
    found = Keyring([_configured(key, sha256)]).find(key)
    assert found is not None
    assert found.id == "team-a"


def test_a_disabled_key_is_not_found() -> None:
    key, sha256 = mint("team-a")
    assert Keyring([_configured(key, sha256, enabled=False)]).find(key) is None


@pytest.mark.parametrize(
    "change", [lambda k: k[:-1] + ("0" if k[-1] != "0" else "1"), lambda k: k.upper(), lambda k: k + "0"]
)
def test_a_key_that_is_slightly_wrong_is_not_found(change) -> None:  # type: ignore[no-untyped-def]
    key, sha256 = mint("team-a")
    assert Keyring([_configured(key, sha256)]).find(change(key)) is None


@given(st.text())
def test_no_other_text_is_ever_a_key(text: str) -> None:
    key, sha256 = mint("a")
    assert Keyring([_configured(key, sha256)]).find(text) is None
