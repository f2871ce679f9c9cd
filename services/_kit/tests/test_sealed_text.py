"""Sealed texts: readable with the key, in their place, and not after it is destroyed."""

from pathlib import Path

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.types.v1.encrypted_text_pb2 import EncryptedText
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import (
    AWAY_SECONDS,
    KEEP_SECONDS,
    Place,
    TextErased,
    TextReader,
    TextSealer,
    TextUnreadable,
    key_name,
    sealed_texts,
)

PLACE = Place("acme", "0190-event", "sluice.events.v1.RequestCompleted.encrypted_prompt")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingStore(FileKeyStore):
    """A file store that can be away, and counts what it is asked."""

    away = False
    wraps = unwraps = 0

    def wrap(self, *arguments):  # type: ignore[no-untyped-def]
        self.wraps += 1
        if self.away:
            raise KeyStoreUnavailable("away")
        return super().wrap(*arguments)

    def unwrap(self, *arguments):  # type: ignore[no-untyped-def]
        self.unwraps += 1
        if self.away:
            raise KeyStoreUnavailable("away")
        return super().unwrap(*arguments)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "keys")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sealer(store: CountingStore, clock: Clock) -> TextSealer:
    return TextSealer(lambda: store, clock=clock)


@pytest.fixture
def reader(store: CountingStore, clock: Clock) -> TextReader:
    return TextReader(lambda: store, clock=clock)


async def test_a_sealed_text_says_by_which_key_and_nothing_of_itself(sealer: TextSealer, store: KeyStore) -> None:
    sealed = await sealer.seal("a canary", owners=["sub_1"], place=PLACE)
    assert list(sealed.key_ids) == ["acme/sub_1@1"]
    assert (sealed.key_store, sealed.algorithm, sealed.binding) == (store.id, "AES-256-GCM", 1)
    assert b"canary" not in sealed.SerializeToString()


@settings(max_examples=30, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    store = FileKeyStore(tmp_path_factory.getbasetemp() / "any-text-keys")
    sealed = TextSealer(lambda: store).seal_blocking(text, owners=["sub_1"], place=PLACE)
    assert TextReader(lambda: store).open(sealed, PLACE) == text


async def test_the_same_text_is_never_sealed_to_the_same_bytes(sealer: TextSealer) -> None:
    sealed = [await sealer.seal("again", owners=["sub_1"], place=PLACE) for _ in range(20)]
    assert len({each.ciphertext for each in sealed}) == len({each.nonce for each in sealed}) == 20


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("other", PLACE.event_id, PLACE.field),
        Place("acme", "another-event", PLACE.field),
        Place("acme", PLACE.event_id, "sluice.events.v1.RequestCompleted.encrypted_answer"),
    ],
)
async def test_a_text_moved_to_another_tenant_event_or_field_does_not_open(
    sealer: TextSealer, reader: TextReader, elsewhere: Place
) -> None:
    sealed = await sealer.seal("mine", owners=["sub_1"], place=PLACE)
    with pytest.raises(TextUnreadable, match="altered, or taken from another place"):
        reader.open(sealed, elsewhere)


@pytest.mark.parametrize(
    "field", ["ciphertext", "nonce", "wrapped_key", "key_ids", "key_store", "algorithm", "binding"]
)
async def test_a_text_of_which_anything_was_changed_does_not_open(
    sealer: TextSealer, reader: TextReader, store: KeyStore, field: str
) -> None:
    store.create_key("acme/sub_2")
    sealed = await sealer.seal("mine", owners=["sub_1"], place=PLACE)
    changed = EncryptedText()
    changed.CopyFrom(sealed)
    if field == "key_ids":
        changed.key_ids[0] = "acme/sub_2@1"
    elif field == "binding":
        changed.binding = 2
    elif isinstance(value := getattr(changed, field), bytes):
        setattr(changed, field, bytes([value[0] ^ 1]) + value[1:])
    else:
        setattr(changed, field, f"{value}x")
    with pytest.raises(TextUnreadable):
        reader.open(changed, PLACE)
    assert reader.open(sealed, PLACE) == "mine"


async def test_after_its_key_is_destroyed_a_text_is_erased_and_others_are_not(
    sealer: TextSealer, reader: TextReader, store: KeyStore
) -> None:
    mine = await sealer.seal("mine", owners=["sub_1"], place=PLACE)
    others = await sealer.seal("others", owners=["sub_2"], place=PLACE)
    store.destroy("acme/sub_1")
    with pytest.raises(TextErased):
        reader.open(mine, PLACE)
    assert reader.open(others, PLACE) == "others"


@pytest.mark.parametrize("erased", ["sub_1", "sub_2"])
async def test_a_text_about_two_people_goes_with_either(
    sealer: TextSealer, reader: TextReader, store: KeyStore, clock: Clock, erased: str
) -> None:
    sealed = await sealer.seal("of both", owners=["sub_1", "sub_2", "sub_1"], place=PLACE)
    assert list(sealed.key_ids) == ["acme/sub_1@1", "acme/sub_2@1"]
    assert reader.open(sealed, PLACE) == "of both"
    store.destroy(f"acme/{erased}")
    clock.now += KEEP_SECONDS
    with pytest.raises(TextErased):
        reader.open(sealed, PLACE)


