"""With and without the cache: the same losses, and the same answers."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.utils.data import DataLoader

from avalanche_cit.models.lmm import LMM
from avalanche_cit.training import SeqFT

from .job import Job
from .tuning import options


class Losses(SupervisedPlugin):  # type: ignore[misc]
    """Notes the loss of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Note it."""
        self.values.append(float(strategy.loss))


def compare_numbers(job: Job) -> dict[str, Any]:
    """Tune twice, without and with the cache, and return how far losses and answers are apart."""
    (losses, texts), (cached_losses, cached_texts) = (_tuned(job, cached=cached) for cached in (False, True))
    apart = [abs(loss - other) / abs(loss) for loss, other in zip(losses, cached_losses, strict=True)]
    return {
        "updates": len(losses),
        "largest relative difference of losses": max(apart),
        "answers": len(texts),
        "answers that differ": sum(text != other for text, other in zip(texts, cached_texts, strict=True)),
    }


def _tuned(job: Job, *, cached: bool) -> tuple[list[float], list[str]]:
    losses = Losses()
    model = job.load(cached=cached)
    strategy = SeqFT(model=model, plugins=[losses], **options(job))
    benchmark = job.benchmark()
    for experience in benchmark.train_stream:
        strategy.train(experience)
    return losses.values, [text for experience in benchmark.test_stream for text in _answers(model, experience.dataset)]


def _answers(model: LMM, dataset: Any) -> list[str]:
    model.prepare(dataset)
    loader = DataLoader(dataset, batch_size=64, collate_fn=model.collator)
    return [text for batch, _, _ in loader for text in model.generate(batch.to(model.device))]
