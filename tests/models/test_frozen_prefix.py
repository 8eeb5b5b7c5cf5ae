"""What is kept of a frozen prefix changes the time that things take, and nothing else."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText
from zoo import checkpoint

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.benchmarks.scenario import Example, ExampleData
from avalanche_cit.logging.provenance import ingredients
from avalanche_cit.models import FAMILIES, LMM, VisionFeatures
from avalanche_cit.models.frozen_prefix import CHUNK, FeaturesOrPixels, OutputOrFeatures, why_not
from avalanche_cit.training import EProj, Replay, SeqFT

Load = Callable[..., LMM]
BLIPS = ("instructblip_t5", "instructblip_llama", "blip2_t5", "blip2_opt")


@pytest.fixture(params=["bridge", "projection"])
def trainable(request: pytest.FixtureRequest) -> str:
    """What is tuned: with the bridge the tower's features are kept, with the projection the Q-Former's output."""
    name: str = request.param
    return name


@pytest.fixture
def features(tmp_path: Path) -> VisionFeatures:
    return VisionFeatures(tmp_path / "features")


def prepared(model: LMM, benchmark: CLScenario) -> LMM:
    for experience in benchmark.test_stream:
        model.prepare(experience.dataset)
    return model


def collated(model: LMM, samples: list[Any]) -> InstructionBatch:
    batch: InstructionBatch = model.collator(samples)[0]
    return batch


def calls_of(module: nn.Module) -> list[int]:
    """The sizes of the batches that a module sees from now on."""
    sizes: list[int] = []
    module.register_forward_hook(lambda module, _, output: sizes.append(len(output.last_hidden_state)))
    return sizes


def stock_parts(model: LMM) -> tuple[nn.Module, nn.Module]:
    """The stock tower and the stock Q-Former of a model, wrapped or not."""
    tower, qformer = model.hf.vision_model, model.hf.qformer
    return (
        tower.tower if isinstance(tower, FeaturesOrPixels) else tower,
        qformer.qformer if isinstance(qformer, OutputOrFeatures) else qformer,
    )


def with_prompts(samples: list[Any]) -> list[Any]:
    """The samples with prompts from 1 to some 40 tokens, on both sides of where the Q-Former's texts are widened."""
    prompts = [" ".join(["it"] * (1 + 5 * (i % 9))) for i in range(len(samples))]
    return [
        (Example(replace(example.task, prompt=prompt), example.row), label)
        for (example, label), prompt in zip(samples, prompts, strict=True)
    ]


# --- The same numbers -------------------------------------------------------------------------------------------------


