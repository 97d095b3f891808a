"""Words of messages."""

import ast
import re
from pathlib import Path

import pytest

import jali
from jali.plain import an


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("int", "an int"), ("str", "a str"), ("LSTM", "an LSTM"), ("LSTMCell", "an LSTMCell"), ("RNN", "an RNN"),
        ("GRU", "a GRU"), ("Linear", "a Linear"), ("Module", "a Module"), ("RigL", "a RigL"), ("Encoder", "an Encoder"),
        ("UnevenLayers", "an UnevenLayers"), ("TopDownRNN", "a TopDownRNN"), ],
)  # fmt: skip
def test_the_article_goes_by_sound(word, wanted):
    assert an(word) == wanted


def test_no_message_puts_an_article_before_a_name_that_is_filled_in():
    """The name may be an int or an LSTM."""
    wrong = []
    for file in Path(jali.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                for before, after in zip(node.values, node.values[1:], strict=False):
                    named = isinstance(after, ast.FormattedValue) and ast.unparse(after.value).endswith(
                        (".__name__", ".kind")
                    )
                    if named and isinstance(before, ast.Constant) and re.search(r"\b[Aa] $", before.value):
                        wrong.append(f"{file.name}: {ast.unparse(node)}")
    assert wrong == []
