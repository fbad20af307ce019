"""The installed product: log in, reserve, then upgrade, kill parts, uninstall and install again."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from browsing import SLOW, choose, picture
from checks import uids
from cluster_users import NAMESPACE
from gpudev_hub.core.views.doctor import CHECKS
from harness.cluster import Cluster
from harness.layout import API_ADDRESS, API_PORT, HOME_CLASS
from hub_users import NO_TLS, wait_for
from live_ssh import live_session
from manifests import ROOT
from people import People, Person
from pod_identity import AGENT
from sessions import log_in
from whole_stack import HOME, NEXT_TAG, PARTS, TAG, WholeStack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
OWNER, OTHER = "ada", "bob"
NAME = "first"
HOST = f"gpu-{NAME}"


@dataclass(frozen=True)
class Held:
    """A server that the owner reserved in a browser, and its page."""

    record: dict[str, Any]
    pods: dict[str, str]
    page: Page
    owner: Person


@pytest.fixture(scope="module")
def held(stack: WholeStack, person: People, visit: Callable[[], Page]) -> Held:
    """Log in with GitHub, reserve 2 GPUs in the picker, and wait for JupyterLab."""
    owner = person(OWNER)
    page = visit()
    picture(page, "whole-login")
    page.get_by_role("link", name="Log in with GitHub").click()
    page.get_by_role("radio", name=re.compile(rf"^{OWNER}\b")).check()
    page.get_by_role("button", name="Sign in and authorize").click()
    page.wait_for_url("**/services/gpudev/")
    page.get_by_role("button", name="Reserve GPUs").click()
    expect(page.get_by_text("16 free now")).to_be_visible()
    picture(page, "whole-picker")
    choose(page, "2 GPUs", "4", NAME)
    page.wait_for_url(re.compile(rf"/user/{OWNER}/[a-z0-9-]+/lab"), timeout=SLOW)
    (record,) = stack.api("GET", "reservations", None, OWNER)["reservations"]
    return Held(record, uids(stack, record["id"]), page, owner)


@pytest.fixture(scope="module")
def other(stack: WholeStack, person: People) -> dict[str, Any]:
    """Reserve a server for another user."""
    person(OTHER)
    return stack.wait_state(stack.reserve(OTHER, hours=4, name="second")["id"], "ready", OTHER)


@pytest.fixture
def untouched(stack: WholeStack, held: Held) -> Iterator[None]:
    """Check after the test that the server is the same and its owner can use it."""
    before = stack.record(held.record["id"], OWNER)
    kernels = stack.kernels(before)
    yield
    after = stack.wait_state(held.record["id"], "ready", OWNER)
    assert uids(stack, after["id"]) == held.pods
    assert (after["allocation"], after["ends_at"]) == (before["allocation"], before["ends_at"])
    assert stack.kernels(after) == kernels, "no notebook lost its variables"
    # A service that has just started allows no connections before it has read the pods.
    try:
        wait_for("SSH", lambda: held.owner.ssh(HOST, "true", check=False).returncode == 0)
    except AssertionError as error:
        for part in ("service", "bastion"):
            lines = [line for line in stack.log(part).splitlines() if "gpudev.access" not in line]
            error.add_note(f"the {part} said last:\n" + "\n".join(lines[-30:]))
        raise


def test_a_notebook_sees_the_gpus(stack: WholeStack, held: Held) -> None:
    page = held.page
    page.goto(f"/user/{OWNER}/{held.record['id']}/lab/tree/gpu-dev-examples/first-steps.ipynb")
    kernel = page.get_by_role("button", name=re.compile(r"^Python [\d.]+ \| Idle$"))
    expect(kernel).to_be_visible(timeout=SLOW)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator("[data-command='runmenu:run-all']").click()
    output = page.locator(".jp-OutputArea-output")
    expect(output.filter(has_text="Not released.")).to_be_attached(timeout=SLOW)
    expect(output.filter(has_text=f"{HOST} · 2 GPUs")).to_be_visible()
    (place,) = held.record["allocation"]
    gpus = ", ".join(map(str, place["slots"]))
    expect(output.filter(has_text=f"{place['node']}: GPUs {gpus}")).to_be_attached()
    picture(page, "whole-notebook")


def test_ssh_leads_through_the_bastion_to_the_same_home(held: Held) -> None:
    said = held.owner.ssh(HOST, "echo $GPUDEV_RESERVATION; ls -d ~/gpu-dev-examples; echo kept > ~/file")
    assert said.stdout.split() == [held.record["id"], "/home/dev/gpu-dev-examples"]


def test_the_service_has_its_rights_in_aws_from_pod_identity(stack: WholeStack) -> None:
    """It has no other credentials, and no other account gets any."""
    assert set(stack.identity.given) == {(HOME, "gpudev-service")}


def test_the_hub_knows_the_service_by_its_secret(stack: WholeStack, cluster: Cluster) -> None:
    secret = cluster.api.get(f"/api/v1/namespaces/{HOME}/secrets/gpudev-shared").raise_for_status().json()
    token = base64.b64decode(secret["data"]["service-token"]).decode().strip()
    headers = {"Authorization": f"token {token}"}
    answer = httpx.get(f"{stack.url}/hub/api/user", headers=headers, trust_env=False, verify=NO_TLS)
    found = answer.raise_for_status().json()
    assert (found["kind"], found["name"]) == ("service", "gpudev")


def test_the_hub_and_the_service_complain_of_nothing(stack: WholeStack, held: Held) -> None:
    said = stack.log("hub")
    assert "not recognized" not in said, said
    for name in PARTS:
        assert "Traceback" not in stack.log(name), stack.log(name)


def test_the_check_of_the_installation_runs_as_the_page_says(stack: WholeStack, held: Held) -> None:
    """It runs in the service's pod, with its settings and rights. A failed check says what to do."""
    page = (ROOT / "docs" / "install-aws.md").read_text()
    (command,) = re.findall(r"^kubectl (.+ -- gpudev-hub doctor)$", page, re.MULTILINE)
    try:
        said, failed = stack.cluster.kubectl(*shlex.split(command)), False
    except subprocess.CalledProcessError as error:
        said, failed = error.stdout, True
    print(said)
    facts = re.findall(r"^(ok|FAILED) +([^:]+): (.+)$", said, re.MULTILINE)
    remedies = re.findall(r"^ {8}\S.+$", said, re.MULTILINE)
    assert len(facts) + len(remedies) == len(said.splitlines()), said
    states = {name: state for state, name, _ in facts}
    assert len(states) == len(CHECKS), said
    assert failed == ("FAILED" in states.values()), said
    assert len(remedies) == list(states.values()).count("FAILED"), said
    # Checks of GPUs, EFA and AWS may fail on this cluster. Checks of what the command needs may not.
    for name in ("database", "JupyterHub", "Kubernetes API", "clock", "network policies", "SSH bastion"):
        assert states[name] == "ok", said
    assert stack.record(held.record["id"], OWNER)["state"] == "ready", "it changes nothing"


