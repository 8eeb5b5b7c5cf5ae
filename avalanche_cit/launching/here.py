"""Runs one after another in this process, with their progress bars on the terminal."""

from __future__ import annotations

import torch

from avalanche_cit.errors import UserError
from avalanche_cit.launching.worker import Assignment, Ended
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.runner import run


class InThisProcess:
    """Workers that are this process itself. A defect ends it, with its traceback.

    Attributes:
        threads: CPU threads of a run that has no number of its own.
    """

    elsewhere = False

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self._features = VisionFeatures()
        self._assignment: Assignment | None = None

    @property
    def free(self) -> bool:
        """Whether a run can be started."""
        return self._assignment is None

    def start(self, assignment: Assignment) -> None:
        """Take a run."""
        self._assignment = assignment

    def wait(self, seconds: float) -> list[Ended]:
        """Carry out the run that was taken, however long it takes."""
        assignment, self._assignment = self._assignment, None
        if assignment is None:
            return []
        torch.set_num_threads(assignment.threads)
        try:
            run(assignment.config, assignment.folder, vision_features=self._features)
        except UserError as error:
            return [Ended(assignment.folder, str(error))]
        return [Ended(assignment.folder)]

    def stop(self) -> None:
        """Do nothing: what asks this process to stop has stopped its run."""

    def close(self) -> None:
        """Do nothing: no process is left."""
