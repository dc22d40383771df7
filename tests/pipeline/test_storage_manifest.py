"""Manifest entries and canonical JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MarlinError
from pipeline.storage.manifest import FileEntry, parse_json, sha256_file, to_json

SHA = hashlib.sha256(b"data").hexdigest()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abü\n"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xyz"), inner, max_size=4),
    max_leaves=12,
)


def test_json_has_one_written_form() -> None:
    assert (
        to_json({"b": [1, 2.5], "a": "ü", "c": {}})
        == '{\n "a": "ü",\n "b": [\n  1,\n  2.5\n ],\n "c": {}\n}\n'.encode()
    )


@given(st.dictionaries(st.text("abc"), JSON, max_size=5))
def test_json_does_not_depend_on_insertion_order(value: dict[str, Any]) -> None:
    assert to_json(dict(reversed(value.items()))) == to_json(value)
    assert json.loads(to_json(value)) == value


def test_json_refuses_what_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"loss": float("nan")})


def test_an_entry_roundtrips() -> None:
    entry = FileEntry("shards/0.tar", 4, SHA)
    assert FileEntry.from_dict(json.loads(to_json(entry.to_dict()))) == entry


@pytest.mark.parametrize(
    "change",
    [{"name": None}, {"size": -1}, {"size": "4"}, {"size": True}, {"sha256": SHA[:-1]}, {"sha256": SHA.upper()}],
)
def test_a_damaged_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MarlinError, match="damaged manifest entry"):
        FileEntry.from_dict({"name": "x", "size": 4, "sha256": SHA} | change)


def test_sha256_of_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    assert sha256_file(path) == SHA
    path.write_bytes(bytes(3_000_000))
    assert sha256_file(path) == hashlib.sha256(bytes(3_000_000)).hexdigest()
    with pytest.raises(MarlinError, match="absent: no such file"):
        sha256_file(tmp_path / "absent")


def test_damaged_json_is_named() -> None:
    assert parse_json(b'{"a": 1}', "plan.json") == {"a": 1}
    for data in (b'{"a": ', b"", b"\xff\xfe"):
        with pytest.raises(MarlinError, match=r"^plan\.json is damaged"):
            parse_json(data, "plan.json")