async def test_a_person_who_comes_back_after_an_erasure_has_a_new_key(
    sealer: TextSealer, reader: TextReader, store: KeyStore, clock: Clock
) -> None:
    await sealer.seal("before", owners=["sub_1"], place=PLACE)
    store.destroy("acme/sub_1")
    in_between = await sealer.seal("in between", owners=["sub_1"], place=PLACE)
    with pytest.raises(TextErased):
        reader.open(in_between, PLACE)  # sealed with what this process still had: lost, and never readable
    clock.now += KEEP_SECONDS
    after = await sealer.seal("after", owners=["sub_1"], place=PLACE)
    assert list(after.key_ids) == ["acme/sub_1@2"]
    assert reader.open(after, PLACE) == "after"


async def test_who_is_told_of_an_erasure_stops_at_once(sealer: TextSealer, reader: TextReader, store: KeyStore) -> None:
    sealed = await sealer.seal("mine", owners=["sub_1"], place=PLACE)
    assert reader.open(sealed, PLACE) == "mine"
    store.destroy("acme/sub_1")
    for keeper in (sealer, reader):
        keeper.forget("acme", "sub_1")
    with pytest.raises(TextErased):
        reader.open(sealed, PLACE)
    assert list((await sealer.seal("new", owners=["sub_1"], place=PLACE)).key_ids) == ["acme/sub_1@2"]


async def test_the_store_is_asked_once_an_owner_and_half_a_minute(
    sealer: TextSealer, reader: TextReader, store: CountingStore, clock: Clock
) -> None:
    sealed = [await sealer.seal("x", owners=[owner], place=PLACE) for owner in ("a", "b", "a", "b", "a")]
    assert [reader.open(each, PLACE) for each in sealed] == ["x"] * 5
    assert (store.wraps, store.unwraps) == (2, 2)
    clock.now += KEEP_SECONDS
    sealed = [await sealer.seal("x", owners=["a"], place=PLACE) for _ in range(3)]
    assert [reader.open(each, PLACE) for each in sealed] == ["x"] * 3
    assert (store.wraps, store.unwraps) == (3, 3)


async def test_a_store_that_is_away_is_told_at_once_and_asked_again_later(
    sealer: TextSealer, store: CountingStore, clock: Clock
) -> None:
    store.away = True
    for _ in range(5):
        with pytest.raises(KeyStoreUnavailable):
            await sealer.seal("x", owners=["a"], place=PLACE)
    assert store.wraps == 1
    store.away = False
    clock.now += AWAY_SECONDS
    assert (await sealer.seal("x", owners=["a"], place=PLACE)).key_ids


async def test_a_store_that_comes_late_is_found(tmp_path: Path, clock: Clock) -> None:
    def opened() -> KeyStore:
        if clock.now < 1010:
            raise KeyStoreUnavailable("not mounted yet")
        return FileKeyStore(tmp_path / "late")

    sealer = TextSealer(opened, clock=clock)
    with pytest.raises(KeyStoreUnavailable):
        await sealer.seal("x", owners=["a"], place=PLACE)
    clock.now = 1010
    assert (await sealer.seal("x", owners=["a"], place=PLACE)).key_ids


@pytest.mark.parametrize("owners", [[], [""], ["a", ""]])
async def test_a_text_without_an_owner_is_not_sealed(sealer: TextSealer, owners: list[str]) -> None:
    with pytest.raises(ValueError, match="needs an owner"):
        await sealer.seal("x", owners=owners, place=PLACE)


def test_a_slash_in_a_tenants_id_makes_no_two_owners_one() -> None:
    names = {key_name("a/b", "c"), key_name("a", "b/c"), key_name("a%2Fb", "c")}
    assert len(names) == 3


async def test_a_text_of_another_installation_is_told_from_an_erased_one(
    sealer: TextSealer, tmp_path: Path, store: KeyStore
) -> None:
    sealed = await sealer.seal("x", owners=["a"], place=PLACE)
    other = FileKeyStore(tmp_path / "other")
    with pytest.raises(TextUnreadable, match=f"in key store {store.id}; this is {other.id}"):
        TextReader(lambda: other).open(sealed, PLACE)


async def test_the_sealed_texts_of_an_event_are_found_by_their_fields(sealer: TextSealer, reader: TextReader) -> None:
    event = RequestCompleted(model="m")
    event.metadata.tenant_id, event.metadata.event_id = "acme", "e1"
    for field in ("encrypted_prompt", "encrypted_answer"):
        sealed = await sealer.seal(field, owners=["sub_1"], place=Place.in_event(event, field))
        getattr(event, field).CopyFrom(sealed)
    read: Message = RequestCompleted.FromString(event.SerializeToString())
    opened = {name: reader.open(sealed, Place.in_event(read, name)) for name, sealed in sealed_texts(read)}
    assert opened == {"encrypted_prompt": "encrypted_prompt", "encrypted_answer": "encrypted_answer"}
