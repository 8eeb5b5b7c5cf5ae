"""Task embeddings against a plain computation; which samples they are made of; and what the cache on disk does."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hf_datasets
import numpy as np
import pytest
import torch
from avalanche.benchmarks import CLScenario
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from avalanche_cit.benchmarks import Task, instruction_benchmark, load_benchmark
from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM, VisionFeatures
from avalanche_cit.similarity import (
    OpenClip,
    SentenceEncoder,
    TaskEmbedding,
    TokenEmbedding,
    VisionTower,
    cosines,
    embed_task,
    embedding_cache,
    task_similarity,
)


class Numbers:
    """Encodes the i-th image or text that it ever sees by (i + 1, 1), and remembers all."""

    def __init__(self, name: str = "numbers") -> None:
        self.name = name
        self.seen: list[Any] = []

    def __call__(self, items: Sequence[Any]) -> torch.Tensor:
        self.seen += items
        first = len(self.seen) - len(items)
        return torch.tensor([[first + i + 1.0, 1.0] for i in range(len(items))])


@pytest.fixture
def encoders() -> dict[str, Numbers]:
    return {"image_encoder": Numbers("images"), "text_encoder": Numbers("texts")}


def same(first: TaskEmbedding, second: TaskEmbedding) -> bool:
    pairs = zip(first.as_tensors().values(), second.as_tensors().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def unit(rows: list[np.ndarray]) -> np.ndarray:
    mean = np.mean(np.stack(rows).astype(np.float64), axis=0)
    return mean / np.sqrt((mean**2).sum())


# --- What an embedding is ---------------------------------------------------------------------------------------------


def test_against_a_plain_computation(
    load: Callable[..., LMM], kind: str, folder: Path, benchmark: CLScenario, tmp_path: Path
) -> None:
    model = load(kind)
    stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
    words = stock.language_model.get_input_embeddings().weight.detach().numpy()
    dataset = benchmark.train_stream[0].dataset  # 16 samples

    embedding = embed_task(
        dataset, image_encoder=VisionTower(model), text_encoder=TokenEmbedding(model), samples=5, cache=tmp_path
    )

    images, inputs, outputs = [], [], []
    for i in (0, 3, 6, 9, 12):
        row = dataset[i][0].row
        picture = Image.open(row["image"]["path"])
        pixels = model.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            images.append(stock.vision_model(pixel_values=pixels).last_hidden_state[0, 0].numpy())
        for rows, text in ((inputs, f"Question: {row['instruction']} Answer:"), (outputs, row["target"])):
            ids = model.processor.tokenizer(text)["input_ids"][:-1]  # without the end token
            rows.append(words[ids].mean(axis=0))
    expected = {"image": unit(images), "text_input": unit(inputs), "text_output": unit(outputs)}
    for name, vector in embedding.as_tensors().items():
        assert vector.dtype == torch.float32
        np.testing.assert_allclose(vector.numpy(), expected[name], rtol=1e-4, atol=1e-6)
        assert float(vector.norm()) == pytest.approx(1, abs=1e-6)


def test_vectors_are_averaged_as_they_are_and_then_normalised(
    encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path
) -> None:
    embedding = embed_task(benchmark.train_stream[1].dataset, **encoders, cache=tmp_path)  # 12 samples

    # images 1 .. 12: mean (6.5, 1); texts 1 .. 12 as inputs, 13 .. 24 as outputs: means (6.5, 1) and (18.5, 1)
    for vector, mean in ((embedding.image, 6.5), (embedding.text_input, 6.5), (embedding.text_output, 18.5)):
        expected = torch.tensor([mean, 1.0]) / (mean**2 + 1) ** 0.5
        torch.testing.assert_close(vector, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "taken"),
    [(5, [0, 3, 6, 9, 12]), (1, [0]), (7, [0, 2, 4, 6, 9, 11, 13]), (16, range(16)), (1000, range(16))],
)
def test_samples_are_taken_at_even_strides(
    encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path, samples: int, taken: Sequence[int]
) -> None:
    dataset = benchmark.train_stream[0].dataset

    embed_task(dataset, **encoders, samples=samples, cache=tmp_path)

    rows = [dataset[i][0].row for i in taken]
    assert [example.row["id"] for example in encoders["image_encoder"].seen] == [row["id"] for row in rows]
    prompts = [f"Question: {row['instruction']} Answer:" for row in rows]
    assert encoders["text_encoder"].seen == prompts + [row["target"] for row in rows]


def test_a_large_task_goes_through_in_parts(
    encoders: dict[str, Numbers], tasks: dict[str, Task], tmp_path: Path
) -> None:
    many = hf_datasets.concatenate_datasets([tasks["colour"].train] * 40)  # 640 samples, of which 256 go at a time
    dataset = instruction_benchmark([replace(tasks["colour"], train=many)]).train_stream[0].dataset
    sizes: list[int] = []

    class Counting(Numbers):
        def __call__(self, items: Sequence[Any]) -> torch.Tensor:
            sizes.append(len(items))
            return super().__call__(items)

    embedding = embed_task(
        dataset, image_encoder=Counting(), text_encoder=encoders["text_encoder"], samples=600, cache=tmp_path
    )

    assert sizes == [256, 256, 88]
    torch.testing.assert_close(embedding.image[0] / embedding.image[1], torch.tensor(300.5), rtol=1e-5, atol=0)


def test_nothing_is_drawn_and_nothing_is_left_in_training_mode(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, tmp_path: Path
) -> None:
    model = load(kind).train()
    modes = {name: module.training for name, module in model.named_modules()}
    before = torch.get_rng_state()

    embed_task(
        benchmark.train_stream[0].dataset,
        image_encoder=VisionTower(model),
        text_encoder=TokenEmbedding(model),
        cache=tmp_path,
    )

    assert torch.equal(torch.get_rng_state(), before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(weight.grad is None for weight in model.parameters())


def test_cached_vision_features_give_the_same_bits(
    load: Callable[..., LMM], kind: str, benchmark: CLScenario, tmp_path: Path
) -> None:
    plain, cached = load(kind), load(kind, vision_features=VisionFeatures())
    dataset = benchmark.train_stream[0].dataset
    cached.prepare(dataset)
    calls: list[int] = []
    cached.hf.vision_model.tower.register_forward_hook(lambda *_: calls.append(1))

    embeddings = [
        embed_task(dataset, image_encoder=VisionTower(model), text_encoder=TokenEmbedding(model), cache=tmp_path / name)
        for name, model in (("plain", plain), ("cached", cached))
    ]

    assert calls == []
    assert same(*embeddings)


def test_external_encoders_end_to_end(
    clip_folder: Path, sentence_folder: Path, benchmark: CLScenario, tmp_path: Path
) -> None:
    encoders = {"image_encoder": OpenClip(str(clip_folder)), "text_encoder": SentenceEncoder(str(sentence_folder))}

    embeddings = [embed_task(e.dataset, **encoders, cache=tmp_path) for e in benchmark.train_stream]

    assert [vector.shape for vector in embeddings[0].as_tensors().values()] == [(8,), (16,), (16,)]
    similarity = task_similarity(embeddings)
    assert similarity.shape == (3, 3)
    assert ((similarity > 0) & (similarity <= 1)).all()
    assert len(similarity.flatten().unique()) > 3


def test_tensors_survive_a_checkpoint(encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path) -> None:
    embedding = embed_task(benchmark.train_stream[0].dataset, **encoders, cache=tmp_path)

    save_file(embedding.as_tensors(), tmp_path / "checkpoint.safetensors")

    assert list(embedding.as_tensors()) == ["image", "text_input", "text_output"]
    assert same(TaskEmbedding.from_tensors(load_file(tmp_path / "checkpoint.safetensors")), embedding)


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [0, -3])
def test_no_samples_are_refused(
    encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path, samples: int
) -> None:
    with pytest.raises(UserError, match=f"a task is embedded by {samples} samples: it takes at least 1"):
        embed_task(benchmark.train_stream[0].dataset, **encoders, samples=samples, cache=tmp_path)


def test_vectors_without_a_direction_are_refused(
    load: Callable[..., LMM], encoders: dict[str, Numbers], tasks: dict[str, Task], tmp_path: Path
) -> None:
    silent = replace(tasks["shape"], prompt="")
    dataset = instruction_benchmark([silent]).train_stream[0].dataset

    with pytest.raises(UserError, match=r"task 'shape': the vectors of its text inputs have no mean direction"):
        embed_task(
            dataset,
            image_encoder=encoders["image_encoder"],
            text_encoder=TokenEmbedding(load()),
            cache=tmp_path,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(
    encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"cannot be written \(.*\); give another cache folder"):
        embed_task(benchmark.train_stream[0].dataset, **encoders, cache=tmp_path / "file" / "cache")


# --- The cache on disk ------------------------------------------------------------------------------------------------


def computed(dataset: Any, cache: Path | None, images: str = "images", texts: str = "texts", **options: Any) -> bool:
    """Embed a task and tell whether the encoders had anything to do."""
    image_encoder, text_encoder = Numbers(images), Numbers(texts)
    embed_task(dataset, image_encoder=image_encoder, text_encoder=text_encoder, cache=cache, **options)
    assert bool(image_encoder.seen) == bool(text_encoder.seen)
    return bool(image_encoder.seen)


def test_the_same_again_is_read_and_anything_else_computed(tasks: dict[str, Task], tmp_path: Path) -> None:
    def data(task: Task) -> Any:
        return instruction_benchmark([task]).train_stream[0].dataset

    colour = tasks["colour"]
    assert computed(data(colour), tmp_path)
    assert not computed(data(colour), tmp_path)
    assert not computed(data(replace(colour, name="renamed", score="cider", test=tasks["shape"].test)), tmp_path)
    assert not computed(data(colour), tmp_path, samples=16)  # the same samples, all of them

    assert computed(data(colour), tmp_path, samples=15)
    assert computed(data(colour), tmp_path, images="other")
    assert computed(data(colour), tmp_path, texts="other")
    assert computed(data(tasks["shape"]), tmp_path)
    assert computed(data(replace(colour, prompt="{question}")), tmp_path)
    assert computed(data(replace(colour, train=colour.train.select(range(14)))), tmp_path)
    for column, value in (("id", "new"), ("target", "pink"), ("image", colour.train[5]["image"])):
        changed = colour.train.map(
            lambda row, i, column=column, value=value: {column: value if i == 4 else row[column]},
            with_indices=True,
            features=colour.train.features,
        )
        assert computed(data(replace(colour, train=changed)), tmp_path), column
    assert not computed(data(colour), tmp_path)


def test_only_the_samples_taken_decide(tasks: dict[str, Task], tmp_path: Path) -> None:
    colour = tasks["colour"].train

    def data(changed: int) -> Any:
        def pink(row: dict[str, Any], i: int) -> dict[str, Any]:
            return {"target": "pink" if i == changed else row["target"]}

        rows = colour.map(pink, with_indices=True, features=colour.features)
        return instruction_benchmark([replace(tasks["colour"], train=rows)]).train_stream[0].dataset

    assert computed(data(changed=-1), tmp_path, samples=5)
    for i in (1, 4, 13, 15):  # 0, 3, 6, 9 and 12 are taken
        assert not computed(data(changed=i), tmp_path, samples=5)
    for i in (3, 12):
        assert computed(data(changed=i), tmp_path, samples=5)


def test_embedded_images_are_told_apart_by_their_content(tasks: dict[str, Task], tmp_path: Path) -> None:
    def data(colour: str) -> Any:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "png")
        rows = tasks["colour"].train.select([0]).remove_columns("image")
        rows = rows.add_column("image", [{"path": None, "bytes": file.getvalue()}])
        task = replace(tasks["colour"], train=rows.cast(tasks["colour"].train.features))
        return instruction_benchmark([task]).train_stream[0].dataset

    assert computed(data("red"), tmp_path)
    assert not computed(data("red"), tmp_path)
    assert computed(data("blue"), tmp_path)


def test_all_images_of_a_sample_decide(tasks: dict[str, Task], tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    for path in paths:
        Image.new("RGB", (8, 8), "red").save(path)

    def data(*images: Path) -> Any:
        named = [{"path": str(path), "bytes": None} for path in images]
        rows = tasks["colour"].train.select([0]).remove_columns(["image", "more_images"])
        rows = rows.add_column("image", [named[0] if named else None]).add_column("more_images", [named[1:] or None])
        features = tasks["colour"].train.features
        columns = {name: rows.data.column(name).to_pylist() for name in features}
        train = hf_datasets.Dataset.from_dict(columns, features=features)
        return instruction_benchmark([replace(tasks["colour"], train=train)]).train_stream[0].dataset

    a, b, c = paths
    cache = tmp_path / "cache"
    for images in ((), (a,), (a, b), (b, a), (a, c), (a, b, c)):
        assert computed(data(*images), cache), images
        assert not computed(data(*images), cache), images
    Image.new("RGB", (9, 9), "blue").save(b)
    assert computed(data(a, b), cache)


def test_a_sample_without_an_image_does_not_turn_the_direction(
    clip_folder: Path, encoders: dict[str, Numbers], tasks: dict[str, Task]
) -> None:
    train = tasks["colour"].train.select(range(4))
    half = hf_datasets.Dataset.from_list(
        [
            {**row, "image": row["image"] if i % 2 else None}
            for i, row in enumerate(train.with_format("arrow")[:].to_pylist())
        ],
        features=train.features,
    )

    def embed(rows: hf_datasets.Dataset) -> torch.Tensor:
        dataset = instruction_benchmark([replace(tasks["colour"], train=rows)]).train_stream[0].dataset
        clip = OpenClip(str(clip_folder))
        return embed_task(dataset, image_encoder=clip, text_encoder=encoders["text_encoder"]).image

    torch.testing.assert_close(embed(half), embed(train.select([1, 3])), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="task 'colour': the vectors of its images have no mean direction"):
        embed(half.select([0, 2]))


def test_what_is_read_is_what_was_computed(encoders: dict[str, Numbers], benchmark: CLScenario, tmp_path: Path) -> None:
    dataset = benchmark.train_stream[0].dataset

    first = embed_task(dataset, **encoders, cache=tmp_path)
    seen = len(encoders["image_encoder"].seen)
    second = embed_task(dataset, **encoders, cache=tmp_path)

    assert len(encoders["image_encoder"].seen) == seen
    assert same(first, second)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]  # and nothing unfinished


def test_another_image_under_the_same_path_is_computed_anew(tasks: dict[str, Task], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "image.png")
    rows = tasks["colour"].train.select([0]).remove_columns("image")
    rows = rows.add_column("image", [{"path": str(tmp_path / "image.png"), "bytes": None}])
    task = replace(tasks["colour"], train=rows.cast(tasks["colour"].train.features))
    dataset = instruction_benchmark([task]).train_stream[0].dataset
    assert computed(dataset, tmp_path / "cache")
    assert not computed(dataset, tmp_path / "cache")

    Image.new("RGB", (9, 9), "blue").save(tmp_path / "image.png")

    assert computed(dataset, tmp_path / "cache")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-5]),
        lambda file: save_file({"image": torch.ones(2)}, file),
    ],
)
def test_a_broken_file_is_computed_anew(benchmark: CLScenario, tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    dataset = benchmark.train_stream[0].dataset
    assert computed(dataset, tmp_path)
    (file,) = tmp_path.iterdir()
    damage(file)

    assert computed(dataset, tmp_path)
    assert not computed(dataset, tmp_path)


def test_without_a_folder_nothing_is_kept(
    benchmark: CLScenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(tmp_path))
    dataset = benchmark.train_stream[0].dataset

    assert computed(dataset, None)
    assert computed(dataset, None)

    assert list(tmp_path.iterdir()) == []
    assert embedding_cache() == tmp_path / "task_embeddings"


# --- Does it tell tasks apart? ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini() -> tuple[list[str], list[Any], dict[str, Any]]:
    """Names and data sets of mini_cit1, 24 samples each, and the default encoders of tiny-base."""
    model = LMM.from_pretrained("tiny-base")
    stream = load_benchmark("mini_cit1", sizes={"train": 24, "validation": 1, "test": 1}).train_stream
    datasets = [experience.dataset for experience in stream]
    names = [dataset[0][0].task.name for dataset in datasets]
    return names, datasets, {"image_encoder": VisionTower(model), "text_encoder": TokenEmbedding(model)}


def test_like_tasks_of_the_mini_world_are_more_similar(mini: Any, tmp_path: Path) -> None:
    names, datasets, encoders = mini
    embeddings = [embed_task(dataset, **encoders, cache=tmp_path) for dataset in datasets]

    def cosine(modality: str, first: str, second: str) -> float:
        matrix = cosines(torch.stack([embedding.as_tensors()[modality] for embedding in embeddings]))
        return float(matrix[names.index(first), names.index(second)])

    assert cosine("text_output", "flickr30k", "textcaps") > cosine("text_output", "flickr30k", "gqa") + 0.1
    assert cosine("text_output", "vqav2", "gqa") > cosine("text_output", "vqav2", "ocrvqa") + 0.1
    assert cosine("text_input", "flickr30k", "textcaps") > 0.999  # captions are asked for in the same words
    assert cosine("text_input", "vqav2", "gqa") > cosine("text_input", "flickr30k", "gqa") + 0.3
    # pictures with signs to read, and pictures of shapes alone
    assert cosine("image", "ocrvqa", "textcaps") > cosine("image", "ocrvqa", "gqa") + 0.1
    flickr30k = task_similarity(embeddings)[names.index("flickr30k")]
    assert flickr30k[names.index("textcaps")] > flickr30k[names.index("ocrvqa")]


def test_another_half_of_a_task_is_the_most_similar_of_all(mini: Any, tmp_path: Path) -> None:
    _, datasets, encoders = mini
    halves = [dataset.subset(range(start, 24, 2)) for dataset in datasets for start in (0, 1)]

    similarity = task_similarity([embed_task(half, **encoders, cache=tmp_path) for half in halves])

    others = similarity.masked_fill(torch.eye(len(halves), dtype=torch.bool), -1)
    assert others.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
