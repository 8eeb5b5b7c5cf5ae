"""Pre-trains the two tiny models in four stages, each resumable at any of its checkpoints.

    vision    the vision tower learns what is in every patch, and domain and number of things from its class token
    domains   the same goes on, while class tokens of one image domain are drawn together: routing and task similarity
              compare them by distance, for which a linear read-out alone is not enough
    base      Q-Former, projection and language model learn dense captions; the language model alone learns the
              answer formats of all tasks, with the dense caption in the place of the picture
    instruct  Q-Former and projection learn the members of task 0 jointly; the language model stays frozen

After ``base`` the vision tower and the language model never change again, so `tiny-base` and `tiny-instruct` differ
only in what joint instruction tuning changed. Every batch is a function of (seed, stage, step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import InstructBlipForConditionalGeneration, PreTrainedTokenizerFast

from avalanche_cit.benchmarks.mini.language import describe
from avalanche_cit.benchmarks.mini.vocabulary import DOMAINS
from avalanche_cit.models.tiny.architecture import QUERY_TOKENS, WIDTH
from avalanche_cit.models.tiny.pretraining_data import DENSE_PROMPT, HEADS, TASK0_SHARES, Pictures, instruction

MAX_THINGS = 5


@dataclass(frozen=True)
class Stage:
    """One stage's length and peak learning rate."""

    name: str
    steps: int
    learning_rate: float
    batch_size: int = 128


STAGES = (
    Stage("vision", 1800, 2e-3),
    Stage("domains", 300, 5e-4),
    Stage("base", 1400, 2e-3),
    Stage("instruct", 2600, 1.5e-3),
)


class VisionHeads(nn.Module):
    """Linear read-outs of the vision tower that exist during its own stage only."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.ModuleDict({name: nn.Linear(WIDTH, classes) for name, classes in HEADS.items()})
        self.domain = nn.Linear(WIDTH, len(DOMAINS))
        self.count = nn.Linear(WIDTH, MAX_THINGS)

    def loss(self, features: Tensor, patches: dict[str, Tensor], domain: Tensor, count: Tensor) -> Tensor:
        """Sum the cross-entropies; an empty patch weighs a fifth of an occupied one."""
        total = nn.functional.cross_entropy(self.domain(features[:, 0]), domain)
        total = total + nn.functional.cross_entropy(self.count(features[:, 0]), count)
        for name, head in self.patch.items():
            weight = torch.ones(HEADS[name], device=features.device)
            if name != "cell":
                weight[0] = 0.2
            logits = head(features[:, 1:])
            total = total + nn.functional.cross_entropy(logits.flatten(0, 1), patches[name].flatten(), weight)
        return total


def to_pixel_values(pixels: np.ndarray) -> Tensor:
    """Scale (B, 64, 64, 3) bytes to (B, 3, 64, 64) in [-1, 1], as the processor does."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


class VisionTraining:
    """The two stages of the vision tower; the read-outs live on from the first to the second."""

    def __init__(self, model: InstructBlipForConditionalGeneration, pictures: Pictures, seed: int) -> None:
        torch.manual_seed(seed)
        self.tower = model.vision_model
        self.heads = VisionHeads()
        self.pictures = pictures
        self.domains = torch.tensor([DOMAINS.index(scene.domain) for scene in pictures.scenes])
        self.counts = torch.tensor([0 if scene.unreadable else len(scene.things) for scene in pictures.scenes])

    def train_vision(self, run: StageRun) -> None:
        """Stage ``vision``."""

        def loss(step: int, rng: np.random.Generator) -> Tensor:
            rows = rng.integers(len(self.domains), size=run.stage.batch_size)
            return self._loss(rows, self._see(rows))

        run.train({"vision": self.tower, "heads": self.heads}, loss)

    def train_domains(self, run: StageRun) -> None:
        """Stage ``domains``: as ``vision``, and each class token is told by its nearest centre."""
        centres = nn.Embedding(len(DOMAINS), WIDTH)
        with torch.no_grad():
            rows = np.arange(min(len(self.domains), 500))
            tokens = self._see(rows)[:, 0]
            for domain in range(len(DOMAINS)):
                centres.weight[domain] = tokens[self.domains[rows] == domain].mean(dim=0)

        def loss(step: int, rng: np.random.Generator) -> Tensor:
            rows = rng.integers(len(self.domains), size=run.stage.batch_size)
            features = self._see(rows)
            distances = torch.cdist(features[:, 0], centres.weight).square()
            return self._loss(rows, features) + nn.functional.cross_entropy(-distances / 8, self.domains[rows])

        run.train({"vision": self.tower, "heads": self.heads, "centres": centres}, loss)

    def _see(self, rows: npt.NDArray[np.int64]) -> Tensor:
        features: Tensor = self.tower(to_pixel_values(self.pictures.pixels[rows])).last_hidden_state
        return features

    def _loss(self, rows: npt.NDArray[np.int64], features: Tensor) -> Tensor:
        patches = {name: torch.from_numpy(labels[rows]).long() for name, labels in self.pictures.patches.items()}
        return self.heads.loss(features, patches, self.domains[rows], self.counts[rows])


