"""The folder that holds everything the mesh of one machine keeps: SLUICE_HOME."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sluice_cli.mesh.problem import MeshProblem

LEAST_FREE_BYTES = 1 << 30
# A Unix socket's path is at most 103 bytes (macOS); supervisord binds `<path>.<pid>` first and renames it.
LONGEST_SOCKET_PATH = 90


@dataclass(frozen=True)
class Home:
    """Where the files of one mesh are."""

    path: Path

    @classmethod
    def here(cls) -> "Home":
        """As the environment says; `.sluice` below the current folder without SLUICE_HOME."""
        return cls(Path(os.environ.get("SLUICE_HOME") or ".sluice").absolute())

    @property
    def run(self) -> Path:
        """Files of the running mesh: configuration of the supervisor, its pid and socket."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """One log a process, rotated."""
        return self.path / "logs"

    @property
    def demo_env(self) -> Path:
        """Where the mesh is and a key for it, as shell assignments."""
        return self.path / "demo.env"

    @property
    def gateway_file(self) -> Path:
        """The gateway's tenants, keys (hashed) and models."""
        return self.path / "gateway.yaml"

    @property
    def probe_key_file(self) -> Path:
        """The key of the mesh's self-tests, in clear; read by nobody else."""
        return self.path / "probes.key"

    @property
    def console_file(self) -> Path:
        """Who may sign in to the console (keys hashed)."""
        return self.path / "console" / "keys.yaml"

    @property
    def broker_file(self) -> Path:
        """Name of the broker this home was begun with."""
        return self.path / "broker"

    @property
    def socket(self) -> Path:
        """The supervisor's socket; in the temporary folder when this home's path is too long for one."""
        inside = self.run / "supervisor.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{digest}" / "supervisor.sock"

    def prepare(self) -> None:
        """Creates the folders. MeshProblem when they cannot be written or the disk is nearly full."""
        try:
            for folder in (self.path, self.run, self.logs, self.socket.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.run / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise MeshProblem(
                f"SLUICE_HOME={self.path} cannot be written ({error.strerror}): choose another folder with SLUICE_HOME."
            ) from None
        if self.socket.parent.stat().st_uid != os.getuid():
            raise MeshProblem(f"{self.socket.parent} belongs to somebody else: choose a shorter SLUICE_HOME.")
        self._check_space()

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < LEAST_FREE_BYTES:
            raise MeshProblem(
                f"Only {free / 1e6:.0f} MB are free on the disk of SLUICE_HOME={self.path}; the mesh needs 1 GB:"
                " free some, or set SLUICE_HOME to a folder on another disk."
            )