def test_logits_answers_and_embeddings_are_those_of_the_plain_model(
    load: Load, kind: str, trainable: str, benchmark: CLScenario, samples: list[Any], features: VisionFeatures
) -> None:
    plain = load(kind, trainable=trainable)
    cached = prepared(load(kind, trainable=trainable, vision_features=features), benchmark)
    x, known = collated(plain, samples), collated(cached, samples)

    assert x.images is not None
    assert known.images is None
    torch.testing.assert_close(cached(known), plain(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cached.embed_images(known), plain.embed_images(x), rtol=1e-5, atol=1e-5)
    assert cached.generate(known) == plain.generate(x)
    assert len(set(cached.generate(known))) > 3


@pytest.mark.parametrize("family", BLIPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_every_family_with_a_qformer(
    family: str,
    dtype: torch.dtype,
    trainable: str,
    benchmark: CLScenario,
    samples: list[Any],
    features: VisionFeatures,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = checkpoint(family, tmp_path_factory)
    plain = LMM.from_pretrained(folder, dtype=dtype, trainable=trainable)
    cached = LMM.from_pretrained(folder, dtype=dtype, trainable=trainable, vision_features=features)
    tower, qformer = stock_parts(prepared(cached, benchmark))
    of_tower, of_qformer = calls_of(tower), calls_of(qformer)
    x, known = collated(plain, samples), collated(cached, samples)

    expected, logits = plain(x), cached(known)
    answers = cached.generate(known)

    assert of_tower == []
    assert (of_qformer == []) == (trainable == "projection")
    assert logits.dtype == expected.dtype
    if dtype == torch.float64:
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        assert answers == plain.generate(x)
    else:  # as far from what double precision gives as the plain model, and no further
        exact = LMM.from_pretrained(folder, dtype=torch.float64)(x)
        errors = [float((given - exact).detach().norm()) for given in (logits, expected)]
        assert 0 < errors[0] < 1.2 * errors[1]
    kept = cached._images(known)["pixel_values"]
    assert kept.dtype == dtype  # half precision on disk, where the model runs in half
    numbers = kept[0].numel() + (cached.hf.config.vision_config.hidden_size if trainable == "projection" else 0)
    assert cached.vision_features.prefix.bytes_each == numbers * dtype.itemsize


@pytest.mark.parametrize("known", ["all", "some", "none"])
def test_bits_do_not_depend_on_what_was_kept(
    load: Load,
    kind: str,
    trainable: str,
    known: str,
    benchmark: CLScenario,
    samples: list[Any],
    features: VisionFeatures,
    tmp_path: Path,
) -> None:
    """Of the run that computes them, of a later one that reads them, and of one that has no room for them."""
    samples = with_prompts(samples)
    first = load(kind, trainable=trainable, vision_features=features)
    first.prepare([(example,) for example, _ in samples])
    other = load(kind, trainable=trainable, vision_features=VisionFeatures(tmp_path / "other"))
    taken = {"all": samples, "some": samples[::3] + samples[1:2], "none": []}[known]
    other.prepare([(example,) for example, _ in taken])
    later = load(kind, trainable=trainable, vision_features=VisionFeatures(features.folder))
    later.prepare([(example,) for example, _ in samples])

    expected, batch = collated(first, samples), collated(other, samples)

    assert expected.images is None
    assert (0 if batch.images is None else sum(batch.images.rows["pixel_values"])) == len(samples) - len(taken)
    for model, x in ((other, batch), (later, collated(later, samples))):
        assert torch.equal(model._images(x)["pixel_values"], first._images(expected)["pixel_values"])
        assert torch.equal(model(x), first(expected))
        assert torch.equal(model.embed_images(x), first.embed_images(expected))
        assert model.generate(x) == first.generate(expected)


def test_a_feature_does_not_depend_on_its_company(
    load: Load, trainable: str, samples: list[Any], features: VisionFeatures
) -> None:
    model = load(trainable=trainable, vision_features=features)
    samples = with_prompts(samples)
    sizes = [calls_of(part) for part in stock_parts(model)]
    together = model._images(collated(model, samples))["pixel_values"]
    backwards = model._images(collated(model, samples[::-1]))["pixel_values"]
    alone = [model._images(collated(model, [sample]))["pixel_values"][0] for sample in samples]

    assert len(samples) > CHUNK
    assert set(sizes[0]) == {CHUNK}  # bits may depend on the shape: always the same one
    assert set(sizes[1]) == ({CHUNK} if trainable == "projection" else set())
    assert torch.equal(backwards.flip(0), together)
    assert torch.equal(torch.stack(alone), together)
    assert len(together.flatten(1).unique(dim=0)) > len(samples) / 2


def test_bits_are_those_outside_of_autocast(
    load: Load, trainable: str, samples: list[Any], features: VisionFeatures
) -> None:
    model = load(trainable=trainable, vision_features=features)
    x = collated(model, samples)
    with torch.autocast("cpu", torch.bfloat16):
        within = model._images(x)["pixel_values"]
    assert torch.equal(within, model._images(x)["pixel_values"])


def test_micro_batches_of_a_batch_that_is_partly_known(
    load: Load, trainable: str, samples: list[Any], features: VisionFeatures
) -> None:
    model = load(trainable=trainable, vision_features=features)
    model.prepare([(example,) for example, _ in samples[4:11]])
    x = collated(model, samples)
    assert x.images is not None
    assert len(x.images.tensors["pixel_values"]) == len(samples) - 7

    logits = torch.cat([model(part) for part in x.split(4)])

    torch.testing.assert_close(logits, model(x), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_plain_model(
    load: Load, kind: str, trainable: str, benchmark: CLScenario, samples: list[Any], features: VisionFeatures
) -> None:
    gradients = []
    for model in (
        load(kind, trainable=trainable),
        prepared(load(kind, trainable=trainable, vision_features=features), benchmark),
    ):
        x = collated(model, samples)
        nn.functional.cross_entropy(model(x), x.labels, ignore_index=IGNORED).backward()
        assert all((weight.grad is not None) == weight.requires_grad for weight in model.parameters())
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})

    assert list(gradients[0]) == list(gradients[1])
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["seqft", "replay", "eproj"])
def test_losses_weights_and_answers_of_a_stream(
    load: Load, method: str, benchmark: CLScenario, samples: list[Any], features: VisionFeatures, record: Any
) -> None:
    """Without, with a cold, and with a warm cache."""
    losses, answers, weights = [], [], []
    for cache in (None, features, VisionFeatures(features.folder)):
        model = load(trainable="projection" if method == "eproj" else "bridge", vision_features=cache)
        common: dict[str, Any] = {
            "model": model,
            "lr": 1e-2,
            "train_mb_size": 4,
            "train_epochs": 2,
            "plugins": [record],
        }
        match method:
            case "seqft":
                strategy = SeqFT(**common)
            case "replay":
                strategy = Replay(memory_size=9, **common)
            case _:
                strategy = EProj(encode_text=lambda texts: torch.ones(len(texts), 2), **common)
        record.losses.clear()
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[])
        losses.append(list(record.losses))
        prepared(model, benchmark)
        answers.append(model.generate(collated(model, samples)))
        weights.append(model.tuned_state())

    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    steps = len(benchmark.train_stream[0].dataset) // 4
    assert sum(losses[0][steps : 2 * steps]) < sum(losses[0][:steps]) - 0.1 * steps  # the first task's second epoch
    assert answers[1] == answers[0]
    assert len(set(answers[0])) > 3
    assert losses[2] == losses[1]
    assert answers[2] == answers[1]
    assert weights[2].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[2].items())


