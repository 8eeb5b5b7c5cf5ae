"""TextCaps."""

import pytest

from avalanche_cit.errors import UserError


def caption(image_id, text, *references):
    return {"image_id": image_id, "caption_str": text, "reference_strs": list(references)}


@pytest.fixture
def documents():
    return {
        "annotations": {
            "data": [
                caption("01f", "A sign says STOP.", "A sign says STOP.", "A red sign."),
                caption("02a", "A shop.", "A shop."),
                caption("01f", "A red sign.", "A sign says STOP.", "A red sign."),
            ]
        }
    }


def test_a_row_of_each_caption_for_training(workspace, documents):
    workspace.add_images("01f.jpg", "02a.jpg")

    rows = workspace.rows("textcaps", documents, rows="caption")

    assert [(row["id"], row["image"], row["target"]) for row in rows] == [
        ("01f_0", "01f.jpg", "A sign says STOP."),
        ("02a_0", "02a.jpg", "A shop."),
        ("01f_1", "01f.jpg", "A red sign."),
    ]


def test_a_row_of_each_image_for_scoring(workspace, documents):
    workspace.add_images("01f.jpg", "02a.jpg")

    both = {"instruction": "", "task": "mine", "choices": None}
    assert workspace.rows("textcaps", documents, rows="image") == [
        {
            "id": "01f",
            "image": "01f.jpg",
            "target": "A sign says STOP.",
            "references": ["A sign says STOP.", "A red sign."],
            **both,
        },
        {"id": "02a", "image": "02a.jpg", "target": "A shop.", "references": ["A shop."], **both},
    ]


def test_images_may_be_png(workspace, example):
    workspace.add_images("train/01f.png")

    rows = workspace.rows("textcaps", example("textcaps").documents, rows="image", image_pattern="train/{image_id}.png")

    assert rows[0]["image"] == "train/01f.png"


def test_an_unknown_kind_of_rows_is_refused(workspace, documents):
    with pytest.raises(UserError, match=r"unknown kind of rows 'captions': did you mean 'caption'\?"):
        workspace.read("textcaps", documents, rows="captions")
