"""gpudev's chart with the JupyterHub chart in it: objects, and the configuration that takes effect.

These tests need helm and the package of the JupyterHub chart (``GPUDEV_CHART``), but no cluster. The tests in
``whole`` install the chart.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

import chart
from cluster_world import settings_of
from gpudev_hub.cluster.labels import JUPYTER_PORT
from harness_policies import Endpoint, ruleset
from manifests import LAYERS, Object, containers, key, load, of_kind, one, pod_templates

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(chart.what_is_missing() is not None, reason=chart.what_is_missing() or ""),
]


def render(*values: Path) -> list[Object]:
    """Render the example's release, with changed values."""
    return chart.render(os.environ[chart.VARIABLE], [chart.EXAMPLE, *values])


@pytest.fixture(scope="module")
def everything() -> list[Object]:
    return render()


@pytest.fixture(scope="module")
def objects(everything: list[Object]) -> list[Object]:
    """Return the objects of the JupyterHub chart, without those of gpudev."""
    ours = {key(item) for item in load()}
    return [item for item in everything if key(item) not in ours]


def installed(objects: list[Object]) -> list[Object]:
    """Return the object with the release's namespace if it names none, as helm does."""
    return [item | {"metadata": {"namespace": chart.NAMESPACE, **item["metadata"]}} for item in objects]


def hub(objects: list[Object]) -> Object:
    found: Object = one(objects, "Deployment", "hub")["spec"]
    return found


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """Return what the Hub's pod gets from outside the chart: settings, and the Hub's secrets."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("gate", "service-token"):
        (secrets / name).write_text(f"{name}-0123456789abcdef\n")
    settings = tmp_path / "cluster.json"
    settings.write_bytes(msgspec.json.encode(settings_of()))
    secret = tmp_path / "client-secret"
    secret.write_text("client-secret-0123456789abcdef\n")
    secret.chmod(0o440)
    github = tmp_path / "github.json"
    github.write_bytes(
        msgspec.json.encode(msgspec.structs.replace(settings_of().access(), client_secret_file=str(secret)))
    )
    return {
        "GPUDEV_CLUSTER": str(settings),
        "GPUDEV_GITHUB": str(github),
        "GPUDEV_SECRETS": str(secrets),
    }


# Objects


def test_it_makes_a_hub_and_a_proxy_and_nothing_else(objects: list[Object]) -> None:
    """It makes no culler, scheduler or image puller, and no rights: gpudev's chart makes those."""
    assert {key(item)[::2] for item in objects} == {
        ("ConfigMap", "hub"),
        ("Deployment", "hub"),
        ("Deployment", "proxy"),
        ("NetworkPolicy", "hub"),
        ("NetworkPolicy", "proxy"),
        ("PersistentVolumeClaim", "hub-db-dir"),
        ("Secret", "hub"),
        ("Service", "hub"),
        ("Service", "proxy-api"),
        ("Service", "proxy-public"),
    }


def test_the_hub_is_one_under_our_account(objects: list[Object]) -> None:
    spec = hub(objects)
    assert spec["replicas"] == 1
    assert spec["strategy"]["type"] == "Recreate"
    pod = spec["template"]["spec"]
    assert one(load(), "ServiceAccount", pod["serviceAccountName"], chart.NAMESPACE)
    assert pod["priorityClassName"] == one(load(), "PriorityClass", "gpudev-service")["metadata"]["name"]


def test_the_hub_has_the_settings_and_its_part_of_the_secrets(objects: list[Object]) -> None:
    pod = hub(objects)["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/etc/gpudev/config"]["configMap"]["name"] == "gpudev-config"
    assert mounts["/etc/gpudev/secrets"]["secret"] == {"secretName": "gpudev-shared", "defaultMode": 0o440}
    assert not [volume for volume in pod["volumes"] if "gpudev-service" in str(volume)], "the CA's key"
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["GPUDEV_CLUSTER"]["value"] == "/etc/gpudev/config/cluster.json"
    assert env["GPUDEV_SECRETS"]["value"] == "/etc/gpudev/secrets"
    assert env["GPUDEV_GITHUB"]["value"] == "/etc/gpudev/config/github.json"
    assert mounts["/etc/gpudev/github"]["secret"]["secretName"] == "gpudev-github"
    assert mounts["/etc/gpudev/github"]["secret"]["defaultMode"] == 0o440
    assert "gpudev-github-app" not in str(pod), "the App's private key"


