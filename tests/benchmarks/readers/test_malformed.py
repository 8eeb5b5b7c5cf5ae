"""Whatever is wrong with a file, every reader says so in one line that names the file and the record."""

import json
import re

import pytest

from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.errors import UserError

# Of each reader: the fields that its rows come from, as (argument, where in the example's document).
USED = {
    "vqa_v2": [
        ("questions", ["data_subtype"]),
        ("questions", ["questions"]),
        ("questions", ["questions", 1, "question_id"]),
        ("questions", ["questions", 1, "image_id"]),
        ("questions", ["questions", 1, "question"]),
        ("annotations", ["annotations"]),
        ("annotations", ["annotations", 1, "question_id"]),
        ("annotations", ["annotations", 1, "answers"]),
    ],
    "a_okvqa": [
        ("annotations", [0, key]) for key in ("question_id", "image_id", "question", "choices", "correct_choice_idx")
    ],
    "karpathy_captions": [
        ("annotations", ["images"]),
        ("annotations", ["images", 0, "split"]),
        ("annotations", ["images", 0, "filename"]),
        ("annotations", ["images", 0, "sentences"]),
        ("annotations", ["images", 0, "sentences", 1, "raw"]),
        ("annotations", ["images", 0, "sentences", 1, "sentid"]),
    ],
    "textcaps": [
        ("annotations", ["data"]),
        ("annotations", ["data", 1, "image_id"]),
        ("annotations", ["data", 1, "caption_str"]),
        ("annotations", ["data", 1, "reference_strs"]),
    ],
    "ocr_vqa": [("annotations", ["0123", key]) for key in ("imageURL", "questions", "answers", "split")],
    "gqa": [("annotations", ["201307251", key]) for key in ("imageId", "question", "answer")],
    "vizwiz": [("annotations", [0, key]) for key in ("image", "question", "answers")],
    "textvqa": [
        ("annotations", ["data"]),
        ("annotations", ["data", 0, "question_id"]),
        ("annotations", ["data", 0, "image_id"]),
        ("annotations", ["data", 0, "question"]),
        ("annotations", ["data", 0, "answers"]),
        ("ocr", ["data"]),
        ("ocr", ["data", 0, "image_id"]),
        ("ocr", ["data", 0, "ocr_tokens"]),
    ],
    "science_qa": [
        ("problems", ["1", "question"]),
        ("problems", ["1", "choices"]),
        ("problems", ["1", "answer"]),
        ("problems", ["1", "hint"]),
        ("problems", ["1", "split"]),
        ("pid_splits", ["val"]),
    ],
    "llava_json": [
        ("annotations", [0, "conversations"]),
        ("annotations", [0, "conversations", 1, "from"]),
        ("annotations", [0, "conversations", 0, "value"]),
    ],
    "llava_questions": [
        ("annotations", [0, "text"]),
        ("annotations", [0, "answer"]),
        ("captions", ["images"]),
        ("captions", ["images", 0, "id"]),
        ("captions", ["images", 0, "file_name"]),
        ("captions", ["annotations"]),
        ("captions", ["annotations", 1, "image_id"]),
        ("captions", ["annotations", 1, "caption"]),
    ],
    "json_lines": [("annotations", [0, key]) for key in ("id", "instruction", "target")],  # image: may be null
}
OTHERS = ("parquet", "hub", "easy_vqa")  # not of JSON objects: see their own files
FIELDS = [pytest.param(reader, *field, id=f"{reader}-{field[1][-1]}") for reader in USED for field in USED[reader]]
ARGUMENTS = [pytest.param(reader, argument) for reader in USED for argument in dict(USED[reader])]


def parent(document, where):
    for key in where[:-1]:
        document = document[key]
    return document


