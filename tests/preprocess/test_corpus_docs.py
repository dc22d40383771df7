"""The worked example of docs/corpora.md does what it says."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs/corpora.md"


def loaded(name: str, path: Path, code: str) -> ModuleType:
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_an_own_corpus_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, test = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    name = "preprocess.corpora.interviews"
    monkeypatch.setitem(sys.modules, name, loaded(name, tmp_path / "interviews.py", layout))
    module = loaded("test_corpus_interviews", tmp_path / "test_corpus_interviews.py", test)
    (tmp_path / "corpus").mkdir()
    module.test_takes_of_known_people(tmp_path / "corpus")
