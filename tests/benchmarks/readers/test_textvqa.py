"""TextVQA."""


def test_the_most_frequent_answer_is_the_target(workspace, example):
    workspace.add_images("00fe.jpg")

    assert workspace.rows("textvqa", example("textvqa").documents) == [
        {
            "id": "34602",
            "image": "00fe.jpg",
            "instruction": "What does the sign say?",
            "target": "halt",
            "references": ["stop", "halt", "halt"],
            "task": "mine",
            "choices": None,
        }
    ]


def test_images_may_be_png(workspace, example):
    workspace.add_images("00fe.png")

    rows = workspace.rows("textvqa", example("textvqa").documents, image_pattern="{image_id}.png")

    assert rows[0]["image"] == "00fe.png"
