"""What most tests share: two tiny random models, one per kind of language model, and a benchmark of three small tasks.

The weights are drawn wide, so that the greedy answers of an untrained model differ between images and questions.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from hypothesis import HealthCheck, settings
from PIL import Image, ImageDraw
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from avalanche_cit.benchmarks import Task, instruction_benchmark
from avalanche_cit.benchmarks.instruction_data import Sample, instruction_data
from avalanche_cit.evaluation.verify import verify_run
from avalanche_cit.models import LMM
from avalanche_cit.models.tiny.architecture import SPECIAL_TOKENS, build_tokenizer

torch.set_num_threads(1)

# a busy machine is no reason to fail
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SIDE = 16
WIDTH = 32
QUERY_TOKENS = 4
TEXT_POSITIONS = 64

COLOURS = {"red": (200, 0, 0), "dark green": (0, 90, 0), "blue": (0, 0, 220), "pale yellow": (250, 250, 150)}
SHAPES = ("circle", "square", "small square")
QUESTIONS = ("colour?", "what is it?", "what do you see in the middle of this picture?")
SIZES = {
    "colour": {"train": 16, "validation": 4, "test": 6},
    "shape": {"train": 12, "validation": 4, "test": 6},
    "caption": {"train": 8, "validation": 4, "test": 6},
    "old": {"train": 4, "validation": 4, "test": 6},
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep whatever is cached out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("AVALANCHE_CIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """Four tasks over drawn images: colour, shape and caption make the sequence, old counts as learned before."""
    folder = tmp_path_factory.mktemp("tasks")
    prompts = {"colour": "Question: {question} Answer:", "shape": "{question}", "caption": "describe it", "old": "say"}
    made = {}
    for name, prompt in prompts.items():
        splits = {split: _split(name, split, size, folder) for split, size in SIZES[name].items()}
        made[name] = Task(name, **splits, prompt=prompt, score="token_f1", max_new_tokens=6)
    return made


@pytest.fixture
def benchmark(tasks: dict[str, Task]) -> CLScenario:
    """The sequence colour, shape, caption, and old as task 0."""
    return instruction_benchmark([tasks["colour"], tasks["shape"], tasks["caption"]], task0=[tasks["old"]])


@pytest.fixture
def samples(benchmark: CLScenario) -> list[Any]:
    """Test samples of all three tasks, in mixed order, with prompts and answers of many lengths."""
    return [experience.dataset[i] for i in range(6) for experience in benchmark.test_stream]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the two models: language model T5 (encoder-decoder) and Llama (decoder-only)."""
    tokenizer = build_tokenizer([*COLOURS, *SHAPES, *QUESTIONS, "a on white describe it say Question: Answer:"])
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    t5 = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        **special,
    )
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        **special,
    )
    made = {}
    for name, text in (("t5", t5), ("llama", llama)):
        made[name] = tmp_path_factory.mktemp(name)
        _model(tokenizer, text).save_pretrained(made[name])
        images = BlipImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        InstructBlipProcessor(images, tokenizer, tokenizer, num_query_tokens=QUERY_TOKENS).save_pretrained(made[name])
    return made