def failure(workspace, given, reader, documents=None):
    with pytest.raises(UserError) as caught:
        workspace.read(reader, documents or given.documents, **given.options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_reader_is_tested():
    assert {*USED, *OTHERS} == set(READERS)


@pytest.fixture
def given(workspace, example, reader):
    given = example(reader)
    workspace.add_images(*given.images)
    return given


@pytest.mark.parametrize(("reader", "argument", "where"), FIELDS)
def test_a_missing_field_is_named(workspace, given, reader, argument, where):
    del parent(given.documents[argument], where)[where[-1]]

    message = failure(workspace, given, reader)

    assert message.startswith(str(workspace.root / f"{argument}.json"))
    assert f"the field '{where[-1]}' is missing; it must be" in message
    if len(where) > 1:
        assert re.search(r"(record|questions|annotations|images|sentences|data)(\[[01]\]| '\w+')|line 1", message)


@pytest.mark.parametrize(("reader", "argument", "where"), FIELDS)
@pytest.mark.parametrize("value", [None, 1.5, True, {}, [None], [[]], "\ud800"], ids=repr)
def test_a_field_of_the_wrong_type_is_named(workspace, given, reader, argument, where, value):
    parent(given.documents[argument], where)[where[-1]] = value

    message = failure(workspace, given, reader)

    assert message.startswith(str(workspace.root / f"{argument}.json"))
    assert f"'{where[-1]}" in message or message.endswith("must be an object, not null") or "[0]: must be" in message


@pytest.mark.parametrize(("reader", "argument"), [case for case in ARGUMENTS if "json_lines" not in case.values])
def test_broken_json_is_named_with_its_line(workspace, given, reader, argument):
    text = json.dumps(given.documents[argument], indent=1)
    lines = text.split("\n")
    lines[2] = "!" + lines[2]

    message = failure(workspace, given, reader, {**given.documents, argument: "\n".join(lines).encode()})

    assert message.startswith(f"{workspace.root / argument}.json, line 3, column 1: not JSON (")


@pytest.mark.parametrize(("reader", "argument"), ARGUMENTS)
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\xfa", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"3", b'"text"', b"[7]", b"null"]
)
def test_content_that_is_no_annotation_file_is_named(workspace, given, reader, argument, content):
    message = failure(workspace, given, reader, {**given.documents, argument: content})

    assert message.startswith(str(workspace.root / f"{argument}.json"))


@pytest.mark.parametrize(("reader", "argument"), ARGUMENTS)
def test_a_missing_file_is_named(workspace, given, reader, argument):
    given.options[argument] = workspace.root / "none.json"

    assert failure(workspace, given, reader).startswith(f"{workspace.root / 'none.json'}: no such file")


@pytest.mark.parametrize(("reader", "argument"), ARGUMENTS)
def test_a_folder_in_a_file_s_place_is_named(workspace, given, reader, argument):
    given.options[argument] = workspace.images

    assert failure(workspace, given, reader).startswith(f"{workspace.images}: cannot be read")


def test_a_broken_line_is_named(workspace, encode, example):
    workspace.add_images("a.png")
    (line,) = example("json_lines").documents["annotations"]
    content = encode("json_lines", [line, {**line, "id": "2"}]).replace(b'"id": "2"', b'"id": 2"') + b"\n"

    with pytest.raises(UserError, match=r"annotations\.json, line 2, column 9: not JSON \("):
        workspace.read("json_lines", {"annotations": content})


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_image_folder_is_named(workspace, given, reader):
    given.options["images"] = workspace.root / "none"

    assert failure(workspace, given, reader).startswith(f"{workspace.root / 'none'}: no such image folder")


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_image_is_named_with_its_record(workspace, given, reader):
    (workspace.images / given.images[0]).unlink()

    message = failure(workspace, given, reader)

    assert re.search(
        rf"(\.json|folder\d+), .+: the image '(\./)?{given.images[0]}' is not in {workspace.images}", message
    )


@pytest.mark.parametrize("reader", READERS)
def test_an_empty_file_holds_no_sample(workspace, given, reader):
    for argument, document in given.documents.items():
        if reader == "hub":
            given.documents[argument][0]["file"] = None
            given.options["skip_text_only"] = True
        elif argument == "pid_splits":
            document.update({split: [] for split in document})
        elif isinstance(document, list):
            given.documents[argument] = []
        elif reader in ("ocr_vqa", "gqa"):
            given.documents[argument] = {}
        else:
            document.update({key: [] for key in ("questions", "annotations", "images", "data") if key in document})

    assert "holds not one sample" in failure(workspace, given, reader)


@pytest.mark.parametrize(
    ("reader", "split"), [("karpathy_captions", "val"), ("ocr_vqa", "train"), ("science_qa", "test")]
)
def test_an_empty_split_is_named(workspace, given, reader, split):
    given.options["split"] = split

    assert f"holds not one sample of the split '{split}'" in failure(workspace, given, reader)


@pytest.mark.parametrize(
    ("reader", "argument", "records"),
    [
        ("vqa_v2", "questions", ["questions"]),
        ("a_okvqa", "annotations", []),
        ("karpathy_captions", "annotations", ["images"]),
        ("vizwiz", "annotations", []),
        ("textvqa", "annotations", ["data"]),
        ("science_qa", "pid_splits", ["val"]),
        ("json_lines", "annotations", []),
        ("parquet", "annotations", []),
        ("hub", "folder", []),
    ],
)
def test_two_records_of_one_id_are_refused(workspace, given, reader, argument, records):
    values = given.documents[argument]
    for key in records:
        values = values[key]
    values.append(values[0])

    assert "two samples have the id" in failure(workspace, given, reader)
