"""The published benchmarks: every file is right, and its tasks read small files in the published formats and names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalanche_cit.benchmarks.benchmark_file import HELD_OUT, SPLITS, BenchmarkFile, TaskDefinition
from avalanche_cit.benchmarks.catalogue import benchmark_names, find_benchmark
from avalanche_cit.benchmarks.load import is_held_out, load_task, reader_options
from avalanche_cit.evaluation.scores import SCORES

PUBLISHED = [name for name in benchmark_names() if find_benchmark(name).drawn_by is None]
NO_EXACT_COUNTS = {
    "coin": {"vizwiz", "grounding", "vqav2", "ocrvqa"},
    "mllm_cl_domain": set(find_benchmark("mllm_cl_domain").tasks),
    "ucit": set[str](),
}
IMAGES = 100  # of each training split: as many as the rarest held-out share needs

QUESTION = "Question: What is it? Short answer:"
PROMPTS = {
    "flickr30k": "A short image description.",
    "textcaps": "A short image description.",
    "vqav2": QUESTION,
    "ocrvqa": QUESTION,
    "gqa": QUESTION,
    "vizwiz": QUESTION,
    "textvqa": "OCR tokens: stop, 4. Question: What is it? Short answer:",
    "okvqa": QUESTION,
    "aokvqa": "Question: What is it? Options: (a) hat (b) cup (c) shoe (d) box Short answer:",
}
OF_LLAVA_JSON = "What is it?\nAnswer with one word."
BOX = "[0.12,0.34,0.56,0.78]"


# --- The files --------------------------------------------------------------------------------------------------------


def test_which_benchmarks_there_are() -> None:
    on_disk = ["cit1", "cit2", "cit_order2", "cit_order3", "cit_order4", "coin", "easy_vqa", "mllm_cl_domain", "ucit"]
    assert on_disk == PUBLISHED
    drawn = ["digits", "mini_cit1", "mini_cit1_reversed", "mini_cit2", "mini_cit2_reversed"]
    assert benchmark_names() == sorted(on_disk + drawn)


@pytest.mark.parametrize("name", benchmark_names())
def test_a_shipped_file_is_right(name: str) -> None:
    found = find_benchmark(name)
    assert found.name == name
    assert found.source.stem == name
    for task in (*found.task0, *found.tasks):
        assert found.definitions[task].score in SCORES


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_task_says_where_it_comes_from_and_what_to_expect(name: str) -> None:
    found = find_benchmark(name)
    for task in (*found.task0, *found.tasks):
        definition = found.definitions[task]
        assert definition.source is not None
        assert "https://" in definition.source
        uncounted = task in NO_EXACT_COUNTS.get(name, {"ocrvqa"})
        of_files = set() if uncounted else {s for s in SPLITS if not is_held_out(definition, s)}
        assert set(definition.expected) == of_files


def test_the_orders_of_the_paper() -> None:
    first, second = find_benchmark("cit1"), find_benchmark("cit2")
    assert first.tasks == ("flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa")
    assert first.task0 == ()
    assert second.tasks == ("flickr30k", "vizwiz", "textvqa", "gqa")
    assert second.task0 == ("okvqa", "aokvqa", "textcaps", "vqav2", "ocrvqa")
    reversed_second = find_benchmark("cit_order2")
    assert (reversed_second.tasks, reversed_second.task0) == (second.tasks[::-1], second.task0)
    third, fourth = find_benchmark("cit_order3"), find_benchmark("cit_order4")
    questions = ("okvqa", "aokvqa", "gqa", "textcaps", "vqav2", "ocrvqa")
    assert third.tasks == (*questions, "flickr30k", "vizwiz", "textvqa")
    assert (fourth.tasks, fourth.task0, third.task0) == (third.tasks[::-1], (), ())
    assert first.definitions == second.definitions == third.definitions


def test_how_the_papers_tasks_are_scored() -> None:
    scores = {name: task.score for name, task in find_benchmark("cit2").definitions.items()}
    assert scores == {
        **dict.fromkeys(("flickr30k", "textcaps"), "cider"),
        **dict.fromkeys(("vqav2", "vizwiz", "textvqa", "okvqa"), "vqa_accuracy"),
        **dict.fromkeys(("ocrvqa", "gqa"), "exact_match"),
        "aokvqa": "multiple_choice",
    }


def test_the_tasks_of_coin_in_its_order_and_how_they_are_scored() -> None:
    found = find_benchmark("coin")
    assert [(name, found.definitions[name].score) for name in found.tasks] == [
        ("scienceqa", "multiple_choice"),
        ("textvqa", "vqa_accuracy"),
        ("imagenet", "exact_match"),
        ("gqa", "exact_match"),
        ("vizwiz", "exact_match"),
        ("grounding", "grounding"),
        ("vqav2", "exact_match"),
        ("ocrvqa", "exact_match"),
    ]


def test_the_users_own_benchmark_in_the_documentation_is_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    found = find_benchmark(tmp_path / "mine.yaml")
    assert (found.tasks, found.data_root) == (("cups", "captions"), tmp_path / "data")
    assert all(f"`{name}`" in page for name in PUBLISHED)


# --- The data ---------------------------------------------------------------------------------------------------------


def vqa(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    subset = "train2014" if split == "train" else "val2014"
    questions = [{"image_id": i, "question": "What is it?", "question_id": i} for i in range(IMAGES)]
    answers = [{"answer": "cup", "answer_id": n} for n in range(10)]
    annotations = [{"question_id": i, "image_id": i, "answers": answers} for i in range(IMAGES)]
    dump(files["questions"], {"data_subtype": subset, "questions": questions})
    dump(files["annotations"], {"annotations": annotations})
    return [f"COCO_{subset}_{i:012d}.jpg" for i in range(IMAGES)]


def karpathy(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    images = [
        {
            "imgid": i,
            "split": ("train", "val", "test")[i % 3],
            "filename": f"{i}.jpg",
            "sentences": [{"raw": f"Cup {n}.", "sentid": 5 * i + n} for n in range(5)],
        }
        for i in range(6)
    ]
    dump(files["annotations"], {"images": images, "dataset": "flickr30k"})
    return [f"{i}.jpg" for i in range(6)]


def textcaps(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    captions = [f"A sign {n}." for n in range(5)]
    data = [
        {"image_id": f"c{i}", "caption_str": c, "reference_strs": captions} for i in range(IMAGES) for c in captions
    ]
    dump(files["annotations"], {"data": data})
    return [f"c{i}.jpg" for i in range(IMAGES)]


def ocr_vqa(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    book = {"imageURL": "http://example.com/1.jpg", "questions": ["What is it?"], "answers": ["Tea"]}
    dump(files["annotations"], {str(i): {**book, "split": 1 + i % 3} for i in range(6)})
    return [f"{i}.jpg" for i in range(6)]


def gqa(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    dump(files["annotations"], {"q1": {"imageId": "7", "question": "What is it?", "answer": "cup"}})
    return ["7.jpg"]


def vizwiz(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    names = [f"VizWiz_{split}_{i:08d}.jpg" for i in range(IMAGES)]
    answers = [{"answer": "cup", "answer_confidence": "yes"}] * 10
    dump(files["annotations"], [{"image": name, "question": "What is it?", "answers": answers} for name in names])
    return names


def textvqa(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    fields = {"question": "What is it?", "answers": ["stop"] * 10}
    dump(files["annotations"], {"data": [{**fields, "question_id": i, "image_id": f"t{i}"} for i in range(IMAGES)]})
    dump(files["ocr"], {"data": [{"image_id": f"t{i}", "ocr_tokens": ["stop", "4"]} for i in range(IMAGES)]})
    return [f"t{i}.jpg" for i in range(IMAGES)]


def a_okvqa(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    question = {"question": "What is it?", "choices": ["hat", "cup", "shoe", "box"], "correct_choice_idx": 1}
    dump(files["annotations"], [{**question, "question_id": f"a{i}", "image_id": i} for i in range(IMAGES)])
    return [f"{i:012d}.jpg" for i in range(IMAGES)]


def llava_json(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    names = [f"{definition.name}/train/{i}.jpg" for i in range(IMAGES)]
    answer = BOX if definition.score == "grounding" else "cup"
    turns = [{"from": "human", "value": f"<image>\n{OF_LLAVA_JSON}"}, {"from": "gpt", "value": answer}]
    records = [{"id": i, "image": name, "conversations": turns} for i, name in enumerate(names)]
    if "skip_text_only" in files:
        records.append({"id": -1, "conversations": [{**turns[0], "value": OF_LLAVA_JSON}, turns[1]]})
    dump(files["annotations"], records)
    return names


def llava_questions(definition: TaskDefinition, split: str, files: dict[str, Path]) -> list[str]:
    names = [f"{definition.name}/test/{i}.jpg" for i in range(2)]
    answer = {"answer_bbox": BOX} if definition.score == "grounding" else {"answer": "cup"}
    fields = {"text": OF_LLAVA_JSON, **answer}
    records = [{**fields, "question_id": str(i), "image": name} for i, name in enumerate(names)]
    if "skip_text_only" in files:
        records.append({**fields, "question_id": "2"})
    dump(files["annotations"], records)
    if "answers" in files:
        of_question = [{"question_id": i, "answers": ["cup"] * 9 + ["mug"]} for i in range(2)]
        dump(files["answers"], {"dataset_name": "textvqa", "dataset_version": "0.5.1", "data": of_question})
    if "captions" in files:
        captions = [{"id": n, "image_id": n % 2, "caption": f"A cup {n}."} for n in range(4)]
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(2)]
        dump(files["captions"], {"images": images, "annotations": captions})
    return names


WRITERS: dict[str, Callable[[TaskDefinition, str, dict[str, Path]], list[str]]] = {
    "vqa_v2": vqa,
    "karpathy_captions": karpathy,
    "textcaps": textcaps,
    "ocr_vqa": ocr_vqa,
    "gqa": gqa,
    "vizwiz": vizwiz,
    "textvqa": textvqa,
    "a_okvqa": a_okvqa,
    "llava_json": llava_json,
    "llava_questions": llava_questions,
}


def dump(file: Path, document: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document), encoding="utf-8")


def write_data(found: BenchmarkFile, root: Path) -> None:
    """Write a small data set for every task, under the names that the benchmark file gives."""
    for name in (*found.task0, *found.tasks):
        definition = found.definitions[name]
        for split in SPLITS:
            if not is_held_out(definition, split):
                options = reader_options(definition, split, root)
                for image in WRITERS[definition.reader_of(split)](definition, split, options):
                    file = options["images"] / image
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()


@pytest.mark.parametrize("name", ["cit_order3", "coin", "ucit", "mllm_cl_domain"])
def test_the_prompts_of_every_task(name: str, tmp_path: Path) -> None:
    found = find_benchmark(name)
    write_data(found, tmp_path / "data")
    for task_name in found.tasks:
        definition = found.definitions[task_name]
        task = load_task(definition, data_root=tmp_path / "data", cache_dir=tmp_path / "cache")
        expected = OF_LLAVA_JSON if definition.reader == "llava_json" else PROMPTS[task_name]
        for data in (task.train, task.validation, task.test):
            row = data.select_columns(["instruction", "choices"])[0]
            assert task.render(row) == expected
        if is_held_out(definition, "validation"):
            share = definition.splits["validation"][HELD_OUT]
            samples = len(task.train) + len(task.validation)
            assert len(task.validation) * share == samples


def test_references_of_coin(tmp_path: Path) -> None:
    found = find_benchmark("coin")
    write_data(found, tmp_path / "data")
    references = {}
    for name in found.tasks:
        task = load_task(found.definitions[name], data_root=tmp_path / "data", cache_dir=tmp_path / "cache")
        assert (len(task.train) + len(task.validation), len(task.test)) == (IMAGES, 2)
        references[name] = task.test["references"][0]
        assert task.test["target"][0] == task.train["target"][0] == references[name][0]
    assert references.pop("textvqa") == ["cup"] * 9 + ["mug"]
    assert references.pop("grounding") == [BOX]
    assert set(map(tuple, references.values())) == {("cup",)}


def test_captions_are_scored_against_all_of_an_image_and_trained_on_one_by_one(tmp_path: Path) -> None:
    for name, tasks in (("cit1", ("flickr30k", "textcaps")), ("ucit", ("vizwiz_caption", "flickr30k"))):
        found = find_benchmark(name)
        write_data(found, tmp_path / name)
        for task_name in tasks:
            definition = found.definitions[task_name]
            task = load_task(definition, data_root=tmp_path / name, cache_dir=tmp_path / "cache")
            assert len(task.test["references"][0]) == (5 if name == "cit1" else 2)
            assert len(set(task.test["id"])) == len(task.test)
            if name == "cit1":
                assert [row[-2] for row in task.train["target"][:5]] == list("01234")
