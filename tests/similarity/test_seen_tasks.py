"""Tasks are embedded once, compared among all seen so far, and survive a checkpoint."""

from collections.abc import Callable
from typing import Any

import torch
from avalanche.benchmarks import CLScenario

from avalanche_cit.models import LMM
from avalanche_cit.similarity import TokenEmbedding, VisionTower, task_similarity
from avalanche_cit.similarity.seen_tasks import SeenTasks


class Counting:
    """An encoder that counts its calls."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.calls = 0

    def __call__(self, given: Any) -> torch.Tensor:
        self.calls += 1
        result: torch.Tensor = self.encoder(given)
        return result


def test_similarity_to_some_of_the_tasks(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    model = load()
    image, text = Counting(VisionTower(model)), Counting(TokenEmbedding(model))
    seen = SeenTasks(image, text)
    names = ["colour", "shape", "caption"]
    for name, experience in zip(names, benchmark.train_stream, strict=True):
        seen.see(name, experience.dataset)
    calls = (image.calls, text.calls)
    seen.see("shape", benchmark.train_stream[0].dataset)

    assert (image.calls, text.calls) == calls
    whole = task_similarity(list(seen.embeddings.values()), "product")
    assert seen.similarity("caption", ["shape", "colour"]).tolist() == [float(whole[2, 1]), float(whole[2, 0])]
    assert seen.similarity("colour", []).tolist() == []


def test_a_restored_instance_answers_alike(load: Callable[..., LMM], benchmark: CLScenario) -> None:
    model = load()
    seen, again = (SeenTasks(VisionTower(model), TokenEmbedding(model)) for _ in range(2))
    for name, experience in zip(["a/b", "c", "d"], benchmark.train_stream, strict=True):
        seen.see(name, experience.dataset)

    again.load_state_dict(seen.state_dict())

    assert list(again.embeddings) == ["a/b", "c", "d"]
    assert torch.equal(again.similarity("d", ["a/b", "c"]), seen.similarity("d", ["a/b", "c"]))
