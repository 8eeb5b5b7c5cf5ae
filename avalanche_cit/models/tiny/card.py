"""The model cards of the tiny models: how each was made, and what it scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from avalanche_cit.models.tiny.pretraining import Stage

Scores = Mapping[str, Mapping[str, float]]

_CARD = """\
# {{ name }}

A tiny multimodal model that ships with avalanche_cit, so that continual instruction tuning runs without a GPU and
without downloads. Architecture: stock `InstructBlipForConditionalGeneration` of transformers,
{{ "%.1f"|format(millions) }} M parameters, 64 x 64 images; fp16 safetensors (load with `dtype="float32"`).

{{ about }}

Its tokenizer has a token for every word of the mini world and falls back to bytes for all other text.

## How it was made

    python experiments/pretrain_tiny.py --output FOLDER --seed {{ seed }} --scenes {{ scenes }}

| stage | steps | batch | peak learning rate |
|---|---|---|---|
{% for stage in stages -%}
| {{ stage.name }} | {{ stage.steps }} | {{ stage.batch_size }} | {{ stage.learning_rate }} |
{% endfor %}
AdamW (betas 0.9 and 0.98, weight decay 0.02), one cycle with 8% warm-up, gradients clipped to 1, fp32, seed {{ seed }},
{{ scenes }} scenes of the training split of the mini world.

## What it scores

Percent, on scenes of the test split, which no training has shown. "images shuffled": every question sees the picture
of another question; "text alone": the answer that was most frequent in training for that question.
{% for title, rows in scores.items() %}
**{{ title }}**

| | % |
|---|---|
{% for key, value in rows.items() -%}
| {{ key }} | {{ "%.1f"|format(value) }} |
{% endfor -%}
{% endfor %}"""

ABOUT = {
    "tiny-base": (
        "`tiny-base` stands in for a start like BLIP-2: vision and captioning pre-training only. Its language model "
        "saw the answer formats of all tasks of the mini world as text only, with a dense caption in the place of the "
        "picture, because a frozen language model can only say what it has learned to say."
    ),
    "tiny-instruct": (
        "`tiny-instruct` stands in for a start like InstructBLIP: `tiny-base`, whose Q-Former and projection were then "
        "tuned jointly on the members of task 0 (OK-VQA, A-OKVQA, TextCaps, VQA v2 and OCR-VQA of the mini world). "
        "Vision tower and language model are those of `tiny-base`, bit for bit."
    ),
}


def write_card(
    folder: Path, *, name: str, seed: int, scenes: int, stages: Sequence[Stage], parameters: int, scores: Scores
) -> None:
    """Write ``README.md`` and ``scores.json`` into a model's folder."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    text = environment.from_string(_CARD).render(
        name=name, about=ABOUT[name], seed=seed, scenes=scenes, stages=stages, millions=parameters / 1e6, scores=scores
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
