"""One file for each recipe: `get_config(argument)` returns the complete, locked config."""
