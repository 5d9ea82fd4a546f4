"""What keeps this tree the way it is meant to be: `python -m tools.house` checks what no linter knows."""
