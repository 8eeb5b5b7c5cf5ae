"""The loops that a user would run instead of ours: a bare one, Hugging Face's Trainer, Avalanche's own Naive."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks import CLScenario
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin
from benchmark_plugins import SilentLogger
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments, get_cosine_schedule_with_warmup

from avalanche_cit.benchmarks.task import Task
from avalanche_cit.models.lmm import LMM

from .job import Job, Samples, stock_inputs

BETAS = (0.9, 0.98)


def bare_loop(job: Job, model: LMM, task: Task) -> None:
    """Tune the stock model on a task: collated batches, forward, loss, backward, clipping, AdamW, cosine."""
    pin = job.device.type == "cuda"
    loader = DataLoader(Samples(task), job.batch_size, shuffle=True, collate_fn=model.collator, pin_memory=pin)
    optimizer = torch.optim.AdamW(job.groups(model), lr=job.lr, betas=BETAS, fused=True)
    schedule = _cosine(job, optimizer, task)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    model.train()
    for _ in range(job.epochs):
        for batch, _, _ in loader:
            loss = model.hf(**stock_inputs(model, batch.to(job.device, non_blocking=True))).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, job.max_grad_norm)
            optimizer.step()
            schedule.step()


def trainer_loop(job: Job, model: LMM) -> None:
    """Tune the stock model task after task with Hugging Face's Trainer, which reports and saves nothing."""

    def collate(samples: Sequence[Any]) -> dict[str, Any]:
        return stock_inputs(model, model.collator(samples)[0])

    for task in job.tasks:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=job.batch_size,
                num_train_epochs=job.epochs,
                learning_rate=job.lr,
                adam_beta2=BETAS[1],
                weight_decay=job.weight_decay,
                max_grad_norm=job.max_grad_norm,
                lr_scheduler_type="cosine",
                warmup_steps=job.warmup,  # a share, if below 1
                use_cpu=job.device.type == "cpu",
                dataloader_pin_memory=job.device.type == "cuda",
                remove_unused_columns=False,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            trainer = Trainer(model.hf, arguments, data_collator=collate, train_dataset=Samples(task))
            trainer.remove_callback(PrinterCallback)
            trainer.train()


class _Clip(SupervisedPlugin):  # type: ignore[misc]
    """Clips gradients, which Avalanche has no plugin for."""

    def __init__(self, weights: Sequence[nn.Parameter], norm: float) -> None:
        super().__init__()
        self.weights = weights
        self.norm = norm

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """Clip."""
        nn.utils.clip_grad_norm_(self.weights, self.norm)


def stock_naive(job: Job, model: LMM) -> Naive:
    """Return Avalanche's own strategy for the same work; tune with `naive_loop`.

    It puts frozen weights into the optimizer too, which it can do with a single group only; so vectors decay with the
    matrices.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=job.lr, betas=BETAS, weight_decay=job.weight_decay)
    schedule = LRSchedulerPlugin(_cosine(job, optimizer, job.tasks[0]), step_granularity="iteration")
    return Naive(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(ignore_index=-100),
        train_mb_size=job.batch_size,
        train_epochs=job.epochs,
        device=job.device,
        plugins=[_Clip(weights, job.max_grad_norm), schedule],
        evaluator=EvaluationPlugin(loggers=[SilentLogger()]),
    )


def naive_loop(strategy: Naive, benchmark: CLScenario) -> None:
    """Tune task after task with a `stock_naive`, which has to be told how batches are made."""
    for experience in benchmark.train_stream:
        experience.dataset.collate_fn = strategy.model.collator
        strategy.train(experience)


def _cosine(job: Job, optimizer: torch.optim.Optimizer, task: Task) -> torch.optim.lr_scheduler.LambdaLR:
    updates = job.epochs * math.ceil(len(task.train) / job.batch_size)
    return get_cosine_schedule_with_warmup(optimizer, math.ceil(job.warmup * updates), updates)
