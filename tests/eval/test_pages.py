"""The pages that measurements write, and the numbers they put into READMEs."""

from pathlib import Path

import pytest
from filters.pages import ROOT, summarise, table
from filters.timing import growth, quantile


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n|---|---|\n| 1 | x |"


def test_numbers_go_between_the_marks_of_a_readme_and_replace_the_last_ones(tmp_path: Path) -> None:
    readme = tmp_path / "services/some/README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text("before\n<!-- page: written by a command -->\nold\n<!-- end of page -->\nafter\n")
    summarise("some", "page", "new", root=tmp_path)
    summarise("some", "page", "newer", root=tmp_path)
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[2], lines[-1]) == ("before", "newer", "after")
    assert "old" not in lines
    assert "new" not in lines


def test_a_readme_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "services/some").mkdir(parents=True)
    (tmp_path / "services/some/README.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="has no place for page"):
        summarise("some", "page", "new", root=tmp_path)


@pytest.mark.parametrize(
    ("service", "kind"), [(s, k) for s in ("redaction", "moderation") for k in ("speed", "accuracy")]
)
def test_the_readmes_have_a_place_for_each_page(service: str, kind: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8")
    assert f"<!-- {service}-{kind}: written by a command -->" in text
    assert f"<!-- end of {service}-{kind} -->" in text


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3, 1, 2], share) for share in (0.0, 0.5, 0.99)] == [1, 2, 3]


def test_growth_is_the_exponent_over_the_two_longest() -> None:
    assert growth([(10, 1.0), (100, 5.0), (1000, 500.0)]) == pytest.approx(2.0)
