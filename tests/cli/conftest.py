"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from restore_agent.cli import config as settings


@pytest.fixture(autouse=True)
def no_configuration_of_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep /etc/restore-agent/config.toml of the machine out of the tests."""
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", tmp_path / "etc" / "config.toml")


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Writes a configuration file and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "agent.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def certificates_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificate files in the current directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("flag.pem", "env.pem", "file.pem"):
        (tmp_path / name).write_text("PEM")
