"""Grounding: a box around what was asked for, right if it overlaps the reference by more than half (CoIN, RefCOCO).

A box is ``[x1, y1, x2, y2]``, two opposite corners in any unit that prediction and reference share: CoIN writes shares
of the longer side of the image.
"""

from __future__ import annotations

import re

import torch
from torchvision.ops import box_iou

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.scores.score import Choices, ScoreResult, paired

OVERLAP = 0.5
"""Intersection over union that a right box exceeds."""

Box = list[float]

_NUMBER = r"\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")


def grounding(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score 100 where the answer is a box, and nothing else, of an IoU over `OVERLAP` with a reference, else 0.

    Args:
        predictions: N answers.
        references: N lists of boxes, of which the best counts.
        choices: Not used.

    Raises:
        UserError: There is nothing to score, a sample has no reference, or a reference is no box.

    Example:
        >>> grounding(["[0, 0, 1, 0.6]", "The box is [0, 0, 1, 1]"], [["[0, 0, 1, 1]"]] * 2, [None] * 2).per_sample
        [100.0, 0.0]
    """
    return _scored([box_of(text) for text in predictions], predictions, references)


def grounding_tolerant(predictions: list[str], references: list[list[str]], choices: Choices) -> ScoreResult:
    """Score the first box in an answer, whatever stands around it. Arguments and errors are those of `grounding`.

    Example:
        >>> grounding_tolerant(["The box is [0, 0, 1, 1]."], [["[0, 0, 1, 1]"]], [None]).corpus
        100.0
    """
    return _scored([_first_box(text) for text in predictions], predictions, references)


def box_of(text: str) -> Box | None:
    """Return the box that a text is, white space around it aside; None where it is anything else.

    Example:
        >>> box_of("[0.1, 0.2, .5, 1]"), box_of("0.1, 0.2, 0.5, 1")
        ([0.1, 0.2, 0.5, 1.0], None)
    """
    return _numbers(_BOX.fullmatch(text.strip()))


def _first_box(text: str) -> Box | None:
    return _numbers(_BOX.search(text))


def _numbers(match: re.Match[str] | None) -> Box | None:
    return None if match is None else [float(number) for number in match.groups()]


def _scored(boxes: list[Box | None], predictions: list[str], references: list[list[str]]) -> ScoreResult:
    accepted = [_boxes(sample, texts) for sample, (_, texts) in enumerate(paired(predictions, references))]
    return ScoreResult.mean_of([100.0 * _is_right(box, right) for box, right in zip(boxes, accepted, strict=True)])


def _boxes(sample: int, references: list[str]) -> list[Box]:
    boxes = []
    for reference in references:
        box = box_of(reference)
        if box is None:
            raise UserError(f"sample {sample} (counted from 0): the reference {reference!r} is no box [x1, y1, x2, y2]")
        boxes.append(box)
    return boxes


def _is_right(box: Box | None, references: list[Box]) -> bool:
    if box is None:
        return False
    given, accepted = torch.tensor([box], dtype=torch.float64), torch.tensor(references, dtype=torch.float64)
    return bool((box_iou(given, accepted) > OVERLAP).any())
