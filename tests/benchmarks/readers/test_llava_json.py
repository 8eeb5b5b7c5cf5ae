"""LLaVA JSON, in the structures that LLaVA, UCIT and MLLM-CL publish."""

import pytest

from avalanche_cit.errors import UserError


def record(question, answer, image="1.jpg", **fields):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {**fields, "image": image, "conversations": turns}


@pytest.fixture
def read(workspace):
    """Read records to rows."""
    workspace.add_images("1.jpg", "2.jpg")
    return lambda *records, **options: workspace.rows("llava_json", {"annotations": list(records)}, **options)


def test_a_row_of_each_answered_turn_with_the_earlier_ones_before_it(workspace, example):
    given = example("llava_json")
    workspace.add_images(*given.images)

    both = {"image": "coco/train2017/000000033471.jpg", "task": "mine", "choices": None}
    assert workspace.rows("llava_json", given.documents) == [
        {
            "id": "000000033471_0",
            "instruction": "What are the colors of the bus in the image?",
            "target": "The bus is white and red.",
            "references": ["The bus is white and red."],
            **both,
        },
        {
            "id": "000000033471_1",
            "instruction": "User: What are the colors of the bus in the image?\n"
            "Assistant: The bus is white and red.\nIs it empty?",
            "target": "No.",
            "references": ["No."],
            **both,
        },
    ]


@pytest.mark.parametrize(
    "question", ["<image>\nWhat?", "What?\n<image>", " <image> What?", "What?", "<image>\n\nWhat?\n"]
)
def test_the_image_token_goes_wherever_it_stands(read, question):
    (row,) = read(record(question, "A cup.\n", id="a"))

    assert (row["id"], row["instruction"], row["target"]) == ("a", "What?", "A cup.\n")


def test_a_last_turn_without_an_answer_makes_no_row(read):
    whole = record("<image>\nWhat?", "A cup.", id="a")
    whole["conversations"].append({"from": "human", "value": "And now?"})

    assert [(row["id"], row["target"]) for row in read(whole)] == [("a", "A cup.")]


def test_images_may_lie_in_different_folders_below_the_root(workspace, read):
    workspace.add_images("GQA/images/1.jpg", "OCR-VQA/images/b/2.png")

    rows = read(record("?", "a", "GQA/images/1.jpg", id=1), record("?", "b", "./OCR-VQA/images/b/2.png", id=2))

    assert [row["image"] for row in rows] == ["GQA/images/1.jpg", "OCR-VQA/images/b/2.png"]


def test_ids_that_repeat_for_each_caption_of_an_image_are_numbered(read):
    """UCIT's VizWiz and Flickr30k: ``question_id`` is the image's, 19,441 and 18,368 times repeated."""
    captions = [record("<image>\nCaption?", text, question_id="00000007") for text in ("one", "two")]

    rows = read(captions[0], record("<image>\nCaption?", "three", "2.jpg", question_id="00000008"), captions[1])

    assert [(row["id"], row["target"]) for row in rows] == [
        ("00000007_0", "one"),
        ("00000008", "three"),
        ("00000007_1", "two"),
    ]


def test_id_comes_before_question_id_and_a_record_without_either_has_its_place(read):
    rows = read(record("?", "a", id=5, question_id=6), record("?", "b"), record("?", "c", id=None, question_id="q"))

    assert [row["id"] for row in rows] == ["5", "record_1", "q"]


def test_turns_of_records_that_share_an_id_are_numbered_in_each(read):
    two_turns = record("<image>\nWhat?", "A cup.", id="a")
    two_turns["conversations"] += record("And now?", "A cup.")["conversations"]

    assert [row["id"] for row in read(two_turns, two_turns)] == ["a_0_0", "a_0_1", "a_1_0", "a_1_1"]


def test_every_turn_may_name_the_image_again(read):
    two_turns = record("<image>\nWhat?", "A cup.", id="a")
    two_turns["conversations"] += record("<image>\nAnd now?", "A pen.")["conversations"]

    assert [row["instruction"] for row in read(two_turns)] == ["What?", "User: What?\nAssistant: A cup.\nAnd now?"]


def test_several_images_belong_to_every_turn_in_the_order_of_the_list(workspace, read):
    """LLaVA-NeXT's interleaved data: as many ``<image>`` as images, anywhere in the human's turns, or none."""
    workspace.add_images("b/3.jpg")
    images = ["2.jpg", "b/3.jpg", "1.jpg"]
    spread = record("<image><image>\nWhat is in <image>?", "A cup.", images, id="a")
    spread["conversations"] += record("And in the first?", "A pen.")["conversations"]

    rows = read(spread, record("Same?", "No.", images[:2], id="b"), record("<image>\nOne?", "Yes.", ["1.jpg"], id="c"))

    assert [(row["id"], row["image"], row.get("more_images")) for row in rows] == [
        ("a_0", "2.jpg", ["b/3.jpg", "1.jpg"]),
        ("a_1", "2.jpg", ["b/3.jpg", "1.jpg"]),
        ("b", "2.jpg", ["b/3.jpg"]),
        ("c", "1.jpg", None),
    ]
    assert [row["instruction"] for row in rows] == [
        "What is in ?",
        "User: What is in ?\nAssistant: A cup.\nAnd in the first?",
        "Same?",
        "One?",
    ]


