"""A folder to read from, and for each reader a small valid example of its published format."""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from avalanche_cit.benchmarks.readers import READERS


@dataclass(frozen=True)
class Example:
    """What one reader is given: documents by argument name, further options, and the image files there are."""

    documents: dict[str, Any]
    images: list[str]
    options: dict[str, Any] = field(default_factory=dict)


def answers(*texts: str) -> list[dict[str, Any]]:
    return [{"answer": text, "answer_confidence": "yes", "answer_id": 1 + n} for n, text in enumerate(texts)]


EXAMPLES = {
    "vqa_v2": Example(
        documents={
            "questions": {
                "info": {"version": "2.0"},
                "license": {"name": "CC"},
                "data_type": "mscoco",
                "data_subtype": "val2014",
                "task_type": "Open-Ended",
                "questions": [
                    {"image_id": 42, "question": "What colour is the cup?", "question_id": 42000},
                    {"image_id": 42, "question": "How many cups?", "question_id": 42001},
                ],
            },
            "annotations": {
                "annotations": [
                    {
                        "question_id": 42001,
                        "image_id": 42,
                        "question_type": "how many",
                        "answer_type": "number",
                        "multiple_choice_answer": "2",
                        "answers": answers("3", "2", "2"),
                    },
                    {
                        "question_id": 42000,
                        "image_id": 42,
                        "question_type": "what colour",
                        "answer_type": "other",
                        "multiple_choice_answer": "red",
                        "answers": answers("red", "red", "pink"),
                    },
                ]
            },
        },
        images=["COCO_val2014_000000000042.jpg"],
    ),
    "a_okvqa": Example(
        documents={
            "annotations": [
                {
                    "split": "val",
                    "image_id": 42,
                    "question_id": "22jb",
                    "question": "What holds the tea?",
                    "choices": ["hat", "cup", "shoe", "box"],
                    "correct_choice_idx": 1,
                    "direct_answers": ["cup"] * 10,
                    "difficult_direct_answer": False,
                    "rationales": ["Tea comes in cups."],
                }
            ]
        },
        images=["000000000042.jpg"],
    ),
    "karpathy_captions": Example(
        documents={
            "annotations": {
                "images": [
                    {
                        "sentids": [0, 1],
                        "imgid": 7,
                        "sentences": [
                            {"tokens": ["a", "cup"], "raw": "A cup.", "imgid": 7, "sentid": 0},
                            {"tokens": ["red", "cup"], "raw": "Red cup.", "imgid": 7, "sentid": 1},
                        ],
                        "split": "test",
                        "filename": "7.jpg",
                    }
                ],
                "dataset": "flickr30k",
            }
        },
        images=["7.jpg"],
        options={"split": "test", "rows": "caption"},
    ),
    "textcaps": Example(
        documents={
            "annotations": {
                "dataset_type": "val",
                "dataset_version": "0.1",
                "data": [
                    {
                        "image_id": "01f",
                        "image_path": "train/01f.jpg",
                        "caption_str": caption,
                        "reference_strs": ["A sign says STOP.", "A red sign."],
                    }
                    for caption in ("A sign says STOP.", "A red sign.")
                ],
            }
        },
        images=["01f.jpg"],
        options={"rows": "caption"},
    ),
    "ocr_vqa": Example(
        documents={
            "annotations": {
                "0123": {
                    "imageURL": "http://ecx.example.com/images/I/51.UZ.png",
                    "title": "Tea",
                    "authorName": "A. Leaf",
                    "genre": "Cookbooks",
                    "questions": ["Who wrote this book?", "Is this a cookbook?"],
                    "answers": ["A. Leaf", "Yes"],
                    "split": 2,
                }
            }
        },
        images=["0123.png"],
        options={"split": "val"},
    ),
    "easy_vqa": Example(
        documents={
            "annotations": [
                ["what color is the circle?", "red", 0],
                ["is there not a blue shape?", "yes", 0],
                ["what is the color of the shape?", "teal", 11],
                ["what is the red shape?", "circle", 11],
            ]
        },
        images=["0.png", "11.png"],
        options={"questions": "colour"},
    ),
    "gqa": Example(
        documents={
            "annotations": {
                "201307251": {
                    "imageId": "2354786",
                    "question": "Is the sky dark?",
                    "answer": "yes",
                    "fullAnswer": "Yes, the sky is dark.",
                    "isBalanced": True,
                    "groups": {"global": None, "local": "06-sky_dark"},
                    "entailed": ["02930160"],
                    "equivalent": ["02930160"],
                    "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
                    "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {}},
                    "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
                    "semanticStr": "select: sky (2486325)->verify color: dark [0]",
                }
            }
        },
        images=["2354786.jpg"],
    ),
    "vizwiz": Example(
        documents={
            "annotations": [
                {
                    "image": "VizWiz_val_00000003.jpg",
                    "question": "What is in this can?",
                    "answers": answers("soup", "unanswerable", "unanswerable", "soup"),
                    "answer_type": "other",
                    "answerable": 1,
                }
            ]
        },
        images=["VizWiz_val_00000003.jpg"],
    ),
    "textvqa": Example(
        documents={
            "annotations": {
                "dataset_type": "val",
                "dataset_name": "textvqa",
                "dataset_version": "0.5.1",
                "data": [
                    {
                        "question": "What does the sign say?",
                        "image_id": "00fe",
                        "image_classes": ["Sign"],
                        "flickr_original_url": "http://example.com/1.jpg",
                        "image_width": 1024,
                        "image_height": 768,
                        "answers": ["stop", "halt", "halt"],
                        "question_tokens": ["what", "does", "the", "sign", "say"],
                        "question_id": 34602,
                        "set_name": "val",
                    }
                ],
            },
            "ocr": {
                "dataset_type": "val",
                "dataset_name": "textvqa",
                "dataset_version": "0.2",
                "data": [
                    {
                        "image_id": "00fe",
                        "ocr_tokens": ["STOP", "ALL WAY"],
                        "ocr_info": [{"word": "STOP", "bounding_box": {"top_left_x": 0.4, "top_left_y": 0.1}}],
                    }
                ],
            },
        },
        images=["00fe.jpg"],
    ),
    "science_qa": Example(
        documents={
            "problems": {
                "1": {
                    "question": "Which of these states is farthest north?",
                    "choices": ["West Virginia", "Louisiana"],
                    "answer": 0,
                    "hint": "Look at the map.",
                    "image": "image.png",
                    "task": "closed choice",
                    "grade": "grade2",
                    "subject": "social science",
                    "topic": "geography",
                    "category": "Geography",
                    "skill": "Read a map: cardinal directions",
                    "lecture": "Maps have four cardinal directions.",
                    "solution": "To find the answer, look at the compass rose.",
                    "split": "val",
                }
            },
            "pid_splits": {
                "train": [],
                "val": ["1"],
                "test": [],
                "trainval": ["1"],
                "minitrain": [],
                "minival": [],
                "minitest": [],
            },
        },
        images=["val/1/image.png"],
        options={"split": "val"},
    ),
    "llava_json": Example(
        documents={
            "annotations": [
                {
                    "id": "000000033471",
                    "image": "coco/train2017/000000033471.jpg",
                    "conversations": [
                        {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?"},
                        {"from": "gpt", "value": "The bus is white and red."},
                        {"from": "human", "value": "Is it empty?"},
                        {"from": "gpt", "value": "No."},
                    ],
                }
            ]
        },
        images=["coco/train2017/000000033471.jpg"],
    ),
    "llava_questions": Example(
        documents={
            "annotations": [
                {
                    "question_id": "00000003",
                    "image": "./VizWiz/val/VizWiz_val_00000003.jpg",
                    "text": "What is happening in the image?\nGenerate a brief caption for the image.",
                    "answer": "A can of soup.",
                }
            ],
            "captions": {
                "images": [{"id": 1, "file_name": "VizWiz_val_00000003.jpg"}],
                "annotations": [
                    {"id": 1, "image_id": 1, "caption": "A can of soup."},
                    {"id": 2, "image_id": 1, "caption": "Soup on a table."},
                ],
                "categories": [{"id": 1, "name": "captioning"}],
            },
        },
        images=["VizWiz/val/VizWiz_val_00000003.jpg"],
    ),
    "json_lines": Example(
        documents={
            "annotations": [
                {
                    "id": "1",
                    "image": "a.png",
                    "instruction": "what is it?",
                    "target": "b",
                    "references": ["b", "cat"],
                    "choices": ["dog", "cat"],
                }
            ]
        },
        images=["a.png"],
    ),
    "parquet": Example(
        documents={
            "annotations": [
                {
                    "id": "1",
                    "image": {"bytes": None, "path": "a.png"},
                    "instruction": "what is it?",
                    "target": "b",
                    "references": ["b", "cat"],
                    "task": "theirs",
                    "choices": ["dog", "cat"],
                }
            ]
        },
        images=["a.png"],
    ),
    "hub": Example(
        documents={
            "folder": [{"qid": 7, "file": "a.png", "question": "what is it?", "answer": 1, "options": ["dog", "cat"]}]
        },
        images=["a.png"],
        options={
            "split": "train",
            "columns": {
                "id": "qid",
                "image": "file",
                "instruction": "question",
                "target": "answer",
                "choices": "options",
            },
        },
    ),
}


def lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: Any) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def encode(reader: str, document: Any) -> bytes:
    """Return a document in a reader's format; JSON where that format cannot hold it."""
    try:
        if reader in ("json_lines", "hub"):
            return lines(document)
        if reader == "parquet":
            return parquet(document)
    except (TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException):
        pass
    return json.dumps(document).encode()


