"""JSON Lines in this library's own schema."""

import pytest

from avalanche_cit.errors import UserError

LINE = {"id": 7, "image": "a.png", "instruction": "", "target": "cat"}


@pytest.fixture
def read(workspace):
    """Read the content of a file to rows."""
    workspace.add_images("a.png")
    return lambda content: workspace.rows("json_lines", {"annotations": content})


def test_all_fields(workspace, example):
    workspace.add_images("a.png")
    documents = example("json_lines").documents
    (line,) = documents["annotations"]

    assert workspace.rows("json_lines", documents) == [{**line, "task": "mine"}]


@pytest.mark.parametrize("missing", [{}, {"references": None, "choices": None}, {"task": "theirs", "more": [1]}])
def test_the_target_is_the_only_reference_where_there_are_none(read, missing):
    assert read([{**LINE, **missing}]) == [
        {**LINE, "id": "7", "references": ["cat"], "task": "mine", "choices": None},
    ]


def test_empty_lines_and_windows_line_ends(read):
    content = b'\r\n{"id": "1", "image": "a.png", "instruction": "", "target": "cat"}\r\n \n\n'

    assert [row["id"] for row in read(content)] == ["1"]


def test_a_line_may_have_no_image_or_several(workspace, read):
    workspace.add_images("b/b.png")
    several = {"more_images": ["b/b.png", {"path": "a.png"}]}

    rows = read([{**LINE, "image": None}, {**LINE, "id": 8, **several}, {**LINE, "id": 9, "more_images": []}])

    assert [(row["image"], row.get("more_images")) for row in rows] == [
        (None, None),
        ("a.png", ["b/b.png", "a.png"]),
        ("a.png", None),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": 7}, "the field 'image' must be an image"),
        ({"image": ["a.png"]}, "the field 'image' must be an image"),
        ({"image": "b.png"}, "the image 'b.png' is not in"),
        ({"more_images": "a.png"}, "the field 'more_images' must be a list of images, or null"),
        ({"more_images": ["a.png", None]}, r"the field 'more_images\[1\]' must be an image"),
        ({"more_images": ["b.png"]}, "the image 'b.png' is not in"),
        ({"image": None, "more_images": ["a.png"]}, "has 'more_images' without an 'image'"),
    ],
)
def test_what_is_no_image_is_named(read, fields, message):
    with pytest.raises(UserError, match=rf"annotations\.json, line 1 \(id 7\): {message}"):
        read([{**LINE, **fields}])


def test_a_missing_image_field_is_named(read):
    with pytest.raises(UserError, match=r"line 1 \(id 7\): the field 'image' is missing; it must be an image, or null"):
        read([{name: value for name, value in LINE.items() if name != "image"}])


@pytest.mark.parametrize("field", ["references", "choices"])
@pytest.mark.parametrize("value", ["cat", [], [None], {}], ids=repr)
def test_references_and_choices_are_lists_of_texts(read, field, value):
    with pytest.raises(UserError, match=rf"annotations\.json, line 2 \(id 7\): the field '{field}"):
        read([{**LINE, "id": 6}, {**LINE, field: value}])


def test_a_line_that_is_no_object_is_named(read):
    with pytest.raises(UserError, match=r"annotations\.json, line 2: must be an object, not a list"):
        read([LINE, [LINE]])
