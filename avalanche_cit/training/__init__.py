"""Strategies and plugins that tune a large multimodal model on a stream of tasks."""

from avalanche_cit.training.plugins.warmup_cosine import WarmupCosinePlugin
from avalanche_cit.training.strategies import DirectFT, JointFT, Replay, SeqFT, memory_size_of
from avalanche_cit.training.templates import InstructionTuning

__all__ = ["DirectFT", "InstructionTuning", "JointFT", "Replay", "SeqFT", "WarmupCosinePlugin", "memory_size_of"]