def test_both_pass_the_standard_of_their_namespace(objects: list[Object]) -> None:
    """They meet PodSecurity's level ``restricted``, and state their resources."""
    templates = pod_templates(objects)
    assert set(templates) == {"Deployment/hub", "Deployment/proxy"}
    for template in templates.values():
        pod = template["spec"].get("securityContext", {})
        for container in containers(template["spec"]):
            context = pod | container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["seccompProfile"]["type"] == "RuntimeDefault"
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_the_charts_policies_and_ours_agree(objects: list[Object]) -> None:
    """For each connection, one chart allows the sender and the other the receiver."""
    labels = {
        component: pod_templates(objects)[f"Deployment/{component}"]["metadata"]["labels"]
        for component in ("hub", "proxy")
    }
    server = {"app.kubernetes.io/component": "server", "gpudev/ranks": "1"}
    service = {"app.kubernetes.io/name": "gpudev", "app.kubernetes.io/component": "service"}
    who = {
        "hub": Endpoint("gpudev", labels["hub"], "198.19.0.1", {"http": 8081}),
        "proxy": Endpoint("gpudev", labels["proxy"], "198.19.0.2", {"http": 8000, "api": 8001}),
        "service": Endpoint("gpudev", service, "198.19.0.3"),
        "server": Endpoint("gpudev-servers", server, "198.19.0.4"),
    }
    policies = of_kind(installed(objects), "NetworkPolicy")
    chains = chains_of(ruleset([*load(), *policies], list(who.values())))
    numbers = {name: number for number, name in enumerate(who)}
    for sender, receiver, port in (
        ("hub", "proxy", 8001),
        ("proxy", "hub", 8081),
        ("hub", "server", JUPYTER_PORT),
        ("proxy", "server", JUPYTER_PORT),
        ("hub", "service", 8100),
        ("hub", "service", 8101),
        ("proxy", "service", 8100),
        ("service", "hub", 8081),
        ("server", "hub", 8081),
        ("server", "service", 8100),
    ):
        sends = chains[f"egress_{numbers[sender]}"]
        gets = chains[f"ingress_{numbers[receiver]}"]
        assert f"ip daddr {who[receiver].address} tcp dport {port} return" in sends, (sender, receiver, port)
        assert f"ip saddr {who[sender].address} tcp dport {port} return" in gets, (sender, receiver, port)
    for name in ("hub", "proxy"):
        assert "return" not in chains[f"egress_{numbers[name]}"], "never everything"
        internet = [line for line in chains[f"egress_{numbers[name]}"] if "0.0.0.0/0" in line]
        assert all("169.254.0.0/16" in line for line in internet)


def test_who_may_reach_a_pod_may_reach_it_by_its_service(objects: list[Object]) -> None:
    """The VPC CNI lets a policy reach a Service's address only by the labels that the Service selects."""
    everything = [*load(), *installed(objects)]
    services = [
        item for item in of_kind(everything, "Service") if item["spec"].get("clusterIP", "") != "None"
    ]
    pods = [template["metadata"]["labels"].items() for template in pod_templates(everything).values()]
    told = []
    for policy in of_kind(everything, "NetworkPolicy"):
        for peer in (peer for rule in policy["spec"].get("egress", ()) for peer in rule.get("to", ())):
            wanted = peer.get("podSelector", {}).get("matchLabels", {}).items()
            where = peer.get("namespaceSelector", {}).get("matchLabels", {})
            namespace = where.get("kubernetes.io/metadata.name", policy["metadata"]["namespace"])
            for service in services:
                asked = service["spec"]["selector"].items()
                meant = [labels for labels in pods if wanted and wanted <= labels and asked <= labels]
                if meant and service["metadata"]["namespace"] == namespace:
                    told.append(f"{policy['metadata']['name']} to {service['metadata']['name']}")
                    assert wanted <= asked, told[-1]
    assert {"gpudev to hub", "gpudev-service to hub", "hub to gpudev-service"} <= set(told)


def test_a_load_balancer_finds_the_proxy(objects: list[Object]) -> None:
    """It ends TLS and sends requests to one port of the nodes."""
    spec = one(objects, "Service", "proxy-public")["spec"]
    assert spec["type"] == "NodePort"
    assert spec["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}]


def test_a_changed_setting_restarts_the_hub_and_nothing_else(tmp_path: Path) -> None:
    """Without a cluster, each rendering makes new keys for the Hub, so the test sets them."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(
        "jupyterhub:\n"
        "  hub:\n"
        "    config:\n"
        f"      ConfigurableHTTPProxy: {{auth_token: {'a' * 64}}}\n"
        f"      JupyterHub: {{cookie_secret: {'b' * 64}}}\n"
        f"      CryptKeeper: {{keys: [{'c' * 64}]}}\n"
    )
    change = tmp_path / "change.yaml"
    change.write_text("global: {settings: {grace_seconds: 77}}\n")
    before, same, after = (pod_templates(render(*files)) for files in ([keys], [keys], [keys, change]))
    assert same == before
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"Deployment/hub", "Deployment/gpudev-service"}


def test_on_aws_the_hub_has_its_part_of_the_secrets() -> None:
    """They have the same paths as elsewhere, and the Hub's account can read them."""
    pod = hub(chart.render(os.environ[chart.VARIABLE], LAYERS["aws"]))["template"]["spec"]
    (container,) = pod["containers"]
    drivers = {volume["name"]: volume["csi"] for volume in pod["volumes"] if "csi" in volume}
    ((name, found),) = drivers.items()
    assert found["volumeAttributes"] == {"secretProviderClass": "gpudev-hub"}
    paths = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == name}
    assert paths == {"/etc/gpudev/secrets", "/etc/gpudev/github"}
    context = pod["securityContext"]
    assert (context["supplementalGroups"], context["fsGroup"], context["runAsNonRoot"]) == ([0], 1000, True)
    # Only its own keys (cookies, the proxy's token) stay in a Secret.
    secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"hub"}


