"""One file a recipe: `get_config(argument)` returns the complete, locked config."""
