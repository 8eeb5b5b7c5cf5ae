"""The training loop: Avalanche's supervised template with its problem type and update type replaced.

Problem type: text generation (mini-batches of instructions, loss on answer tokens, mixed precision). Update type: one
Avalanche iteration is one optimizer step, see `AccumulatedUpdate`. Loading: see `InstructionLoading`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from avalanche_cit.benchmarks.batch import IGNORED
from avalanche_cit.benchmarks.questions import Questions
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.models.lmm import LMM
from avalanche_cit.processes import Processes, join_processes
from avalanche_cit.training.batches import explained_loading, whole_batches
from avalanche_cit.training.checkpointing import CheckpointPlugin, Place
from avalanche_cit.training.loading import InstructionLoading
from avalanche_cit.training.pending import PendingNumbers
from avalanche_cit.training.update import AccumulatedUpdate


class GenerationProblem:
    """Problem type: the x of a mini-batch is an `InstructionBatch`, the y the label tokens, the output logits."""

    def _unpack_minibatch(self: Any) -> None:
        self.mbatch = [part.to(self.device, non_blocking=True) for part in self.mbatch]

    def forward(self: Any) -> Tensor | None:
        """Return logits (B, V, L); None in evaluation without `eval_loss`."""
        if not self.is_training and not self.eval_loss:
            return None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = (self.parallel if self.is_training else self.model)(self.mb_x)
        return logits if logits.dtype == torch.float64 else logits.float()

    def criterion(self: Any) -> Tensor:
        """Return the loss of the mini-batch; NaN where evaluation does not compute it."""
        if self.mb_output is None:
            return torch.full((1,), float("nan"), device=self.device)
        loss: Tensor = self._criterion(self.mb_output, self.mb_y)
        return loss


class AnswerLoss(nn.CrossEntropyLoss):
    """Cross-entropy over answer tokens of logits (B, V, L), computed token by token as they lie in memory."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over all labels (B, L) that count."""
        return super().forward(logits.transpose(1, 2).flatten(0, 1), labels.flatten())


