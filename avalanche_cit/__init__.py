"""Continual instruction tuning of large multimodal models, as an extension of Avalanche."""

__version__ = "0.1.0"
