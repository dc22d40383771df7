"""The entries of manifests, and the one way in which our JSON is written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import MarlinError
from pipeline.storage.atomic import COPY_BYTES, os_error


@dataclass(frozen=True)
class FileEntry:
    """A file that a manifest commits to: name (a key), size in bytes, sha256 in lower-case hex."""

    name: str
    size: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "FileEntry":
        """Read an entry of a manifest.

        Raises:
            MarlinError: a field is missing or of the wrong type.
        """
        name, size, sha256 = value.get("name"), value.get("size"), value.get("sha256")
        if isinstance(name, str) and type(size) is int and size >= 0 and _is_sha256(sha256):
            return cls(name, size, str(sha256))
        raise MarlinError(
            f"damaged manifest entry {dict(value)!r}: it needs name, size and sha256; run the stage that wrote it again"
        )


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, lower-case hex.

    Raises:
        MarlinError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(COPY_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise os_error(path, error) from None
    return digest.hexdigest()


def parse_json(data: bytes, where: str) -> Any:
    """The value of one of our JSON objects.

    Raises:
        MarlinError: it is damaged; ``where`` names it.
    """
    try:
        return json.loads(data)
    except ValueError:
        raise MarlinError(f"{where} is damaged (no JSON): restore it, or remove it to have it made again") from None


def to_json(value: object, *, compact: bool = False) -> bytes:
    """Canonical JSON: the same value always gives the same bytes, one field a line (or all in one), final newline.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    style = {"separators": (",", ":")} if compact else {"indent": 1}
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **style)
    return f"{text}\n".encode()


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(character in "0123456789abcdef" for character in value)
