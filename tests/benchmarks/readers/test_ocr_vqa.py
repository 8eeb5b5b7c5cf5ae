"""OCR-VQA."""

import pytest

from avalanche_cit.errors import UserError


def book(split, url="http://example.com/cover.jpg", **fields):
    return {"imageURL": url, "questions": ["Who?"], "answers": ["Leaf"], "split": split, **fields}


def test_a_row_of_each_question(workspace, example):
    workspace.add_images("0123.png")

    both = {"image": "0123.png", "task": "mine", "choices": None}
    assert workspace.rows("ocr_vqa", example("ocr_vqa").documents, split="val") == [
        {
            "id": "0123_0",
            "instruction": "Who wrote this book?",
            "target": "A. Leaf",
            "references": ["A. Leaf"],
            **both,
        },
        {"id": "0123_1", "instruction": "Is this a cookbook?", "target": "Yes", "references": ["Yes"], **both},
    ]


@pytest.mark.parametrize(("split", "image_id"), [("train", "x1"), ("val", "x2"), ("test", "x3")])
def test_splits_are_counted_from_one(workspace, split, image_id):
    workspace.add_images("x1.jpg", "x2.jpg", "x3.jpg")
    documents = {"annotations": {"x1": book(1), "x2": book(2), "x3": book(3)}}

    assert [row["id"] for row in workspace.rows("ocr_vqa", documents, split=split)] == [f"{image_id}_0"]


def test_images_of_other_splits_need_not_be_there(workspace):
    workspace.add_images("x2.jpg")

    assert len(workspace.rows("ocr_vqa", {"annotations": {"x1": book(1), "x2": book(2)}}, split="val")) == 1


def test_each_question_needs_an_answer(workspace):
    workspace.add_images("x1.jpg")
    documents = {"annotations": {"x1": book(1, answers=["Leaf", "Yes"])}}

    with pytest.raises(UserError, match="record 'x1': has 1 questions but 2 answers"):
        workspace.read("ocr_vqa", documents, split="train")


def test_an_unknown_split_is_refused(workspace):
    with pytest.raises(UserError, match="unknown split 'validation': Known: train, val, test"):
        workspace.read("ocr_vqa", {"annotations": {}}, split="validation")