@pytest.mark.parametrize("room", [10**9, 1], ids=["kept", "computed every time"])
def test_eproj_leaves_answers_on_old_tasks_bit_identical(
    load: Load, kind: str, room: int, benchmark: CLScenario, tmp_path: Path
) -> None:
    model = load(kind, trainable="projection", vision_features=VisionFeatures(tmp_path / "features", room))
    options: dict[str, Any] = {"lr": 1e-2, "train_mb_size": 8, "train_epochs": 2, "seed": 3}
    strategy = EProj(model=model, encode_text=lambda texts: torch.ones(len(texts), 2), **options)

    def look(task: int) -> tuple[list[str], torch.Tensor]:
        model.eval()
        samples = [benchmark.test_stream[task].dataset[i] for i in range(6)]
        batch = collated(model, samples)
        assert (batch.images is None) == (room > 1 and task < len(looks))
        with torch.no_grad(), strategy.model.router.oracle():
            return model.generate(batch), model(batch)

    looks: list[tuple[list[str], torch.Tensor]] = []
    start = look(0)
    for number, experience in enumerate(benchmark.train_stream):
        strategy.train(experience, eval_streams=[])
        looks.append(look(number))
        model.prepare(benchmark.test_stream[number].dataset)
        for task, (texts, logits) in enumerate(looks):
            assert look(task)[0] == texts
            assert torch.equal(look(task)[1], logits)
    assert not torch.equal(start[1], looks[0][1])


# --- Once -------------------------------------------------------------------------------------------------------------


