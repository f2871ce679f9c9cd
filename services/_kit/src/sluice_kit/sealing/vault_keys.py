"""A key store in HashiCorp Vault (or OpenBao): its transit engine keeps the keys and never gives them out."""

import base64
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sluice_kit.sealing.keys import (
    Destruction,
    KeyDestroyed,
    KeyState,
    KeyStoreUnavailable,
    WrappedSecret,
    WrongKey,
)

TIMEOUT_SECONDS = 2.0
_CIPHERTEXT = re.compile(r"vault:v(\d+):[A-Za-z0-9+/=]+")
_ENCODED = re.compile(r"_([0-9a-f]{2})")


class VaultKeyStore:
    """Fits KeyStore by Vault's documented HTTP API for transit. One Vault key a name; its versions are Vault's versions.

    Vault cannot say whether a version was used, so every `destroy` trims all versions up to a fresh one.
    """

    def __init__(
        self,
        address: str,
        *,
        token: Callable[[], str],
        mount: str = "transit",
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """`token` is asked before every call, so that a renewed one is used at once."""
        self._address, self._token, self._mount = address.rstrip("/"), token, mount
        self._timeout_seconds = timeout_seconds
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=tls))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def id(self) -> str:
        return f"vault:{self._mount}"

    def create_key(self, name: str) -> int:
        self._call("POST", f"keys/{_encoded(name)}", {"type": "aes256-gcm96"})  # nothing happens where there is one
        return int(self._key(name)["latest_version"])

    def wrap(self, name: str, secret: bytes, context: bytes) -> WrappedSecret:
        asked = {"plaintext": _base64(secret), "associated_data": _base64(context), "type": "aes256-gcm96"}
        try:
            told = str(self._call("POST", f"encrypt/{_encoded(name)}", asked).get("ciphertext"))  # makes a missing key
        except WrongKey:
            told = ""
        found = _CIPHERTEXT.fullmatch(told)
        if found is None:
            raise KeyStoreUnavailable(
                f"Vault at {self._address} does not encrypt: is a transit engine mounted at {self._mount}/ (SLUICE_VAULT_MOUNT)?"
            )
        return WrappedSecret(int(found[1]), told.encode())

    def unwrap(self, name: str, wrapped: WrappedSecret, context: bytes) -> bytes:
        # The version is part of the ciphertext; what it claims beside must agree.
        found = _CIPHERTEXT.fullmatch(wrapped.sealed.decode(errors="replace"))
        if found is None or int(found[1]) != wrapped.version:
            raise WrongKey("it was not wrapped by this key in this context")
        asked = {"ciphertext": found[0], "associated_data": _base64(context)}
        try:
            return base64.b64decode(self._call("POST", f"decrypt/{_encoded(name)}", asked)["plaintext"])
        except _Refused:
            raise self._why_refused(name, wrapped.version) from None

    def rotate(self, name: str) -> int:
        self._call("POST", f"keys/{_encoded(name)}/rotate", {})
        return int(self._key(name)["latest_version"])

    def destroy(self, name: str) -> Destruction:
        before = self.describe(name)
        if before is None:
            return Destruction((), ())
        fresh = self.rotate(name)
        # The bounds alone could be set back; it is the trim that takes the key material out of Vault's storage.
        bounds = {"min_decryption_version": fresh, "min_encryption_version": fresh}
        self._call("POST", f"keys/{_encoded(name)}/config", bounds)
        self._call("POST", f"keys/{_encoded(name)}/trim", {"min_available_version": fresh})
        return Destruction(tuple(range(len(before.destroyed) + 1, fresh)), before.destroyed)

    def describe(self, name: str) -> KeyState | None:
        try:
            key = self._key(name)
        except _NotFound:
            return None
        destroyed = tuple(range(1, max(1, int(key.get("min_available_version") or 0))))
        created = min((_seconds(at) for at in key["keys"].values()), default=0.0)
        return KeyState(name, int(key["latest_version"]), destroyed, created)

    def names(self, prefix: str = "") -> Sequence[str]:
        try:
            keys = self._call("LIST", "keys")["keys"]
        except _NotFound:
            return []
        return sorted(name for name in map(_decoded, keys) if name.startswith(prefix))

    # --- parts ---

    def _key(self, name: str) -> Mapping[str, Any]:
        return self._call("GET", f"keys/{_encoded(name)}")

    def _why_refused(self, name: str, version: int) -> Exception:
        state = self.describe(name)
        if state is not None and version in state.destroyed:
            return KeyDestroyed()
        return WrongKey("it was not wrapped by this key in this context")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is a setting, checked to be http or https
            f"{self._address}/v1/{self._mount}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                told = json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise self._failure(error) from None
        except (OSError, ValueError) as error:
            raise KeyStoreUnavailable(
                f"Vault at {self._address} does not answer ({type(error).__name__}): see SLUICE_VAULT_ADDRESS."
            ) from None
        data: Mapping[str, Any] = told.get("data") or {}
        return data

    def _failure(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            if error.code == 404:
                return _NotFound()
            if error.code == 400:
                return _Refused()
        if error.code == 403:
            return KeyStoreUnavailable(
                f"Vault at {self._address} refuses the token: see SLUICE_VAULT_TOKEN_FILE and its policy on {self._mount}/."
            )
        return KeyStoreUnavailable(f"Vault at {self._address} answers with status {error.code}: is it sealed?")


class _NotFound(WrongKey):
    """404: there is no such key, or no such mount."""


class _Refused(WrongKey):
    """400: Vault takes what was sent for wrong."""


def _encoded(name: str) -> str:
    """A name as Vault takes it: letters and digits as they are, everything else as `_` and its byte, so that no two are one."""
    return "".join(c if c.isascii() and c.isalnum() else "".join(f"_{b:02x}" for b in c.encode()) for c in name)


def _decoded(encoded: str) -> str:
    return (
        _ENCODED.sub(lambda found: chr(int(found[1], 16)), encoded)
        .encode("latin-1", "replace")
        .decode(errors="replace")
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _seconds(at: Any) -> float:
    """Vault tells the creation of a version as Unix seconds, or as a time stamp with nanoseconds for some types."""
    if isinstance(at, int | float):
        return float(at)
    return datetime.fromisoformat(re.sub(r"\.\d+", "", str(at)).replace("Z", "+00:00")).timestamp()
