"""Checkpoints of a strategy: killed anywhere, it goes on from the last one, bit for bit.

The functions have the names of Avalanche's. Theirs pickle the strategy; these write JSON and safetensors only, and hold
what training changes: the trainable weights, the optimizer, the random states, the place in the data, and the state of
every plugin, metric and logger that offers one (see `Resumable`). There is no scaler to save: mixed precision is
bfloat16's, which needs none. What an evaluation leaves lies apart, so that an evaluated cell costs a small file.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_cit.errors import UserError
from avalanche_cit.training.checkpoint_file import Checkpoint, CheckpointFolder
from avalanche_cit.training.interruption import StopRequest
from avalanche_cit.training.randomness import random_state, set_random_state
from avalanche_cit.training.resumable import Resumable, resumable_parts

if TYPE_CHECKING:
    from avalanche_cit.training.templates import InstructionTuning


@dataclass(frozen=True)
class Place:
    """A place inside an experience, from which its training goes on.

    Attributes:
        experience: Number of the experience.
        epoch: Number of the epoch in it.
        enter: Brings the strategy to that place, once the epoch has been begun as at its beginning.
    """

    experience: int
    epoch: int
    enter: Callable[[], None]


def save_checkpoint(strategy: InstructionTuning, folder: str | Path) -> None:
    """Save all that a strategy needs to go on from here.

    To be called between experiences; `CheckpointPlugin` saves inside them too. Plugins and metrics that hold a state
    and offer none are named in a warning.

    Args:
        strategy: The strategy.
        folder: Where its checkpoints are, and of no other strategy.

    Raises:
        UserError: A loss or a weight is NaN or infinite, the disk is full, or the folder cannot be written; what was
            saved before is left as it was.

    Example:
        >>> strategy, trained = maybe_load_checkpoint(strategy, "checkpoints")
        >>> for experience in benchmark.train_stream[trained:]:
        ...     strategy.train(experience)
        ...     strategy.eval(benchmark.test_stream)
        ...     save_checkpoint(strategy, "checkpoints")
    """
    if strategy.continue_at is not None:  # nothing has been trained since it was loaded
        return
    strategy.catch_up()
    _refuse_lost_weights(strategy)
    plugins, metrics, lost = _parts(strategy)
    if lost:
        names = ", ".join(dict.fromkeys(lost))
        warnings.warn(
            f"a resumed run will lose what {names} hold: they lack state_dict and load_state_dict", stacklevel=2
        )
    training = _training_state(strategy, plugins)
    if strategy.processes.is_main:
        CheckpointFolder(Path(folder)).write(training, _states(metrics))


def maybe_load_checkpoint(strategy: InstructionTuning, folder: str | Path) -> tuple[InstructionTuning, int]:
    """Bring a strategy to where its last checkpoint was saved, if there is one.

    Args:
        strategy: Made by the same arguments as the one that was saved, over the same start model.
        folder: Where its checkpoints are.

    Returns:
        The strategy, and how many experiences it has been trained on. Where the checkpoint was saved inside an
        experience, training on that one (the next) goes on in the middle of it.

    Raises:
        UserError: No checkpoint is whole, or it is that of another strategy or model.

    Example:
        See `save_checkpoint`.
    """
    checkpoint = CheckpointFolder(Path(folder)).read()
    if checkpoint is None:
        return strategy, 0
    _load(strategy, checkpoint)
    with _state_of("the place in the data", checkpoint.path):
        inside = checkpoint.training["inside"]
        if inside is not None:
            strategy.continue_at = Place(inside["experience"], inside["epoch"], lambda: _load(strategy, checkpoint))
    return strategy, strategy.clock.train_exp_counter


class CheckpointPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg,misc]
    """Saves checkpoints: while training, after each experience, and after each evaluated one.

    Args:
        folder: Where to; see `save_checkpoint`.
        every_steps: Save after so many optimizer steps; None: not by steps.
        every_minutes: Save when so many minutes have gone by since the last time; None: not by time.
        stop: Asks to end the training after the step at hand, see `StopRequest`.

    Raises:
        UserError: An interval is not above 0.

    Example:
        >>> strategy = Replay(model=model, memory_size=100, plugins=[CheckpointPlugin("checkpoints")])
        >>> strategy, trained = maybe_load_checkpoint(strategy, "checkpoints")
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = 5.0,
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__()
        for name, interval in (("every_steps", every_steps), ("every_minutes", every_minutes)):
            if interval is not None and interval <= 0:
                raise UserError(f"{name} is {interval}: it must be above 0")
        self.folder = Path(folder)
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.stop = stop or StopRequest()
        self._saved_at = time.monotonic()

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """From here on, whoever wants the training to end waits for the end of a step."""
        self.stop.waits = True

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Save where it is time to."""
        steps, minutes = self.every_steps, self.every_minutes
        due = steps is not None and strategy.clock.train_exp_iterations % steps == 0
        due |= minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        due, asked = strategy.processes.total(due, self.stop.requested is not None)
        if asked and self.stop.requested is None:  # but another process has been
            self.stop.requested = signal.SIGTERM
        if due or asked:
            self._save(strategy)
        self.stop.check()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """No step is at hand any longer."""
        self.stop.waits = False
        self.stop.check()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Save what was learned of the experience."""
        self._save(strategy)

    def after_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Save an evaluated cell; the last of a stream is saved with the stream's own numbers."""
        if strategy.experience is not list(strategy.current_eval_stream)[-1]:
            self._save_evaluation(strategy)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Save an evaluated stream."""
        self._save_evaluation(strategy)

    def _save(self, strategy: InstructionTuning) -> None:
        save_checkpoint(strategy, self.folder)
        self._saved_at = time.monotonic()

    def _save_evaluation(self, strategy: InstructionTuning) -> None:
        if strategy.in_training:  # done again, with the training from the last step that was saved
            return
        folder = CheckpointFolder(self.folder)
        if strategy.processes.of_main(folder.newest is None):
            save_checkpoint(strategy, self.folder)
        elif strategy.processes.is_main:
            folder.write_evaluation(_states(_parts(strategy)[1]))


def _refuse_lost_weights(strategy: InstructionTuning) -> None:
    """Refuse to save weights that a step has made NaN or infinite, which its loss does not show yet."""
    for name, weight in strategy.model.trainable_state().items():
        if not weight.isfinite().all():
            raise UserError(
                f"after {strategy.clock.train_iterations} optimizer steps the weight '{name}' is NaN or infinite; "
                "lower the learning rate or a penalty's lambda"
            )


def _parts(strategy: InstructionTuning) -> tuple[dict[str, Resumable], dict[str, Resumable], list[str]]:
    """The plugins and the metrics that take part, and the names of all that would have to."""
    plugins = [plugin for plugin in strategy.plugins if not isinstance(plugin, CheckpointPlugin)]
    taking, lost = resumable_parts(plugins)
    metrics, lost_too = resumable_parts([*strategy.evaluator.metrics, *strategy.evaluator.loggers])
    return taking, metrics, [*lost, *lost_too]


def _states(parts: Mapping[str, Resumable]) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in parts.items()}


def _training_state(strategy: InstructionTuning, plugins: Mapping[str, Resumable]) -> dict[str, Any]:
    inside = None
    if strategy.in_epochs:
        inside = {"experience": strategy.experience.current_experience, "epoch": strategy.clock.train_exp_epochs}
    return {
        "strategy": type(strategy).__name__,
        "inside": inside,
        "micro_batch_size": strategy.micro_batch_size,
        "weights": strategy.model.trainable_state(),
        "optimizer": _optimizer_state(strategy),
        "random": strategy.processes.gathered(random_state()),
        "plugins": _states(plugins),
    }


def _load(strategy: InstructionTuning, checkpoint: Checkpoint) -> None:
    state, path = checkpoint.training, checkpoint.path
    with _state_of("the strategy", path):
        if state["strategy"] != type(strategy).__name__:
            raise UserError(f"{path} is of strategy {state['strategy']}, not of {type(strategy).__name__}")
        plugins, metrics, _ = _parts(strategy)
        evaluation = checkpoint.evaluation
        if not strategy.processes.is_main:  # the loggers are the main process's
            evaluation = {name: own for name, own in evaluation.items() if name in metrics}
        for parts, states in ((plugins, state["plugins"]), (metrics, evaluation)):
            if list(parts) != list(states):
                raise UserError(
                    f"{path} holds the states of {', '.join(states) or 'nothing'}, and this strategy has "
                    f"{', '.join(parts) or 'nothing'}: give it the plugins, metrics and loggers that it had, in their "
                    "order"
                )
        strategy.micro_batch_size = state["micro_batch_size"]
    for name, part in plugins.items():
        with _state_of(name, path):
            part.load_state_dict(state["plugins"][name])
    for name, part in metrics.items():
        with _state_of(name, path):
            part.load_state_dict(evaluation[name])
    with _state_of("the weights", path):
        _load_weights(strategy, state["weights"], path)
    with _state_of("the optimizer", path):
        _load_optimizer(strategy, state["optimizer"], path)
    with _state_of("the random generators", path):
        set_random_state(state["random"][strategy.processes.rank])


@contextmanager
def _state_of(part: str, path: Path) -> Iterator[None]:
    """Name the file and the part where a state has another form than the part saves now."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path}: the state of {part} cannot be taken over ({reason}); it may be of another version or setup: "
            f"delete {path.parent} to begin anew"
        ) from error


