"""Which test samples the report shows."""

from pathlib import Path

import pytest

from avalanche_cit.errors import UserError
from avalanche_cit.logging.examples import Answer, Example, choose_examples, picture_file, read_examples

ROWS = ["initial", "caption", "vqa"]


def example(name: str, *scores: float | None) -> Example:
    return Example(name, "q", ["a"], [Answer(str(i), "text", score) for i, score in enumerate(scores)])


def test_forgotten_samples_come_first_then_learned_ones() -> None:
    samples = [
        example("never", 0, 0, 0),
        example("learned", 0, 0, 100),
        example("lost_half", 0, 90, 40),
        example("lost_all", 0, 100, 0),
        example("always", 100, 100, 100),
        example("regained", 100, 0, 100),
    ]
    assert [e.id for e in choose_examples(samples, 3)] == ["lost_all", "lost_half", "learned"]
    assert [e.id for e in choose_examples(samples, 6)][3:] == ["never", "always", "regained"]
    assert [e.id for e in samples if e.forgotten] == ["lost_half", "lost_all"]
    assert [e.id for e in samples if e.learned] == ["learned"]


def test_learned_samples_keep_a_third_of_the_places() -> None:
    samples = [*[example(f"lost{i}", 100, 0) for i in range(9)], *[example(f"won{i}", 0, 100) for i in range(9)]]
    assert [e.id for e in choose_examples(samples)] == ["lost0", "lost1", "lost2", "lost3", "won0", "won1"]
    assert [e.id for e in choose_examples(samples[:9])] == [f"lost{i}" for i in range(6)]


def test_verdicts() -> None:
    assert [Answer("r", "p", s).verdict for s in (100, 50, 49.9, 0, None)] == [
        "right",
        "right",
        "partly",
        "wrong",
        "unknown",
    ]
    assert not example("unscored", None, None).forgotten


def test_answers_are_joined_over_stages(make_run) -> None:
    line = {"id": "7/a", "instruction": "what\u2028colour?", "references": ["red"]}
    run = make_run(
        predictions={
            ("initial", "vqa"): [{**line, "prediction": "blue", "score": 0}],
            ("vqa", "vqa"): [{**line, "prediction": "red", "score": 100}],
        }
    )
    (got,) = read_examples(run, "vqa", ROWS)
    assert got.answers == [Answer("initial", "blue", 0), Answer("vqa", "red", 100)]
    assert (got.instruction, got.references) == ("what\u2028colour?", ["red"])
    assert read_examples(run, "caption", ROWS) == []
    assert picture_file(run, "vqa", got.id) == run / "examples" / "vqa" / "7_a.png"


def test_a_broken_line_is_named(make_run) -> None:
    run: Path = make_run(predictions={("vqa", "vqa"): [{"id": "1", "prediction": "x"}]})
    with pytest.raises(UserError, match=r"vqa\.jsonl, line 1: not a prediction"):
        read_examples(run, "vqa", ROWS)
