"""Golden bytes of every event: `released/golden/<version>/<Event>.{binpb,json}`; `next` is what is not released yet.

Writes `next` anew from the protos, and what a released version lacks; a released file that is there is never touched.
--check: writes nothing, and fails when `next` is out of step.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "gen")]

from contracts import sources  # noqa: E402
from contracts.examples import variants  # noqa: E402
from google.protobuf.json_format import MessageToJson  # noqa: E402
from google.protobuf.message import Message  # noqa: E402

GOLDEN = HERE / "released" / "golden"
NEXT = "next"
DIGESTS = "SHA256SUMS"


def as_json(message: Message) -> str:
    """How a golden message is written down: names as in the proto, sorted."""
    return MessageToJson(message, preserving_proto_field_name=True, sort_keys=True, ensure_ascii=False) + "\n"


def golden_files(schema: sources.Schema) -> Iterator[tuple[str, bytes]]:
    """File name and content, for every event of a schema."""
    for event in schema.events():
        for suffix, message in variants(event.message):
            name = f"{event.name}{suffix}"
            yield f"{name}.binpb", message.SerializeToString(deterministic=True)
            yield f"{name}.json", as_json(message).encode()


def write_next() -> None:
    folder = GOLDEN / NEXT
    folder.mkdir(parents=True, exist_ok=True)
    fresh = dict(golden_files(sources.current()))
    for path in folder.iterdir():
        if path.name not in fresh:
            path.unlink()
    for name, content in fresh.items():
        (folder / name).write_bytes(content)


def write_missing_released() -> None:
    for version in sources.released_versions():
        folder = GOLDEN / version
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in golden_files(sources.released(version)):
            path = folder / name
            if not path.exists():
                path.write_bytes(content)
        if not (folder / DIGESTS).exists():
            (folder / DIGESTS).write_text(digests(folder), encoding="utf-8")


def digests(folder: Path) -> str:
    """In the format of sha256sum."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".binpb", ".json"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def stale() -> list[str]:
    """Files of `next` that are missing, out of step or left over."""
    fresh = dict(golden_files(sources.current()))
    folder = GOLDEN / NEXT
    there = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
    return sorted(name for name in fresh.keys() | there.keys() if fresh.get(name) != there.get(name))


def main() -> None:
    if "--check" in sys.argv:
        names = ", ".join(stale())
        sys.exit(f"no golden bytes, or old ones, in released/golden/next ({names}): run make protos" if names else 0)
    write_missing_released()
    write_next()


if __name__ == "__main__":
    main()
