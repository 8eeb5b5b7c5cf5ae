"""GQA."""


def test_questions_are_keyed_by_id(workspace, example):
    workspace.add_images("2354786.jpg")

    assert workspace.rows("gqa", example("gqa").documents) == [
        {
            "id": "201307251",
            "image": "2354786.jpg",
            "instruction": "Is the sky dark?",
            "target": "yes",
            "references": ["yes"],
            "task": "mine",
            "choices": None,
        }
    ]


def test_images_may_be_png(workspace, example):
    workspace.add_images("2354786.png")

    rows = workspace.rows("gqa", example("gqa").documents, image_pattern="{image_id}.png")

    assert rows[0]["image"] == "2354786.png"
