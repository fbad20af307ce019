"""What an operator may set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpudev_hub.core.limits.rules import effective
from gpudev_hub.core.model import HOUR, MINUTE, SECOND
from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.policyfile import read_policy
from gpudev_hub.settings import Settings, SettingsError

PLAIN = Policy(pools=(PoolSettings(name="p", gpus_per_node=8, images=("default",)),))


def policy(folder: Path, text: str) -> Policy:
    path = folder / "policy.json"
    path.write_text(text)
    return read_policy(path).on(PLAIN)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert policy(tmp_path, "{}") == PLAIN


def test_what_is_said_counts_and_the_rest_stays(tmp_path: Path) -> None:
    said = policy(
        tmp_path,
        '{"limits": {"running_gpus": 4, "hours_per_request": 1.5}, "warn_minutes": [1, 2, 1],'
        ' "users": {"local:alice": {"running_gpus": 32}}, "restart_window_seconds": 5,'
        ' "node_grace_seconds": 0}',
    )
    assert said.allowances.running_gpus == 4
    assert said.allowances.hold_per_request == 90 * MINUTE
    assert said.allowances.hold_with_extensions == 48 * HOUR
    assert said.warn_minutes == (2, 1)
    alice, bob = (effective(said, {}, (), f"local:{who}", "p").values for who in ("alice", "bob"))
    assert alice.running_gpus == 32
    assert alice.hold_per_request == 90 * MINUTE
    assert bob.running_gpus == 4
    assert said.pools[0].restart_window == 5 * SECOND
    assert (said.node_grace, PLAIN.node_grace) == (0, 2 * MINUTE)
    assert said.pools[0].startup == PLAIN.pools[0].startup


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"limit": {}}', "limit"),
        ('{"limits": {"running_gpus": -1}}', "running_gpus"),
        ('{"warn_minutes": [0]}', "warn_minutes"),
        ('{"node_grace_seconds": -1}', "node_grace_seconds"),
        ('{"limits": ', "truncated"),
    ],
)
def test_what_makes_no_sense_stops_the_start_and_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=f"(?s)GPUDEV_POLICY names .*{why}"):
        Settings.read({"GPUDEV_POLICY": str(path), "HOME": str(tmp_path)})


def test_a_file_that_is_missing_is_said_without_a_number(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"names /nowhere, which cannot be used: No such file or directory$"
    ):
        Settings.read({"GPUDEV_POLICY": "/nowhere", "HOME": str(tmp_path)})
