"""Manifests as text: what is written is read back the same by parsers of YAML 1.1 and 1.2."""

from collections.abc import Iterable
from typing import Any

import yaml

_BREAKS = set("\r\x85\u2028\u2029")  # ends of lines to a parser, which reads them back as others


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Whatever begins otherwise or is one letter may be a number, a time or a truth value to some parser.
    plain = len(text) > 1 and text[0].isalpha() and text[0].isascii()
    style = '"' if _BREAKS & set(text) else "|" if "\n" in text else None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_manifests(manifests: Iterable[dict[str, Any]]) -> str:
    """Several documents."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
