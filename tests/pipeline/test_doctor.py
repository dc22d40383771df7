"""The doctor and the record of versions: what they say of this machine and of made-up ones."""

import stat
from importlib import metadata
from pathlib import Path

import pytest

import pipeline
from pipeline import provenance
from pipeline.config.load import load_config
from pipeline.doctor import Finding, examine
from pipeline.provenance import code_version, versions


def findings(storage: Path | None = None) -> dict[str, Finding]:
    cfg = load_config("demo", [f"storage.root='{storage}'"]) if storage else None
    return {finding.subject: finding for finding in examine(cfg)}


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an old NVIDIA driver, as `nvidia-smi` reports it."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 535.104.05\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")


def test_finds_what_setup_installed() -> None:
    found = findings()
    for subject in ("python", "torch", "deepspeed", "ray", "mlflow", "opencv"):
        assert found[subject].state == "ok", found[subject]
    assert "storage" not in found


@pytest.mark.usefixtures("driver")
def test_an_old_driver_needs_the_cuda_12_flavour() -> None:
    found = findings()
    assert found["dali"].state == "missing"
    assert "cuda12" in found["dali"].detail
    assert "driver 535" in found["gpu"].detail


def test_a_machine_without_dali_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name.startswith("nvidia-dali"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    dali = findings()["dali"]
    assert dali.state == "missing"
    assert "cuda13" in dali.detail
    assert "data.decoder=opencv" in dali.detail


def test_missing_models_come_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path))
    assert findings()["model"].state == "missing"
    assert "run `marlin models pull`" in findings()["model"].detail


def test_storage_is_tried(tmp_path: Path) -> None:
    assert findings(tmp_path / "new")["storage"].state == "ok"
    (tmp_path / "file").write_text("")
    broken = findings(tmp_path / "file" / "below")["storage"]
    assert broken.state == "missing"
    assert str(tmp_path / "file") in broken.detail


def test_versions_name_what_decides_numbers() -> None:
    known = versions()
    assert {"python", "marlin", "torch", "deepspeed", "numpy"} <= set(known)
    assert known["torch"].startswith("2.13.0")


def test_an_image_names_the_revision_that_it_was_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "pipeline/provenance.py"))
    monkeypatch.setenv("MARLIN_REVISION", "0123456789ab")
    assert code_version.__wrapped__() == f"{pipeline.__version__} (0123456789ab)"
    monkeypatch.setenv("MARLIN_REVISION", "")  # the build argument was left out
    assert code_version.__wrapped__() == pipeline.__version__