class Workspace:
    """A folder with images, annotation files and a cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.images.mkdir()
        self._numbers = itertools.count()

    def add_images(self, *names: str) -> None:
        for name in names:
            (self.images / name).parent.mkdir(parents=True, exist_ok=True)
            (self.images / name).touch()

    def write(self, name: str, content: Any) -> Path:
        path = self.root / f"{name}.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def write_all(self, reader: str, documents: dict[str, Any]) -> dict[str, Path]:
        """Write a reader's documents (bytes, or what becomes its format) by argument name."""
        files = {
            name: self.write(name, content if isinstance(content, bytes) else encode(reader, content))
            for name, content in documents.items()
        }
        if reader == "hub":
            folder = self.root / f"folder{next(self._numbers)}"
            folder.mkdir()
            files["folder"].rename(folder / "train.jsonl")
            files["folder"] = folder
        return files

    def read(self, reader: str, documents: dict[str, Any], **options: Any) -> datasets.Dataset:
        """Read documents (bytes, or what becomes the reader's format) with a cache of their own."""
        files = self.write_all(reader, documents)
        cache = self.root / f"cache{next(self._numbers)}"
        return READERS[reader](**{"task": "mine", "images": self.images, "cache_dir": cache, **files, **options})

    def rows(self, reader: str, documents: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        """Read documents to plain rows, each image as its path below the image folder, ``more_images`` if there are."""

        def path(image: dict[str, Any]) -> str:
            return str(Path(image["path"]).relative_to(self.images))

        rows = self.read(reader, documents, **options).data.to_pylist()
        for row in rows:
            row["image"] = row["image"] and path(row["image"])
            more = row.pop("more_images")
            if more is not None:
                row["more_images"] = [path(image) for image in more]
        return rows


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workspace]:
    return lambda: Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def example() -> Callable[[str], Example]:
    """Return a copy of a reader's example, free to be changed."""
    return lambda reader: copy.deepcopy(EXAMPLES[reader])


@pytest.fixture(scope="session", name="encode")
def encode_fixture() -> Callable[[str, Any], bytes]:
    return encode
