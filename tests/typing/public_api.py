"""What the public interface promises to a type checker: mypy checks this file, nothing runs it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import assert_type

import gpudev
from gpudev import wire


def script() -> None:
    with gpudev.reserve(2, hours=1, name="demo") as box:
        assert_type(box, gpudev.Reservation)
        assert_type(box.run("nvidia-smi"), CompletedProcess[str])
        box.run(["python", "train.py"], check=False, capture=True, input="y\n", timeout=60)
        box.upload("data", "data")
        box.download("results", Path())
        assert_type(box.position, int | None)
        assert_type(box.planned_start, datetime | None)
        assert_type(box.guaranteed_by, datetime | None)
        assert_type(box.ends_at, datetime | None)
        assert_type(box.url, str | None)
        assert_type(box.allocation, list[wire.NodeSlots])
        assert_type(box.extend(1).refresh().wait(timeout=60), gpudev.Reservation)
        assert_type(box.history(), list[wire.HistoryItem])
        assert_type(box.logs(), wire.Logs)


def others() -> None:
    gpudev.reserve()
    gpudev.reserve(hours="1:30")
    gpudev.reserve(gpus=8, nodes=2, gpu_type="h100", image="x", wait=False, timeout=None, progress=False)
    assert_type(gpudev.reservations(all=True, ended=False), list[gpudev.Reservation])
    assert_type(gpudev.availability(hours=2).pools[0].sizes[0].free_now, int)
    assert_type(gpudev.get("demo").release(), gpudev.Reservation)
    with gpudev.Client("http://127.0.0.1:8000", "token", patience=5) as client:
        assert_type(client, gpudev.Client)
        assert_type(client.reserve(1), gpudev.Reservation)


def errors() -> None:
    try:
        gpudev.reserve(1, timeout=60)
    except gpudev.WaitTimeout as error:
        assert_type(error.reservation, gpudev.Reservation)
    except gpudev.GpuDevError as error:
        assert_type(error.code, str)
        assert_type(error.hint, str)


class Mine:
    """A progress of one's own."""

    def update(self, record: wire.Reservation, note: str | None) -> None: ...

    def close(self) -> None: ...


def progress() -> None:
    own: gpudev.Progress = Mine()
    gpudev.reserve(1, progress=own)
    gpudev.reserve("1")  # type: ignore[arg-type]
    gpudev.reservr(1)  # type: ignore[attr-defined]
