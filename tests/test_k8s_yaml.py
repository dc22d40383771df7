"""Manifests as YAML: read back the same, by parsers of other versions too."""

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.submit.k8s_yaml import dump_manifests


@example("A\x85")
@example("two\nlines\u2028or three")
@given(
    st.recursive(
        st.text(max_size=20) | st.integers() | st.booleans() | st.none(),
        lambda each: st.lists(each) | st.dictionaries(st.text(max_size=8), each),
        max_leaves=8,
    )
)
def test_yaml_reads_back_what_was_written(value: Any) -> None:
    written = dump_manifests([{"value": value}])
    assert list(yaml.safe_load_all(written)) == [{"value": value}]


@pytest.mark.parametrize(
    "text", ["1e3", "0x1F", "12:30", "1_000", "y", "n", "yes", "Off", "~", "null", ".5", "-", "=", ""]
)
def test_texts_that_some_parser_takes_for_something_else_are_quoted(text: str) -> None:
    (written,) = re.findall(r"^value: (.*)$", dump_manifests([{"value": text}]), re.MULTILINE)
    assert written[0] in "'\""
    assert json.loads(written.replace("'", '"')) == text
