"""Alarms and the dashboard ask for metrics that exist, and the manual has what to do about each alarm."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gpudev_hub.ssh.bastion import Bastion
from metric_samples import families
from organisation import Organisation, github
from tofu import INFRA, REPOSITORY, Json
from web_site import running

CLUSTER = INFRA / "aws" / "cluster"
RULES = [
    rule
    for group in yaml.safe_load((CLUSTER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SCRAPE = yaml.safe_load((CLUSTER / "scrape.yaml").read_text())
DASHBOARD: Json = json.loads((INFRA / "aws" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PAGE = REPOSITORY / "docs" / "aws" / "alarms.md"

EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        for target in panel["targets"]
    },
}

Samples = dict[str, list[dict[str, str]]]
"""Labels of the samples of each metric."""


@pytest.fixture(scope="module")
def samples() -> Samples:
    """What a running service shows a scraper, with GitHub and a bastion."""
    text = asyncio.run(scraped())
    found: Samples = {name: [] for name in families(text)}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


async def scraped() -> str:
    async with running(github=github(Organisation())) as run:
        run.site.bastion = Bastion(
            run.service.view,
            run.directory,
            now=run.service.clock.now,
            on_machine=lambda at: at,
        )
        for _ in range(1000):
            if run.service.usage.complete:  # it has read its history
                break
            await asyncio.sleep(0.01)
        await run.scrape()  # so that one request has been answered
        return await run.scrape()


def of_exporters() -> set[str]:
    """Metrics that are not ours: what the scraper keeps of the GPUs' exporter, and its own."""
    text = (INFRA / "aws" / "platform" / "monitoring.tf").read_text()
    made = set(re.findall(r"^\s*(DCGM_\w+), ", text, re.MULTILINE))
    (gpus,) = [job for job in SCRAPE["scrape_configs"] if job["job_name"] == "dcgm"]
    (kept,) = [rule["regex"] for rule in gpus["metric_relabel_configs"] if rule["action"] == "keep"]
    return {"up"} | {name for name in made if re.fullmatch(kept, name)}


_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset"}


def selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Yield the metrics that an expression names, each with what stands in its braces."""
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"\[[^\]]*\]", " ", bare)
    for found in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", bare):
        following = bare[found.end() :].lstrip()
        if found[1] not in _WORDS and not following.startswith("("):
            yield found[1], found[2] or ""


def test_expressions_are_read_as_they_are_meant() -> None:
    text = 'sum by (gpu_type) (rate(a_total{x="y (z)"}[5m])) / on (b) max(c) > 0.5 and d unless e{f=~"g|h"}'
    assert list(selectors(text)) == [("a_total", '{x="y (z)"}'), ("c", ""), ("d", ""), ("e", '{f=~"g|h"}')]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_is_one_that_is_made(name: str, samples: Samples) -> None:
    """And so is every label value that is asked for: a rule for what is never there never fires."""
    found = list(selectors(EXPRESSIONS[name]))
    assert found
    for metric, braces in found:
        if metric in of_exporters():
            continue
        assert metric in samples, f"{metric} is neither in the service's metrics nor an exporter's"
        for label, operator, value in re.findall(r'(\w+)\s*(=~|=|!=)\s*"([^"]*)"', braces):
            seen = {labels[label] for labels in samples[metric] if label in labels}
            for wanted in value.split("|") if operator == "=~" else [value]:
                # Statuses of answers are counted when there was one.
                assert wanted in seen or "." in wanted, f"{metric}: no {label} is {wanted}"


def test_jobs_that_are_asked_for_are_scraped() -> None:
    jobs = {job["job_name"] for job in SCRAPE["scrape_configs"]}
    asked = {job for text in EXPRESSIONS.values() for job in re.findall(r'job="(\w+)"', text)}
    assert asked == jobs


def test_the_scraper_finds_the_service_by_its_port() -> None:
    rendered = yaml.safe_load_all((REPOSITORY / "tests" / "manifests" / "rendered" / "aws.yaml").read_text())
    (service,) = [
        item
        for item in rendered
        if item and item["kind"] == "Deployment" and item["metadata"]["name"] == "gpudev-service"
    ]
    (job,) = [job for job in SCRAPE["scrape_configs"] if job["job_name"] == "gpudev"]
    assert job["kubernetes_sd_configs"] == [
        {"role": "pod", "namespaces": {"names": [service["metadata"]["namespace"]]}}
    ]
    component, port = job["relabel_configs"][0]["regex"].split(";")
    template = service["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ports = {each["name"]: each["containerPort"] for each in template["spec"]["containers"][0]["ports"]}
    assert f'"Metrics of gpudev"   = {ports[port]}' in (CLUSTER / "metrics.tf").read_text()


def headings() -> list[str]:
    return re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE)


def runbooks() -> set[str]:
    """What alarms name: rules for Prometheus, alarms of CloudWatch, and the budget."""
    rules = {rule["annotations"]["runbook"] for rule in RULES}
    text = (CLUSTER / "alarms.tf").read_text()
    found = re.findall(r'"([A-Z][^"(]+?)(?: \([^"]*)?" =>? \{$', text, re.MULTILINE)
    return rules | set(found) | {"The month costs more than the budget"}


def test_every_alarm_has_a_paragraph_and_every_paragraph_an_alarm() -> None:
    assert set(headings()) == runbooks()
    assert len(headings()) == len(set(headings()))


@pytest.mark.parametrize("heading", headings())
def test_a_paragraph_says_what_users_notice_and_what_to_do(heading: str) -> None:
    text = PAGE.read_text().partition(f"### {heading}\n")[2].partition("\n##")[0]
    for part in ("**Users:**", "**Look:**", "**Do:**"):
        assert text.count(part) == 1, part
    look = text.partition("**Look:**")[2].partition("**Do:**")[0]
    assert "`" in look, "a command, or where to look"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alarm_says_how_urgent_it_is_and_what_happened(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"runbook", "summary"}
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"([A-Z][a-z]+)+", rule["alert"])


def test_the_names_of_alarms_differ() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_is_complete(panel: Json) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"]


def test_the_dashboard_has_room_for_each_panel() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
