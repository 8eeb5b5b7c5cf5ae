"""VQA v2 and OK-VQA."""

import pytest

from avalanche_cit.errors import UserError


@pytest.fixture
def documents(example):
    return example("vqa_v2").documents


def test_questions_meet_their_annotations(workspace, documents):
    workspace.add_images("COCO_val2014_000000000042.jpg")

    assert workspace.rows("vqa_v2", documents) == [
        {
            "id": "42000",
            "image": "COCO_val2014_000000000042.jpg",
            "instruction": "What colour is the cup?",
            "target": "red",
            "references": ["red", "red", "pink"],
            "task": "mine",
            "choices": None,
        },
        {
            "id": "42001",
            "image": "COCO_val2014_000000000042.jpg",
            "instruction": "How many cups?",
            "target": "2",
            "references": ["3", "2", "2"],
            "task": "mine",
            "choices": None,
        },
    ]


def test_multiple_choice_answer_is_the_target_even_where_another_answer_is_as_frequent(workspace, documents):
    workspace.add_images("COCO_val2014_000000000042.jpg")
    documents["annotations"]["annotations"][1]["answers"] = [{"answer": "pink"}, {"answer": "red"}]

    assert workspace.rows("vqa_v2", documents)[0]["target"] == "red"


def test_ok_vqa_has_no_multiple_choice_answer_and_takes_the_most_frequent(workspace, documents):
    workspace.add_images("COCO_val2014_000000000042.jpg")
    for annotation in documents["annotations"]["annotations"]:
        del annotation["multiple_choice_answer"]

    assert [row["target"] for row in workspace.rows("vqa_v2", documents)] == ["red", "2"]


@pytest.mark.parametrize(
    ("subtype", "name"),
    [
        ("train2014", "COCO_train2014_000000000042.jpg"),
        ("test2015", "COCO_test2015_000000000042.jpg"),
        ("test-dev2015", "COCO_test2015_000000000042.jpg"),
    ],
)
def test_image_names_follow_the_data_subtype(workspace, documents, subtype, name):
    workspace.add_images(name)
    documents["questions"]["data_subtype"] = subtype

    assert workspace.rows("vqa_v2", documents)[0]["image"] == name


def test_a_pattern_replaces_the_names_of_coco(workspace, documents):
    workspace.add_images("mini/42.png")
    documents["questions"]["data_subtype"] = "mini"

    assert workspace.rows("vqa_v2", documents, image_pattern="mini/{image_id}.png")[0]["image"] == "mini/42.png"


def test_an_unknown_data_subtype_asks_for_a_pattern(workspace, documents):
    documents["questions"]["data_subtype"] = "mini"

    with pytest.raises(UserError, match="no image names are known for the data_subtype 'mini'; give an image pattern"):
        workspace.read("vqa_v2", documents)


def test_a_question_without_annotation_is_named(workspace, documents):
    workspace.add_images("COCO_val2014_000000000042.jpg")
    del documents["annotations"]["annotations"][0]

    with pytest.raises(UserError, match=r"questions\.json, questions\[1\] \(question_id 42001\): has no annotation in"):
        workspace.read("vqa_v2", documents)


def test_a_second_annotation_of_a_question_is_named(workspace, documents):
    annotations = documents["annotations"]["annotations"]
    annotations.append(annotations[0])

    with pytest.raises(UserError, match=r"annotations\[2\] \(question_id 42001\): is the second annotation"):
        workspace.read("vqa_v2", documents)
