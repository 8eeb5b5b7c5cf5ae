"""VizWiz-VQA."""


def test_the_first_of_the_most_frequent_answers_is_the_target(workspace, example):
    workspace.add_images("VizWiz_val_00000003.jpg")

    assert workspace.rows("vizwiz", example("vizwiz").documents) == [
        {
            "id": "VizWiz_val_00000003.jpg",
            "image": "VizWiz_val_00000003.jpg",
            "instruction": "What is in this can?",
            "target": "soup",
            "references": ["soup", "unanswerable", "unanswerable", "soup"],
            "task": "mine",
            "choices": None,
        }
    ]
