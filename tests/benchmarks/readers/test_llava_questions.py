"""Questions and answers of CoIN's, UCIT's and MLLM-CL's test sets."""

import pytest

from avalanche_cit.errors import UserError


@pytest.fixture
def given(workspace, example):
    given = example("llava_questions")
    workspace.add_images(*given.images)
    return given


ROW = {
    "id": "00000003",
    "image": "VizWiz/val/VizWiz_val_00000003.jpg",
    "instruction": "What is happening in the image?\nGenerate a brief caption for the image.",
    "target": "A can of soup.",
    "references": ["A can of soup."],
    "task": "mine",
    "choices": None,
}


def test_the_answer_is_target_and_reference(workspace, given):
    del given.documents["captions"]

    assert workspace.rows("llava_questions", given.documents) == [ROW]


def test_captions_are_the_references_of_their_image(workspace, given):
    captions = given.documents["captions"]
    captions["images"].append({"id": 2, "file_name": "other.jpg"})
    captions["annotations"].insert(1, {"id": 9, "image_id": 2, "caption": "Another."})

    rows = workspace.rows("llava_questions", given.documents)

    assert rows == [{**ROW, "references": ["A can of soup.", "Soup on a table."]}]


def test_an_image_without_captions_is_named(workspace, given):
    given.documents["captions"]["images"][0]["file_name"] = "other.jpg"

    with pytest.raises(
        UserError, match=r"\(question_id '00000003'\): its image '.*3.jpg' has no captions in .*captions"
    ):
        workspace.read("llava_questions", given.documents)


def test_a_caption_of_no_image_is_named(workspace, given):
    given.documents["captions"]["annotations"][1]["image_id"] = 5

    with pytest.raises(UserError, match=r"captions\.json, annotations\[1\] \(id 2\): is of the image 5, which is not"):
        workspace.read("llava_questions", given.documents)


def test_text_alone_is_refused_or_left_out(workspace, given):
    """CoIN's ScienceQA test file holds questions without an image."""
    text = {"question_id": "4", "text": "Which state is farthest north?\nA. Maine\nB. Texas", "answer": "A"}
    documents = {"annotations": [text, *given.documents["annotations"]]}

    with pytest.raises(UserError, match=r"record\[0\] \(question_id '4'\): has no image"):
        workspace.read("llava_questions", documents)
    assert workspace.rows("llava_questions", documents, skip_text_only=True) == [ROW]


def test_ids_that_repeat_are_numbered(workspace, given):
    (record,) = given.documents["annotations"]

    rows = workspace.rows("llava_questions", {"annotations": [record, {**record, "answer": "Soup."}]})

    assert [(row["id"], row["target"]) for row in rows] == [("00000003_0", "A can of soup."), ("00000003_1", "Soup.")]


def test_the_answer_may_be_in_another_field(workspace, given):
    """The boxes of CoIN's grounding task."""
    (record,) = given.documents["annotations"]
    del record["answer"]
    record |= {"answer_bbox": "[0.1,0.2,0.5,1.0]", "size": [640, 480]}
    documents = {"annotations": [record]}

    (row,) = workspace.rows("llava_questions", documents, answer_field="answer_bbox")

    assert (row["target"], row["references"]) == ("[0.1,0.2,0.5,1.0]", ["[0.1,0.2,0.5,1.0]"])
    with pytest.raises(UserError, match=r"record\[0\] .*: the field 'answer' is missing"):
        workspace.read("llava_questions", documents)


@pytest.fixture
def of_textvqa(workspace, given, example):
    """CoIN's questions of TextVQA: the most frequent answer, beside TextVQA's own file with all."""
    (record,) = given.documents["annotations"]
    return {
        "annotations": [{**record, "question_id": "34602", "answer": "halt"}],
        "answers": example("textvqa").documents["annotations"],
    }


def test_answers_are_the_references_of_their_question(workspace, of_textvqa):
    (row,) = workspace.rows("llava_questions", of_textvqa)

    assert (row["id"], row["target"], row["references"]) == ("34602", "halt", ["stop", "halt", "halt"])


def test_a_question_without_answers_is_named(workspace, of_textvqa):
    of_textvqa["answers"]["data"][0]["question_id"] = 5

    with pytest.raises(UserError, match=r"\(question_id '34602'\): has no answers in .*answers\.json; give the"):
        workspace.read("llava_questions", of_textvqa)


def test_answers_of_another_version_are_refused(workspace, of_textvqa):
    of_textvqa["answers"]["dataset_version"] = "0.5"

    with pytest.raises(UserError, match=r"answers\.json: the field 'dataset_version' is '0\.5', not '0\.5\.1'"):
        workspace.read("llava_questions", of_textvqa)


def test_captions_and_answers_are_not_given_together(workspace, given, of_textvqa):
    documents = {**of_textvqa, "captions": given.documents["captions"]}

    with pytest.raises(UserError, match="has references in both 'captions' and 'answers'; leave one of them out"):
        workspace.read("llava_questions", documents)