@torch.no_grad()
def _load_weights(strategy: InstructionTuning, weights: Mapping[str, Tensor], path: Path) -> None:
    own = strategy.model.trainable_state()
    for name, weight in weights.items():
        if name not in own or (own[name].shape, own[name].dtype) != (weight.shape, weight.dtype):
            kind = f"{tuple(weight.shape)} and {weight.dtype}"
            raise UserError(f"{path}: this model has no trainable weight '{name}' of shape {kind}")
        own[name].copy_(weight)
    for name in own:
        if name not in weights:
            raise UserError(f"{path}: holds no weight '{name}', which is trainable in this model")


def _optimizer_state(strategy: InstructionTuning) -> dict[str, Any]:
    """The optimizer's state by the names of weights, which outlive the process as numbers do not."""
    names = {weight: name for name, weight in strategy.model.named_parameters()}
    return {
        "groups": [
            {**group, "params": [names[weight] for weight in group["params"]]}
            for group in strategy.optimizer.param_groups
        ],
        "state": {names[weight]: dict(state) for weight, state in strategy.optimizer.state.items()},
    }


def _load_optimizer(strategy: InstructionTuning, state: Mapping[str, Any], path: Path) -> None:
    optimizer, weights = strategy.optimizer, dict(strategy.model.named_parameters())
    if len(state["groups"]) != len(optimizer.param_groups):
        raise UserError(f"{path}: was saved with another optimizer, of {len(state['groups'])} groups of weights")
    numbers = {name: i for i, name in enumerate(name for group in state["groups"] for name in group["params"])}
    groups = []
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        group["params"] = [weights[name] for name in saved["params"]]
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        groups.append(options | {"params": [numbers[name] for name in saved["params"]]})
    optimizer.load_state_dict(
        {"param_groups": groups, "state": {numbers[name]: own for name, own in state["state"].items()}}
    )
