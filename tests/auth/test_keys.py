"""SSH keys from the fake GitHub."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from pathlib import Path

import pytest

from fake_github import FakeGithub
from github_world import Now
from gpudev_hub.auth.github import GithubClient
from gpudev_hub.auth.keys import MAX_KEYS, GithubKeys
from gpudev_hub.core.model import MINUTE, Owner

ADA = Owner("github:101", "ada", "ada")


def ed25519(number: int) -> str:
    """A key that nobody has the private part of."""
    fields = (b"ssh-ed25519", number.to_bytes(32, "big"))
    blob = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def made(folder: Path, *how: str) -> str:
    """A real key's public line, without its comment."""
    path = folder / "-".join(how)
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", *how, "-f", path], check=True)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def fingerprint(line: str) -> str:
    command = ["ssh-keygen", "-lf", "/dev/stdin"]
    return subprocess.run(command, input=line, capture_output=True, text=True, check=True).stdout.split()[1]


def people(file: Path) -> set[str]:
    assert file.stat().st_mode & 0o077 == 0
    return set(json.loads(file.read_text()))


def put(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "github-keys.json"


@pytest.fixture
def keys(client: GithubClient, file: Path, now: Now) -> GithubKeys:
    return GithubKeys(client, file, now=now)


async def lines(keys: GithubKeys, owner: Owner = ADA) -> list[str]:
    return [key.line for key in await keys.keys(owner)]


async def test_every_safe_type_and_all_pages(keys: GithubKeys, github: FakeGithub, tmp_path: Path) -> None:
    good = [made(tmp_path, "ecdsa", "-b", bits) for bits in ("256", "384", "521")]
    good += [made(tmp_path, "rsa", "-b", "2048"), *map(ed25519, range(120))]
    for line in good:
        github.control.add_key("ada", line)
    assert await lines(keys) == good
    assert await keys.rejected(ADA) == []


async def test_weak_keys_are_refused_with_a_reason(
    keys: GithubKeys, github: FakeGithub, tmp_path: Path
) -> None:
    weak = made(tmp_path, "rsa", "-b", "1024")
    for line in (weak, "ssh-dss AAAAB3NzaC1kc3MAAAAA", ed25519(1), f'command="id" {ed25519(2)}'):
        github.control.add_key("ada", line)
    assert await lines(keys) == [ed25519(1)]
    rsa, dss, options = await keys.rejected(ADA)
    assert rsa.summary == f"ssh-rsa {fingerprint(weak)}"
    assert "1024 bits" in rsa.reason
    assert dss.summary.startswith("ssh-dss SHA256:")
    assert "ssh-dss are not accepted" in dss.reason
    assert (options.summary, "options before a key" in options.reason) == ("line 4", True)


async def test_500_keys_are_enough(keys: GithubKeys, github: FakeGithub) -> None:
    for number in range(MAX_KEYS + 2):
        github.control.add_key("ada", ed25519(number))
    assert len(await keys.keys(ADA)) == MAX_KEYS
    assert [key.reason for key in await keys.rejected(ADA)] == [
        "only the first 500 keys of an account are used"
    ] * 2


async def test_a_key_that_spans_lines_adds_nothing(keys: GithubKeys, github: FakeGithub) -> None:
    github.control.add_key("ada", f"ssh-dss AAAA\n{ed25519(1)}")
    assert await lines(keys) == []


class TestLooks:
    async def test_connections_cost_no_request(self, keys: GithubKeys, github: FakeGithub, now: Now) -> None:
        await keys.keys(ADA)
        sent = len(github.requests())
        now.ahead = 4 * MINUTE
        for _ in range(200):
            await keys.keys(ADA)
        assert len(github.requests()) == sent

    async def test_nor_do_connections_of_somebody_without_an_answer(
        self, keys: GithubKeys, github: FakeGithub, now: Now
    ) -> None:
        github.control.outage()
        for _ in range(200):
            assert await keys.keys(ADA) == []
        assert not keys.known(ADA)
        assert len(github.requests()) == 1
        github.control.heal()
        github.control.add_key("ada", ed25519(1))
        now.ahead = 11 * 1000
        github.control.clock(11)
        assert await lines(keys) == [ed25519(1)]
        assert keys.known(ADA)

    async def test_people_who_are_not_of_github_are_not_asked_about(
        self, keys: GithubKeys, github: FakeGithub
    ) -> None:
        for subject in ("local:ada", "github:ada", "github:"):
            assert await keys.keys(Owner(subject, "ada", "ada")) == []
        assert github.requests() == []

    async def test_the_owner_sees_a_new_key_a_minute_later_at_most(
        self, keys: GithubKeys, github: FakeGithub, now: Now
    ) -> None:
        await keys.rejected(ADA)
        github.control.add_key("ada", ed25519(1))
        await keys.rejected(ADA)
        assert await lines(keys) == []
        now.ahead = 61 * 1000
        await keys.rejected(ADA)
        assert await lines(keys) == [ed25519(1)]

    async def test_the_sweep_sees_added_and_removed_keys_and_forgets_people(
        self, keys: GithubKeys, github: FakeGithub, file: Path
    ) -> None:
        github.control.add_key("ada", ed25519(1))
        github.control.add_key("ben", ed25519(2))
        await keys.refresh(["github:101", "github:102"])
        assert people(file) == {"github:101", "github:102"}
        github.control.remove_keys("ada")
        github.control.add_key("ada", ed25519(3))
        await keys.refresh(["github:101"])
        assert await lines(keys) == [ed25519(3)]
        assert people(file) == {"github:101"}


class TestIdentity:
    async def test_keys_follow_the_number_through_a_rename(
        self, keys: GithubKeys, github: FakeGithub
    ) -> None:
        github.control.add_key("ada", ed25519(1))
        github.control.rename("ada", "ada-l")
        github.control.account("ada")
        github.control.add_key("ada", ed25519(666))
        assert await lines(keys) == [ed25519(1)]

    async def test_a_login_that_moves_during_the_look_gives_no_keys(
        self, keys: GithubKeys, github: FakeGithub
    ) -> None:
        github.control.add_key("ada", ed25519(1))
        moved = '{"id": 101, "login": "ada-l"}'
        github.control.fail(path=".*/user/101", skip=1, times=1, status=200, body=moved)
        assert await lines(keys) == []

    async def test_an_account_that_is_gone_has_no_keys(self, keys: GithubKeys, github: FakeGithub) -> None:
        github.control.add_key("ada", ed25519(1))
        assert await lines(keys) == [ed25519(1)]
        github.control.delete("ada")
        await keys.refresh(["github:101"])
        assert await lines(keys) == []

    async def test_a_defect_met_with_one_person_stops_nobody_elses(
        self, keys: GithubKeys, github: FakeGithub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look = keys._look

        async def broken(subject: str) -> None:
            if subject == "github:100":
                raise AttributeError
            await look(subject)

        monkeypatch.setattr(keys, "_look", broken)
        github.control.add_key("ada", ed25519(1))
        await keys.refresh(["github:100", "github:101"])
        assert await lines(keys) == [ed25519(1)]


class TestOutages:
    @pytest.fixture(autouse=True)
    async def known(self, keys: GithubKeys, github: FakeGithub) -> None:
        github.control.add_key("ada", ed25519(1))
        await keys.refresh(["github:101"])

    async def test_the_last_good_list_stays(self, keys: GithubKeys, github: FakeGithub) -> None:
        github.control.outage()
        await keys.refresh(["github:101"])
        assert await lines(keys) == [ed25519(1)]

    async def test_it_outlives_a_restart_in_a_private_file(
        self, client: GithubClient, github: FakeGithub, file: Path, now: Now
    ) -> None:
        github.control.outage()
        assert people(file) == {"github:101"}
        again = GithubKeys(client, file, now=now)
        assert await lines(again) == [ed25519(1)]

    async def test_a_service_that_has_not_read_its_state_forgets_nobody(
        self, client: GithubClient, github: FakeGithub, file: Path, now: Now
    ) -> None:
        github.control.outage()
        again = GithubKeys(client, file, now=now)
        await again.refresh([])
        assert await lines(again) == [ed25519(1)]
        assert people(file) == {"github:101"}

    async def test_a_damaged_file_is_fetched_again(self, client: GithubClient, file: Path, now: Now) -> None:
        put(file, "{")
        assert await lines(GithubKeys(client, file, now=now)) == [ed25519(1)]

    async def test_a_file_opens_nothing_unseen(self, client: GithubClient, file: Path, now: Now) -> None:
        kept = {"github:101": {"login": "ada", "accepted": ['command="id" x', "ssh-dss AAAA"], "refused": []}}
        put(file, json.dumps(kept))
        assert await lines(GithubKeys(client, file, now=now)) == []

    async def test_a_full_disk_costs_no_connection(
        self, client: GithubClient, github: FakeGithub, tmp_path: Path, now: Now
    ) -> None:
        (tmp_path / "taken").write_text("")
        keys = GithubKeys(client, tmp_path / "taken" / "keys.json", now=now)
        assert await lines(keys) == [ed25519(1)]
