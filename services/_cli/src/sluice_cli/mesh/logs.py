"""The last words of a process, for the person who wonders why it is not ready."""

import json
from pathlib import Path

TAIL_BYTES = 16_384
LONGEST_LINE = 160


def last_words(log: Path, lines: int = 5) -> list[str]:
    """The last lines of a log, shortened: of a structured line its event name and what failed."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    words = [_shorten(line) for line in text.splitlines() if line.strip()]
    # A process that is started again and again says the same again and again.
    return [word for word, before in zip(words, ["", *words], strict=False) if word != before][-lines:]


def _shorten(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line[:LONGEST_LINE]
    if not isinstance(record, dict) or "event" not in record:
        return line[:LONGEST_LINE]
    told = {key: record[key] for key in ("error", "reason", "message", "cause", "detail") if record.get(key)}
    return " ".join([str(record["event"]), *(f"{key}={value}" for key, value in told.items())])[:LONGEST_LINE]
