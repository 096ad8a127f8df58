"""What an experiment shows its reader: summary and table, figure, and one self-contained page."""

import importlib.util
import os

# A command that Jupyter starts inherits the notebook's backend for figures, which may not be
# installed here; matplotlib would not be imported then.
_backend = os.environ.get("MPLBACKEND", "")
if _backend.startswith("module://"):
    _package = _backend.removeprefix("module://").partition(".")[0]
    if importlib.util.find_spec(_package) is None:
        os.environ["MPLBACKEND"] = "agg"
