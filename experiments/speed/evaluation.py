"""A cell of the matrix: ours, and one sample at a time, the way most published evaluation scripts go."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from avalanche.training.plugins import EvaluationPlugin
from benchmark_plugins import SilentLogger

from avalanche_cit.evaluation import ForgettingMatrix
from avalanche_cit.models.lmm import LMM
from avalanche_cit.training import SeqFT

from .job import Job, stock_inputs
from .rounds import FILLING, Compared, Side, Work, alternate, rates, times_as_fast


def compare_evaluation(job: Job, rounds: int) -> Compared:
    """Evaluate the test samples of the job's tasks, and compare the texts."""
    texts: dict[str, dict[str, str]] = {}
    sides = [
        Side("one at a time", lambda: _one_at_a_time(job, texts)),
        Side("ours", lambda: _ours(job, texts, cached=False)),
        Side("ours, cached", lambda: _ours(job, texts, cached=True)),
    ]
    filled = job.fill()
    seconds = alternate(sides, rounds, job.device)
    ratio = times_as_fast("eval_vs_batch1", 8.0, seconds, "ours, cached", "one at a time")
    plain = times_as_fast("eval_no_cache_vs_batch1", 8.0, seconds, "ours", "one at a time")
    one_by_one = texts["one at a time"]
    details = {
        "samples": len(one_by_one),
        "samples per second": rates(seconds, len(one_by_one)),
        "without the cache": plain.plain(),
        FILLING: filled,
        "texts that differ": {
            name: sum(text != one_by_one[sample] for sample, text in own.items()) for name, own in texts.items()
        },
    }
    return Compared([ratio], details)


def answers_one_by_one(model: LMM, job: Job) -> dict[str, str]:
    """Return the stock model's answer to each test sample alone, by the names of task and sample."""
    tokenizer = model.processor.tokenizer
    texts = {}
    for experience in job.benchmark().test_stream:
        for number in range(len(experience.dataset)):
            batch = model.collator([experience.dataset[number]])[0].to(job.device)
            pixels = stock_inputs(model, batch)["pixel_values"]
            longest = batch.tasks[0].max_new_tokens
            with torch.no_grad():
                tokens = model.hf.generate(
                    pixel_values=pixels, **batch.prompt_inputs, max_new_tokens=longest, do_sample=False, num_beams=1
                )
            answer = tokens[0] if model.encoder_decoder else tokens[0, batch.prompt_inputs["input_ids"].shape[1] :]
            texts[f"{batch.tasks[0].name}/{batch.rows[0]['id']}"] = tokenizer.decode(
                answer, skip_special_tokens=True
            ).strip()
    return texts


def _one_at_a_time(job: Job, texts: dict[str, dict[str, str]]) -> Work:
    model = job.load(cached=False)
    return lambda: texts.update({"one at a time": answers_one_by_one(model, job)})


def _ours(job: Job, texts: dict[str, dict[str, str]], *, cached: bool) -> Work:
    model, benchmark = job.load(cached=cached), job.benchmark()

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            matrix = ForgettingMatrix(benchmark, predictions=Path(folder))
            strategy = SeqFT(
                model=model,
                eval_mb_size=200,
                eval_loss=False,
                device=job.device,
                evaluator=EvaluationPlugin(matrix, loggers=[SilentLogger()]),
            )
            strategy.eval(benchmark.test_stream)
            texts["ours, cached" if cached else "ours"] = _written(Path(folder))

    return work


def _written(folder: Path) -> dict[str, str]:
    """The answers in a folder of predictions, by the names of task and sample."""
    texts = {}
    for file in folder.rglob("*.jsonl"):
        for record in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            texts[f"{file.stem}/{record['id']}"] = record["prediction"]
    return texts
