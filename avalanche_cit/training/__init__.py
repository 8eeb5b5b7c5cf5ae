"""Strategies and plugins that tune a large multimodal model on a stream of tasks."""

from avalanche_cit.training.checkpointing import CheckpointPlugin, maybe_load_checkpoint, save_checkpoint
from avalanche_cit.training.methods import (
    AGEM,
    EWC,
    MAS,
    TIR,
    EProj,
    LwF,
    Regularized,
    Replay,
    SimilarityReplay,
    memory_size_of,
)
from avalanche_cit.training.plugins.agem import AGEMPlugin
from avalanche_cit.training.plugins.eproj import EProjPlugin
from avalanche_cit.training.plugins.importance import EWCImportance, MASImportance
from avalanche_cit.training.plugins.lwf import LwFPlugin
from avalanche_cit.training.plugins.regularization import RegularizationPlugin
from avalanche_cit.training.plugins.warmup_cosine import WarmupCosinePlugin
from avalanche_cit.training.strategies import DirectFT, JointFT, SeqFT
from avalanche_cit.training.templates import InstructionTuning

__all__ = [
    "AGEM",
    "EWC",
    "MAS",
    "TIR",
    "AGEMPlugin",
    "CheckpointPlugin",
    "DirectFT",
    "EProj",
    "EProjPlugin",
    "EWCImportance",
    "InstructionTuning",
    "JointFT",
    "LwF",
    "LwFPlugin",
    "MASImportance",
    "RegularizationPlugin",
    "Regularized",
    "Replay",
    "SeqFT",
    "SimilarityReplay",
    "WarmupCosinePlugin",
    "maybe_load_checkpoint",
    "memory_size_of",
    "save_checkpoint",
]
