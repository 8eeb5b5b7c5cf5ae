"""The preview of a benchmark: its table, its sheet, and a mistake in one line."""

import json
import runpy
from pathlib import Path

import pytest
import yaml
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "experiments" / "preview_benchmark.py"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Write a benchmark of one task, whose test split has three answers 'red' and one 'blue'."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "1.jpg")
    splits = {"train": ["red"] * 7, "validation": ["red"] * 2, "test": ["red", "blue", "red", "red"]}
    for split, answers in splits.items():
        questions = {
            str(i): {"imageId": "1", "question": f"what colour {split} {i}?", "answer": answer}
            for i, answer in enumerate(answers)
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(questions))
    definition = {
        "reader": "gqa",
        "prompt": "Question: {question}",
        "score": "exact_match",
        "max_new_tokens": 5,
        "splits": {split: {"annotations": f"{split}.json", "images": "."} for split in splits},
    }
    file = tmp_path / "colours.yaml"
    document = {"name": "colours", "version": 1, "description": "Colours.", "tasks": ["colour"]}
    file.write_text(yaml.safe_dump(document | {"definitions": {"colour": definition}}))
    return file


def test_table_and_sheet(run, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    run("--benchmark", str(benchmark), "--output", str(sheet), "--data-root", str(tmp_path))
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if "exact_match" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["colour", "Question: {question}", "exact_match", "7", "2", "4", "2", "red", "75.0%"]
    assert printed.splitlines()[-1] == f"samples: {sheet}"
    with Image.open(sheet) as image:
        assert image.convert("RGB").getpixel((image.width // 10, image.height // 3)) == (254, 0, 0)


def test_an_unknown_benchmark_is_one_line(run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("--benchmark", "mini_cit11")
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: unknown benchmark 'mini_cit11': did you mean 'mini_cit1'?")
    assert printed.err.count("\n") == 1
