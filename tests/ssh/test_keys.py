"""Which public keys get in, and that nothing else does. Keys come from ``ssh-keygen`` itself."""

import base64
import struct
import subprocess
from pathlib import Path

import pytest

from gpudev_hub.ssh.keys import BadKey, fingerprint, judge, parse_line


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def line(kind: str, *fields: bytes) -> str:
    return f"{kind} {base64.b64encode(b''.join(map(text, (kind.encode(), *fields)))).decode()}"


def generate(folder: Path, *arguments: str) -> str:
    key = folder / "key"
    command = ["ssh-keygen", "-q", "-N", "", "-C", "me@here", "-f", str(key), *arguments]
    subprocess.run(command, check=True)
    return (folder / "key.pub").read_text().strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-t", "ed25519"),
        ("-t", "ecdsa", "-b", "256"),
        ("-t", "ecdsa", "-b", "384"),
        ("-t", "ecdsa", "-b", "521"),
        ("-t", "rsa", "-b", "2048"),
        ("-t", "rsa", "-b", "4096"),
    ],
    ids=" ".join,
)
def test_good_keys(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    made = generate(tmp_path, *arguments)
    key = parse_line(made)
    assert key.line == " ".join(made.split()[:2])
    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    )
    assert key.fingerprint == said.stdout.split()[1]


@pytest.mark.parametrize(
    "good",
    [
        line("sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:"),
        line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\x04" + b"k" * 64, b"ssh:"),
    ],
)
def test_security_keys(good: str) -> None:
    assert parse_line(good).line == good


ED25519 = line("ssh-ed25519", b"k" * 32)
BLOB = ED25519.split()[1]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (f'command="id" {ED25519}', "form"),
        (f"cert-authority {ED25519}", "form"),
        (f"no-pty,{ED25519}", "form"),
        (f"@cert-authority * {ED25519}", "form"),
        (f"# {ED25519}", "form"),
        ("", "form"),
        ("<html>", "form"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "form"),
        (f"{ED25519}\n{ED25519}", "control"),
        (f"{ED25519}\r", "control"),
        (f"{ED25519} \x00", "control"),
        (f"{ED25519} a\u2028b", "control"),
        (f"ssh-ed25519  {BLOB}", "form"),
        (f"ssh-ed25519\t{BLOB}", "control"),
        (f"ecdsa-sha2-nistp256 {BLOB}", "the type does not match the key"),
        (f"ssh-rsa {BLOB}", "the type does not match the key"),
        ("ssh-ed25519 " + BLOB[:-4], "the key is incomplete"),
        ("ssh-ed25519 " + BLOB[:-1], "base64"),
        ("ssh-ed25519 " + BLOB + "AAAA", "the key has extra data"),
        (line("ssh-ed25519", b"k" * 31), "32 bytes"),
        (line("ssh-dss", b"p", b"q", b"g", b"y"), "not accepted"),
        (line("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128), "1024 bits"),
        (line("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 4096), "32768 bits"),
        (line("ecdsa-sha2-nistp256", b"nistp384", b"\x04" + b"k" * 64), "curve"),
        (line("ecdsa-sha2-nistp256", b"nistp256", b"\x02" + b"k" * 32), "point"),
        (line("ssh-ed25519-cert-v01@openssh.com", b"k" * 32), "not accepted"),
        (line("sk-ssh-ed25519@openssh.com", b"k" * 32), "the key is incomplete"),
    ],
)
def test_bad_lines(bad: str, why: str) -> None:
    with pytest.raises(BadKey, match=why):
        parse_line(bad)


@pytest.mark.parametrize(
    "bad",
    [
        line("ecdsa-sha2-nistp256", b"nistp256", b"\x04" + b"k" * 64),
        line("ssh-rsa", b"\x02", b"\x00" + b"\xff" * 256),
        line("ssh-rsa", b"\x01\x00\x01", b"\xff" * 256),
    ],
    ids=["a point off the curve", "an even exponent", "a negative modulus"],
)
def test_numbers_that_no_key_has(bad: str) -> None:
    with pytest.raises(BadKey, match="the key is not valid"):
        parse_line(bad)


def test_real_certificate_dsa_free_and_weak_rsa(tmp_path: Path) -> None:
    generate(tmp_path, "-t", "ed25519")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-s", str(key), "-I", "me", "-n", "root", f"{key}.pub"], check=True)
    with pytest.raises(BadKey, match="not accepted"):
        parse_line((tmp_path / "key-cert.pub").read_text().strip())
    key.unlink()
    with pytest.raises(BadKey, match="1024 bits"):
        parse_line(generate(tmp_path, "-t", "rsa", "-b", "1024"))


def test_a_file_gives_its_good_keys_once_and_in_order() -> None:
    other = line("ssh-ed25519", b"j" * 32)
    content = f'# mine\r\n{ED25519} me@here\r\n\r\ncommand="id" {other}\r\n{other}\n{ED25519} again\n'
    assert [key.line for key in judge(content)[0]] == [ED25519, other]


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(b"").startswith("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")