def chains_of(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            name = line.split()[1]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


# Configuration


def test_what_the_product_relies_on_wins_over_the_chart(
    objects: list[Object], tmp_path: Path, site: dict[str, str]
) -> None:
    """The chart's lines apply first, then ``hub.config``, then ``extraConfig`` by name, gpudev's last."""
    wins = chart.what_wins(chart.unpack_hub(objects, tmp_path / "hub"), site)
    hub, spawner = wins["JupyterHub"], wins["GpuSpawner"]
    assert "GpuSpawner" in hub["spawner_class"]
    assert hub["tornado_settings"]["slow_spawn_timeout"] == 10, "the chart says 0"
    assert hub["allow_named_servers"] is True, "the chart says False"
    assert hub["last_activity_interval"] == 5, "the chart says 60"
    assert hub["cleanup_servers"] is hub["cleanup_proxy"] is hub["shutdown_on_logout"] is False
    assert [entry["name"] for entry in hub["services"]] == ["gpudev"], "the culler is off"
    assert hub["template_paths"], "the chart says []"
    assert spawner["consecutive_failure_limit"] == 0, "the chart says 5: a few bad requests would end the Hub"
    assert spawner["start_timeout"] == 600, "the chart says 300"
    assert spawner["namespace"] == "gpudev-servers", "the chart says the Hub's own"
    assert spawner["cmd"] == ["/opt/gpudev/bin/jupyterhub-singleuser"]
    assert spawner["pvc_name_template"] == "gpudev-home-{username}"
    assert spawner["delete_pvc"] is False
    assert spawner["init_containers"] == [], "no privileged one of the chart's"
    assert "scheduler_name" not in spawner, "pods go through kube-scheduler"


def test_what_a_site_writes_can_not_undo_it(
    objects: list[Object], tmp_path: Path, site: dict[str, str]
) -> None:
    values = tmp_path / "site.yaml"
    values.write_text(
        "jupyterhub:\n"
        "  hub:\n"
        "    config:\n"
        "      JupyterHub: {cleanup_servers: true, allow_named_servers: false}\n"
        "      GpuSpawner: {consecutive_failure_limit: 3}\n"
        "    extraConfig:\n"
        "      site: |\n"
        "        c.JupyterHub.shutdown_on_logout = True\n"
        "        c.JupyterHub.services.append({'name': 'of-the-site'})\n"
    )
    wins = chart.what_wins(chart.unpack_hub(render(values), tmp_path / "hub"), site)
    assert wins["JupyterHub"]["cleanup_servers"] is False
    assert wins["JupyterHub"]["allow_named_servers"] is True
    assert wins["JupyterHub"]["shutdown_on_logout"] is False
    assert wins["GpuSpawner"]["consecutive_failure_limit"] == 0
    assert [entry["name"] for entry in wins["JupyterHub"]["services"]] == ["of-the-site", "gpudev"]


def test_servers_find_the_hub_and_nobody_gets_in_unasked(
    objects: list[Object], tmp_path: Path, site: dict[str, str]
) -> None:
    wins = chart.what_wins(chart.unpack_hub(objects, tmp_path / "hub"), site)
    service = one(objects, "Service", "hub")
    assert wins["JupyterHub"]["hub_connect_url"] == f"http://hub.gpudev:{service['spec']['ports'][0]['port']}"
    assert "gpudev_hub.hub.github.GitHubAppAuthenticator" in wins["JupyterHub"]["authenticator_class"]
    log_in = wins["GitHubAppAuthenticator"]
    # `any_allow_config` alone lets nobody in: it only silences a warning.
    assert {name: value for name, value in log_in.items() if "allow" in name} == {"any_allow_config": True}
    assert log_in["oauth_callback_url"] == "https://gpudev.example/hub/oauth_callback"
    assert (log_in["client_id"], log_in["scope"], log_in["enable_pkce"]) == ("Iv23liTheApp", [], True)
    assert wins["JupyterHub"]["admin_access"] is False
