"""A TIR run from the command line's names of encoders to the penalty, with open_clip and sentence-transformers."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
import yaml

from avalanche_cit.benchmarks import load_benchmark
from avalanche_cit.run_config import RunConfig
from avalanche_cit.runner import run
from avalanche_cit.similarity import OpenClip, SentenceEncoder, embed_task, task_similarity
from avalanche_cit.training.plugins import regularization


def test_a_run_weights_by_the_similarities_of_the_encoders_it_names(
    tmp_path: Path, clip_folder: Path, sentence_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"name": "short", "version": 1, "description": "Three tasks.", "drawn_by": "mini"}
    definitions = str(resources.files("avalanche_cit.benchmarks") / "mini" / "definitions.yaml")
    benchmark = tmp_path / "short.yaml"
    benchmark.write_text(yaml.safe_dump({**about, "tasks": ["vqav2", "gqa", "coco"], "definitions": definitions}))
    asked = []

    def note(*args: object, **kwargs: object) -> list[torch.Tensor]:
        asked.append(args[2])
        return weighted(*args, **kwargs)  # type: ignore[arg-type]

    weighted = regularization.weighted
    monkeypatch.setattr(regularization, "weighted", note)

    run(
        RunConfig(
            strategy="ewc_tir",
            benchmark=str(benchmark),
            image_encoder=f"open_clip:{clip_folder}",
            text_encoder=f"sentence_transformers:{sentence_folder}",
            train_samples=8,
            validation_samples=2,
            test_samples=2,
            epochs=1,
            batch_size=4,
            threads=1,
        ),
        tmp_path / "run",
    )

    stream = load_benchmark(str(benchmark), sizes={"train": 8, "validation": 2, "test": 2}).train_stream
    encoders = {"image_encoder": OpenClip(str(clip_folder)), "text_encoder": SentenceEncoder(str(sentence_folder))}
    expected = task_similarity([embed_task(experience.dataset, **encoders) for experience in stream])
    assert len(asked) == 2
    torch.testing.assert_close(asked[1], expected[2, :2], rtol=0, atol=1e-5)
    assert float(asked[1].min()) > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["value"] for line in lines if line["name"] == "penalty") > 0
