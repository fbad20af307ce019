"""How files are replaced: whole or not at all, and private at every moment."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from gpudev_hub.server import private


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o700, 0o644])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    before = os.umask(0o077)
    try:
        private.write(file, "text", mode)
    finally:
        os.umask(before)
    assert (file.read_text(), permissions(file)) == ("text", mode)


@pytest.mark.parametrize("data", ["new", b"new"])
def test_a_file_that_others_could_read_is_private_again(tmp_path: Path, data: str | bytes) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    private.write(file, data)
    assert (file.read_text(), permissions(file)) == ("new", 0o600)


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "file"
    private.write(file, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        private.write(file, "new", durable=True)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins while the first has its text only half on the disk."""
    file = tmp_path / "file"
    sync = os.fsync

    def interrupted(descriptor: int) -> None:
        sync(descriptor)
        private.write(file, "second")
        assert file.read_text() == "second"

    monkeypatch.setattr(os, "fsync", interrupted)
    private.write(file, "first", durable=True)
    assert file.read_text() == "first"
