"""EKS Pod Identity on the test cluster: the webhook that changes pods, and the agent with the credentials.

It follows https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html. The agent listens on the same
address as on nodes of EKS. It gives credentials only for a token that the API server made for the agent.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from harness.api import Object
from harness.cluster import Cluster
from harness.credentials import sign
from harness.layout import API_ADDRESS

AGENT: Final = "169.254.170.23"
AUDIENCE: Final = "pods.eks.amazonaws.com"
ACCESS_KEY: Final = "ASIAPODIDENTITY"
"""Part of every credential from the agent. A request that is signed with it used the agent."""
_WEBHOOK_PORT: Final = 9443
_NAME: Final = "eks-pod-identity-token"
_FOLDER: Final = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
_PREFIX: Final = "system:serviceaccount:"
_NEW_PODS: Final = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


class PodIdentity:
    """The accounts with a role, and the accounts that got its credentials."""

    def __init__(self, cluster: Cluster, accounts: set[tuple[str, str]], region: str) -> None:
        """``accounts``: pairs of namespace and service account."""
        self._api = cluster.api
        self._accounts = accounts
        self._environment = {
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{AGENT}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{_FOLDER}/{_NAME}",
        }
        self.given: list[tuple[str, str]] = []
        """The accounts whose pods got credentials, in order."""

    def review(self, asked: Object) -> Object:
        """Answer an AdmissionReview of a new pod."""
        request = asked["request"]
        pod = request["object"]
        answer: Object = {"uid": request["uid"], "allowed": True}
        if (request["namespace"], pod["spec"].get("serviceAccountName")) in self._accounts:
            patch = json.dumps(self._patch(pod["spec"]))
            answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}

    def _patch(self, spec: Mapping[str, Any]) -> list[Object]:
        token = {"audience": AUDIENCE, "expirationSeconds": 86400, "path": _NAME}
        volume = {"name": _NAME, "projected": {"sources": [{"serviceAccountToken": token}]}}
        changes = {"/spec/volumes": [*spec.get("volumes", ()), volume]}
        for number, container in enumerate(spec["containers"]):
            at = f"/spec/containers/{number}"
            variables = [{"name": name, "value": value} for name, value in self._environment.items()]
            mount = {"name": _NAME, "mountPath": _FOLDER, "readOnly": True}
            changes[f"{at}/env"] = [*container.get("env", ()), *variables]
            changes[f"{at}/volumeMounts"] = [*container.get("volumeMounts", ()), mount]
        return [{"op": "add", "path": path, "value": value} for path, value in changes.items()]

    def credentials(self, token: str) -> Object | None:
        """Return credentials for a pod's token; ``None`` if it is not valid or its account has no role."""
        review = {"spec": {"token": token, "audiences": [AUDIENCE]}}
        answer = self._api.post("/apis/authentication.k8s.io/v1/tokenreviews", json=review)
        status = answer.raise_for_status().json()["status"]
        namespace, _, name = status.get("user", {}).get("username", "").removeprefix(_PREFIX).partition(":")
        if not status.get("authenticated") or (namespace, name) not in self._accounts:
            return None
        self.given.append((namespace, name))
        return {
            "AccessKeyId": ACCESS_KEY,
            "SecretAccessKey": "of-the-test-cluster",
            "Token": "of-the-test-cluster",
            "AccountId": "123456789012",
            "Expiration": "2099-01-01T00:00:00Z",
        }


@contextmanager
def pod_identity(cluster: Cluster, region: str, *accounts: tuple[str, str]) -> Iterator[PodIdentity]:
    """Run the webhook and the agent in the caller's network, which must be the cluster's."""
    found = PodIdentity(cluster, set(accounts), region)
    subprocess.run(["ip", "address", "add", f"{AGENT}/32", "dev", "lo"], check=True)
    pki = cluster.layout.authority.parent
    sign(pki, "pod-identity", "/CN=pod-identity-webhook", f"subjectAltName=IP:{API_ADDRESS}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pki / "pod-identity.crt", pki / "pod-identity.key")
    with ExitStack() as open_:
        open_.enter_context(_serving(_Server((AGENT, 80), _agent(found))))
        webhook = _Server((API_ADDRESS, _WEBHOOK_PORT), _webhook(found))
        webhook.socket = tls.wrap_socket(webhook.socket, server_side=True, do_handshake_on_connect=False)
        open_.enter_context(_serving(webhook))
        cluster.apply(_configuration(cluster.layout.authority.read_bytes()))
        yield found


def _configuration(authority: bytes) -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "pod-identity-webhook"},
        "webhooks": [
            {
                "name": "pods.pod-identity-webhook.amazonaws.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Ignore",
                "timeoutSeconds": 10,
                "clientConfig": {
                    "url": f"https://{API_ADDRESS}:{_WEBHOOK_PORT}/mutate",
                    "caBundle": base64.b64encode(authority).decode(),
                },
                "rules": [_NEW_PODS],
            }
        ],
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _agent(identity: PodIdentity) -> type[BaseHTTPRequestHandler]:
    class Agent(_Handler):
        def do_GET(self) -> None:
            found = identity.credentials(self.headers.get("Authorization", ""))
            if self.path != "/v1/credentials" or found is None:
                self.answer(400, {"message": "no credentials for this token"})
            else:
                self.answer(200, found)

    return Agent


def _webhook(identity: PodIdentity) -> type[BaseHTTPRequestHandler]:
    class Webhook(_Handler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(200, identity.review(json.loads(body)))

    return Webhook
