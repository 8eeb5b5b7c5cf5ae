"""Many runs, each of which is a task that resumes by its run directory: here, in processes, or on Ray."""

from avalanche_cit.launching.here import InThisProcess
from avalanche_cit.launching.many_runs import Workers, carry_out_all, name_of
from avalanche_cit.launching.on_ray import RayTasks
from avalanche_cit.launching.processes import WorkerProcesses

__all__ = ["InThisProcess", "RayTasks", "WorkerProcesses", "Workers", "carry_out_all", "name_of"]