def test_the_frozen_part_runs_once_for_all_runs(
    load: Load, kind: str, trainable: str, benchmark: CLScenario, samples: list[Any], features: VisionFeatures
) -> None:
    of_tower, of_qformer = [], []
    for cache in (features, features, VisionFeatures(features.folder)):  # two of one process, one of another
        model = load(kind, trainable=trainable, vision_features=cache)
        tower, qformer = stock_parts(model)
        seen = calls_of(tower), calls_of(qformer)
        for _ in range(2):
            prepared(model, benchmark)
            x = collated(model, samples)
            model(x)
            model.generate(x)
            model.embed_images(x)
        of_tower.append(sum(seen[0]))
        of_qformer.append(sum(seen[1]))
        assert len(model.vision_features) == len(samples)

    assert of_tower == [CHUNK * len(benchmark.test_stream), 0, 0]
    if trainable == "projection":
        assert of_qformer[0] > 0
        assert of_qformer[1:] == [0, 0]
    else:
        assert of_qformer == [2 * 2 * len(samples)] * 3


def test_only_the_tower_is_shared_by_prompts(
    load: Load, trainable: str, samples: list[Any], features: VisionFeatures
) -> None:
    """The Q-Former reads the prompt: what is kept of it is of an image and a prompt."""
    model = load(trainable=trainable, vision_features=features)
    example, label = samples[0]
    asked = [Example(replace(example.task, prompt=prompt), example.row) for prompt in ("colour?", "shape?", "colour?")]
    sizes = calls_of(stock_parts(model)[0])
    model.prepare([(one,) for one in asked])

    x = collated(model, [(one, label) for one in asked])
    inputs = model._images(x)["pixel_values"]

    assert x.images is None
    assert sizes == [CHUNK]  # the image's features once, whatever is asked
    assert len(model.vision_features) == (2 if trainable == "projection" else 1)
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(inputs[0], inputs[1]) == (trainable == "bridge")


