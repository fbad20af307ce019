"""Proxies and certificate authorities of the environment, good and bad; the proxies are real."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import pytest

import gpudev
from gpudev import config, login, network
from gpudev.cli.app import main
from gpudev.client import Client
from live_service import LiveService

FAR = "http://hub.example:8000"
GPU_DEV = Path(sys.executable).with_name("gpu-dev")
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def bad_environments(tmp_path: Path) -> list[tuple[str, str, str]]:
    """Variable, value, and a hub that it matters for."""
    (tmp_path / "not-certificates").write_text("nonsense")
    https = "https://hub.example"
    return [
        ("HTTP_PROXY", "ftp://proxy", FAR),
        ("HTTP_PROXY", "http://[bad", FAR),
        ("http_proxy", "http://", FAR),
        ("http_proxy", "http://proxy:port", FAR),
        ("HTTPS_PROXY", "socks4://127.0.0.1:1080", https),
        ("ALL_PROXY", "http://user:secret@proxy:99999", FAR),
        ("SSL_CERT_FILE", str(tmp_path / "missing.pem"), https),
        ("SSL_CERT_FILE", str(tmp_path / "not-certificates"), https),
        ("SSL_CERT_FILE", str(tmp_path), https),
        ("SSL_CERT_DIR", str(tmp_path / "missing"), https),
        ("SSL_CERT_DIR", str(tmp_path / "not-certificates"), https),
    ]


def test_an_environment_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable, value, hub in bad_environments(tmp_path):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(gpudev.ConfigError, match=variable) as caught:
                Client(hub, "token")
            assert caught.value.hint
            assert "secret" not in str(caught.value)
            with pytest.raises(gpudev.ConfigError, match=variable):
                login.by_password(hub, "alice", "opensesame")
            patch.setenv("GPUDEV_URL", hub)
            patch.setenv("GPUDEV_TOKEN", "token")
            assert main(["list"]) == 9
            assert variable in capfd.readouterr().err
            Client("http://127.0.0.1:1", "token").close()


def test_ssh_sync_is_silent_in_every_environment(tmp_path: Path, home: Path) -> None:
    """ssh itself runs it: whatever it wrote would be read as ssh's."""
    nowhere = {"HOME": str(tmp_path / "not-certificates" / "home")}
    token = {"GPUDEV_TOKEN": "token"}
    trials = [
        {variable: value, "GPUDEV_URL": hub} | token for variable, value, hub in bad_environments(tmp_path)
    ]
    trials += [nowhere, {"GPUDEV_CONFIG": "~nobody-of-this-name/x"}, {"GPUDEV_URL": "http://a..b"} | token]
    trials += [
        {"GPUDEV_URL": "http://" + "a" * 70 + ".example", "GPUDEV_TOKEN": "to ken\n"},
        {"LC_ALL": "nonsense"},
    ]
    running = [
        subprocess.Popen(
            [GPU_DEV, "ssh-sync"],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"} | trial,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for trial in trials
    ]
    for trial, process in zip(trials, running, strict=True):
        said, _ = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b""), trial


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "hub.localhost", "LOCALHOST"]
)
def test_no_proxy_is_asked_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert network.proxy_of(f"http://{host}:8000") is None


