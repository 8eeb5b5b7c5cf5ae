"""The verifying script: its lines and exit status for runs that agree, that do not, and that cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalanche_cit.evaluation.predictions_file import digest_of

SCRIPT = Path(__file__).parents[2] / "experiments" / "verify_run.py"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., str]:
    """Write a run of one task, half of whose answers are right; returns its name."""

    def make_run(name: str, score: float = 0.0, digests: bool = True) -> str:
        answers = tmp_path / name / "predictions" / "initial" / "a.jsonl"
        answers.parent.mkdir(parents=True)
        line: dict[str, Any] = {"instruction": "?", "references": ["red"]}
        lines = [{"id": "q1", "prediction": "red", **line, "score": 100.0}]
        lines += [{"id": "q2", "prediction": "blue", **line, "score": score}]
        if digests:
            lines = [{**line, "digest": digest_of(line)} for line in lines]
        answers.write_text("\n".join(map(json.dumps, lines)))
        beside = {"exact_match_tolerant": [[50.0]], "instruction_following": [[100.0]], "token_f1": [[50.0]]}
        document = {"schema_version": 1, "kind": "sequence", "benchmark": "b", "strategy": "seqft", "model": "m"}
        document |= {"seed": 0, "tasks": ["a"], "task0": [], "scores_by": ["exact_match"], "rows": ["initial"]}
        document |= {"scores": [[50.0]], "other_scores": beside, "summary": {}, "summary_task0": None}
        (tmp_path / name / "matrix.json").write_text(json.dumps({**document, "complete": False}))
        (tmp_path / name / "matrix.csv").write_text("row,a\ninitial,50.0\n")
        return name

    return make_run


def test_runs_that_agree(script, make_run, capsys: pytest.CaptureFixture[str]) -> None:
    script(make_run("one"), make_run("two"))
    assert capsys.readouterr() == ("one: agrees\ntwo: agrees\n", "")


def test_a_run_that_does_not_agree(script, make_run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        script(make_run("altered", score=25.0), make_run("two"))
    assert exit_.value.code == 1
    problem = "predictions/initial/a.jsonl, line 2, id 'q2': the score 25 is stored, 0 computed"
    assert capsys.readouterr() == (f"altered: {problem}\ntwo: agrees\n", "")


def test_one_wrong_answer_made_another_is_named(
    script, make_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No number of the run changes by it."""
    answers = tmp_path / make_run("altered") / "predictions" / "initial" / "a.jsonl"
    before = json.loads(answers.read_text().splitlines()[1])
    answers.write_text(answers.read_text().replace('"blue"', '"green"'))
    with pytest.raises(SystemExit) as exit_:
        script("altered")
    assert exit_.value.code == 1
    computed = digest_of({**before, "prediction": "green"})
    problem = f"line 2, id 'q2': the digest '{before['digest']}' is stored, '{computed}' computed"
    assert capsys.readouterr() == (f"altered: predictions/initial/a.jsonl, {problem}\n", "")


def test_a_run_of_an_older_version_agrees_with_a_note(script, make_run, capsys: pytest.CaptureFixture[str]) -> None:
    script(make_run("old", digests=False), make_run("new"))
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[2:]) == ("old: agrees", ["new: agrees"])
    assert lines[1].startswith("old: note: predictions/initial/a.jsonl: has no digests: written by an older version;")


def test_what_cannot_be_read(mistake, make_run, tmp_path: Path) -> None:
    assert mistake("nowhere") == "error: nowhere: no such folder; give a run directory\n"
    (tmp_path / make_run("one") / "predictions" / "initial" / "a.jsonl").write_text('{"id": 1')
    assert mistake("one").startswith("error: one/predictions/initial/a.jsonl, line 1: broken JSON in column ")
    assert "are required: runs" in mistake()
