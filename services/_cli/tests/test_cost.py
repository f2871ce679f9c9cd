"""What `sluice cost` sends and reads."""

import json
from pathlib import Path

import pytest
from sluice_cli import cost
from sluice_cli.mesh.problem import MeshProblem


def test_a_price_file_is_sent_in_parts_with_every_number_as_it_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    entries = ",".join(
        f'"model-{n}": {{"input_cost_per_token": 1.50e-07, "mode": "ch\\u00e4t", "tiers": [null, true]}}'
        for n in range(1_001)
    )
    path.write_text("{" + entries + "}")
    parts = list(cost._parts(path, approved_by="Ada", providers=["one"], dry_run=True))
    assert [len(json.loads(part.document)) for part in parts] == [500, 500, 1]
    assert b'"input_cost_per_token":1.50e-07' in parts[0].document
    assert json.loads(parts[2].document) == {"model-1000": json.loads(path.read_text())["model-1000"]}
    assert {(part.approved_by, part.dry_run, part.book) for part in parts} == {("Ada", True, parts[0].book)}


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_what_is_no_price_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(MeshProblem, match="is no price file"):
        list(cost._parts(path))


def test_heads_are_read_as_saved_and_as_events(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    saved = {"chain": "t/0", "row_count": 3, "hash": "ab"}
    event = {"type": "LedgerSealed", "data": {"chain": "t/1", "rowCount": "4", "headHash": "cd"}}
    path.write_text(f"{json.dumps(saved)}\n{json.dumps(event)}\n")
    assert [(head.chain, head.row_count, head.hash) for head in cost._read_heads(path)] == [
        ("t/0", 3, "ab"),
        ("t/1", 4, "cd"),
    ]
    path.write_text("no heads")
    with pytest.raises(MeshProblem, match="holds no heads"):
        cost._read_heads(path)


def test_a_time_without_a_zone_is_utc_and_what_is_no_time_is_named() -> None:
    assert cost._moment("2026-11-24").ToJsonString() == "2026-11-24T00:00:00Z"
    assert cost._moment("2026-11-24T13:00+01:00").ToJsonString() == "2026-11-24T12:00:00Z"
    with pytest.raises(MeshProblem, match="is no time"):
        cost._moment("tuesday")
