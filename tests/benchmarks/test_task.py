"""A task renders its prompt, and refuses one that cannot be filled."""

import datasets
import pytest

from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError

EMPTY = datasets.Dataset.from_dict({})


def _task(prompt):
    return Task("vqa", EMPTY, EMPTY, EMPTY, prompt=prompt, score="exact_match", max_new_tokens=5)


def test_prompt_is_filled():
    row = {"instruction": "what {is} it?", "choices": ["cat", "dog"]}
    assert _task("Q: {question} {{x}} {options}").render(row) == "Q: what {is} it? {x} (a) cat (b) dog"
    assert _task("Q: {question}").render({"instruction": "why?", "choices": None}) == "Q: why?"


@pytest.mark.parametrize("prompt", ["{answer}", "{question", "question}", "{question:d}", "{question!r}", "{0}", "{}"])
def test_prompt_that_cannot_be_filled_is_refused(prompt):
    with pytest.raises(UserError, match="task 'vqa': the prompt"):
        _task(prompt)
