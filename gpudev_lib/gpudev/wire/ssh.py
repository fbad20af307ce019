"""SSH access to servers."""

from __future__ import annotations

import msgspec


class SshHost(msgspec.Struct, kw_only=True):
    """A server that the caller can connect to."""

    id: str
    name: str | None
    alias: str
    """``gpu-NAME``, or ``gpu-ID`` without a name."""
    rank: int
    host: str
    port: int
    user: str
    host_key_alias: str
    ends_at: str | None
    owner: str = ""
    """Login of the owner who shares the server with the caller; empty for the caller's own server."""


class SshClosed(msgspec.Struct, kw_only=True):
    """A name of the caller without a server now: its reservation waits, starts or ends."""

    alias: str
    id: str


class RefusedKey(msgspec.Struct, kw_only=True):
    """An SSH key of the caller that no server accepts."""

    key: str
    """Type and SHA256 fingerprint where they are readable, else the place of the key."""
    reason: str


class SshBastion(msgspec.Struct, kw_only=True):
    """The bastion through which servers are reached; the host CA signs its key."""

    host: str
    port: int
    user: str
    host_key_alias: str


class SshAccess(msgspec.Struct, kw_only=True):
    """``GET ssh``: what the client needs for its SSH settings."""

    known_hosts: str
    """The ``@cert-authority`` line."""
    hosts: list[SshHost]
    identity_file: str | None
    """A private key on the machine of the service, created for a demo user; null for the user's own key."""
    accepted_keys: list[str]
    """SHA256 fingerprints of the caller's keys that servers accept."""
    closed: list[SshClosed] = []
    """Names of live reservations without a server now."""
    refused_keys: list[RefusedKey] = []
    """The caller's keys that no server accepts."""
    bastion: SshBastion | None = None
    """How to reach the servers from outside; null: directly."""
