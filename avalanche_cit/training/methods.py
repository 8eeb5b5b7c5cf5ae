"""The methods against forgetting, each as a strategy: sequential tuning with one plugin more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin

from avalanche_cit.benchmarks.scenario import task_name
from avalanche_cit.errors import UserError
from avalanche_cit.models.expandable_projection import EncodeText
from avalanche_cit.models.lmm import LMM
from avalanche_cit.similarity.encoders import TokenEmbedding, VisionTower
from avalanche_cit.similarity.seen_tasks import SeenTasks
from avalanche_cit.training.plugins.agem import AGEMPlugin
from avalanche_cit.training.plugins.balanced_memory import BalancedMemory, MemoryPlugin
from avalanche_cit.training.plugins.eproj import EProjPlugin
from avalanche_cit.training.plugins.importance import EWCImportance, Importance, MASImportance
from avalanche_cit.training.plugins.lwf import LwFPlugin
from avalanche_cit.training.plugins.regularization import RegularizationPlugin
from avalanche_cit.training.plugins.similarity_replay import MemorySharingPlugin, SharedMemory
from avalanche_cit.training.strategies import SeqFT


class Replay(SeqFT):
    """Replay of stored samples by Avalanche's own `ReplayPlugin`, unmodified (group).

    A memory of fixed size is shared out evenly among the tasks seen; from the second task on, every batch of
    `train_mb_size` new samples is joined by `memory_batch_size` samples of the memory.

    Args:
        memory_size: Samples in the memory, for the whole stream; see `memory_size_of`.
        memory_batch_size: Memory samples per batch; None for a quarter of `train_mb_size`.
        task0: Experiences whose samples are in the memory before the sequence starts.
        kwargs: See `SeqFT`.

    Raises:
        UserError: The memory holds nothing.

    Example:
        >>> Replay(model=model, memory_size=memory_size_of(benchmark.train_stream, 0.01))
    """

    def __init__(
        self,
        *,
        model: LMM,
        memory_size: int,
        memory_batch_size: int | None = None,
        task0: Sequence[Any] = (),
        train_mb_size: int = 64,
        seed: int = 0,
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        if memory_size < max(1, len(task0)):
            raise UserError(
                f"memory_size is {memory_size}: a replay memory holds at least one sample"
                + (f" of each of the {len(task0)} members of task 0" if task0 else "")
            )
        self.memory = self._make_memory(memory_size)
        self.memory.hold(task0, model.collator, seed)
        replay = ReplayPlugin(
            mem_size=memory_size,
            batch_size_mem=max(1, train_mb_size // 4) if memory_batch_size is None else memory_batch_size,
            storage_policy=self.memory,
        )
        # first, so that the draws of its memory come before those of other plugins' passes over the data
        own = [MemoryPlugin(self.memory), replay]
        super().__init__(
            model=model, train_mb_size=train_mb_size, seed=seed, plugins=[*own, *(plugins or [])], **kwargs
        )

    def _make_memory(self, size: int) -> BalancedMemory:
        return BalancedMemory(size)


class SimilarityReplay(Replay):
    """Replay of dissimilar tasks more than of similar ones, out of a memory of the same size (ours).

    Args:
        model: The model.
        seen_tasks: Tells the similarity of tasks; None compares by the model's own frozen parts.
        kwargs: See `Replay`.

    Example:
        >>> SimilarityReplay(model=model, memory_size=memory_size_of(benchmark.train_stream, 0.01))
    """

    def __init__(self, *, model: LMM, seen_tasks: SeenTasks | None = None, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        assert isinstance(self.memory, SharedMemory)
        self.plugins.insert(1, MemorySharingPlugin(self.memory, seen_tasks or _by_own_parts(model)))

    def _make_memory(self, size: int) -> BalancedMemory:
        return SharedMemory(size)


class Regularized(SeqFT):
    """A penalty on changes of weights that matter to earlier tasks, of any kind (see `RegularizationPlugin`).

    Args:
        importance: How importance is estimated.
        lambda_: Weight of the penalty.
        merge, normalised, weighting, rescale, seen_tasks, task0: See `RegularizationPlugin`.
        kwargs: See `SeqFT`.
    """

    def __init__(
        self,
        *,
        importance: Importance,
        lambda_: float,
        merge: str = "sum",
        normalised: bool = False,
        weighting: str | None = None,
        rescale: bool = False,
        seen_tasks: SeenTasks | None = None,
        task0: Sequence[Any] = (),
        seed: int = 0,
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        regularization = RegularizationPlugin(
            importance,
            lambda_,
            merge=merge,
            normalised=normalised,
            weighting=weighting,
            rescale=rescale,
            seen_tasks=seen_tasks,
            task0=task0,
            seed=seed,
        )
        super().__init__(seed=seed, plugins=[*(plugins or []), regularization], **kwargs)


class EWC(Regularized):
    """Elastic weight consolidation (std; Kirkpatrick et al. 2017), with one anchor for all tasks (online EWC).

    Args:
        lambda_: Weight of the penalty; twice that of Avalanche's own EWC.
        per_sample: Estimate the Fisher information per sample (slow) or per batch.
        importance_samples: Training samples per task to estimate it from; None for all.
        kwargs: See `Regularized` and `SeqFT`; ``merge="max", normalised=True`` is TIR's comparator ``ewc_max``.

    Example:
        >>> EWC(model=model, lambda_=100.0)
    """

    def __init__(
        self, *, lambda_: float, per_sample: bool = False, importance_samples: int | None = None, **kwargs: Any
    ) -> None:
        importance = EWCImportance(per_sample=per_sample, samples=importance_samples)
        super().__init__(importance=importance, lambda_=lambda_, **kwargs)


class MAS(Regularized):
    """Memory-aware synapses (std; Aljundi et al. 2018), on the logits of the answer.

    Args:
        lambda_: Weight of the penalty.
        per_sample: Estimate the sensitivity per sample (slow) or per batch.
        importance_samples: Training samples per task to estimate it from; None for all.
        kwargs: See `Regularized` and `SeqFT`; ``merge="max", normalised=True`` is TIR's comparator ``mas_max``.

    Example:
        >>> MAS(model=model, lambda_=10.0)
    """

    def __init__(
        self, *, lambda_: float, per_sample: bool = False, importance_samples: int | None = None, **kwargs: Any
    ) -> None:
        importance = MASImportance(per_sample=per_sample, samples=importance_samples)
        super().__init__(importance=importance, lambda_=lambda_, **kwargs)


class TIR(Regularized):
    """Task-similarity-informed regularization (paper; this form: group), over EWC or MAS.

    Args:
        model: The model.
        lambda_: Weight of the penalty; importances sum to 1 per task, so 10^3 to 10^8.
        importance: `EWCImportance` (the default) or `MASImportance`.
        weighting: ``"dissimilarity"`` is TIR; the others are its controls.
        seen_tasks: Tells the similarity of tasks; None compares by the model's own frozen parts.
        kwargs: See `Regularized` and `SeqFT`.

    Example:
        >>> TIR(model=model, lambda_=1e5, importance=MASImportance())
    """

    def __init__(
        self,
        *,
        model: LMM,
        lambda_: float,
        importance: Importance | None = None,
        weighting: str = "dissimilarity",
        seen_tasks: SeenTasks | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=model,
            importance=importance or EWCImportance(),
            lambda_=lambda_,
            merge="max",
            normalised=True,
            weighting=weighting,
            seen_tasks=seen_tasks or _by_own_parts(model),
            **kwargs,
        )


class LwF(SeqFT):
    """Learning without forgetting (std; Li and Hoiem 2016; this form: group): the old model teaches the new one.

    Args:
        lambda_: Weight of the distillation.
        temperature: Softens both distributions.
        from_start: The start model has learned something (task 0), so it teaches from the first task on.
        kwargs: See `SeqFT`.
    """

    def __init__(
        self,
        *,
        lambda_: float,
        temperature: float = 1.0,
        from_start: bool = False,
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        lwf = LwFPlugin(lambda_, temperature=temperature, from_start=from_start)
        super().__init__(plugins=[*(plugins or []), lwf], **kwargs)


class AGEM(SeqFT):
    """Averaged gradient episodic memory (std; Chaudhry et al. 2019): no step that raises the loss on the memory.

    Args:
        memory_size: Samples in the memory, for the whole stream; see `memory_size_of`.
        sample_size: Memory samples per reference gradient; None for `train_mb_size`.
        task0: Experiences whose samples are in the memory before the sequence starts.
        kwargs: See `SeqFT`.
    """

    def __init__(
        self,
        *,
        memory_size: int,
        sample_size: int | None = None,
        task0: Sequence[Any] = (),
        seed: int = 0,
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        agem = AGEMPlugin(memory_size, sample_size=sample_size, task0=task0, seed=seed)
        # first, so that its reference gradient is gone before other plugins look at gradients
        super().__init__(seed=seed, plugins=[agem, *(plugins or [])], **kwargs)


class EProj(SeqFT):
    """Expandable projection (paper; this form: group): a projection per task, found again without a task id.

    Args:
        model: A model loaded with ``trainable="projection"``.
        threshold: Similarity from which on an earlier task's projection is trained further; None: a new one for
            every task (``eproj_expand``).
        encode_text: Turns instructions into queries; None takes the model's own frozen text embedding.
        seen_tasks: Tells the similarity of tasks; None compares by the model's own frozen parts.
        task0: Experiences that count as learned by the original projection.
        kwargs: See `SeqFT`.

    Example:
        >>> EProj(model=LMM.from_pretrained("tiny-base", trainable="projection"), threshold=0.5)
    """

    def __init__(
        self,
        *,
        model: LMM,
        threshold: float | None = None,
        encode_text: EncodeText | None = None,
        seen_tasks: SeenTasks | None = None,
        task0: Sequence[Any] = (),
        plugins: Sequence[SupervisedPlugin] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, plugins=plugins, **kwargs)
        encode_text = encode_text or TokenEmbedding(model)
        if threshold is not None and seen_tasks is None:
            seen_tasks = _by_own_parts(model)
        # after the optimizer is built over the projection that becomes the first expert
        self.eproj = EProjPlugin(model, encode_text, threshold=threshold, seen_tasks=seen_tasks, task0=task0)
        self.plugins.insert(0, self.eproj)


def _by_own_parts(model: LMM) -> SeenTasks:
    return SeenTasks(VisionTower(model), TokenEmbedding(model))


def memory_size_of(train_stream: Any, fraction: float) -> int:
    """Return the size of a memory that holds a fraction of all training samples of a stream, at least one.

    Raises:
        UserError: The fraction is not above 0 and at most 1, or a task has fewer samples than its even share.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"the memory fraction is {fraction}: it must be above 0 and at most 1")
    lengths = {str(task_name(experience.dataset)): len(experience.dataset) for experience in train_stream}
    size = max(1, round(fraction * sum(lengths.values())))
    share = size // len(lengths)
    for name, length in lengths.items():
        if length < share:
            raise UserError(
                f"task '{name}' has {length} training samples, fewer than its share of the memory, {share} "
                f"({fraction:g} of all samples, shared out among {len(lengths)} tasks): lower the memory fraction"
            )
    return size
