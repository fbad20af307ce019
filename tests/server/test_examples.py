"""The folder of examples: every home gets it once, whole, and nothing of its user's is touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from gpudev_hub.server import examples
from gpudev_hub.server.examples import FOLDER, MARK, give

SHIPPED = {file.name: file.read_bytes() for file in Path(examples.__file__).with_name(FOLDER).iterdir()}


def given(home: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (home / FOLDER).iterdir()}


def test_a_new_home_gets_the_folder_and_one_hidden_file(tmp_path: Path) -> None:
    give(tmp_path)
    assert given(tmp_path) == SHIPPED
    assert {"first-steps.ipynb", "README.md"} <= SHIPPED.keys()
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, ".local"}
    assert str(MARK) in (tmp_path / FOLDER / "README.md").read_text()


def test_a_home_in_use_gets_it_too(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("mine")
    (tmp_path / MARK.parent / "image-1").mkdir(parents=True)
    give(tmp_path)
    assert given(tmp_path) == SHIPPED
    assert (tmp_path / "work.py").read_text() == "mine"


def test_what_was_deleted_or_changed_stays_so(tmp_path: Path) -> None:
    give(tmp_path)
    notebook = tmp_path / FOLDER / "first-steps.ipynb"
    notebook.write_text("mine")
    (tmp_path / FOLDER / "README.md").unlink()
    give(tmp_path)
    assert given(tmp_path) == {"first-steps.ipynb": b"mine"}
    notebook.unlink()
    (tmp_path / FOLDER).rmdir()
    give(tmp_path)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_something_of_the_same_name_is_left_alone(tmp_path: Path, kind: str) -> None:
    own = tmp_path / FOLDER
    match kind:
        case "folder":
            own.mkdir()
            (own / "first-steps.ipynb").write_text("mine")
        case "empty folder":
            own.mkdir()
        case "file":
            own.write_text("mine")
        case "dangling link":
            own.symlink_to(tmp_path / "nowhere")
    give(tmp_path)
    match kind:
        case "folder":
            assert given(tmp_path) == {"first-steps.ipynb": b"mine"}
        case "empty folder":
            assert given(tmp_path) == {}
        case "file":
            assert own.read_text() == "mine"
        case "dangling link":
            assert not own.exists()
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, ".local"}


def test_a_home_that_cannot_remember_it_gets_nothing_until_it_can(tmp_path: Path) -> None:
    """It would come back each time that it is deleted."""
    obstacle = tmp_path / ".local"
    obstacle.write_text("a file")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        give(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".local"]
    obstacle.unlink()
    give(tmp_path)
    assert given(tmp_path) == SHIPPED


def test_a_move_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full at that moment."""

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space"):
            give(tmp_path)
    assert not (tmp_path / FOLDER).exists()
    give(tmp_path)
    assert given(tmp_path) == SHIPPED


def test_servers_that_start_at_once(tmp_path: Path) -> None:
    count = 8
    for number in range(25):
        home = tmp_path / str(number)
        home.mkdir()
        together = Barrier(count)

        def start(home: Path = home, together: Barrier = together) -> None:
            together.wait()
            give(home)

        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(start) for _ in range(count)]:
                done.result()
        assert given(home) == SHIPPED
        assert {path.name for path in home.iterdir()} == {FOLDER, ".local"}
