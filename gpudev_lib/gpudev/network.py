"""The connection to a hub: proxies and certificate authorities from the environment.

The variables are read here instead of in the HTTP library, so that an error can name the variable, and a hub
on this machine is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx

from gpudev.errors import ConfigError, InvalidRequest, NetworkError

_SCHEMES = ("http", "https", "socks5")
_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that it comes from."""

    url: str
    variable: str

    def __str__(self) -> str:
        """Describe the proxy without its address, which may contain a password."""
        return f"the proxy in {self.variable}"


def client(
    url: str,
    *,
    timeout: float,
    headers: dict[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """Return an HTTP client for the hub at `url`. Raises `ConfigError` or `InvalidRequest`.

    Each request opens its own connection: a kept one would be stale after the long pauses between requests.
    """
    proxy = None if transport is not None else proxy_of(url)
    with explained(url):
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


@contextmanager
def explained(url: str, *, reads: bool = False) -> Iterator[None]:
    """Raise `NetworkError` if the connection to the hub fails, `InvalidRequest` for an invalid address.

    `reads`: the request changes nothing at the hub.
    """
    try:
        yield
    except httpx.RequestError as error:
        raise _failure(url, error, reads) from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidRequest(
            f"{url} is not the address of a hub.", hint="Use an address such as https://hub.example.org"
        ) from error


def _failure(url: str, error: httpx.RequestError, reads: bool) -> NetworkError:
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(
            f"{reached(url)} did not answer in time.",
            hint="Try again in a minute. If the error remains, check that the hub is running."
            if reads
            else "The request may have taken effect. Check with `gpu-dev list` before you try again.",
        )
    what = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    proxy = proxy_of(url)
    hint = (
        "Check that the hub is running, and that its address is right."
        " To use another address: gpu-dev login --url URL"
    )
    if "CERTIFICATE_VERIFY_FAILED" in what:
        name = _authorities_variable()
        hint = (
            f"The certificate authorities come from {name}={os.environ[name]}. Check that file or folder."
            if name
            else f"If your organization has its own certificate authority, set {_FILE} to its"
            " certificate file."
        )
    elif "WRONG_VERSION_NUMBER" in what:
        hint = "The answer is not HTTPS. If the address of the hub starts with http://, use that address."
    elif proxy is not None:
        hint = (
            "Check the proxy, and that the hub is running. To connect without the proxy, unset"
            f" {proxy.variable} or add {urlsplit(url).hostname} to NO_PROXY."
        )
    return NetworkError(f"{reached(url)} cannot be reached: {what.rstrip('.')}.", hint=hint)


def reached(url: str) -> str:
    """Return the address of the hub, with the proxy if there is one."""
    proxy = proxy_of(url)
    return url if proxy is None else f"{url} (through {proxy})"


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy for `url`, or None. Raises `ConfigError` for a proxy that cannot be used."""
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
        # The proxy always resolves the name of the hub.
        scheme = split.scheme.removesuffix("h") if split.scheme == "socks5h" else split.scheme
        usable = scheme in _SCHEMES and split.hostname and (split.port is None or split.port > 0)
        clean = httpx.URL(split._replace(scheme=scheme).geturl())
    except (ValueError, httpx.InvalidURL):
        usable, clean = False, httpx.URL()
    if not usable:
        raise ConfigError(
            f"The environment variable {variable} is not the address of a supported proxy.",
            hint="Set it to an address such as http://proxy.example.org:3128 or socks5://127.0.0.1:1080."
            f" Or unset it, or add {parts.hostname} to NO_PROXY.",
        )
    return Proxy(str(clean), variable)


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine, whose loopback a proxy cannot reach."""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _means(rule: str, parts: SplitResult) -> bool:
    """Return whether a rule of ``NO_PROXY`` matches this address.

    A rule is ``*``, a domain (which includes its subdomains), an IP address or a network. All rules except
    networks may have a port. Other rules are ignored.
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


def _authorities_variable() -> str | None:
    return next((name for name in (_FILE, _FOLDER) if os.environ.get(name)), None)


def _authorities(url: str, proxy: Proxy | None) -> ssl.SSLContext:
    """Return a context with the authorities in the environment, else the usual ones."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not url.startswith("https:") and not (proxy and proxy.url.startswith("https:")):
        return context  # loading the authorities takes longer than the request
    name = _authorities_variable()
    if name is None:
        import certifi

        context.load_verify_locations(certifi.where())
        return context
    path = os.environ[name]
    try:
        if name == _FILE:
            context.load_verify_locations(path)
        else:
            os.listdir(path)  # noqa: PTH208  (OpenSSL ignores a missing folder)
            context.load_verify_locations(capath=path)
    except OSError as error:
        what = error.strerror or str(error)
        raise ConfigError(
            f"No certificates can be read from {path}, which the environment variable {name} names: {what}.",
            hint=f"Unset {name}, or set it to a {'file' if name == _FILE else 'folder'} with certificates.",
        ) from error
    return context
