"""The tables of docs/scaling.md are those that the script makes of the figures beside them."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.models.cost import (
    ByPart,
    cached_values,
    forward_operations,
    generation_operations,
    training_operations,
    weights,
)

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "scaling_tables.py"
PAGE = ROOT / "docs" / "scaling.md"
MEASURED = ROOT / "docs" / "results" / "benchmark_speed.json"
RATIO = {"value": 1.234, "least": 1.0, "greatest": 2.0, "asked": ">= 1.00", "met": True}


@pytest.fixture(scope="module")
def scaling() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def cells(table: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by the first one of their row."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {name: rest for name, *rest in rows}


def test_the_page_holds_what_the_script_makes(scaling: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    made = scaling["tables"](found)

    assert scaling["filled"](page, made) == page
    assert set(re.findall(r"<!-- (\w+) -->", page)) == set(made)


def test_measured_figures_come_from_the_file(scaling: dict[str, Any]) -> None:
    cell = {"operations": 3e6, "seconds": 2e-3, "error": -0.25}
    growth = {"growth": {"seconds": 1.04, "megabytes": 0.98}, "seconds": [1.0, 1.5], "megabytes": [300.0, 294.0]}
    details = {
        "eval_vs_batch1": RATIO,
        "cost": {"operations per second": 2e9, "sizes": {"1x": {"bridge": cell}}},
        "growth": {"eproj": growth},
    }
    made = scaling["tables"]({"ratios": {"eval_vs_batch1": 1.234}, "details": details})

    assert cells(made["ratios"])["`eval_vs_batch1`"] == ["1.23", "1.00", "2.00", ">= 1.00", "yes"]
    assert cells(made["check"])["1x: bridge"] == ["3.0", "2.000", "1.500", "-25%"]
    assert cells(made["growth"])["eproj"] == ["2", "1.04", "0.98", "1.50", "294"]
    nothing = scaling["tables"]({})
    assert [nothing[name] for name in ("ratios", "check", "growth")] == ["Not measured yet.\n"] * 3


def test_the_published_model(scaling: dict[str, Any]) -> None:
    """Its files hold 9.98 and 6.11 GB of single precision, the vocabulary once more; 188 M weights are tuned."""
    config = scaling["instructblip_xl"]()
    found = weights(config)

    vocabulary = config.text_config.vocab_size * config.text_config.d_model
    assert 4 * (found.total + vocabulary) == pytest.approx(16.09e9, rel=1e-3)
    assert found.bridge == pytest.approx(188e6, rel=0.01)
    assert cached_values(config) == 257 * 1408
    assert scaling["projection_weights"](config) == 768 * 2048 + 2048


def test_work_is_that_of_samples_rows_and_images(scaling: dict[str, Any]) -> None:
    config, tokens = scaling["instructblip_xl"](), scaling["QUESTION"]
    once = training_operations(config, tokens, cached=True).total
    answer = generation_operations(config, tokens, cached=True).total

    found = scaling["work"](config, scaling["long_stream"](3), cached=True)
    current = scaling["work"](config, scaling["long_stream"](3), cached=True, whole_matrix=False)
    plain = scaling["work"](config, scaling["long_stream"](3), cached=False)

    assert found.training == 3 * 5 * 10_000 * once
    assert (found.evaluation, current.evaluation) == (3 * 4 * 1_000 * answer, 3 * 1_000 * answer)
    vision: ByPart = training_operations(config, tokens)
    assert found.filling == 3 * 11_000 * vision.vision
    assert (plain.filling, plain.training - found.training) == (0, 3 * 5 * 10_000 * vision.vision)
    assert found.steps == 3 * 5 * 40


def test_eproj_fills_the_cache_with_samples(scaling: dict[str, Any]) -> None:
    """And neither training nor answering computes the Q-Former any more."""
    config, tokens = scaling["instructblip_xl"](), scaling["QUESTION"]
    forward = forward_operations(config, tokens)
    projection = 2 * 32 * 768 * 2048

    found = scaling["work"](config, scaling["long_stream"](1), trainable="projection", cached=True)

    assert found.filling == 11_000 * (forward.vision + forward.bridge - projection)
    answer = generation_operations(config, tokens)
    assert found.evaluation == 2 * 1_000 * (answer.language + projection)


def test_hours(scaling: dict[str, Any]) -> None:
    assert scaling["hours"](312e12 * 0.4 * 3600, 1) == pytest.approx(1)
    assert scaling["hours"](312e12 * 0.4 * 3600, 8) == pytest.approx(1 / 8)
    assert scaling["synchronising"](100, 10**9, 1) == 0
    assert scaling["synchronising"](100, 10**9, 2) == pytest.approx(100 * 4e9 / 25e9 / 3600)


def test_sizes_of_cit1(scaling: dict[str, Any]) -> None:
    assert [(data.train, data.test) for data in scaling["cit1"]()] == [
        (145_000, 1_014),
        (109_765, 3_166),
        (443_757, 214_354),
        (800_000, 100_000),
        (943_000, 12_578),
    ]


def test_script_fills_a_page(scaling: dict[str, Any], script: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(re.sub(r"(<!-- (\w+) -->\n).*?(?=<!-- /\2)", r"\1old\n", PAGE.read_text(), flags=re.DOTALL))
    assert "old\n<!-- /gpus -->" in page.read_text()

    script("--docs", str(page), "--json", "nowhere.json")

    assert page.read_text() == scaling["filled"](PAGE.read_text(), scaling["tables"]({}))


def test_a_page_without_marks_is_refused(mistake: Any, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks\n")
    line = mistake("--docs", "page.md")
    assert line.startswith("error: the page has no lines '<!-- parts -->' and '<!-- /parts -->'")


def test_filled_needs_its_marks(scaling: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="<!-- a -->"):
        scaling["filled"]("<!-- b -->\n<!-- /b -->", {"a": "table"})
