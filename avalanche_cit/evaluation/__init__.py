"""Scores of generated text, and the forgetting matrix."""

from avalanche_cit.evaluation.matrix import summarize
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.text_score import ForgettingMatrix

__all__ = ["ForgettingMatrix", "MatrixFile", "summarize"]
