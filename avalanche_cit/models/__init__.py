"""Large multimodal models as Avalanche models."""

from avalanche_cit.models.families import FAMILIES, Family
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.models.lmm import LMM

__all__ = ["FAMILIES", "LMM", "Family", "VisionFeatures"]