class InstructionTuning(GenerationProblem, AccumulatedUpdate, InstructionLoading, SupervisedTemplate):  # type: ignore[misc]
    """Base of all strategies: tunes an `LMM` on a stream of vision-language tasks.

    Args:
        model: The model.
        optimizer: Built over the model's trainable weights; None gives AdamW with `lr` and `weight_decay` (none on
            norms, biases and other vectors). Frozen weights are taken out of any optimizer.
        lr: Peak learning rate of the default optimizer.
        weight_decay: Of the default optimizer.
        criterion: Loss of logits (B, V, L) and labels (B, L); the default is cross-entropy over answer tokens.
        train_mb_size: Samples per optimizer step.
        micro_batch_size: Samples per forward pass, to save memory; None for all at once.
        train_epochs: Epochs per experience.
        eval_mb_size: Samples per batch of generation; None for `train_mb_size`.
        max_grad_norm: Gradients are clipped to this norm; None for no clipping.
        bf16: Run forward passes under bfloat16 autocast.
        compile: Backend of ``torch.compile``, such as ``inductor``, for the forward passes of training; None for none.
            The first steps take long then. Answers are generated without.
        group_by_length: Make training batches of samples of about the same length, as Hugging Face's trainer does, so
            that less is padded. Batches are less mixed for it.
        eval_loss: Also compute the loss in evaluation (about as dear as generating); without it loss metrics of
            evaluation read NaN.
        reset_optimizer: Start every experience with a fresh optimizer state, as separate runs of tuning would.
        seed: All that is drawn at random in an experience depends on (seed, experience) alone.
        device: Where to train.
        processes: Who trains and evaluates together; None for all that a launcher has started, see `join_processes`.
            Sizes of batches are those of all together.
        plugins, evaluator, eval_every, peval_mode: As in Avalanche.

    Attributes:
        in_training: Whether `train` is at work, which may evaluate too (Avalanche's `eval_every`).
        in_epochs: Whether an experience has been begun and its epochs have not ended.
        continue_at: Where the next training goes on, if a checkpoint that stopped inside an experience was loaded.
        questions: What the experience that is evaluated asks, and in which order its samples come.

    Raises:
        UserError: A size or rate is out of its range, there is no such backend, or lengths are to be grouped where
            batches come from a replay; in `train` or `eval`, if there are several processes and a plugin is not proved
            to be right there.

    Example:
        >>> strategy = SeqFT(model=LMM.from_pretrained("tiny-base"), train_epochs=3)
        >>> for experience in benchmark.train_stream:
        ...     strategy.train(experience)
        ...     strategy.eval(benchmark.test_stream)
    """

    def __init__(
        self,
        *,
        model: LMM,
        optimizer: torch.optim.Optimizer | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        criterion: Any = None,
        train_mb_size: int = 64,
        micro_batch_size: int | None = None,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        max_grad_norm: float | None = 1.0,
        bf16: bool = False,
        compile: str | None = None,
        group_by_length: bool = False,
        eval_loss: bool = True,
        reset_optimizer: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        processes: Processes | None = None,
        plugins: Sequence[SupervisedPlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = None,
        eval_every: int = -1,
        peval_mode: str = "epoch",
        **kwargs: Any,
    ) -> None:
        for name, number in (("train_mb_size", train_mb_size), ("train_epochs", train_epochs), ("lr", lr)):
            if number <= 0:
                raise UserError(f"{name} is {number}: it must be above 0")
        if micro_batch_size is not None and micro_batch_size <= 0:
            raise UserError(f"micro_batch_size is {micro_batch_size}: it must be above 0")
        if group_by_length and any(isinstance(plugin, ReplayPlugin) for plugin in plugins or ()):
            raise UserError("group_by_length does not go with replay, which mixes its batches in a way of its own")
        self.micro_batch_size = micro_batch_size
        self.max_grad_norm = max_grad_norm
        self.bf16 = bf16
        self.compile = compile
        self.group_by_length = group_by_length
        self.eval_loss = eval_loss
        self.reset_optimizer = reset_optimizer
        self.seed = seed
        self.in_training = False
        self.in_epochs = False
        self.continue_at: Place | None = None
        self.pending = PendingNumbers()
        self.processes = join_processes(device=device) if processes is None else processes
        self.parallel: nn.Module = model
        self.step_samples = self.step_tokens = 0
        self.questions = Questions([], [])
        self._questions_of: dict[int, tuple[Any, Questions]] = {}
        model.to(device)
        if compile is not None:
            if compile not in torch.compiler.list_backends(exclude_tags=()):
                raise unknown_name("backend of torch.compile", compile, torch.compiler.list_backends(exclude_tags=()))
            if self.processes.count > 1:
                raise UserError("compile is not proved to be right in several processes: leave it away")
            model.hf.compile(backend=compile)
        super().__init__(
            model=model,
            optimizer=adamw(model, lr, weight_decay) if optimizer is None else optimizer,
            criterion=AnswerLoss(ignore_index=IGNORED) if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=plugins,
            evaluator=evaluator,
            eval_every=eval_every,
            peval_mode=peval_mode,
            **kwargs,
        )
        # behind all others, the clock too: it saves what they made of a step
        self.plugins.sort(key=lambda plugin: isinstance(plugin, CheckpointPlugin))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as Avalanche's strategies do."""
        self.in_training = True
        try:
            return super().train(*args, **kwargs)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())
            raise UserError(f"torch.compile fails here, leave compile away ({reason[:300]})") from error
        finally:
            self.in_training = False
            self.pending.clear()

    def eval(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as Avalanche's strategies do; what training has logged by then comes before."""
        self.catch_up()
        with nullcontext() if self.compile is None else torch.compiler.set_stance("force_eager"):
            return super().eval(*args, **kwargs)

    def _check_distributed_training_compatibility(self) -> bool:
        """Refuse what is not proved, where Avalanche warns.

        Raises:
            UserError: There are several processes, and a plugin does not say that it supports them.
        """
        for plugin in self.plugins if self.processes.count > 1 else ():
            if not plugin.supports_distributed:
                raise UserError(
                    f"{type(plugin).__name__} is not proved to be right in several processes, so it is refused: start "
                    "a single one"
                )
        return True

    def _before_training_exp(self, **kwargs: Any) -> None:
        number = self.experience.current_experience
        if self.continue_at is not None and self.continue_at.experience != number:
            raise UserError(
                f"the checkpoint that was loaded stops inside experience {self.continue_at.experience}, and experience "
                f"{number} is to be trained: go on with the former"
            )
        self._set_seeds()
        super()._before_training_exp(**kwargs)

    def _set_seeds(self, *further: int) -> None:
        seeds = (self.seed, self.experience.current_experience, *further)
        RNGManager.set_random_seeds(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        """Train for all epochs, or for those that are left where a checkpoint stopped inside."""
        place, self.continue_at = self.continue_at, None
        first = 0 if place is None else place.epoch
        self.in_epochs = True
        self.dataloader: Any = whole_batches(self.dataloader)
        if not self.processes.is_main:
            self._set_seeds(0, self.processes.rank)  # dropout differs; what plugins draw between epochs does not
        for epoch in range(first, self.train_epochs):
            self._before_training_epoch(**kwargs)
            if self._stop_training:
                self._stop_training: bool = False
                break
            if place is not None and epoch == first:
                place.enter()
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)
        self.in_epochs = False
        self._set_seeds(1)

    def training_epoch(self, **kwargs: Any) -> None:
        """Train on every mini-batch that is left of the epoch, see `AccumulatedUpdate`."""
        with explained_loading():
            super().training_epoch(**kwargs)

    def eval_epoch(self, **kwargs: Any) -> None:
        """Evaluate every mini-batch of the experience."""
        with explained_loading():
            super().eval_epoch(**kwargs)

    def check_model_and_optimizer(self, reset_optimizer_state: bool | None = None, **kwargs: Any) -> None:
        """Adapt the model to the experience, then the optimizer to the model."""
        reset = self.reset_optimizer if reset_optimizer_state is None else reset_optimizer_state
        self.model = self.model_adaptation()
        self.make_optimizer(reset_optimizer_state=reset)

    def make_optimizer(self, reset_optimizer_state: bool = False, **kwargs: Any) -> None:
        """Make the optimizer hold exactly the trainable weights.

        Weights that an adaptation added join the group that decays or the one that does not, where the optimizer
        has these two; otherwise its first group.
        """
        weights = {weight for weight in self.model.parameters() if weight.requires_grad}
        groups = self.optimizer.param_groups
        for group in groups:
            group["params"] = [weight for weight in group["params"] if weight in weights]
        new = weights - {weight for group in groups for weight in group["params"]}
        ordered = [weight for weight in self.model.parameters() if weight in new]
        decays = [group.get("weight_decay", 0) > 0 for group in groups]
        vectors = groups[1] if decays == [True, False] else groups[0]
        for weight in ordered:
            (vectors if weight.ndim < 2 else groups[0])["params"].append(weight)
        kept = {} if reset_optimizer_state else dict(self.optimizer.state)
        self.optimizer.state.clear()
        self.optimizer.state.update({weight: state for weight, state in kept.items() if weight in weights})
        self.parallel = self.processes.parallel(self.model)

    def _optimized_weights(self) -> list[nn.Parameter]:
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]


def adamw(model: LMM, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW over the trainable weights in two groups: matrices decay, norms and biases do not.

    A step is one fused kernel; on a GPU its counters stay there too.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