def test_all_pods_keep_the_standard_of_their_namespaces(cluster: Cluster) -> None:
    """PodSecurity enforces it, without exemptions or changed labels."""
    for namespace in (HOME, NAMESPACE):
        found = cluster.api.get(f"/api/v1/namespaces/{namespace}").raise_for_status().json()
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_another_user_reaches_nothing_of_the_server(
    stack: WholeStack, person: People, held: Held, other: dict[str, Any]
) -> None:
    """They cannot use a browser, SSH, their own server, or the account of the server."""
    lab = f"/user/{OWNER}/{held.record['id']}/lab"
    with log_in(stack, OTHER) as browser:
        assert browser.get(lab).status_code == 403
        assert browser.get(f"/user/{OTHER}/{other['id']}/lab").status_code == 200
    assert person(OTHER).ssh("gpu-second", "true").returncode == 0
    assert person(OTHER).ssh(HOST, "true", check=False).returncode == 255
    (theirs,) = stack.pods(held.record["id"])
    service, hub = (stack.parts(name)[0]["status"]["podIP"] for name in ("service", "hub"))
    address = theirs["status"]["podIP"]
    targets = {
        f"{address}/2222": False,
        f"{address}/8888": False,
        f"{service}/8100": True,
        f"{service}/8101": False,
        f"{hub}/8081": True,
        f"{API_ADDRESS}/{API_PORT}": False,
        f"{AGENT}/80": False,
    }
    assert reached(stack, other, targets) == targets


def reached(stack: WholeStack, record: dict[str, Any], targets: Iterable[str]) -> dict[str, bool]:
    """Return which of these (``ADDRESS/PORT``) the first node of a server can reach."""
    looks = [f"timeout 2 bash -c '>/dev/tcp/{target}' 2>/dev/null; echo $?" for target in targets]
    (pod, *_) = stack.pods(record["id"])
    said = stack.cluster.execute(NAMESPACE, pod["metadata"]["name"], "bash", "-c", "; ".join(looks))
    return dict(zip(targets, (code == "0" for code in said.split()), strict=True))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("untouched")
