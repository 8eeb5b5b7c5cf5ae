"""What the tiny models can see and say, measured on scenes that no training has shown them.

The numbers stand in the model cards. Answers come from the same `LMM.generate` that fills every forgetting matrix.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from avalanche_cit.benchmarks.batch import IGNORED, InstructionBatch
from avalanche_cit.benchmarks.mini.draw import draw_scene
from avalanche_cit.benchmarks.mini.language import Asked, describe
from avalanche_cit.benchmarks.mini.scenes import Scene, sample_scene
from avalanche_cit.benchmarks.mini.vocabulary import DOMAINS
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.tiny.pretraining_data import ASK, DENSE_PROMPT, QUESTION_PROMPT

READING = ("title", "author")
_BATCH = 100


@dataclass(frozen=True)
class Prompted:
    """A scene with what is asked of it and the right answer."""

    scene: Scene
    prompt: str
    answer: str
    kind: str = ""


def dense_captions(model: LMM, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """Measure dense captions of held-out scenes of all domains.

    Returns:
        ``token_accuracy`` (teacher-forced, of all answer and end tokens) and ``exact`` (greedy decoding), in percent.
    """
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(DOMAINS[i % len(DOMAINS)], "test", rng) for i in range(count)]
    samples = [Prompted(scene, DENSE_PROMPT, describe(scene)) for scene in scenes]
    right = total = exact = 0
    with torch.no_grad():
        for part, batch in _batches(model, samples):
            counted = batch.labels != IGNORED
            right += int(((model(batch).argmax(dim=1) == batch.labels) & counted).sum())
            total += int(counted.sum())
            answers = model.generate(batch)
            exact += sum(answer == sample.answer for answer, sample in zip(answers, part, strict=True))
    return {"token_accuracy": 100 * right / total, "exact": 100 * exact / count}


def domain_by_class_token(model: LMM, count: int = 1000, seed: int = 2) -> float:
    """Percent of held-out scenes whose domain has the nearest mean of the vision tower's class token."""

    def tokens(split: str) -> tuple[torch.Tensor, list[int]]:
        rng = np.random.default_rng((seed, len(split)))
        labels = [i % len(DOMAINS) for i in range(count)]
        scenes = [sample_scene(DOMAINS[i], "train" if split == "train" else "test", rng) for i in labels]
        samples = [Prompted(scene, DENSE_PROMPT, "") for scene in scenes]
        return torch.cat([model.embed_images(batch) for _, batch in _batches(model, samples)]), labels

    known, known_labels = tokens("train")
    means = torch.stack([known[torch.tensor(known_labels) == i].mean(dim=0) for i in range(len(DOMAINS))])
    held_out, labels = tokens("test")
    nearest = torch.cdist(held_out, means).argmin(dim=1)
    return 100 * float((nearest == torch.tensor(labels)).float().mean())


def questions(
    model: LMM, domains: Sequence[str], count: int = 2000, seed: int = 3, *, shuffled: bool = False
) -> dict[str, float]:
    """Measure answers to questions about held-out scenes.

    Args:
        domains: Image domains to ask about.
        count: Number of questions.
        shuffled: Show each question the picture of another one: what is right then, the text alone gave away.

    Returns:
        Percent of exactly right answers by kind of question, and over all of them as ``all``.
    """
    samples = _questions(domains, count, seed, "test")
    scenes = [sample.scene for sample in samples]
    if shuffled:
        order = np.random.default_rng(seed).permutation(count)
        scenes = [scenes[i] for i in order]
    shown = [
        Prompted(scene, sample.prompt, sample.answer, sample.kind)
        for scene, sample in zip(scenes, samples, strict=True)
    ]
    answers = [answer for _, batch in _batches(model, shown) for answer in model.generate(batch)]
    return _by_kind(samples, answers)


def text_only_prior(domains: Sequence[str], count: int = 2000, seed: int = 3) -> dict[str, float]:
    """Measure the best that the question's text alone can do: the answer most frequent in training, per question."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in _questions(domains, 20 * count, seed + 1, "train"):
        seen[sample.prompt][sample.answer] += 1
        kinds[sample.kind][sample.answer] += 1
    samples = _questions(domains, count, seed, "test")
    answers = [
        (seen[sample.prompt] if sample.prompt in seen else kinds[sample.kind]).most_common(1)[0][0]
        for sample in samples
    ]
    return _by_kind(samples, answers)


def _questions(domains: Sequence[str], count: int, seed: int, split: str) -> list[Prompted]:
    rng = np.random.default_rng((seed, len(split)))
    samples = []
    for i in range(count):
        scene = sample_scene(domains[i % len(domains)], "train" if split == "train" else "test", rng)
        asked: Asked = ASK[scene.domain](scene, rng)
        samples.append(Prompted(scene, QUESTION_PROMPT.format(question=asked.question), asked.answer, asked.kind))
    return samples


def _by_kind(samples: Sequence[Prompted], answers: Sequence[str]) -> dict[str, float]:
    right: dict[str, list[bool]] = defaultdict(list)
    for sample, answer in zip(samples, answers, strict=True):
        right[sample.kind].append(answer == sample.answer)
        right["all"].append(answer == sample.answer)
    return {kind: 100 * float(np.mean(marks)) for kind, marks in sorted(right.items())}


def _batches(model: LMM, samples: Sequence[Prompted]) -> list[tuple[Sequence[Prompted], InstructionBatch]]:
    parts = [samples[start : start + _BATCH] for start in range(0, len(samples), _BATCH)]
    return [(part, model.collator([(_example(sample), 0) for sample in part])[0]) for part in parts]


def _example(sample: Prompted) -> Example:
    png = io.BytesIO()
    draw_scene(sample.scene).save(png, "png")
    task = Task("probe", None, None, None, prompt=sample.prompt, score="exact_match_raw", max_new_tokens=60)
    row = {
        "id": sample.prompt,
        "image": {"bytes": png.getvalue(), "path": None},
        "more_images": None,
        "instruction": "",
        "target": sample.answer,
        "references": [sample.answer],
        "choices": None,
    }
    return Example(task, row)
