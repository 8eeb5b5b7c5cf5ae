"""The comparisons of benchmark_speed.py, one a file."""
