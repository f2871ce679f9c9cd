"""A double of Vault's transit engine: the endpoints, status codes and messages that its documentation and source state, over real HTTP."""

import base64
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.test"


@dataclass
class _Key:
    versions: dict[int, bytes] = field(default_factory=dict)
    created: dict[int, int] = field(default_factory=dict)
    latest: int = 0
    min_decryption: int = 1
    min_encryption: int = 0
    min_available: int = 0

    def rotate(self) -> None:
        self.latest += 1
        self.versions[self.latest] = secrets.token_bytes(32)
        self.created[self.latest] = int(time.time())


class _Wrong(Exception):
    pass


class VaultDouble:
    """Serves on a free port of loopback until closed. `away` makes it answer 503, as a sealed Vault does."""

    def __init__(self) -> None:
        self.keys: dict[str, _Key] = {}
        self.away = False
        self._lock = threading.Lock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                status, told = double.answer(self.command, self.path, self.headers.get("X-Vault-Token"), body)
                content = b"" if told is None else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_LIST = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, token: str | None, body: dict) -> tuple[int, dict | None]:
        if self.away:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] != "transit":
            return 404, {"errors": [f"no handler for route {path!r}"]}
        with self._lock:
            try:
                return self._transit(method, parts[1:], body)
            except _Wrong as error:
                return 400, {"errors": [str(error)]}

    def _transit(self, method: str, parts: list[str], body: dict) -> tuple[int, dict | None]:
        match (method, *parts):
            case ("LIST", "keys"):
                return (200, {"data": {"keys": sorted(self.keys)}}) if self.keys else (404, {"errors": []})
            case ("GET", "keys", name):
                return (200, {"data": self._told(name)}) if name in self.keys else (404, {"errors": []})
            case ("POST", "keys", name):
                self._make(name)
                return 204, None
            case ("POST", "keys", name, "rotate"):
                self._named(name).rotate()
                return 204, None
            case ("POST", "keys", name, "config"):
                self._configure(self._named(name), body)
                return 204, None
            case ("POST", "keys", name, "trim"):
                self._trim(self._named(name), body["min_available_version"])
                return 204, None
            case ("POST", "encrypt", name):
                return 200, {"data": self._encrypt(self._make(name), body)}
            case ("POST", "decrypt", name):
                return 200, {"data": {"plaintext": self._decrypt(name, body)}}
        return 404, {"errors": []}

    def _make(self, name: str) -> _Key:
        if name not in self.keys:
            self.keys[name] = _Key()
            self.keys[name].rotate()
        return self.keys[name]

    def _named(self, name: str) -> _Key:
        if name not in self.keys:
            raise _Wrong(f"no existing key named {name} could be found")
        return self.keys[name]

    def _told(self, name: str) -> dict:
        key = self.keys[name]
        return {
            "type": "aes256-gcm96", "name": name, "latest_version": key.latest,
            "min_available_version": key.min_available, "min_decryption_version": key.min_decryption,
            "min_encryption_version": key.min_encryption,
            "keys": {str(v): at for v, at in key.created.items() if v >= key.min_decryption},
        }  # fmt: skip

    def _configure(self, key: _Key, body: dict) -> None:
        for name in ("min_decryption_version", "min_encryption_version"):
            if body.get(name, 0) > key.latest:
                raise _Wrong(f"cannot set {name} of {body[name]}, latest key version is {key.latest}")
        key.min_decryption = body.get("min_decryption_version", key.min_decryption)
        key.min_encryption = body.get("min_encryption_version", key.min_encryption)

    def _trim(self, key: _Key, least: int) -> None:
        if key.min_encryption == 0 or key.min_decryption == 0:
            raise _Wrong("minimum available version cannot be set when minimum encryption version is not set")
        if least > min(key.min_encryption, key.min_decryption) or least < key.min_available:
            raise _Wrong("minimum available version cannot be set higher than minimum decryption version")
        key.min_available = least
        key.versions = {v: secret for v, secret in key.versions.items() if v >= least}

    def _encrypt(self, key: _Key, body: dict) -> dict:
        nonce = secrets.token_bytes(12)
        aad = base64.b64decode(body.get("associated_data", ""))
        sealed = nonce + AESGCM(key.versions[key.latest]).encrypt(nonce, base64.b64decode(body["plaintext"]), aad)
        return {"ciphertext": f"vault:v{key.latest}:{base64.b64encode(sealed).decode()}", "key_version": key.latest}

    def _decrypt(self, name: str, body: dict) -> str:
        if name not in self.keys:
            raise _Wrong("encryption key not found")
        key = self.keys[name]
        _, told, payload = body["ciphertext"].split(":")
        version, sealed = int(told[1:]), base64.b64decode(payload)
        if version > key.latest:
            raise _Wrong("invalid ciphertext: version is too new")
        if version < key.min_decryption:
            raise _Wrong("ciphertext or signature version is disallowed by policy (too old)")
        try:
            aad = base64.b64decode(body.get("associated_data", ""))
            return base64.b64encode(AESGCM(key.versions[version]).decrypt(sealed[:12], sealed[12:], aad)).decode()
        except InvalidTag:
            raise _Wrong("cipher: message authentication failed") from None
