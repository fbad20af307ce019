"""Offer wrong keys to sshd at a fixed rate, with much less CPU time than ``ssh`` needs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import sys
from collections import Counter

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_CLIENT = b"SSH-2.0-wrong_keys"
_KEXINIT, _NEWKEYS, _KEX_INIT, _FAILURE, _ACCEPT = 20, 21, 30, 51, 6


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _mpint(data: bytes) -> bytes:
    data = data.lstrip(b"\0")
    return _string(b"\0" + data if data and data[0] & 0x80 else data)


def _kexinit() -> bytes:
    lists = [
        b"curve25519-sha256",
        b"ssh-ed25519-cert-v01@openssh.com,ssh-ed25519",
        *[b"aes128-gcm@openssh.com"] * 2,
        *[b"hmac-sha2-256"] * 2,
        *[b"none"] * 2,
        *[b""] * 2,
    ]
    return bytes([_KEXINIT]) + os.urandom(16) + b"".join(map(_string, lists)) + b"\0" * 5


class _Cipher:
    def __init__(self, secret: bytes, exchange: bytes, iv: bytes, key: bytes) -> None:
        def derived(letter: bytes, size: int) -> bytes:
            return hashlib.sha256(secret + exchange + letter + exchange).digest()[:size]

        self._fixed, counter = struct.unpack(">4sQ", derived(iv, 12))
        self._counter = counter
        self._aead = AESGCM(derived(key, 16))

    def nonce(self) -> bytes:
        value = struct.pack(">4sQ", self._fixed, self._counter)
        self._counter = (self._counter + 1) % (1 << 64)
        return value

    def seal(self, payload: bytes) -> bytes:
        padding = 16 - (len(payload) + 1) % 16
        padding += 16 if padding < 4 else 0
        head = struct.pack(">I", len(payload) + 1 + padding)
        body = bytes([padding]) + payload + os.urandom(padding)
        return head + self._aead.encrypt(self.nonce(), body, head)

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(4)
        body = await reader.readexactly(struct.unpack(">I", head)[0] + 16)
        clear = self._aead.decrypt(self.nonce(), body, head)
        return clear[1 : len(clear) - clear[0]]


def _plain(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + 1 + padding, padding) + payload + b"\0" * padding


async def _read_plain(reader: asyncio.StreamReader) -> bytes:
    size, padding = struct.unpack(">IB", await reader.readexactly(5))
    return (await reader.readexactly(size - 1))[: size - 1 - padding]


async def offer(host: str, port: int, source: str, user: str) -> str:
    """Offer a random key once; return how the connection ended."""
    try:
        async with asyncio.timeout(40):
            reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
            try:
                return await _offer(reader, writer, user)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return "closed before the key"
    except TimeoutError:
        return "no answer"


async def _offer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> str:
    writer.write(_CLIENT + b"\r\n")
    server = (await reader.readline()).strip()
    if not server.startswith(b"SSH-2.0"):
        return "closed before the key"
    mine, own = _kexinit(), X25519PrivateKey.generate()
    public = own.public_key().public_bytes_raw()
    writer.write(_plain(mine) + _plain(bytes([_KEX_INIT]) + _string(public)))
    theirs = await _read_plain(reader)
    reply = await _read_plain(reader)
    fields, at = [], 1
    for _ in range(3):
        (size,) = struct.unpack_from(">I", reply, at)
        fields.append(reply[at + 4 : at + 4 + size])
        at += 4 + size
    host_key, point, _ = fields
    secret = _mpint(own.exchange(X25519PublicKey.from_public_bytes(point)))
    parts = [_CLIENT, server, mine, theirs, host_key, public, point]
    exchange = hashlib.sha256(b"".join(map(_string, parts)) + secret).digest()
    while (await _read_plain(reader))[0] != _NEWKEYS:
        pass
    out, back = _Cipher(secret, exchange, b"A", b"C"), _Cipher(secret, exchange, b"B", b"D")
    writer.write(_plain(bytes([_NEWKEYS])))
    writer.write(out.seal(b"\x05" + _string(b"ssh-userauth")))
    while (await back.read(reader))[0] != _ACCEPT:
        pass
    blob = _string(b"ssh-ed25519") + _string(os.urandom(32))
    asked = [user.encode(), b"ssh-connection", b"publickey"]
    request = b"\x32" + b"".join(map(_string, asked)) + b"\0" + _string(b"ssh-ed25519") + _string(blob)
    writer.write(out.seal(request))
    while (answer := await back.read(reader))[0] == 53:
        pass
    return "refused" if answer[0] == _FAILURE else f"answered {answer[0]}"


async def flood(port: int, source: str, user: str, rate: int, seconds: float) -> Counter[str]:
    """Offer ``rate`` wrong keys a second from one address; return how many ended in which way."""
    loop = asyncio.get_running_loop()
    begun, tasks = loop.time(), []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
        tasks.append(asyncio.create_task(offer("127.0.0.1", port, source, user)))
    took = loop.time() - begun
    found = Counter(await asyncio.gather(*tasks))
    found[f"started in {took:.0f} s"] = len(tasks)
    return found


if __name__ == "__main__":
    port, source, user, rate, seconds = sys.argv[1:]
    ended = asyncio.run(flood(int(port), source, user, int(rate), float(seconds)))
    print(", ".join(f"{text}: {count}" for text, count in ended.items()))
