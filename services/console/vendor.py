"""Fetches the browser's libraries again, as vendored.json records them: `make console-assets` (VERSION=4.6.2 takes another version).

Through npm, which checks the registry's integrity hash. A version that is recorded must have the files that are recorded.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "src" / "sluice_console" / "static" / "vendor"
RECORD = FOLDER / "vendored.json"
_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\n?")


def main() -> int:
    """Writes the files and the record; 1 when a recorded version has other files now."""
    recorded = json.loads(RECORD.read_text())
    wrong = False
    for name, package in recorded.items():
        version = os.environ.get("VERSION") or package["version"]
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, capture_output=True, text=True
            )
            with tarfile.open(Path(folder) / packed.stdout.split()[-1]) as archive:
                files = {file: _content(archive, member) for file, member in package["from"].items()}
        digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        if version == package["version"] and digests != package["files"]:
            print(f"{name} {version} has other files than were recorded: nothing is written", file=sys.stderr)
            wrong = True
            continue
        for file, content in files.items():
            (FOLDER / file).write_bytes(content)
        package |= {"version": version, "files": digests}
        print(f"{name} {version}: {', '.join(files)}")
    RECORD.write_text(json.dumps(recorded, indent=2) + "\n")
    return 1 if wrong else 0


def _content(archive: tarfile.TarFile, member: str) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    # The map is not shipped: browsers would ask for it in vain.
    return _MAP.sub(b"", file.read()) if member.endswith(".js") else file.read()


if __name__ == "__main__":
    sys.exit(main())
