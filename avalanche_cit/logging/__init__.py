"""What a run leaves behind: run directory, logged numbers, plots and the report."""
