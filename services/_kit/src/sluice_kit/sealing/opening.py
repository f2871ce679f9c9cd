"""Opens the key store that the settings name."""

import ssl
from collections.abc import Callable

from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import TextReader, TextSealer
from sluice_kit.sealing.vault_keys import VaultKeyStore
from sluice_kit.settings import MeshSettings


def seals_texts(settings: MeshSettings) -> bool:
    """False where the operator has switched encryption off: texts are then written in clear."""
    return settings.key_store != "off"


def sealer_of(settings: MeshSettings) -> TextSealer | None:
    """What seals the texts of this process; None where encryption is off."""
    return TextSealer(key_store_of(settings)) if seals_texts(settings) else None


def reader_of(settings: MeshSettings) -> TextReader:
    """What opens sealed texts."""
    return TextReader(key_store_of(settings, make=False))


def key_store_of(settings: MeshSettings, *, make: bool = True) -> Callable[[], KeyStore]:
    """Opens the store when it is called; that raises KeyStoreUnavailable. `make`: also where there is none yet."""
    if settings.key_store == "vault":
        return lambda: _vault(settings)
    if settings.key_store == "file":
        return lambda: FileKeyStore(settings.key_store_folder or settings.home / "keys", make=make)
    return _none


def _none() -> KeyStore:
    raise KeyStoreUnavailable("SLUICE_KEY_STORE is off: there are no keys. Set it to file or vault.")


def _vault(settings: MeshSettings) -> KeyStore:
    if not settings.vault_address or settings.vault_token_file is None:
        raise KeyStoreUnavailable("SLUICE_KEY_STORE=vault needs SLUICE_VAULT_ADDRESS and SLUICE_VAULT_TOKEN_FILE.")
    token_file = settings.vault_token_file
    tls = ssl.create_default_context(cafile=settings.vault_ca_file) if settings.vault_ca_file else None

    def token() -> str:
        try:
            return token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise KeyStoreUnavailable(f"{token_file} (SLUICE_VAULT_TOKEN_FILE) cannot be read.") from None

    return VaultKeyStore(settings.vault_address, token=token, mount=settings.vault_mount, tls=tls)