@pytest.mark.parametrize(
    ("rules", "direct"),
    [
        ("*", True),
        ("example.org", True),
        ("EXAMPLE.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("hub.example.org:8443", True),
        ("hub.example.org:80", False),
        ("ample.org", False),
        ("hub.example.org.evil", False),
        ("other.net, example.org", True),
        ("other.net example.org", True),
        ("[::1]", False),
        ("[::1", False),
        (",,:,.,[]", False),
        ("10.0.0.0/8", False),
        ("", False),
    ],
)
def test_rules_of_no_proxy(rules: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", rules)
    assert (network.proxy_of("https://hub.example.org:8443") is None) == direct


def test_networks_of_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,[fd00::7]:443,192.168.1.5")
    direct = ("https://10.1.2.3", "https://[fd00::7]", "https://192.168.1.5:8443")
    asked = ("https://11.1.2.3", "https://[fd00::8]", "https://[fd00::7]:8443", "https://hub10.0.0.1")
    assert all(network.proxy_of(url) is None for url in direct)
    assert all(network.proxy_of(url) is not None for url in asked)


def test_certificates_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    Client("https://hub.example", "token").close()
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    Client("https://hub.example", "token").close()


class Relay(socketserver.ThreadingTCPServer):
    """A proxy that leads everywhere to one service, and keeps what it was asked for."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, service: LiveService, handshake: Callable[[Relay, socket.socket], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), None)  # type: ignore[arg-type]
        self.target = urlsplit(service.url).port
        self.handshake = handshake
        self.asked: list[bytes] = []

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], _: object) -> None:
        assert isinstance(request, socket.socket)
        first = self.handshake(self, request)
        with socket.create_connection(("127.0.0.1", self.target or 0)) as onward:
            onward.sendall(first)
            threading.Thread(target=copy, args=(request, onward), daemon=True).start()
            copy(onward, request)


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


def as_http(relay: Relay, client: socket.socket) -> bytes:
    data = client.recv(65536)
    line, rest = data.split(b"\r\n", 1)
    method, address, version = line.split(b" ")
    relay.asked.append(urlsplit(address).netloc)
    return b" ".join((method, b"/" + address.split(b"/", 3)[3], version)) + b"\r\n" + rest


def as_socks(relay: Relay, client: socket.socket) -> bytes:
    assert client.recv(1) == b"\x05"
    client.recv(client.recv(1)[0])
    client.sendall(b"\x05\x00")
    assert client.recv(4) == b"\x05\x01\x00\x03", "the hub's name is left to the proxy"
    name = client.recv(client.recv(1)[0])
    port = int.from_bytes(client.recv(2), "big")
    relay.asked.append(name + b":" + str(port).encode())
    client.sendall(b"\x05\x00\x00\x01" + b"\x00" * 6)
    return b""


@contextmanager
def relay(service: LiveService, handshake: Callable[[Relay, socket.socket], bytes]) -> Iterator[Relay]:
    with Relay(service, handshake) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize(
    ("variable", "scheme", "handshake"),
    [
        ("HTTP_PROXY", "http://", as_http),
        ("http_proxy", "", as_http),
        ("ALL_PROXY", "socks5://", as_socks),
        ("all_proxy", "socks5h://", as_socks),
    ],
)
def test_proxies_are_asked(
    service: LiveService,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    scheme: str,
    handshake: Callable[[Relay, socket.socket], bytes],
) -> None:
    with relay(service, handshake) as proxy:
        monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{proxy.server_address[1]}")
        with Client(FAR, service.token) as client:
            assert client.availability().hours == 4
        assert proxy.asked == [b"hub.example:8000"]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_away_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:secret@127.0.0.1:1")
    with Client(FAR, "token", patience=0) as client, pytest.raises(gpudev.NetworkError) as caught:
        client.availability()
    assert caught.value.message.startswith(f"{FAR} (through the proxy in ALL_PROXY) cannot be reached: ")
    assert "Errno" not in caught.value.message
    assert "unset ALL_PROXY or add hub.example to NO_PROXY" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_hub_without_https_is_named(service: LiveService) -> None:
    url = service.url.replace("http://", "https://")
    with Client(url, service.token, patience=0) as client, pytest.raises(gpudev.NetworkError) as caught:
        client.availability()
    assert caught.value.hint.startswith("The answer is not HTTPS.")


@pytest.mark.parametrize("url", ["http://a..b", "http://" + "a" * 70 + ".example", "http://xn--a"])
def test_hosts_that_cannot_be(url: str) -> None:
    with (
        pytest.raises((gpudev.InvalidRequest, gpudev.NetworkError)),
        Client(url, "token", patience=0) as client,
    ):
        client.availability()


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ключ", "\x7f"])
def test_tokens_that_cannot_be(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUDEV_TOKEN", token)
    with pytest.raises(gpudev.NotLoggedIn, match=r"The token for .* is not valid") as caught:
        config.resolve(FAR)
    assert token not in str(caught.value)
