"""How this machine reaches a hub: proxies and certificate authorities, as the environment names them.

The variables are read here, and not by the HTTP library, so that one that cannot be used is named in the
error, and a hub on this machine is never asked through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx

from gpudev.errors import ConfigError, InvalidRequest, NetworkError

_SCHEMES = ("http", "https", "socks5")
_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"


@dataclass(frozen=True)
class Proxy:
    """A proxy, and who named it."""

    url: str
    variable: str

    def __str__(self) -> str:
        """Without the password that the address may hold."""
        return f"the proxy that {self.variable} names"


def client(
    url: str,
    *,
    timeout: float,
    headers: dict[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """An HTTP client for the hub at `url`. Raises `ConfigError` or `InvalidRequest`.

    Each request has a connection of its own: after the long waits in between a kept one would be stale.
    """
    proxy = None if transport is not None else proxy_of(url)
    try:
        return httpx.Client(
            base_url=url,
            headers=headers,
            timeout=timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            proxy=None if proxy is None else proxy.url,
            verify=_authorities(url, proxy),
            transport=transport,
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise no_address(url) from error


def no_address(url: str) -> InvalidRequest:
    """The error for an address that no host can have."""
    return InvalidRequest(f"{url} is not the address of a hub.", hint="It looks like https://hub.example.org")


def failure(url: str, error: httpx.RequestError) -> NetworkError:
    """What went wrong on the way to the hub at `url`, in words."""
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(
            f"{reached(url)} did not answer in time.", hint="Try again; `gpu-dev list` shows what you hold."
        )
    what = str(error) or type(error).__name__
    proxy = proxy_of(url)
    hint = "Is the address right, and the hub running? `gpu-dev config get url` shows the address."
    if "CERTIFICATE_VERIFY_FAILED" in what:
        name = next((name for name in (_FILE, _FOLDER) if os.environ.get(name)), None)
        hint = (
            f"The certificate authorities come from {name}, {os.environ[name]}. Are they the right ones?"
            if name
            else f"If the hub's certificate is your organisation's, name its authority's file in {_FILE}."
        )
    elif proxy is not None:
        hint = (
            f"Is the proxy right, and the hub running? To go without the proxy, unset {proxy.variable}"
            f" or add {urlsplit(url).hostname} to NO_PROXY."
        )
    return NetworkError(f"{reached(url)} cannot be reached: {what}", hint=hint)


def reached(url: str) -> str:
    """The hub's address, and the way to it where that leads through a proxy."""
    proxy = proxy_of(url)
    return url if proxy is None else f"{url} (through {proxy})"


def proxy_of(url: str) -> Proxy | None:
    """The proxy to ask for `url`; None: none. Raises `ConfigError` for one that cannot be asked."""
    parts = urlsplit(url)
    if parts.hostname is None or is_loopback(parts.hostname):
        return None
    found = urllib.request.getproxies()
    if any(_means(rule, parts) for rule in found.get("no", "").replace(",", " ").split()):
        return None
    kind = next((kind for kind in (parts.scheme, "all") if found.get(kind)), None)
    if kind is None:
        return None
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    variable = next((name for name in names if os.environ.get(name)), "the system's configuration")
    address = found[kind].strip()
    address = address if "://" in address else f"http://{address}"
    try:
        split = urlsplit(address)
        # The name of the hub is left to the proxy in any case.
        scheme = split.scheme.removesuffix("h") if split.scheme == "socks5h" else split.scheme
        usable = scheme in _SCHEMES and split.hostname and (split.port is None or split.port > 0)
        clean = httpx.URL(split._replace(scheme=scheme).geturl())
    except (ValueError, httpx.InvalidURL):
        usable, clean = False, httpx.URL()
    if not usable:
        raise ConfigError(
            f"The environment variable {variable} does not hold the address of a proxy that can be used.",
            hint="It looks like http://proxy.example.org:3128 or socks5://127.0.0.1:1080. Correct or unset"
            f" it, or add {parts.hostname} to NO_PROXY.",
        )
    return Proxy(str(clean), variable)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself, of whose loopback a proxy knows nothing."""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _means(rule: str, parts: SplitResult) -> bool:
    """Whether a rule of ``NO_PROXY`` is about this address.

    Rules are ``*``, a domain with all that is below it, an IP address or network, each but the last with or
    without a port. Others mean nothing.
    """
    host = parts.hostname or ""
    rule, port = rule.lower(), ""
    if rule.startswith("["):
        rule, _, port = rule[1:].partition("]")
        port = port.removeprefix(":")
    elif rule.count(":") == 1:
        rule, _, port = rule.partition(":")
    if port and port != str(parts.port or {"http": 80, "https": 443}[parts.scheme]):
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    domain = rule.removeprefix("*").removeprefix(".")
    return rule == "*" or (domain != "" and (host == domain or host.endswith(f".{domain}")))


def _authorities(url: str, proxy: Proxy | None) -> ssl.SSLContext:
    """Checks certificates by the authorities that the environment names, else by the usual ones."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not url.startswith("https:") and not (proxy and proxy.url.startswith("https:")):
        return context  # reading all of them costs more than the request, and plain HTTP needs none
    name = next((name for name in (_FILE, _FOLDER) if os.environ.get(name)), None)
    if name is None:
        import certifi

        context.load_verify_locations(certifi.where())
        return context
    path = os.environ[name]
    try:
        if name == _FILE:
            context.load_verify_locations(path)
        else:
            os.listdir(path)  # noqa: PTH208  (a folder that is not there is no error to OpenSSL)
            context.load_verify_locations(capath=path)
    except OSError as error:
        what = error.strerror or str(error)
        raise ConfigError(
            f"The environment variable {name} names {path}, where no certificates can be read: {what}.",
            hint=f"Unset {name}, or name a {'file' if name == _FILE else 'folder'} of certificates in it.",
        ) from error
    return context
