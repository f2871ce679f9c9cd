"""What every key store keeps, whichever it is; and what the file store survives."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyDestroyed, KeyStore, KeyStoreUnavailable, WrappedSecret, WrongKey
from sluice_kit.sealing.opening import key_store_of
from sluice_kit.sealing.vault_keys import VaultKeyStore
from sluice_kit.settings import MeshSettings

from .vault_double import TOKEN, VaultDouble

NAME = "acme/sub_1"
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def vault() -> Iterator[VaultDouble]:
    double = VaultDouble()
    yield double
    double.close()


@pytest.fixture(params=["file", "vault"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    if request.param == "file":
        return FileKeyStore(tmp_path / "keys")
    double = request.getfixturevalue("vault")
    return VaultKeyStore(double.address, token=lambda: TOKEN)


# --- every store ---


def test_what_a_key_wraps_it_unwraps(store: KeyStore) -> None:
    wrapped = store.wrap(NAME, SECRET, b"context")
    assert wrapped.version == 1
    assert SECRET not in wrapped.sealed
    assert store.unwrap(NAME, wrapped, b"context") == SECRET


def test_making_a_key_twice_makes_one(store: KeyStore) -> None:
    assert (store.create_key(NAME), store.create_key(NAME)) == (1, 1)
    assert store.wrap(NAME, SECRET, b"").version == 1


@pytest.mark.parametrize("change", ["context", "name", "version", "bytes"])
def test_nothing_unwraps_elsewhere_or_altered(store: KeyStore, change: str) -> None:
    store.create_key("acme/sub_2")
    store.rotate("acme/sub_2")
    wrapped = store.wrap(NAME, SECRET, b"context")
    store.rotate(NAME)
    at = len(wrapped.sealed) - 4
    flipped = bytes([*wrapped.sealed[:at], wrapped.sealed[at] ^ 1, *wrapped.sealed[at + 1 :]])
    name = "acme/sub_2" if change == "name" else NAME
    tried = WrappedSecret(2 if change == "version" else 1, flipped if change == "bytes" else wrapped.sealed)
    with pytest.raises(WrongKey):
        store.unwrap(name, tried, b"other" if change == "context" else b"context")


def test_a_key_nobody_made_unwraps_nothing(store: KeyStore) -> None:
    wrapped = store.wrap(NAME, SECRET, b"")
    with pytest.raises(WrongKey):
        store.unwrap("acme/unknown", wrapped, b"")


def test_after_a_rotation_new_and_old_unwrap(store: KeyStore) -> None:
    old = store.wrap(NAME, SECRET, b"")
    assert store.rotate(NAME) == 2
    new = store.wrap(NAME, SECRET, b"")
    assert (old.version, new.version) == (1, 2)
    assert [store.unwrap(NAME, each, b"") for each in (old, new)] == [SECRET, SECRET]


def test_a_destroyed_key_unwraps_nothing_in_any_version_and_says_so(store: KeyStore) -> None:
    wrapped = [store.wrap(NAME, SECRET, b"")]
    store.rotate(NAME)
    wrapped.append(store.wrap(NAME, SECRET, b""))
    assert store.destroy(NAME).now == (1, 2)
    for each in wrapped:
        with pytest.raises(KeyDestroyed):
            store.unwrap(NAME, each, b"")
    state = store.describe(NAME)
    assert state is not None
    assert state.destroyed == (1, 2)


def test_after_a_destruction_there_is_a_new_key_under_a_number_never_used(store: KeyStore) -> None:
    old = store.wrap(NAME, SECRET, b"")
    store.destroy(NAME)
    new = store.wrap(NAME, SECRET, b"")
    assert new.version == 2
    assert store.unwrap(NAME, new, b"") == SECRET
    with pytest.raises(KeyDestroyed):
        store.unwrap(NAME, old, b"")


def test_destroying_again_tells_what_was_destroyed_before(store: KeyStore) -> None:
    store.wrap(NAME, SECRET, b"")
    store.destroy(NAME)
    assert store.destroy(NAME).before == (1,)
    assert store.destroy("acme/unknown").now == ()
    assert store.describe("acme/unknown") is None


def test_destroying_one_key_leaves_the_others(store: KeyStore) -> None:
    kept = store.wrap("acme/sub_2", SECRET, b"")
    store.wrap(NAME, SECRET, b"")
    store.destroy(NAME)
    assert store.unwrap("acme/sub_2", kept, b"") == SECRET


def test_keys_are_listed_by_the_beginning_of_their_names(store: KeyStore) -> None:
    assert store.names() == []
    for name in ("acme/sub_b", "acme/sub_a", "acme.x/sub_a", "zeta/anonymous-2026-11-26"):
        store.create_key(name)
    store.destroy("acme/sub_b")
    assert store.names("acme/") == ["acme/sub_a", "acme/sub_b"]
    assert len(store.names()) == 4


def test_many_threads_make_one_key(store: KeyStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        wrapped = list(pool.map(lambda _: store.wrap(NAME, SECRET, b""), range(24)))
    assert {each.version for each in wrapped} == {1}
    assert all(store.unwrap(NAME, each, b"") == SECRET for each in wrapped)


# --- the file store ---


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    FileKeyStore(folder).wrap(NAME, SECRET, b"")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_process_has_the_same_keys(tmp_path: Path) -> None:
    wrapped = FileKeyStore(tmp_path / "keys").wrap(NAME, SECRET, b"")
    script = (
        "import sys; from pathlib import Path; from sluice_kit.sealing.file_keys import FileKeyStore as S\n"
        "from sluice_kit.sealing.keys import WrappedSecret as W\n"
        "s = S(Path(sys.argv[1])); sys.stdout.buffer.write(s.unwrap(sys.argv[2], W(1, bytes.fromhex(sys.argv[3])), b''))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "keys"), NAME, wrapped.sealed.hex()],
        capture_output=True,
        check=True,
    )
    assert told.stdout == SECRET


def test_processes_that_start_at_once_make_one_store(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sluice_kit.sealing.file_keys import FileKeyStore\n"
        "s = FileKeyStore(Path(sys.argv[1])); s.create_key(sys.argv[2]); print(s.id)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "keys"), f"acme/{i}"], stdout=subprocess.PIPE)
        for i in range(4)
    ]
    ids = {process.communicate()[0] for process in started}
    assert len(ids) == 1
    assert len(FileKeyStore(tmp_path / "keys").names()) == 4


def test_a_destroyed_key_stands_in_no_file_of_the_folder(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    store.create_key(NAME)
    for i in range(50):
        store.create_key(f"acme/other_{i}")
    with sqlite3.connect(tmp_path / "keys" / "keys.db") as connection:
        (wrapped,) = connection.execute("SELECT wrapped FROM key_versions WHERE name = ?", (NAME,)).fetchone()
    connection.close()
    assert any(wrapped in path.read_bytes() for path in (tmp_path / "keys").iterdir())
    store.destroy(NAME)
    assert [path.name for path in (tmp_path / "keys").iterdir() if wrapped in path.read_bytes()] == []


def test_rotating_the_master_key_leaves_all_keys_and_no_trace_of_the_old_master(tmp_path: Path) -> None:
    store, other = FileKeyStore(tmp_path / "keys"), FileKeyStore(tmp_path / "keys")
    wrapped = store.wrap(NAME, SECRET, b"")
    store.wrap("acme/sub_2", SECRET, b"")
    store.destroy("acme/sub_2")
    before = (tmp_path / "keys" / "master.json").read_bytes()
    assert store.rotate_master() == 2
    assert other.unwrap(NAME, wrapped, b"") == SECRET
    assert other.wrap("acme/sub_3", SECRET, b"").version == 1
    after = (tmp_path / "keys" / "master.json").read_bytes()
    assert b'"1"' in before
    assert b'"1"' not in after
    assert other.master_version == 2


def test_a_rotation_that_was_cut_short_loses_nothing_and_is_ended_by_the_next(tmp_path: Path) -> None:
    from sluice_kit.sealing.master_key import read_master_keys, write_master_keys

    store = FileKeyStore(tmp_path / "keys")
    wrapped = store.wrap(NAME, SECRET, b"")
    master = tmp_path / "keys" / "master.json"
    write_master_keys(master, read_master_keys(master).with_new())  # and here the process died
    assert store.unwrap(NAME, wrapped, b"") == SECRET
    store.wrap("acme/sub_2", SECRET, b"")
    assert store.rotate_master() == 3
    assert store.unwrap(NAME, wrapped, b"") == SECRET
    assert list(read_master_keys(master).versions) == [3]


@pytest.mark.parametrize("lost", ["keys.db", "master.json"])
def test_a_store_of_which_a_half_is_lost_is_not_made_anew_in_silence(tmp_path: Path, lost: str) -> None:
    store = FileKeyStore(tmp_path / "keys")
    wrapped = store.wrap(NAME, SECRET, b"")
    (tmp_path / "keys" / lost).unlink()
    with pytest.raises(KeyStoreUnavailable, match=rf"{lost} is missing .* restore it from its backup"):
        FileKeyStore(tmp_path / "keys")
    with pytest.raises(KeyStoreUnavailable):
        store.unwrap(NAME, wrapped, b"")
    assert not (tmp_path / "keys" / lost).exists()


def test_files_of_two_stores_do_not_pass_for_one(tmp_path: Path) -> None:
    FileKeyStore(tmp_path / "a").create_key(NAME)
    FileKeyStore(tmp_path / "b").create_key(NAME)
    os.replace(tmp_path / "a" / "master.json", tmp_path / "b" / "master.json")
    with pytest.raises(KeyStoreUnavailable, match="belongs to another store"):
        FileKeyStore(tmp_path / "b")


def test_a_store_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    (tmp_path / "keys" / "master.json").unlink()
    again = FileKeyStore(tmp_path / "keys")
    assert again.id != store.id
    assert again.create_key(NAME) == 1


def test_a_store_is_not_made_where_it_was_only_to_be_opened(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreUnavailable, match="there is none"):
        FileKeyStore(tmp_path / "keys", make=False)
    assert not (tmp_path / "keys").exists()


# --- the vault store ---


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("sealed", "status 503"),
        ("token", "refuses the token"),
        ("mount", "does not encrypt"),
        ("gone", "does not answer"),
    ],
)
def test_a_vault_that_cannot_be_asked_is_told_by_what_to_do(vault: VaultDouble, trouble: str, message: str) -> None:
    vault.away = trouble == "sealed"
    address = "http://127.0.0.1:1" if trouble == "gone" else vault.address
    mount = "elsewhere" if trouble == "mount" else "transit"
    store = VaultKeyStore(address, token=lambda: "wrong" if trouble == "token" else TOKEN, mount=mount)
    with pytest.raises(KeyStoreUnavailable, match=message):
        store.wrap(NAME, SECRET, b"")


def test_names_that_look_alike_are_different_keys_in_vault(vault: VaultDouble) -> None:
    store = VaultKeyStore(vault.address, token=lambda: TOKEN)
    names = ["a.b/c", "a/b.c", "a_2e/b", "a./b", "ä/b"]
    for name in names:
        store.create_key(name)
    assert len(vault.keys) == len(names)
    assert store.names() == sorted(names)


def test_the_settings_choose_the_store(tmp_path: Path, vault: VaultDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    assert isinstance(key_store_of(MeshSettings())(), FileKeyStore)
    monkeypatch.setenv("SLUICE_KEY_STORE", "vault")
    with pytest.raises(KeyStoreUnavailable, match="needs SLUICE_VAULT_ADDRESS"):
        key_store_of(MeshSettings())()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SLUICE_VAULT_ADDRESS", vault.address)
    monkeypatch.setenv("SLUICE_VAULT_TOKEN_FILE", str(tmp_path / "token"))
    assert key_store_of(MeshSettings())().create_key(NAME) == 1
    monkeypatch.setenv("SLUICE_KEY_STORE", "off")
    with pytest.raises(KeyStoreUnavailable, match="is off"):
        key_store_of(MeshSettings())()
