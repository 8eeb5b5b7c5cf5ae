"""The script that prints and plots how similar tasks are: its tables, its files, its options, and mistakes."""

import json
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from avalanche_cit.benchmarks import load_benchmark
from avalanche_cit.models import LMM
from avalanche_cit.similarity import TokenEmbedding, VisionTower, cosines, embed_task, task_similarity

SCRIPT = Path(__file__).parents[2] / "experiments" / "task_similarity.py"
TASKS = ["textcaps", "flickr30k", "vizwiz"]
"""Of a benchmark with one member of task 0."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of two mini tasks, with a third that counts as learned."""
    import avalanche_cit.benchmarks.mini as mini

    definitions = yaml.safe_load((Path(mini.__path__[0]) / "definitions.yaml").read_text())
    document = {"name": "three", "version": 1, "description": "Three.", "drawn_by": "mini"}
    document |= {"tasks": TASKS[1:], "task0": TASKS[:1], "definitions": {name: definitions[name] for name in TASKS}}
    path = tmp_path_factory.mktemp("benchmark") / "three.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def printed_rows(output: str) -> list[list[str]]:
    """Cells of all table rows, the heads left out."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]


def test_tables_file_and_plot_hold_the_same_numbers(
    run, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run("--benchmark", str(file), "--train_samples", "12", "--samples", "6", "--output", "out", "--fusion", "mean")

    model = LMM.from_pretrained("tiny-base")
    benchmark = load_benchmark(file, sizes={"train": 12})
    embeddings = [
        embed_task(
            experience.dataset,
            image_encoder=VisionTower(model),
            text_encoder=TokenEmbedding(model),
            samples=6,
        )
        for experience in [*benchmark.task0_train_stream, *benchmark.train_stream]
    ]
    written = json.loads((tmp_path / "out" / "task_similarity.json").read_text())
    assert written["tasks"] == TASKS
    assert written["task0"] == TASKS[:1]
    for name, matrix in written["cosine"].items():
        expected = cosines(torch.stack([embedding.as_tensors()[name] for embedding in embeddings]))
        torch.testing.assert_close(torch.tensor(matrix).double(), expected, rtol=0, atol=1e-5)
    assert list(written["cosine"]) == ["image", "text_input", "text_output"]
    torch.testing.assert_close(torch.tensor(written["similarity"]), task_similarity(embeddings, "mean"))
    assert written["image_encoder"]["spec"] == "vision_tower"
    assert written["text_encoder"]["name"].startswith("token_embedding:")

    rows = printed_rows(capsys.readouterr().out)
    labels = ["textcaps (task 0)", *TASKS[1:]]
    matrices = [*written["cosine"].values(), written["similarity"]]
    assert rows == [
        [label, *(f"{value:.3f}" for value in row)]
        for matrix in matrices
        for label, row in zip(labels, matrix, strict=True)
    ]
    with Image.open(tmp_path / "out" / "task_similarity.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_embeddings_are_computed_once(run, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ("--benchmark", str(file), "--train_samples", "12", "--samples", "5")
    run(*arguments, "--output", "first")
    monkeypatch.setattr(VisionTower, "__call__", lambda *_: pytest.fail("computed again"))

    run(*arguments, "--output", "second")

    first, second = (tmp_path / folder / "task_similarity.json" for folder in ("first", "second"))
    assert first.read_text() == second.read_text()


def test_options_from_a_file_and_without_task_0(run, file: Path, tmp_path: Path) -> None:
    options = {"benchmark": str(file), "train_samples": 12, "task0": False, "model": "tiny-instruct"}
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(options))

    run("--config", "options.yaml", "--seed", "1")

    written = json.loads((tmp_path / "runs" / "three-tiny-instruct-similarity" / "task_similarity.json").read_text())
    assert (written["tasks"], written["task0"], written["seed"]) == (TASKS[1:], [], 1)
    assert written["fusion"] == "product"
    image, text_input, text_output = (max(0, min(1, matrix[0][1])) for matrix in written["cosine"].values())
    assert written["similarity"][1][0] == pytest.approx(image * text_input * text_output, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "mini_cit11"], "unknown benchmark 'mini_cit11': did you mean 'mini_cit1'?"),
        (["--fusion", "produckt"], "unknown fusion 'produckt': did you mean 'product'?"),
        (["--task0"], "benchmark 'mini_cit1' has no task 0"),
        (["--sample", "3"], "unknown option '--sample': did you mean '--samples'?"),
        (["--output", "taken/x"], "taken/x: cannot be made"),
        (["--image_encoder", "vision"], "unknown image encoder 'vision'"),
        (["--text_encoder", "sentence_transformers"], "unknown text encoder 'sentence_transformers'"),
        (["--benchmark", "FILE", "--train_samples", "12", "--samples", "0"], "a task is embedded by 0 samples"),
    ],
)
def test_a_mistake_is_one_line(
    run, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "taken").touch()

    with pytest.raises(SystemExit) as exit_:
        run(*(str(file) if argument == "FILE" else argument for argument in arguments))

    assert exit_.value.code == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert printed.err.rstrip().endswith(line)
    assert printed.out == ""
