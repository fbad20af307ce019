"""Credentials for the API server: a certificate authority, one token for each part, and kubeconfig files."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

from .debian import faketime
from .layout import API_ADDRESS, API_PORT, API_SERVICE, Layout, Node

ADMIN = "admin"
HARNESS = "harness"
"""User of the harness itself. It differs from the admin, so that the audit log tells their calls apart."""
SCHEDULER = "system:kube-scheduler"
CONTROLLER_MANAGER = "system:kube-controller-manager"
PROXY = "system:kube-proxy"
DNS = "system:coredns"
SERVER = f"https://{API_ADDRESS}:{API_PORT}"


def make_credentials(layout: Layout, nodes: list[Node]) -> None:
    """Certificates, tokens and kubeconfig files of one boot."""
    _certificates(layout.authority.parent)
    lines = []
    for user, group, file in (
        (ADMIN, "system:masters", ADMIN),
        (HARNESS, "system:masters", HARNESS),
        (SCHEDULER, "", "scheduler"),
        (CONTROLLER_MANAGER, "", "controller-manager"),
        (PROXY, "", "proxy"),
        (DNS, "", "dns"),
        *((f"system:node:{node.name}", "system:nodes", node.name) for node in nodes),
    ):
        token = secrets.token_urlsafe(32)
        lines.append(f"{token},{user},{user},{group}\n")
        write_kubeconfig(layout, file, token)
    _write_secret(tokens_file(layout), "".join(lines))


def tokens_file(layout: Layout) -> Path:
    """Return the file with the API server's table of tokens."""
    return layout.authority.parent / "tokens.csv"


def write_kubeconfig(layout: Layout, name: str, token: str, namespace: str = "default") -> Path:
    """Write ``NAME.conf`` as JSON, which is also YAML. Only its owner can read it."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": SERVER, "certificate-authority": str(layout.authority)}}
        ],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}],
        "current-context": "test",
    }
    path = layout.kubeconfigs / f"{name}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_secret(path, json.dumps(content, indent=1))
    return path


def token_of(kubeconfig: Path) -> str:
    """Return the token in a file that ``write_kubeconfig`` wrote."""
    return str(json.loads(kubeconfig.read_text())["users"][0]["user"]["token"])


def _write_secret(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def _certificates(folder: Path) -> None:
    """Create an authority, the API server's certificates for clients and kubelets, and a key for accounts."""
    folder.mkdir(parents=True, mode=0o700)
    _openssl(folder, "req -x509 -subj /CN=gpudev-test-ca -days 30 -noenc -keyout ca.key -out ca.crt")
    names = (
        f"DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:{API_ADDRESS},IP:{API_SERVICE}"
    )
    sign(folder, "apiserver", "/CN=kube-apiserver", f"subjectAltName={names}")
    sign(
        folder,
        "kubelet-client",
        "/O=system:masters/CN=kube-apiserver-kubelet-client",
        "extendedKeyUsage=clientAuth",
    )
    _openssl(folder, "ecparam -name prime256v1 -genkey -noout -out accounts.key")


def sign(folder: Path, name: str, subject: str, extension: str) -> None:
    """Create ``NAME.key`` and ``NAME.crt``, signed by the authority, in the authority's folder."""
    by = "-CA ca.crt -CAkey ca.key -days 30"
    _openssl(
        folder,
        f"req -x509 {by} -noenc -subj {subject} -addext {extension} -keyout {name}.key -out {name}.crt",
    )


def _openssl(folder: Path, arguments: str) -> None:
    words = arguments.split()
    if words[0] == "req":
        words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    # Valid since an hour ago, because some tests use clocks that are wrong by minutes.
    environment = os.environ | {"LD_PRELOAD": str(faketime()), "FAKETIME": "-1h"}
    done = subprocess.run(
        ["openssl", *words], cwd=folder, env=environment, capture_output=True, text=True, umask=0o077
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments} failed with {done.returncode}: {done.stderr}")
