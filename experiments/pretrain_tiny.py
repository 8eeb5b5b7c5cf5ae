"""Pre-train tiny-base and tiny-instruct from nothing, measure them, and write them with their model cards.

    python experiments/pretrain_tiny.py --output FOLDER [--seed N] [--scenes N] [--steps VISION DOMAINS BASE INSTRUCT]

About an hour on two cores. A stopped run goes on where it was when the same command is typed again. The results,
FOLDER/tiny-base and FOLDER/tiny-instruct, are models for any --model option.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.errors import UserError
from avalanche_cit.models.lmm import LMM
from avalanche_cit.models.tiny import probes
from avalanche_cit.models.tiny.architecture import build_model, build_processor, build_tokenizer
from avalanche_cit.models.tiny.card import Scores, write_card
from avalanche_cit.models.tiny.pretraining import (
    STAGES,
    StageRun,
    Tokens,
    VisionTraining,
    train_base,
    train_instruct,
    vision_features,
)
from avalanche_cit.models.tiny.pretraining_data import corpus, draw_pictures


def main() -> None:
    """Run the four stages, then measure both models."""
    parser = Parser(description="Pre-train the tiny models that ship with the package.")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the two models")
    parser.add_argument("--seed", type=int, default=0, help="fixes scenes, initial weights and every batch")
    parser.add_argument("--scenes", type=int, default=40_000, help="training scenes to draw")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=4,
        default=[stage.steps for stage in STAGES],
        help="optimizer steps of the stages vision, domains, base and instruct",
    )
    options = parser.parse_args()
    if options.scenes < 1 or min(options.steps) < 1:
        raise UserError("--scenes and --steps must be above 0")
    disable_progress_bar()  # transformers' own, for files that take no time here
    console = Console(highlight=False)
    seed, folder = options.seed, options.output
    stages = [dataclasses.replace(stage, steps=n) for stage, n in zip(STAGES, options.steps, strict=True)]
    vision, domains, base, instruct = (StageRun(stage, seed, folder) for stage in stages)

    tokenizer = build_tokenizer(corpus(seed))
    processor = build_processor(tokenizer)
    model = build_model(tokenizer, seed)
    tokens = Tokens(tokenizer)
    console.print(f"{model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens; drawing the world")
    pictures = draw_pictures(options.scenes, "train", seed)
    tower = VisionTraining(model, pictures, seed)
    tower.train_vision(vision)
    tower.train_domains(domains)
    features = vision_features(model, pictures.pixels)
    facts = {"seed": seed, "scenes": options.scenes, "parameters": model.num_parameters()}
    train_base(model, tokens, pictures, features, base)
    save(model, processor, folder / "tiny-base")
    train_instruct(model, tokens, pictures, features, instruct)
    save(model, processor, folder / "tiny-instruct")
    for name, made_by in (("tiny-base", stages[:3]), ("tiny-instruct", stages)):
        scores = measure(folder / name)
        write_card(folder / name, name=name, stages=made_by, scores=scores, **facts)
        console.print(f"[bold]{name}[/bold]")
        for title, rows in scores.items():
            console.print(title, ", ".join(f"{key} {value:.1f}" for key, value in rows.items()), sep=": ")


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a model in half precision, with its processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.tokenizer.backend_tokenizer.no_padding()  # else the last batch's way of padding is written with it
    processor.save_pretrained(folder)


def measure(folder: Path) -> Scores:
    """Measure what a model sees and says."""
    model = LMM.from_pretrained(folder)
    with torch.no_grad():
        return {
            "dense captions": probes.dense_captions(model),
            "image domain by the class token": {"nearest class mean": probes.domain_by_class_token(model)},
            "VQA v2 of the mini world, by kind of question": probes.questions(model, ["room"]),
            "the same, images shuffled": probes.questions(model, ["room"], shuffled=True),
            "the same, text alone": probes.text_only_prior(["room"]),
            "OCR-VQA of the mini world, by kind of question": probes.questions(model, ["book"]),
        }


if __name__ == "__main__":
    run_main(main)
