"""The answers to one task after one stage: every question is asked once, and not at all where its answer is known.

A greedy answer depends on the images, the prompt and the weights that answer, not on the other samples of the batch. So
it is known by the first two and a fingerprint of the third. It is asked for once, for however many samples; and where a
model has experts, it stays known as long as the expert that a sample is sent to is what it was. Where it is sent is
decided anew every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from avalanche_cit.benchmarks.batch import InstructionBatch
from avalanche_cit.benchmarks.questions import Question
from avalanche_cit.evaluation.predictions_file import digest_of
from avalanche_cit.models.fingerprint import fingerprint, module_fingerprint
from avalanche_cit.models.lmm import LMM

Texts = dict[tuple[Question, str], str]
"""Answers by question and fingerprint of the weights that answer."""

Asked = tuple[int, int | None]
"""A sample's place in the data, and the expert that is asked, where there are experts."""


class CellAnswers:
    """Collects the answers of one cell of the forgetting matrix, mini-batch by mini-batch.

    Mini-batches come in the order of the strategy's `Questions`. One that has to be asked as a whole is; of others what
    has to be asked waits until it makes a whole batch.

    Args:
        strategy: The strategy, at the beginning of the evaluation of an experience.
        weights: See `weights_of`.
        known: What is known already.
        file: Where answers are written as they are given, one JSON object a line, and taken from if an earlier process
            was broken off in this cell. Its lines carry digests; damaged ones are passed over. None: nowhere.

    Attributes:
        texts: All that is known, with what was known before and may still be of use.

    Example:
        >>> cell = CellAnswers(strategy, weights_of(strategy.model))
        >>> for batch, _, _ in strategy.dataloader:
        ...     cell.take(batch)
        >>> cell.finish()[0]
        {'id': 'q7', 'prompt': 'what is red?', 'references': ['cube'], 'choices': None, 'prediction': 'cube'}
    """

    def __init__(
        self,
        strategy: Any,
        weights: Mapping[int | None, str],
        known: Mapping[tuple[Question, str], str] | None = None,
        file: Path | None = None,
    ) -> None:
        self._model: LMM = strategy.model
        self._data = strategy.adapted_dataset
        self._questions = strategy.questions
        self._batch_size = strategy.eval_mb_size
        self._device = strategy.device
        self._processes = strategy.processes
        self._weights = weights
        self._file = file
        before = {**(known or {}), **(_read(file) if file is not None else {})}
        self.texts: Texts = {key: text for key, text in before.items() if key[1] in weights.values()}
        self._asked = set(self.texts)
        self._waiting: list[Asked] = []
        self._taken = 0
        self._samples: dict[int, dict[str, Any]] = {}
        self._experts: dict[int, int | None] = {}
        self._right: dict[int, int] = {}

    def take(self, batch: InstructionBatch) -> None:
        """Ask what has to be asked of the next mini-batch, or put it by."""
        places = self._questions.order[self._taken : self._taken + len(batch)]
        self._taken += len(batch)
        for place, row, prompt in zip(places, batch.rows, batch.prompts, strict=True):
            assert self._questions.asked[place][0] == prompt
            kept = {"id": row["id"], "prompt": prompt, "references": row["references"], "choices": row["choices"]}
            self._samples[place] = kept
        router = self._model.router
        experts = [None] * len(batch) if router is None else router.choose(batch)
        self._experts |= zip(places, experts, strict=True)
        new = self._not_asked(zip(places, experts, strict=True))
        if len(new) == len(batch):
            self._ask(batch, new)
        else:
            self._waiting += new
        right = None if router is None else router.right(batch)
        if right is not None:
            self._right |= zip(places, right, strict=True)
            self._waiting += self._not_asked(zip(places, right, strict=True))
        while len(self._waiting) >= self._batch_size:
            self._ask_waiting()

    def finish(self) -> list[dict[str, Any]]:
        """Ask what is left, and return the answers of all processes in the data's order.

        Returns:
            Of each sample ``id``, ``prompt``, ``references``, ``choices`` and ``prediction``. Where the model has
            experts also ``expert``, the one chosen, and ``right``, that of the sample's own task; None where that has
            none yet, otherwise with its answer, ``oracle``.
        """
        while self._waiting:
            self._ask_waiting()
        own = self.texts, self._samples, self._experts, self._right
        for texts, samples, experts, right in self._processes.gathered(own):
            self.texts |= texts
            self._samples |= samples
            self._experts |= experts
            self._right |= right
        return [self._answer(place) for place in sorted(self._samples)]

    def _answer(self, place: int) -> dict[str, Any]:
        expert = self._experts[place]
        answer = {**self._samples[place], "prediction": self._text(place, expert)}
        if expert is not None:
            answer |= {"expert": expert, "right": self._right.get(place)}
        if place in self._right:
            answer["oracle"] = self._text(place, self._right[place])
        return answer

    def _text(self, place: int, expert: int | None) -> str:
        return self.texts[self._questions.asked[place], self._weights[expert]]

    def _not_asked(self, samples: Iterable[Asked]) -> list[Asked]:
        """Return what has not been asked yet, and note that it is."""
        new = []
        for place, expert in samples:
            key = self._questions.asked[place], self._weights[expert]
            if key not in self._asked:
                self._asked.add(key)
                new.append((place, expert))
        return new

    def _ask_waiting(self) -> None:
        samples, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
        batch, _, _ = self._model.collator([self._data[place] for place, _ in samples])
        self._ask(batch.to(self._device), samples)

    def _ask(self, batch: InstructionBatch, samples: Sequence[Asked]) -> None:
        experts = [expert for _, expert in samples if expert is not None]
        router = self._model.router
        with nullcontext() if router is None else router.told(experts):
            texts = self._model.generate(batch)
        given = {}
        for (place, expert), text in zip(samples, texts, strict=True):
            given[self._questions.asked[place], self._weights[expert]] = text
        self.texts |= given
        if self._file is not None:
            _append(self._file, given)


def weights_of(model: LMM) -> dict[int | None, str]:
    """Return a fingerprint of the weights that may answer: of each expert by its number, or of all that is trainable.

    All others are frozen.
    """
    if model.router is None:
        return {None: fingerprint(model.trainable_state())}
    experts = model.router.projection.experts
    return {number: module_fingerprint(expert) for number, expert in enumerate(experts)}


def _append(file: Path, texts: Texts) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for ((prompt, images), weights), text in texts.items():
            record = {"prompt": prompt, "images": images, "weights": weights, "prediction": text}
            lines.write(json.dumps({**record, "digest": digest_of(record)}, ensure_ascii=False) + "\n")


def _read(file: Path) -> Texts:
    texts: Texts = {}
    if not file.exists():
        return texts
    for line in file.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
            whole = record["digest"] == digest_of(record)
        except (ValueError, LookupError, TypeError, RecursionError):  # cut off where the process ended
            continue
        if whole:
            texts[(record["prompt"], tuple(record["images"])), record["weights"]] = record["prediction"]
    return texts
