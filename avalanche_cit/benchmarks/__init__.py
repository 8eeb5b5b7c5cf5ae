"""Vision-language instruction data as Avalanche benchmarks."""

from avalanche_cit.benchmarks.catalogue import benchmark_names, benchmark_tasks, load_benchmark
from avalanche_cit.benchmarks.scenario import instruction_benchmark
from avalanche_cit.benchmarks.task import Task

__all__ = ["Task", "benchmark_names", "benchmark_tasks", "instruction_benchmark", "load_benchmark"]
