"""The messages on the page for troubleshooting are those of the code."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")


def messages():
    """Return what stands in code in the first column of the page's tables."""
    rows = re.findall(r"^\| (.+?) \|", PAGE, re.MULTILINE)
    return [message for cell in rows for message in re.findall(r"`(.+?)`", cell)]


def template(node):
    """Return a string of the code, with … in the place of what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "…" for part in node.values)
    return None


@functools.lru_cache
def templates():
    files = [*ROOT.glob("resnet_jax/**/*.py"), *ROOT.glob("experiments/*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [text for node in nodes if id(node) not in docstrings and (text := template(node))]


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_page_is_one_of_the_code(message):
    """A … of the page may stand for words that the code has, but not the other way round."""
    parts = [re.escape(part) for part in message.split("…")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    assert any(pattern.search(text) for text in templates()), message


def test_the_page_has_messages():
    assert len(messages()) > 20
