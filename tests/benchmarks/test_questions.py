"""The questions of a data set: which are the same, and in which order they are asked."""

from dataclasses import replace

from datasets import concatenate_datasets

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.benchmarks.questions import Questions, text_lengths
from avalanche_cit.processes import Processes


def test_the_longest_prompts_come_first_and_equal_ones_in_the_datas_order(tasks: dict[str, Task]) -> None:
    dataset = instruction_benchmark([tasks["shape"]]).test_stream[0].dataset
    prompts = [tasks["shape"].render(dataset[i][0].row) for i in range(6)]

    questions = Questions.of(dataset, Processes())

    assert [prompt for prompt, _ in questions.asked] == prompts
    lengths = [len(prompts[place]) for place in questions.order]
    assert lengths == sorted(lengths, reverse=True) != [len(prompt) for prompt in prompts]
    assert sorted(questions.order) == list(range(6))
    for one, other in zip(questions.order, questions.order[1:], strict=False):
        assert len(prompts[one]) > len(prompts[other]) or one < other


def test_questions_are_the_same_where_prompt_and_image_are(tasks: dict[str, Task]) -> None:
    test = tasks["colour"].test
    renamed = test.select([2]).map(lambda row: {"id": "other", "references": ["x"]}, features=test.features)
    asked = test.select([2]).map(lambda row: {"instruction": row["instruction"] + "?"}, features=test.features)
    task = replace(tasks["colour"], test=concatenate_datasets([test.select([2, 5]), renamed, asked]))

    same, image, again, prompt = Questions.of(instruction_benchmark([task]).test_stream[0].dataset, Processes()).asked

    assert same == again
    assert len({same, image, prompt}) == 3
    assert same[0] == image[0]  # one prompt of two images
    assert same[1] == prompt[1]  # two prompts of one image


def test_lengths_are_those_of_prompt_and_target(tasks: dict[str, Task]) -> None:
    dataset = instruction_benchmark([tasks["colour"]]).train_stream[0].dataset
    rows = [dataset[i][0].row for i in range(len(dataset))]

    assert text_lengths(dataset) == [len(tasks["colour"].render(row)) + len(row["target"]) for row in rows]
    assert len(set(text_lengths(dataset))) > 1