@pytest.mark.parametrize(
    ("question", "images", "tokens"),
    [
        ("<image>\n<image>\nSame?", ["1.jpg"], 2),
        ("<image>\n<image>\nSame?", "1.jpg", 2),
        ("<image>\nSame?", ["1.jpg", "2.jpg"], 1),
        ("<image>\nSame?", [], 1),
        ("<image>\nSame?", None, 1),
    ],
)
def test_more_or_fewer_tokens_than_images_are_named(read, question, images, tokens):
    count = 1 if images == "1.jpg" else len(images or [])
    message = rf"record\[0\] \(id 'a'\): the number of <image> in its turns is {tokens}, that of its images {count};"

    with pytest.raises(UserError, match=message):
        read(record(question, "No.", images, id="a"), keep_text_only=True)


def test_one_missing_file_of_several_is_named(read):
    with pytest.raises(UserError, match=r"record\[0\] \(id 'a'\): the image 'gone.jpg' is not in"):
        read(record("?", "a", ["1.jpg", "gone.jpg"], id="a"))


@pytest.mark.parametrize("fields", [{}, {"image": None}, {"image": []}])
def test_records_of_text_alone_are_kept_on_demand(workspace, read, fields):
    text = {key: value for key, value in record("Why?", "So.", id="t").items() if key != "image"} | fields
    image = record("<image>\nWhat?", "A cup.", id="i")

    rows = read(text, image, keep_text_only=True)

    assert [(row["id"], row["image"], row["instruction"], row["target"]) for row in rows] == [
        ("t", None, "Why?", "So."),
        ("i", "1.jpg", "What?", "A cup."),
    ]
    with pytest.raises(UserError, match="'skip_text_only' and 'keep_text_only' are both given; leave one"):
        read(text, image, keep_text_only=True, skip_text_only=True)


@pytest.mark.parametrize("fields", [{}, {"image": None}, {"image": []}])
def test_records_of_text_alone_are_refused_or_left_out(workspace, read, fields):
    text = {key: value for key, value in record("Why?", "So.", id="t").items() if key != "image"} | fields
    image = record("<image>\nWhat?", "A cup.", id="i")

    with pytest.raises(
        UserError, match=r"record\[0\] \(id 't'\): has no image; .*'skip_text_only: true'.*'keep_text_only: true'"
    ):
        read(text, image)
    assert [row["id"] for row in read(text, image, skip_text_only=True)] == ["i"]


def test_text_alone_is_not_taken_from_the_cache_of_other_options(workspace, read):
    records = (record("<image>\nWhat?", "A cup.", id="i"), {"id": "t", "conversations": []})
    cache = workspace.root / "shared"
    read(*records, skip_text_only=True, cache_dir=cache)

    with pytest.raises(UserError, match="has no image"):
        read(*records, cache_dir=cache)
    with pytest.raises(UserError, match="has no answered turn"):
        read(*records, keep_text_only=True, cache_dir=cache)


@pytest.mark.parametrize(
    ("roles", "place"),
    [(["gpt", "human"], 0), (["human", "human"], 1), (["system", "human", "gpt"], 0), (["human", "gpt", "gpt"], 2)],
)
def test_turns_that_do_not_alternate_are_named(read, roles, place):
    wrong = {"id": "a", "image": "1.jpg", "conversations": [{"from": role, "value": "x"} for role in roles]}

    with pytest.raises(
        UserError, match=rf"record\[0\]\.conversations\[{place}\]: is from '{roles[place]}'; turns must"
    ):
        read(wrong)


@pytest.mark.parametrize("turns", [[], [{"from": "human", "value": "<image>\nWhat?"}]])
def test_a_record_without_an_answered_turn_is_named(read, turns):
    with pytest.raises(UserError, match=r"record\[0\] \(id 'a'\): has no answered turn"):
        read({"id": "a", "image": "1.jpg", "conversations": turns})


@pytest.mark.parametrize("image", [7, {"path": "1.jpg"}, True])
def test_an_image_that_is_no_text_is_named(read, image):
    with pytest.raises(UserError, match=r"record\[0\] \(id 'a'\): the field 'image' must be a text"):
        read(record("?", "a", image, id="a"))
    with pytest.raises(UserError, match=r"record\[0\] \(id 'a'\): the field 'image\[1\]' must be a text"):
        read(record("?", "a", ["1.jpg", image], id="a"))


@pytest.mark.parametrize("field", ["id", "question_id"])
@pytest.mark.parametrize("value", [1.5, True, {}, [None], "\ud800"], ids=repr)
def test_an_id_of_the_wrong_type_is_named(read, field, value):
    with pytest.raises(UserError, match=rf"the field '{field}' must be a text or a whole number, not "):
        read(record("?", "a", **{field: value}))