def test_blip2s_qformer_reads_no_prompt(
    samples: list[Any], features: VisionFeatures, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = checkpoint("blip2_t5", tmp_path_factory)
    model = LMM.from_pretrained(folder, trainable="projection", vision_features=features)
    example, _ = samples[0]
    model.prepare([(Example(replace(example.task, prompt=prompt), example.row),) for prompt in ("colour?", "shape?")])
    assert len(model.vision_features) == 1


def test_an_image_that_is_replaced_is_computed_anew(
    load: Load, trainable: str, samples: list[Any], features: VisionFeatures, tmp_path: Path
) -> None:
    example, label = samples[0]
    file = tmp_path / "image.png"
    inputs = []
    for colour, time in (("red", 1), ("blue", 2), ("blue", 2)):
        Image.new("RGB", (16, 16), colour).save(file)
        os.utime(file, (time, time))
        model = load(trainable=trainable, vision_features=VisionFeatures(features.folder))
        sizes = calls_of(stock_parts(model)[0])
        row = {**example.row, "image": {"path": str(file), "bytes": None}}
        model.prepare([(Example(example.task, row),)])
        inputs.append((model._images(collated(model, [(Example(example.task, row), label)]))["pixel_values"], sizes))

    assert not torch.equal(inputs[0][0], inputs[1][0])
    assert torch.equal(inputs[1][0], inputs[2][0])
    assert [sizes for _, sizes in inputs] == [[CHUNK], [CHUNK], []]


def test_images_inside_the_data_are_known_by_their_bytes(
    load: Load, samples: list[Any], features: VisionFeatures
) -> None:
    example, label = samples[0]
    encoded = Path(example.row["image"]["path"]).read_bytes()
    inside = Example(example.task, {**example.row, "image": {"path": "gone.png", "bytes": encoded}})
    model = load(vision_features=features)
    model.prepare([(example,), (inside,)])

    x = collated(model, [(example, label), (inside, label)])

    assert x.images is None
    assert len(model.vision_features) == 2
    kept = model._images(x)["pixel_values"]
    assert torch.equal(kept[0], kept[1])


# --- Whose features they are ------------------------------------------------------------------------------------------


def changed(name: str, model: LMM) -> None:
    with torch.no_grad():
        model.hf.get_parameter(name).view(-1)[0] += 1


def test_the_name_is_that_of_all_that_decides_the_features(
    load: Load, trainable: str, features: VisionFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(change: Callable[[LMM], None] = lambda model: None, **options: Any) -> str:
        model = load(trainable=trainable, vision_features=features, **options)
        change(model)
        return model.vision_features.prefix.name

    same = name()
    qformer = "qformer" if trainable == "projection" else "tower"
    inner = ".qformer" if trainable == "projection" else ""
    decisive = [
        "vision_model.tower.embeddings.class_embedding",
        "vision_model.tower.encoder.layers.0.mlp.fc2.bias",
        f"qformer{inner}.encoder.layer.1.output_query.dense.bias",
        "query_tokens",
    ]
    names = [name(lambda model, weight=weight: changed(weight, model)) for weight in decisive]
    of_tower = 2 if trainable == "bridge" else 4
    assert same not in names[:of_tower]
    assert names[of_tower:] == [same] * (4 - of_tower)
    assert len(set(names[:of_tower])) == of_tower
    assert same.startswith(f"{qformer}-")
    for weight in ("language_projection.weight", "language_model.shared.weight"):
        assert name(lambda model, weight=weight: changed(weight, model)) == same
    assert name(kind="llama") != same  # another draw of all weights
    assert name(dtype=torch.bfloat16) != same

    def resized(model: LMM) -> None:
        monkeypatch.setattr(model.processor.image_processor, "image_mean", [0.4, 0.5, 0.5])

    assert name(resized) != same
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert name() != same
    monkeypatch.undo()
    assert name() == same


def test_one_folder_serves_models_that_differ(
    load: Load, benchmark: CLScenario, samples: list[Any], features: VisionFeatures
) -> None:
    for kind in ("t5", "llama"):
        for trainable in ("bridge", "projection"):
            plain = load(kind, trainable=trainable)
            cached = prepared(load(kind, trainable=trainable, vision_features=features), benchmark)
            torch.testing.assert_close(
                cached(collated(cached, samples)), plain(collated(plain, samples)), rtol=1e-5, atol=1e-5
            )
    assert len(list(features.folder.iterdir())) == 4


# --- Off, and why -----------------------------------------------------------------------------------------------------


def test_a_tower_that_is_trained_is_not_kept(
    load: Load, benchmark: CLScenario, features: VisionFeatures, capsys: pytest.CaptureFixture[str]
) -> None:
    for tuned in ("all", ["vision_model.encoder.layers.0.mlp.fc2.bias", "qformer.*"]):
        model = load(trainable=tuned, vision_features=features)
        assert capsys.readouterr().out == "note: no vision features are kept: the vision tower is tuned\n"
        model.prepare(benchmark.test_stream[0].dataset)

        assert model.vision_features is None
        assert not isinstance(model.hf.vision_model, FeaturesOrPixels)
        assert not features.folder.exists()
        assert model.collator([benchmark.test_stream[0].dataset[0]])[0].images is not None


def test_other_families_keep_none(
    features: VisionFeatures, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = LMM.from_pretrained(checkpoint("llava", tmp_path_factory), vision_features=features)
    assert model.vision_features is None
    said = capsys.readouterr().out
    assert "note: no vision features are kept: only BLIP-2 and InstructBLIP have a place where features can" in said
    assert why_not(model.hf, None) == why_not(model.hf, FAMILIES["llava"])


def test_a_tower_in_8_bits_keeps_none(load: Load) -> None:
    hf = load().hf
    assert why_not(hf, FAMILIES["instructblip"]) is None
    hf.vision_model.encoder.layers[0].mlp.fc1.weight = nn.Parameter(torch.zeros(2, dtype=torch.int8), False)
    assert "8 bits" in str(why_not(hf, FAMILIES["instructblip"]))


def test_lora_on_the_language_model_leaves_the_whole_bridge_frozen(
    load: Load, benchmark: CLScenario, features: VisionFeatures
) -> None:
    from peft import LoraConfig

    model = prepared(load(lora=LoraConfig(r=2), vision_features=features), benchmark)
    assert isinstance(model.hf.qformer, OutputOrFeatures)


class Augmented:
    """Data whose images are others at each reading, as those of a random transform are."""

    def __init__(self, examples: list[Example], folder: Path) -> None:
        self.examples = examples
        self.folder = folder
        self.readings = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example]:
        self.readings += 1
        file = self.folder / "augmented.png"
        Image.new("RGB", (16, 16), (self.readings % 256, 0, 0)).save(file)
        row = {**self.examples[index].row, "image": {"path": None, "bytes": file.read_bytes()}}
        return (Example(self.examples[index].task, row),)


def test_augmented_images_are_not_kept(
    load: Load,
    trainable: str,
    samples: list[Any],
    features: VisionFeatures,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, model = load(trainable=trainable), load(trainable=trainable, vision_features=features)
    data = Augmented([example for example, _ in samples], tmp_path)
    for _ in range(2):
        model.prepare(data)

    assert len(model.vision_features) == 0
    assert features.used == 0
    assert capsys.readouterr().out.count("note: images that are others at each reading (augmented) have no") == 1
    drawn = [(data[i][0], 0) for i in range(len(data))]
    assert model.generate(collated(model, drawn)) == plain.generate(collated(plain, drawn))


# --- Room -------------------------------------------------------------------------------------------------------------


def test_what_will_be_kept_is_said_before_it_is_computed(
    load: Load,
    trainable: str,
    benchmark: CLScenario,
    samples: list[Any],
    features: VisionFeatures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = load(trainable=trainable, vision_features=features)
    said = []
    stock_parts(model)[0].register_forward_pre_hook(lambda *_: said.append(capsys.readouterr().out))

    model.prepare([(example,) for example, _ in samples])

    each = model.vision_features.prefix.bytes_each
    what = "samples" if trainable == "projection" else "images"
    estimate = f"{each / 1000:,.1f} kB each, {len(samples) * each / 1e6:,.1f} MB in all; 0.0 of 20 GB are taken"
    start = f"note: vision features of {len(samples)} {what} are computed and kept: "
    assert said[0] == f"{start}{estimate} in {features.folder}\n"
    assert "".join(said[1:]) == ""
    assert len(samples) * each <= features.used < len(samples) * (each + 32) + 1000
    prepared(model, benchmark)
    assert capsys.readouterr().out == ""


def test_images_beyond_the_room_are_computed_every_time(
    load: Load,
    trainable: str,
    benchmark: CLScenario,
    samples: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = prepared(load(trainable=trainable, vision_features=VisionFeatures(tmp_path / "whole")), benchmark)
    capsys.readouterr()
    small = VisionFeatures(tmp_path / "small", max_bytes=4 * whole.vision_features.prefix.bytes_each)
    model = prepared(prepared(load(trainable=trainable, vision_features=small), benchmark), benchmark)

    said = capsys.readouterr().out
    assert len(model.vision_features) == 4
    assert said.count("note: vision features of 4 ") == 1
    assert said.count("are computed every time") == 1
    assert "--cache-gb" in said
    x = collated(model, samples)
    assert x.images is not None
    assert x.images.rows["pixel_values"].count(0) == 4
    assert torch.equal(model(x), whole(collated(whole, samples)))
    sizes = calls_of(stock_parts(model)[0])
    model(x)
    assert sizes == [CHUNK]


def test_a_folder_that_cannot_be_written(
    load: Load, benchmark: CLScenario, samples: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    plain = load()
    model = prepared(load(vision_features=VisionFeatures(tmp_path / "file" / "features")), benchmark)

    assert len(model.vision_features) == 0
    said = (
        f"note: vision features are computed every time: {tmp_path / 'file' / 'features'} cannot be written (Not a dir"
    )
    assert capsys.readouterr().out.count(said) == 1
    assert model.generate(collated(model, samples)) == plain.generate(collated(plain, samples))


def test_damaged_features_are_computed_anew(
    load: Load,
    trainable: str,
    benchmark: CLScenario,
    samples: list[Any],
    features: VisionFeatures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = prepared(load(trainable=trainable, vision_features=features), benchmark)
    damaged = sorted(features.folder.rglob("*.safetensors"))[1]
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()

    model = load(trainable=trainable, vision_features=VisionFeatures(features.folder))
    sizes = calls_of(stock_parts(model)[0])
    prepared(model, benchmark)

    assert sizes == [CHUNK]  # one task's of three
    assert f"damaged features are passed over and computed anew ({damaged}" in capsys.readouterr().out
    x = collated(model, samples)
    assert x.images is None
    # not those of `first`, into whose memory the damage has been mapped
    again = prepared(
        load(trainable=trainable, vision_features=VisionFeatures(features.folder.parent / "new")), benchmark
    )
    assert torch.equal(model(x), again(collated(again, samples)))
    assert first.vision_features.prefix.name == model.vision_features.prefix.name


def test_a_runs_record_is_that_of_the_stock_model(load: Load, trainable: str, features: VisionFeatures) -> None:
    plain, cached = load(trainable=trainable), load(trainable=trainable, vision_features=features)
    assert ingredients(cached, [])["model"] == ingredients(plain, [])["model"]
    assert isinstance(cached.hf.vision_model, FeaturesOrPixels)


# --- The stock model inside -------------------------------------------------------------------------------------------


def test_the_wrapped_model_takes_pixels_as_the_stock_one_does(
    load: Load, kind: str, trainable: str, folder: Path, samples: list[Any], features: VisionFeatures, tmp_path: Path
) -> None:
    model = load(kind, trainable=trainable, vision_features=features)
    x = collated(load(kind), samples)
    stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
    pixels = x.images.tensors["pixel_values"]
    with torch.no_grad():
        expected = stock(pixel_values=pixels, labels=x.labels, **x.inputs).logits
        assert torch.equal(model.hf(pixel_values=pixels, labels=x.labels, **x.inputs).logits, expected)

    model.save_pretrained(tmp_path / "saved")

    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert saved.state_dict().keys() == stock.state_dict().keys()
    assert all(torch.equal(weight, stock.state_dict()[name]) for name, weight in saved.state_dict().items())
    assert isinstance(model.hf.vision_model, FeaturesOrPixels)
    assert isinstance(model.hf.qformer, OutputOrFeatures) == (trainable == "projection")


def test_a_batch_without_pixels_is_refused_by_a_plain_model(
    load: Load, benchmark: CLScenario, samples: list[Any], features: VisionFeatures
) -> None:
    cached, plain = load(vision_features=features), load()
    cached.prepare([(example,) for example, _ in samples[:4]])
    for x in (collated(cached, samples[:4]), collated(cached, samples)):
        for use in (plain, plain.generate, plain.embed_images):
            with pytest.raises(
                ValueError, match="lacks pixels: it was collated for a model that keeps vision features"
            ):
                use(x)


def test_a_missing_image_is_named_with_its_sample(load: Load, samples: list[Any], features: VisionFeatures) -> None:
    example, _ = samples[1]
    row = {**example.row, "image": {"path": "/nowhere/gone.png", "bytes": None}}
    with pytest.raises(ValueError, match=r"task 'shape', sample 'shape-test-0': cannot read .*/nowhere/gone\.png"):
        load(vision_features=features).prepare([(Example(example.task, row),)])


def test_a_prompt_that_is_too_long_is_named_with_its_sample(
    load: Load, samples: list[Any], features: VisionFeatures
) -> None:
    example, _ = samples[0]
    task = replace(example.task, prompt="it " * 64 + "it")
    model = load(trainable="projection", vision_features=features)
    longest = Example(replace(example.task, prompt="it " * 62 + "it"), example.row)
    model.prepare([(longest,)])
    assert len(model.vision_features) == 1
    with pytest.raises(ValueError, match=r"sample 'colour-test-0': .* tokens, the model takes 64"):
        model.prepare([(Example(task, example.row),)])


def test_data_of_arrow_rows(load: Load, tasks: dict[str, Any], features: VisionFeatures) -> None:
    model = load(vision_features=features)
    model.prepare(ExampleData(tasks["colour"], tasks["colour"].train))
    assert len(model.vision_features) == len(tasks["colour"].train)
