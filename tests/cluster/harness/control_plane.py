"""Command lines of the parts of the control plane, of DNS and of the service proxy."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .credentials import tokens_file
from .layout import API_ADDRESS, API_PORT, DNS_ADDRESS, PODS, SERVICES, Layout

ETCD = "etcd"
API_SERVER = "kube-apiserver"
SCHEDULER = "kube-scheduler"
CONTROLLER_MANAGER = "kube-controller-manager"
PROXY = "kube-proxy"
DNS = "coredns"
_ETCD_URL = "http://127.0.0.1:2379"

NODE_UNKNOWN_AFTER = 8
"""Seconds without a report from a kubelet until its node is Unknown. Kubernetes' default is 40 to 50."""


def etcd(layout: Layout) -> list[str]:
    """Return etcd's command line, without fsync: the data of a test cluster is needed for one boot only."""
    return [
        "etcd",
        f"--data-dir={layout.run / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--logger=zap",
        "--log-level=warn",
    ]


def api_server(layout: Layout) -> list[str]:
    """Return the API server's command line: RBAC, usual admission, an audit log of each call's metadata."""
    pki = layout.authority.parent
    policy = layout.run / "audit-policy.json"
    rule = {"level": "Metadata", "omitStages": ["RequestReceived"]}
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}))
    return [
        str(layout.binaries / API_SERVER),
        f"--etcd-servers={_ETCD_URL}",
        f"--bind-address={API_ADDRESS}",
        f"--advertise-address={API_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={layout.authority}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--token-auth-file={tokens_file(layout)}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICES}",
        # Pods without their own tolerations leave a silent node at once: tests must not wait for minutes.
        "--default-unreachable-toleration-seconds=2",
        "--default-not-ready-toleration-seconds=2",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'accounts.key'}",
        f"--service-account-signing-key-file={pki / 'accounts.key'}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={layout.audit_log}",
        "--v=1",
    ]


def scheduler(layout: Layout) -> list[str]:
    """Return the scheduler's command line. Only one runs, so it needs no leader election."""
    return [str(layout.binaries / SCHEDULER), *_common(layout, "scheduler")]


def controller_manager(layout: Layout, flags: Sequence[str] = ()) -> list[str]:
    """Return the controller manager's command line. Nodes become Unknown early; the last flag wins."""
    return [
        str(layout.binaries / CONTROLLER_MANAGER),
        *_common(layout, "controller-manager"),
        "--use-service-account-credentials",
        f"--root-ca-file={layout.authority}",
        f"--service-account-private-key-file={layout.authority.parent / 'accounts.key'}",
        f"--cluster-cidr={PODS}",
        f"--service-cluster-ip-range={SERVICES}",
        "--allocate-node-cidrs=false",
        f"--flex-volume-plugin-dir={layout.run / 'volume-plugins'}",
        "--node-monitor-period=1s",
        f"--node-monitor-grace-period={NODE_UNKNOWN_AFTER}s",
        *flags,
    ]


def _common(layout: Layout, account: str) -> list[str]:
    kubeconfig = layout.kubeconfigs / f"{account}.conf"
    files = [
        f"--{kind}={kubeconfig}"
        for kind in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    ]
    return [*files, "--leader-elect=false", "--bind-address=127.0.0.1", "--v=1"]


def proxy(layout: Layout) -> list[str]:
    """Return the service proxy's command line. Nodes share a network namespace, so they need only one."""
    config = layout.run / "proxy.json"
    content = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": str(PODS),
        "clientConnection": {"kubeconfig": str(layout.kubeconfigs / "proxy.conf")},
        # The limits of connection tracking belong to the machine, not to this namespace. Do not change them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
    config.write_text(json.dumps(content))
    return [str(layout.binaries / PROXY), f"--config={config}", "--hostname-override=node-1", "--v=1"]


def dns(layout: Layout) -> list[str]:
    """Return the DNS server's command line. It knows only services and pods: nothing else is reachable."""
    corefile = layout.run / "Corefile"
    corefile.write_text(
        f".:53 {{\n  bind {DNS_ADDRESS}\n  errors\n"
        f"  kubernetes cluster.local {{\n    kubeconfig {layout.kubeconfigs / 'dns.conf'} test\n"
        "    ttl 2\n  }\n}\n"
    )
    return [str(layout.binaries / DNS), f"-conf={corefile}"]
