"""Files that say they are of another version or data set, or that are recognised as such, are refused in one line."""

import pytest

from avalanche_cit.errors import UserError

VQA_V1 = {"version": "1.0", "year": 2015, "description": "This is v1.0 of the VQA dataset."}
VQA_V2 = {"version": "2.0", "year": 2017, "description": "This is v2.0 of the VQA dataset."}
OK_VQA = {"version": "1.0", "year": 2019, "description": "This is v1.0 of the OK-VQA dataset."}


@pytest.fixture
def given(workspace, example, reader):
    given = example(reader)
    workspace.add_images(*given.images)
    return given


def refusal(workspace, reader, documents, options):
    with pytest.raises(UserError) as caught:
        workspace.read(reader, documents, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{workspace.root}/")


@pytest.mark.parametrize(
    ("reader", "argument", "changed", "message"),
    [
        (
            "textvqa",
            "annotations",
            {"dataset_version": "0.5"},
            "annotations.json: the field 'dataset_version' is '0.5', not '0.5.1'; get TextVQA 0.5.1 from"
            " https://textvqa.org/dataset/",
        ),
        (
            "textvqa",
            "annotations",
            {"dataset_name": "textcaps", "dataset_version": "0.1"},
            "annotations.json: the field 'dataset_name' is 'textcaps', not 'textvqa'; get TextVQA 0.5.1 from",
        ),
        (
            "textcaps",
            "annotations",
            {"dataset_version": 0.2},
            "annotations.json: the field 'dataset_version' is 0.2, not '0.1'; get TextCaps 0.1 from"
            " https://textvqa.org/textcaps/dataset/",
        ),
        (
            "textcaps",
            "annotations",
            {"dataset_name": "textvqa"},
            "annotations.json: the field 'dataset_name' is 'textvqa', not 'textcaps'; get TextCaps 0.1 from",
        ),
        (
            "vqa_v2",
            "questions",
            {"info": VQA_V1},
            "questions.json: the field 'info' says 'This is v1.0 of the VQA dataset.'; get version 2.0 from"
            " https://visualqa.org/download.html",
        ),
        (
            "vqa_v2",
            "annotations",
            {"info": VQA_V1},
            "annotations.json: the field 'info' says 'This is v1.0 of the VQA dataset.'; get version 2.0 from",
        ),
        (
            "karpathy_captions",
            "annotations",
            {"annotations": [{"image_id": 7, "id": 1, "caption": "A cup."}]},
            "annotations.json: is a caption file of COCO's own; give Karpathy's, dataset_coco.json",
        ),
    ],
)
def test_another_version_or_data_set_is_refused(workspace, given, reader, argument, changed, message):
    given.documents[argument].update(changed)

    assert refusal(workspace, reader, given.documents, given.options).startswith(message)


@pytest.mark.parametrize(
    ("reader", "argument", "changed"),
    [
        ("textvqa", "annotations", {"dataset_version": None, "dataset_name": None}),
        ("textcaps", "annotations", {"dataset_version": None}),
        ("textcaps", "annotations", {"dataset_version": 0.1, "dataset_name": "textcaps"}),
        ("vqa_v2", "questions", {"info": None}),
        ("vqa_v2", "questions", {"info": VQA_V2}),
        ("vqa_v2", "annotations", {"info": VQA_V2}),
        ("vqa_v2", "questions", {"info": OK_VQA}),
        ("vqa_v2", "annotations", {"info": OK_VQA}),
        ("karpathy_captions", "annotations", {"dataset": "coco"}),
    ],
)
def test_the_right_version_and_files_that_do_not_say_are_read(workspace, given, reader, argument, changed):
    for key, value in changed.items():
        given.documents[argument].pop(key, None)
        if value is not None:
            given.documents[argument][key] = value

    assert workspace.rows(reader, given.documents, **given.options)


@pytest.mark.parametrize(
    ("reader", "lacking", "place"),
    [
        ("textvqa", ["answers"], "data[0] (question_id 34602)"),
        ("textcaps", ["caption_str", "reference_strs"], "data[0] (image_id '01f')"),
        ("vizwiz", ["answers", "answer_type", "answerable"], "record[0] (image 'VizWiz_val_00000003.jpg')"),
        ("gqa", ["answer", "fullAnswer"], "record '201307251'"),
        ("a_okvqa", ["correct_choice_idx", "direct_answers", "rationales"], "record[0] (question_id '22jb')"),
    ],
)
def test_a_test_file_without_answers_is_refused(workspace, given, reader, lacking, place):
    records = given.documents["annotations"]
    if reader in ("textvqa", "textcaps"):
        records = records["data"]
    for record in records.values() if reader == "gqa" else records:
        for key in lacking:
            del record[key]

    assert refusal(workspace, reader, given.documents, given.options) == (
        f"annotations.json, {place}: the field '{lacking[0]}' is missing; it must be there, as in the training and"
        " validation files: test files are published without"
    )