@pytest.fixture(params=["t5", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    """For tests that both kinds of language model must pass."""
    name: str = request.param
    return name


@pytest.fixture
def folder(folders: dict[str, Path], kind: str) -> Path:
    """The folder of the model of that kind."""
    return folders[kind]


@pytest.fixture(scope="session")
def loaded(folders: dict[str, Path]) -> dict[str, LMM]:
    """The two models, loaded once."""
    return {kind: LMM.from_pretrained(folder) for kind, folder in folders.items()}


@pytest.fixture(scope="session")
def load(loaded: dict[str, LMM]) -> Callable[..., LMM]:
    """Make a model anew: ``load(kind="t5", dtype=torch.float32, **options)``, options as `LMM` takes them."""

    def load(kind: str = "t5", dtype: torch.dtype = torch.float32, **options: Any) -> LMM:
        return LMM(copy.deepcopy(loaded[kind].hf).to(dtype), loaded[kind].processor, **options)

    return load


class Record(SupervisedPlugin):
    """Notes what every optimizer step runs at and on."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[list[float]] = []
        self.losses: list[float] = []
        self.ids: list[list[str]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.rates.append([group["lr"] for group in strategy.optimizer.param_groups])
        self.losses.append(float(strategy.loss))
        self.ids.append([row["id"] for row in strategy.mb_x.rows])
        weights = strategy.model.named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in weights if weight.grad is not None})


@pytest.fixture
def record() -> Record:
    """A plugin that notes rates, losses, sample ids and gradients of every step."""
    return Record()


@pytest.fixture
def snapshot() -> Callable[[torch.nn.Module], dict[str, torch.Tensor]]:
    """Copy all weights of a model, by name."""
    return lambda model: {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _split(task: str, split: str, size: int, folder: Path) -> datasets.Dataset:
    def rows() -> Iterator[Sample]:
        for i in range(size):
            number = i + len(split) + 3 * list(SIZES).index(task)
            colour, shape = list(COLOURS)[number % len(COLOURS)], SHAPES[number // len(COLOURS) % len(SHAPES)]
            image = folder / f"{task}_{split}_{i}.png"
            _draw(colour, shape, number).save(image)
            answers = {"colour": colour, "shape": shape, "caption": f"a {colour} {shape} on white", "old": shape}
            yield Sample(
                id=f"{task}-{split}-{i}",
                image=str(image),
                instruction=QUESTIONS[i % len(QUESTIONS)],
                target=answers[task],
                references=[answers[task], f"the {answers[task]}"],
                task=task,
                choices=None,
            )

    return instruction_data(rows, cache_dir=folder, fingerprint=f"{task} {split}")


def _draw(colour: str, shape: str, number: int) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), "white")
    corner = number % 4
    box = (corner, corner, corner + (5 if shape.startswith("small") else 11), corner + 9)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=COLOURS[colour])
    return image


def _model(tokenizer: PreTrainedTokenizerFast, text: PreTrainedConfig) -> InstructBlipForConditionalGeneration:
    vision = InstructBlipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=SIDE // 2,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        cross_attention_frequency=1,
        max_position_embeddings=TEXT_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = InstructBlipConfig(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1 if "embed" in name or "token" in name else 2 * WIDTH**-0.5)
        # answers are made of words, not of bytes, and end after different numbers of them
        head = model.language_model.lm_head.weight
        end = 2 * head[tokenizer.eos_token_id]
        head[: len(SPECIAL_TOKENS) + 256] = 0
        head[tokenizer.eos_token_id] = end
    return model


# --- Every finished run agrees with its answers -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def disagreements() -> Callable[[Path], list[str]]:
    """Verify the finished runs with answers below a folder, each once: ``disagreements(folder)``.

    What a test alters, or writes by hand with other numbers, is passed over: it lies in a folder ``altered...``.
    """
    verified = set()

    def disagreements(folder: Path) -> list[str]:
        problems = []
        for matrix in folder.rglob("matrix.json"):
            run = matrix.parent
            altered = any(part.startswith("altered") for part in run.relative_to(folder).parts)
            finished = (run / "provenance.json").exists() and (run / "predictions").exists()
            if finished and not altered and run not in verified:
                verified.add(run)
                problems += [f"{run}: {problem}" for problem in verify_run(run)]
        return problems

    return disagreements


@pytest.fixture(scope="session", autouse=True)
def _shared_runs_agree(
    tmp_path_factory: pytest.TempPathFactory, disagreements: Callable[[Path], list[str]]
) -> Iterator[None]:
    """Verify in the end what modules and sessions made."""
    yield
    assert disagreements(tmp_path_factory.getbasetemp()) == []


@pytest.fixture(autouse=True)
def _runs_agree(request: pytest.FixtureRequest, disagreements: Callable[[Path], list[str]]) -> Iterator[None]:
    """Verify after a test what it made."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        assert disagreements(folder) == []
