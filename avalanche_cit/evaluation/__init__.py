"""Scores of generated text, and the forgetting matrix."""

from typing import TYPE_CHECKING, Any

from avalanche_cit.evaluation.matrix import summarize
from avalanche_cit.evaluation.matrix_file import MatrixFile

if TYPE_CHECKING:
    from avalanche_cit.evaluation.text_score import ForgettingMatrix

__all__ = ["ForgettingMatrix", "MatrixFile", "summarize"]


def __getattr__(name: str) -> Any:
    """Import the metric only when it is asked for: it needs Avalanche and torch, reading a matrix does not."""
    if name == "ForgettingMatrix":
        from avalanche_cit.evaluation.text_score import ForgettingMatrix

        return ForgettingMatrix
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
