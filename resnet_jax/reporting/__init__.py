"""What an experiment shows its reader: summary and table, figure, and one self-contained page."""
