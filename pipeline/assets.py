"""Pinned model files and sample videos (`assets.yaml`) in the user's cache, fetched from registry packages."""

import hashlib
import logging
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

import yaml

from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import COPY_BYTES, locked, os_error, whole_file
from pipeline.storage.manifest import FileEntry, sha256_file

logger = logging.getLogger(__name__)

Kind = Literal["model", "sample"]
PINS = Path(__file__).with_name("assets.yaml")


@dataclass(frozen=True)
class Asset:
    """One file inside a package: `entry` pins the file, `member` is its path in the archive."""

    name: str
    kind: Kind
    entry: FileEntry
    member: str

    @property
    def path(self) -> Path:
        """Where it lies in the user's cache once pulled."""
        return cache_dir() / f"{self.kind}s" / self.entry.name


@dataclass(frozen=True)
class Package:
    """A file of the package index that holds assets; `archive` pins it."""

    project: str
    archive: FileEntry
    licence: str
    origin: str
    assets: tuple[Asset, ...]


@dataclass(frozen=True)
class AssetStatus:
    """What `marlin doctor` shows of one asset; `present` means there with the pinned hash."""

    name: str
    kind: Kind
    path: Path
    present: bool
    licence: str
    origin: str


def cache_dir() -> Path:
    """The user's cache: $MARLIN_CACHE, else $XDG_CACHE_HOME/marlin, else ~/.cache/marlin."""
    if own := os.environ.get("MARLIN_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "marlin"


def pull_models(progress: bool = True) -> dict[str, Path]:
    """Fetch the model files that are not in the cache yet; returns name -> path of all of them.

    Raises:
        MarlinError: no network, a broken transfer (run again to continue), wrong bytes, or a full disk.
    """
    return _pull("model", progress)


def pull_samples(progress: bool = True) -> dict[str, Path]:
    """Fetch the sample videos that are not in the cache yet; returns name -> path, all in `samples_dir()`.

    Raises:
        MarlinError: as `pull_models`.
    """
    return _pull("sample", progress)


def model_path(name: str) -> Path:
    """The pulled model file `name`, its hash checked.

    Raises:
        UsageError: no model has this name.
        MarlinError: it was not pulled yet, or the file was changed.
    """
    models = {asset.name: asset for asset in _assets("model")}
    if name not in models:
        raise UsageError(f"unknown model {name!r}: known are {', '.join(models)}")
    if not _is_present(models[name]):
        raise MarlinError(f"{models[name].path} is missing or not the pinned file: run `marlin models pull`")
    return models[name].path


def samples_dir() -> Path:
    """The folder with all sample videos and nothing else.

    Raises:
        MarlinError: they were not all pulled yet, or one was changed.
    """
    for asset in _assets("sample"):
        if not _is_present(asset):
            raise MarlinError(f"{asset.path} is missing or not the pinned file: run `marlin samples pull`")
    return cache_dir() / "samples"


def asset_status() -> list[AssetStatus]:
    """What of the pinned files is in the cache; downloads nothing."""
    return [
        AssetStatus(asset.name, asset.kind, asset.path, _is_present(asset), package.licence, package.origin)
        for package in _packages()
        for asset in package.assets
    ]


def _packages() -> tuple[Package, ...]:
    return _read_pins(PINS)


@cache
def _read_pins(path: Path) -> tuple[Package, ...]:
    return tuple(
        Package(
            project=value["project"],
            archive=FileEntry(value["archive"], value["size"], value["sha256"]),
            licence=value["licence"],
            origin=value["origin"],
            assets=tuple(
                Asset(item["name"], item["kind"], FileEntry(item["file"], item["size"], item["sha256"]), item["member"])
                for item in value["files"]
            ),
        )
        for value in yaml.safe_load(path.read_text(encoding="utf-8"))["packages"]
    )


def _assets(kind: Kind) -> list[Asset]:
    return [asset for package in _packages() for asset in package.assets if asset.kind == kind]


def _is_present(asset: Asset) -> bool:
    path = asset.path
    return path.is_file() and path.stat().st_size == asset.entry.size and sha256_file(path) == asset.entry.sha256


def _pull(kind: Kind, progress: bool) -> dict[str, Path]:
    for package in _packages():
        assets = [asset for asset in package.assets if asset.kind == kind]
        if not all(_is_present(asset) for asset in assets):
            _pull_package(package, assets, progress)
    return {asset.name: asset.path for asset in _assets(kind)}


def _pull_package(package: Package, assets: list[Asset], progress: bool) -> None:
    # Imported here: only a pull needs an HTTP client.
    from pipeline.package_index import IndexUnreachable, fetch_package

    downloads = cache_dir() / "downloads"
    lock = downloads / f"{package.archive.name}.lock"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            # Another process may have pulled them while this one waited.
            missing = [asset for asset in assets if not _is_present(asset)]
            if not missing:
                return
            archive = fetch_package(package.project, package.archive, downloads, progress=progress)
            for asset in missing:
                _extract(archive, asset)
                logger.info("%s: %s. Licence: %s", asset.path, package.origin, package.licence)
            archive.unlink()
    except IndexUnreachable as error:
        files = ", ".join(asset.entry.name for asset in assets)
        raise MarlinError(f"{error}, or copy {files} to {assets[0].path.parent} yourself") from None
    except OSError as error:
        raise os_error(downloads, error) from None


def _extract(archive: Path, asset: Asset) -> None:
    """Copy one member, whose path is fixed by the pin, out of the verified archive; nothing in it is executed."""
    digest = hashlib.sha256()
    try:
        with _member(archive, asset.member) as source, whole_file(asset.path) as target:
            while chunk := source.read(COPY_BYTES):
                digest.update(chunk)
                target.write(chunk)
            if digest.hexdigest() != asset.entry.sha256:
                raise MarlinError(f"{asset.member} in {archive.name} is not the pinned file: correct assets.yaml")
    except OSError as error:
        raise os_error(asset.path, error) from None


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    missing = MarlinError(f"{archive.name} holds no file {name}: correct assets.yaml")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            if name not in bundle.namelist():
                raise missing
            with bundle.open(name) as source:
                yield source
        return
    with tarfile.open(archive, "r:gz") as tape:
        info = next((info for info in tape if info.name == name and info.isreg()), None)
        content = tape.extractfile(info) if info else None
        if content is None:
            raise missing
        yield content