@torch.no_grad()
def vision_features(model: InstructBlipForConditionalGeneration, pixels: np.ndarray) -> Tensor:
    """Return what the vision tower sees, (N, 65, 128) in half precision."""
    model.eval()
    out = torch.empty(len(pixels), model.vision_model.embeddings.num_positions, WIDTH, dtype=torch.float16)
    for start in tqdm(range(0, len(pixels), 256), desc="vision features", leave=False):
        rows = slice(start, start + 256)
        out[rows] = model.vision_model(to_pixel_values(pixels[rows])).last_hidden_state.half()
    return out


@dataclass
class Tokens:
    """Turns texts into padded tensors."""

    tokenizer: PreTrainedTokenizerFast

    def inputs(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask, each (B, L)."""
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        return encoded.input_ids, encoded.attention_mask

    def labels(self, texts: list[str]) -> Tensor:
        """Return token ids (B, L) with padding replaced by -100."""
        ids, mask = self.inputs(texts)
        return ids.masked_fill(mask == 0, -100)


def language_loss(
    model: InstructBlipForConditionalGeneration,
    tokens: Tokens,
    features: Tensor,
    prompts: list[str],
    targets: list[str],
) -> Tensor:
    """Cross-entropy of the answers given vision features (B, 65, 128) and prompts."""
    ids, mask = tokens.inputs(prompts)
    queries = model.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(len(ids), QUERY_TOKENS, dtype=mask.dtype), mask], dim=1),
        query_embeds=model.query_tokens.expand(len(ids), -1, -1),
        encoder_hidden_states=features,
    ).last_hidden_state[:, :QUERY_TOKENS]
    words = model.get_input_embeddings()(ids)
    inputs = torch.cat([model.language_projection(queries), words], dim=1)
    mask = torch.cat([torch.ones(len(ids), QUERY_TOKENS, dtype=mask.dtype), mask], dim=1)
    loss: Tensor = model.language_model(inputs_embeds=inputs, attention_mask=mask, labels=tokens.labels(targets)).loss
    return loss


def text_loss(
    model: InstructBlipForConditionalGeneration,
    tokens: Tokens,
    contexts: list[str],
    prompts: list[str],
    targets: list[str],
) -> Tensor:
    """Cross-entropy of the answers with a dense caption in the place of the picture."""
    ids, mask = tokens.inputs([f"{context} . {prompt}" for context, prompt in zip(contexts, prompts, strict=True)])
    loss: Tensor = model.language_model(input_ids=ids, attention_mask=mask, labels=tokens.labels(targets)).loss
    return loss


def train_base(
    model: InstructBlipForConditionalGeneration, tokens: Tokens, pictures: Pictures, features: Tensor, run: StageRun
) -> None:
    """Stage ``base``: two batches of dense captions, then one of text-only instructions."""

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        rows = rng.integers(len(pictures.scenes), size=run.stage.batch_size)
        scenes = [pictures.scenes[row] for row in rows]
        captions = [describe(scene) for scene in scenes]
        if step % 3 < 2:
            return language_loss(model, tokens, features[rows].float(), [DENSE_PROMPT] * len(rows), captions)
        asked = [instruction(scene, rng) for scene in scenes]
        return text_loss(model, tokens, captions, [prompt for prompt, _ in asked], [answer for _, answer in asked])

    run.train({"bridge": bridge(model), "language_model": model.language_model}, loss)


def train_instruct(
    model: InstructBlipForConditionalGeneration, tokens: Tokens, pictures: Pictures, features: Tensor, run: StageRun
) -> None:
    """Stage ``instruct``: one batch of dense captions, then three of task 0's members, mixed."""
    model.language_model.requires_grad_(False)
    share = np.array([TASK0_SHARES.get(scene.domain, 0) for scene in pictures.scenes], dtype=float)

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        if step % 4 == 0:
            rows = rng.integers(len(pictures.scenes), size=run.stage.batch_size)
            asked = [(DENSE_PROMPT, describe(pictures.scenes[row])) for row in rows]
        else:
            rows = rng.choice(len(share), size=run.stage.batch_size, p=share / share.sum())
            asked = [instruction(pictures.scenes[row], rng) for row in rows]
        prompts, targets = [prompt for prompt, _ in asked], [target for _, target in asked]
        return language_loss(model, tokens, features[rows].float(), prompts, targets)

    run.train({"bridge": bridge(model)}, loss)


def bridge(model: InstructBlipForConditionalGeneration) -> nn.Module:
    """Return what joins the vision tower to the language model: query tokens, Q-Former and projection."""
    part = nn.Module()
    part.register_parameter("query_tokens", model.query_tokens)
    part.add_module("qformer", model.qformer)
    part.add_module("language_projection", model.language_projection)
    return part


@dataclass
class StageRun:
    """Runs one stage: AdamW, one-cycle schedule, clipping, a checkpoint every so many steps."""

    stage: Stage
    seed: int
    folder: Path
    save_every: int = 200

    @property
    def finished(self) -> Path:
        """The file that holds the weights once the stage is done."""
        return self.folder / f"{self.stage.name}.safetensors"

    def train(self, parts: dict[str, nn.Module], loss_of: Callable[[int, np.random.Generator], Tensor]) -> None:
        """Train the parts, or load them where an earlier run has finished or begun."""
        module = nn.ModuleDict(parts)
        if self.finished.exists():
            module.load_state_dict(load_file(self.finished))
            return
        module.train()
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
        start = self._load(module, optimizer)
        progress = tqdm(range(start, self.stage.steps), initial=start, total=self.stage.steps, desc=self.stage.name)
        recent: list[float] = []
        for step in progress:
            for group in optimizer.param_groups:
                group["lr"] = self.stage.learning_rate * one_cycle(step / self.stage.steps)
            # seeds differ per stage: its name's length is as good as any number
            loss = loss_of(step, np.random.default_rng((self.seed, len(self.stage.name), step)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            recent = [*recent[-49:], loss.item()]
            progress.set_postfix(loss=f"{np.mean(recent):.3f}", refresh=False)
            if (step + 1) % self.save_every == 0:
                self._save(module, optimizer, step + 1)
        _write(dict(_plain(module.state_dict().items())), self.finished)
        self._unfinished.unlink(missing_ok=True)

    @property
    def _unfinished(self) -> Path:
        return self.folder / f"{self.stage.name}.unfinished.safetensors"

    def _save(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        tensors = dict(_plain((f"weight.{name}", value) for name, value in module.state_dict().items()))
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        _write({**tensors, "step": torch.tensor(step)}, self._unfinished)

    def _load(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        if not self._unfinished.exists():
            return 0
        tensors = load_file(self._unfinished)
        module.load_state_dict({k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(tensors["step"])


def one_cycle(progress: float) -> float:
    """Linear warm-up over the first 8% of the steps, then a cosine down to 1% of the peak."""
    if progress < 0.08:
        return progress / 0.08
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.08) / 0.92))


def _plain(items: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """Detach and copy, so that tied weights may be written side by side."""
    return ((name, value.detach().clone().contiguous()) for name, value in items)


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".writing")
    save_file(tensors, unfinished)
    unfinished.replace(file)
