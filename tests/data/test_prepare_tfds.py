import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_tfds.sh"


def run(*arguments, **environment):
    command = ["bash", str(SCRIPT), *arguments]
    env = os.environ | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("",), ("--name=mnist",), ("mnist", "folder", "more")])
def test_wrong_arguments_get_the_usage_and_status_2(arguments):
    ended = run(*arguments)
    assert ended.returncode == 2 and ended.stderr.startswith("usage: scripts/prepare_tfds.sh NAME")


def test_a_python_that_is_not_there_is_named_in_one_line(tmp_path):
    ended = run("mnist", str(tmp_path), PYTHON="/not/python")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: /not/python is not Python 3.11")
    assert ended.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_failed_installation_leaves_one_last_line_and_no_environment(tmp_path):
    # A Python that makes environments whose pip always fails.
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        '[ "$2" = venv ] || exit 0\n'
        'mkdir -p "$3/bin" && printf "#!/bin/sh\\nexit 1\\n" > "$3/bin/python"\n'
        'chmod +x "$3/bin/python"\n'
    )
    python.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ended = run("mnist", str(tmp_path / "data"), PYTHON=str(python), TMPDIR=str(scratch))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: pip could not install tensorflow")
    assert not list(scratch.iterdir()) and not (tmp_path / "data").exists()
