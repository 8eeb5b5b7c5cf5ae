"""Strategy plugins, one method per file."""