def test_a_part_that_is_killed_comes_back(stack: WholeStack, cluster: Cluster, part: str) -> None:
    epoch = stack.epoch()
    before = {pod["metadata"]["name"] for pod in stack.parts(part)}
    gone = min(before)
    path = f"/api/v1/namespaces/{HOME}/pods/{gone}"
    cluster.api.delete(path, params={"gracePeriodSeconds": "0"}).raise_for_status()
    began = time.monotonic()
    wait_for(f"another {part}", lambda: len(ready(stack, part) - {gone}) == len(before))
    stack.wait_until_up()
    print(f"{part} again after {time.monotonic() - began:.1f} s")
    assert stack.epoch() == epoch + (part == "service")


def ready(stack: WholeStack, part: str) -> set[str]:
    """Return the names of the part's ready pods."""
    return {
        pod["metadata"]["name"]
        for pod in stack.parts(part)
        if all(container["ready"] for container in pod["status"].get("containerStatuses", [{"ready": False}]))
    }


@pytest.mark.usefixtures("untouched")
def test_an_upgrade_and_a_rollback_under_a_live_server(stack: WholeStack, held: Held) -> None:
    """Sessions stay, except through a replaced pod of the bastion. Their users must connect again."""
    epoch, first = stack.epoch(), stack.revision()
    hub = {"hub": {"image": {"tag": NEXT_TAG}}}
    settings = {"settings": {"policy": {"contact": "gpu-help@example.org"}}}
    with live_session(held.owner, HOST) as session:
        stack.install({"jupyterhub": hub, "global": settings})
        assert tags(stack) == {"hub": NEXT_TAG, "service": NEXT_TAG, "bastion": TAG}
        assert session.answers(), "the bastion was not replaced"
        upgraded = stack.epoch()
        assert upgraded > epoch
        held.page.goto("/services/gpudev/help")
        expect(held.page.get_by_role("main")).to_contain_text("gpu-help@example.org")

        bastion = {"images": {"bastion": {"tag": NEXT_TAG}}}
        stack.install({"jupyterhub": hub, "global": settings, **bastion})
        assert tags(stack)["bastion"] == NEXT_TAG
        print(f"ssh said: {session.wait_for_end()}")
        assert stack.epoch() == upgraded, "nothing else was replaced"
        assert held.owner.ssh(HOST, "true").returncode == 0, "a new connection at once"

    stack.helm("rollback", "gpudev", str(first), "--wait")
    stack.wait_until_up()
    assert tags(stack) == {"hub": TAG, "service": TAG, "bastion": TAG}
    assert stack.epoch() > upgraded
    nodes = {pod["spec"]["nodeName"] for pod in stack.parts("bastion")}
    assert nodes == {"node-1", "node-2"}, "traffic goes only to nodes that have a bastion"


def tags(stack: WholeStack) -> dict[str, str]:
    """Return the tags of the running images."""
    found = {}
    for part in ("hub", "service", "bastion"):
        wait_for(f"only the new {part}", lambda part=part: len(images(stack, part)) == 1)  # type: ignore[misc]
        found[part] = images(stack, part).pop().rpartition(":")[2]
    return found


def images(stack: WholeStack, part: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in stack.parts(part)}


@pytest.mark.usefixtures("untouched")
def test_servers_and_homes_outlive_the_release(
    stack: WholeStack, cluster: Cluster, held: Held, other: dict[str, Any]
) -> None:
    """After a removal and a new installation, reservations are there, and their servers never stopped."""
    epoch = stack.epoch()
    stack.helm("uninstall", "gpudev", "--wait")
    assert not [pod for part in PARTS for pod in stack.parts(part)]
    with pytest.raises(httpx.TransportError):
        httpx.get(stack.url, trust_env=False, timeout=5)
    (pod,) = stack.pods(held.record["id"])
    assert pod["metadata"]["uid"] in held.pods.values()
    address = pod["status"]["podIP"]
    assert not any(reached(stack, other, [f"{address}/2222", f"{address}/8888"]).values()), "policies stay"
    claims = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims").json()["items"]
    phases = {claim["metadata"]["name"]: claim["status"]["phase"] for claim in claims}
    assert {phases[f"gpudev-home-{user}"] for user in (OWNER, OTHER)} == {"Bound"}
    assert cluster.api.get(f"/apis/storage.k8s.io/v1/storageclasses/{HOME_CLASS}").is_success

    stack.lose_hub_database()
    stack.install()
    stack.forget_tokens()
    held.owner.login_with_token()
    assert stack.epoch() == epoch + 1
    for record, user in ((held.record, OWNER), (other, OTHER)):
        assert stack.wait_state(record["id"], "ready", user)["ends_at"]
        wait_for("JupyterLab", lambda record=record, user=user: stack.jupyter(record, user) == 200)  # type: ignore[misc]
    wait_for("the home", lambda: held.owner.ssh(HOST, "cat ~/file", check=False).stdout == "kept\n")
