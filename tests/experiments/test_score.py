"""The scoring script: its numbers against the scores in Python, and every mistake in one line."""

import json
import runpy
from pathlib import Path

import pytest

from avalanche_cit.evaluation.scores import SCORES, beside

SCRIPT = Path(__file__).parents[2] / "experiments" / "score.py"
NAMES = ["cider", "bleu4", "rouge_l", "vqa_accuracy", "exact_match", "exact_match_raw", "multiple_choice", "anls"]
LINES = [
    {"id": "q1", "prediction": "The red dog.", "references": ["red dog", "dog"], "choices": None},
    {"id": 2, "prediction": "b", "references": ["b"], "choices": ["a red dog", "two cats"], "score": 7},
    {"id": "q3", "prediction": "Two cats", "references": ["b"], "choices": ["a red dog", "two cats"]},
    {"id": "q4", "prediction": "a man\u2028on a red bike", "references": ["a man rides a red bike", "a bike"]},
]


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the script in this process; returns its exit status, what it printed, and its errors."""

    def score(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return score


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in LINES)
    file.write_text(f"\ufeff{text}\r\n\n", encoding="utf-8")
    return file


def arguments() -> tuple[list, list, list]:
    return tuple([line.get(field) for line in LINES] for field in ("prediction", "references", "choices"))


@pytest.mark.parametrize("name", NAMES)
def test_json_holds_the_scores_in_file_order(score, name: str, answers: Path):
    status, out, err = score("--score", name, "--predictions", answers, "--json")
    assert (status, err) == (0, "")
    expected = SCORES[name].function(*arguments())
    assert json.loads(out) == {"score": name, "corpus": expected.corpus, "per_sample": expected.per_sample}
    assert len(expected.per_sample) == len(LINES)
    assert max(expected.per_sample) > 0


def test_the_table_also_has_what_is_reported_beside_the_score(score, answers: Path):
    status, out, err = score("--score=multiple_choice", "--predictions", answers)
    assert (status, err) == (0, "")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if "│" in line]
    token_f1 = beside(SCORES["multiple_choice"])["token_f1"](*arguments()).corpus
    assert rows == [
        ["multiple_choice", "25.00"],
        ["multiple_choice_tolerant", "50.00"],
        ["instruction_following", "25.00"],
        ["token_f1", f"{token_f1:.2f}"],
    ]
    assert "4 answers" in out


def test_boxes_are_scored_against_boxes_alone(score, tmp_path: Path):
    file = tmp_path / "boxes.jsonl"
    texts = ["[0, 0, 1, 0.6]", "b"]
    lines = [{"id": i, "prediction": text, "references": ["[0, 0, 1, 1]"]} for i, text in enumerate(texts)]
    file.write_text("\n".join(map(json.dumps, lines)))
    status, out, err = score("--score", "grounding", "--predictions", file, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"score": "grounding", "corpus": 50.0, "per_sample": [100.0, 0.0]}

    file.write_text(json.dumps({**lines[0], "references": ["on the left"]}))
    status, out, err = score("--score", "grounding", "--predictions", file)
    assert (status, out) == (2, "")
    assert err == "error: sample 0 (counted from 0): the reference 'on the left' is no box [x1, y1, x2, y2]\n"


GOOD = json.dumps(LINES[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{file}: no such file"),
        ("", "{file}: holds no answer; write one JSON object a line"),
        ("\n \n", "{file}: holds no answer; write one JSON object a line"),
        (f'{GOOD}\n\n{{"id": 1, ', "{file}, line 3: broken JSON in column "),
        (f"{GOOD}\n[1]", "{file}, line 2: must hold a JSON object"),
        ('{"prediction": "a", "references": ["b"]}', "{file}, line 1: 'id' is missing"),
        (
            '{"id": null, "prediction": "a", "references": ["b"]}',
            "{file}, line 1: 'id' must be a text or a whole number",
        ),
        (
            '{"id": true, "prediction": "a", "references": ["b"]}',
            "{file}, line 1: 'id' must be a text or a whole number",
        ),
        ('{"id": 1, "references": ["b"]}', "{file}, line 1: 'prediction' is missing; it must be a text"),
        ('{"id": 1, "prediction": 3, "references": ["b"]}', "{file}, line 1: 'prediction' must be a text, not '3'"),
        ('{"id": 1, "prediction": "a"}', "{file}, line 1: 'references' is missing; it must be a list of texts"),
        (
            '{"id": 1, "prediction": "a", "references": "b"}',
            "{file}, line 1: 'references' must be a list of texts, not",
        ),
        (
            '{"id": 1, "prediction": "a", "references": []}',
            "{file}, line 1: 'references' must be a list of at least one",
        ),
        (
            '{"id": 1, "prediction": "a", "references": ["b", 3]}',
            "{file}, line 1: 'references' must be a list of texts, but",
        ),
        (
            '{"id": 1, "prediction": "a", "references": ["b"], "choices": "c"}',
            "{file}, line 1: 'choices' must be a list of",
        ),
        (f"{GOOD}\n{json.dumps(LINES[1])}\n{GOOD}", "{file}, line 3: the id 'q1' stands in line 1 already"),
        ("[" * 100_000, "{file}, line 1: not readable as JSON"),
        ('{"id": %s}' % ("9" * 5000), "{file}, line 1: not readable as JSON"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(score, text: str | None, message: str, tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    if text is not None:
        file.write_text(text)
    status, out, err = score("--score", "anls", "--predictions", file, "--json")
    assert (status, out) == (2, "")
    assert err.startswith("error: " + message.format(file=file))
    assert err.count("\n") == 1


def test_wrong_options_are_one_line_and_status_2(score, answers: Path):
    binary = answers.with_name("binary.jsonl")
    binary.write_bytes(b"\xff\xfe\x00")
    for given, message in [
        (
            ["--score", "vqa_acuracy", "--predictions", answers],
            "unknown score 'vqa_acuracy': did you mean 'vqa_accuracy'?",
        ),
        (["--score", "cider"], "predictions"),
        (["--predictions", answers], "score"),
        (["--score", "cider", "--prediction", answers], "did you mean '--predictions'?"),
        (["--score", "cider", "--predictions", answers.parent], "cannot be read"),
        (["--score", "cider", "--predictions", binary], "not a text file in UTF-8"),
    ]:
        status, out, err = score(*given, "--json")
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1
