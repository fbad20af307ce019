"""Usage in the API, as CSV, on its page and in the metrics."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import httpx
import msgspec
import pytest
import pytest_asyncio

import gpudev
from gpudev import wire
from gpudev.cli.app import main
from gpudev_hub.core.usage import Sums, UsageDay, UsageHead, day_number
from gpudev_hub.web.pages import pages
from gpudev_hub.web.usage import COLUMNS, Range, cell, table
from gpudev_hub.web.usage_drawing import HEIGHT, MOST_BARS, draw
from memory_store import MemoryStore
from web_site import Running, running

OPERATE = ("custom:gpudev:reserve", "custom:gpudev:operate")
API = "api/v1/usage"
PAST = date(2026, 2, 27)


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    """With usage of long ago: of alice, and of one whose name a spreadsheet would take for a formula."""
    store = MemoryStore()
    await store.open()
    days = [
        UsageDay(
            day_number(PAST + timedelta(days=n)),
            0,
            {
                ("local:alice", "simulated", 2): Sums(
                    2, 7_200_000, 3_600_000 * (n + 1), 1, 60_000, 60_000, 1
                ),
                ("local:=evil()", "simulated", 8): Sums(held=3_600_000, outcomes={"released": 1}),
            },
        )
        for n in range(3)
    ]
    logins = {"local:alice": "alice", "local:=evil()": "=evil()"}
    await store.save_usage(UsageHead(0, 0, days[0].day, days[-1].day, {}, {}, logins), days)
    await store.close()
    async with running(pages(), store=store) as run:
        for user in ("alice", "bob"):
            run.hub.person(f"{user}s", user)
        run.hub.person("operators", "olga", scopes=OPERATE)
        run.hub.person("monitors", "prom", scopes=("read:metrics",))
        yield run


async def ask(run: Running, token: str, path: str = API, **query: str) -> httpx.Response:
    async with run.client(token) as client:
        return await client.get(path, params=query)


async def held(run: Running, token: str, gpus: int) -> str:
    async with run.client(token) as client:
        made = (await client.post("api/v1/reservations", json={"gpus": gpus, "hours": 2})).json()
        await run.make_ready(made["id"])
        return str(made["id"])


def past(**query: str) -> dict[str, str]:
    return {"since": "2026-02-27", "until": "2026-03-01", **query}


async def test_my_usage_by_day_and_only_mine(run: Running) -> None:
    answer = await ask(run, "alices", **past())
    found = answer.json()
    assert [row["key"] for row in found["rows"]] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert [row["gpu_hours_held"] for row in found["rows"]] == [1, 2, 3]
    assert (found["total"]["gpu_hours_held"], found["total"]["requests"]) == (6, 6)
    assert (found["owner"], found["by"], found["complete"]) == ("me", "day", True)
    assert (await ask(run, "bobs", **past())).json()["rows"] == []


@pytest.mark.parametrize("path", [API, f"{API}.csv", "usage"])
async def test_only_operators_see_everybodys(run: Running, path: str) -> None:
    refused = await ask(run, "alices", path, **past(owner="all", by="person"))
    assert refused.status_code == 403
    assert "this token of alice is not an operator token" in refused.text
    assert "evil" not in refused.text
    assert "evil" in (await ask(run, "operators", path, **past(owner="all", by="person"))).text


async def test_operators_group_by_person_size_pool_and_team(run: Running) -> None:
    found = {
        by: {
            row["label"]: row["gpu_hours_held"]
            for row in (await ask(run, "operators", **past(owner="all", by=by))).json()["rows"]
        }
        for by in ("person", "size", "pool", "team")
    }
    assert found == {
        "person": {"alice": 6, "=evil()": 3},
        "size": {"2 GPUs": 6, "8 GPUs": 3},
        "pool": {"8 simulated GPUs": 9},
        "team": {"no team": 9},
    }


async def test_what_runs_is_counted(run: Running) -> None:
    made = await held(run, "bobs", 4)
    (row,) = (await ask(run, "bobs", by="size")).json()["rows"]
    assert (row["key"], row["requests"], row["starts"], row["waits"]) == ("4", 1, 1, 1)
    assert row["gpu_hours_reserved"] == 8
    assert row["gpu_hours_held"] > 0
    async with run.client("bobs") as client:
        await client.delete(f"api/v1/reservations/{made}")
    await run.gone(made)
    (row,) = (await ask(run, "bobs", by="pool")).json()["rows"]
    assert row["early_releases"] == 1
    assert row["outcomes"] == {"released": 1}
    assert 7 < row["gpu_hours_given_back"] <= 8.1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"since": "2026-03-02", "until": "2026-03-01"}, "since is 2026-03-02, and until is 2026-03-01"),
        ({"since": "yesterday"}, "yesterday"),
        ({"until": "2026-02-30"}, "2026-02-30"),
        ({"since": "0001-01-01"}, "There is no usage on 0001-01-01"),
        ({"until": "9999-12-31"}, "There is no usage on 9999-12-31"),
        ({"by": "horse"}, "horse"),
    ],
)
@pytest.mark.parametrize("path", [API, f"{API}.csv", "usage"])
async def test_bad_ranges_are_refused_in_words(
    run: Running, path: str, query: dict[str, str], words: str
) -> None:
    refused = await ask(run, "alices", path, **query)
    assert refused.status_code == 400
    assert words in refused.text


async def test_csv_has_no_formulas(run: Running) -> None:
    answer = await ask(run, "operators", f"{API}.csv", **past(owner="all", by="person"))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert (
        'filename="gpudev-usage-2026-02-27-2026-03-01-by-person.csv"' in answer.headers["Content-Disposition"]
    )
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["person", "label", *COLUMNS]
    assert [row[:2] for row in rows[1:]] == [["local:alice", "alice"], ["local:=evil()", "'=evil()"]]
    assert dict(zip(rows[0], rows[1], strict=True))["gpu_hours_held"] == "6"
    for text in ("=1", "+1", "-1", "@a", "\t=1", "\r=1"):
        assert cell(text) == f"'{text}"
    assert cell(0.25) == "0.25"
    assert cell({"expired": 1, "released": 2}) == "expired=1 released=2"


async def test_a_month_without_usage_is_a_header(run: Running) -> None:
    answer = await ask(run, "bobs", f"{API}.csv", since="2026-02-01", until="2026-02-28")
    assert answer.text == ",".join(["day", "label", *COLUMNS]) + "\r\n"
    page = await ask(run, "bobs", "usage", since="2026-02-01", until="2026-02-28")
    assert "There is no usage from 2026-02-01 to 2026-02-28" in page.text


async def test_the_page_has_a_chart_and_the_same_figures_as_a_table(run: Running) -> None:
    page = (await ask(run, "alices", "usage", **past())).text
    assert '<a href="/services/gpudev/usage" aria-current="page">Usage</a>' in page
    assert re.search(r'<svg class="g-drawing"[^>]* role="img" aria-label="Bar chart', page)
    assert page.count('class="g-usage-held"') == 3
    assert '<td class="g-number" data-label="GPU-hours held">3.0</td>' in page
    assert "All users" not in page
    whole = (await ask(run, "operators", "usage", **past(owner="all", by="person"))).text
    assert "<bdi>=evil()</bdi>" in whole
    assert "Figures of this chart" in whole
    assert "All users" in whole


async def test_the_command_and_the_library_show_them(
    run: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUDEV_URL", run.url.partition("/services/")[0])

    async def gpu_dev(token: str, *args: str) -> tuple[int, str, str]:
        monkeypatch.setenv("GPUDEV_TOKEN", token)
        capfd.readouterr()
        code = await asyncio.to_thread(main, ["usage", *args])
        return code, *capfd.readouterr()

    days = ("--since", "2026-02-27", "--until", "2026-03-01")
    code, out, err = await gpu_dev("alices", *days)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:2] == ["DAY", "HELD"]
    assert [(line[0], line[1]) for line in lines[1:]] == [
        ("2026-02-27", "1.0"),
        ("2026-02-28", "2.0"),
        ("2026-03-01", "3.0"),
        ("total", "6.0"),
    ]
    code, out, err = await gpu_dev("operators", *days, "--all", "--by", "person", "--format", "csv")
    assert (code, err) == (0, "")
    assert [row[1] for row in csv.reader(io.StringIO(out))] == ["label", "alice", "'=evil()"]
    code, out, err = await gpu_dev("alices", *days, "--by", "size", "--json")
    assert json.loads(out)["rows"][0]["gpu_hours_held"] == 6
    code, out, err = await gpu_dev(
        "bobs", "--since", "2026-02-01", "--until", "2026-02-28", "--format", "csv"
    )
    assert (code, out, err) == (
        0,
        ",".join(["day", "label", *COLUMNS]) + "\n",
        "There is no usage from 2026-02-01 to 2026-02-28.\n",
    )
    code, out, err = await gpu_dev("alices", "--all")
    assert (code, out) == (5, "")
    assert "this token of alice is not an operator token" in err
    code, out, err = await gpu_dev("alices", "--since", "2026-13-01")
    assert (code, out) == (2, "")
    assert "'2026-13-01' is not a day. Write it like 2026-11-01." in err
    code, out, err = await gpu_dev("alices", "--since", "2026-03-02", "--until", "2026-03-01")
    assert code == 2
    assert "since is 2026-03-02, and until is 2026-03-01" in err
    monkeypatch.setenv("GPUDEV_TOKEN", "alices")
    found = await asyncio.to_thread(gpudev.usage, "pool", date(2026, 2, 27), "2026-03-01")
    assert [row.gpu_hours_held for row in found.rows] == [6]


async def test_metrics_count_by_pool_and_size_and_name_nobody(run: Running) -> None:
    await held(run, "bobs", 4)
    text = (await ask(run, "monitors", "metrics")).text
    assert 'gpudev_gpu_seconds_reserved_total{gpu_type="simulated",gpus="4"} 28800.0' in text
    assert 'gpudev_gpu_seconds_held_total{gpu_type="simulated",gpus="2"} 21600.0' in text
    assert "evil" not in text


def test_the_range_is_the_last_30_days_unless_said_otherwise() -> None:
    now = date(2026, 3, 1)
    assert Range.of(None, None, now) == Range(date(2026, 1, 31), now)
    assert Range.of(None, date(2026, 2, 28), now) == Range(date(2026, 1, 30), date(2026, 2, 28))
    assert Range.of(date(2026, 3, 5), None, now) == Range(date(2026, 3, 5), date(2026, 3, 5))


def usage_of(first: date, hours: list[float]) -> wire.Usage:
    def row(key: str, held: float) -> wire.UsageRow:
        figures = dict[str, object](dict.fromkeys(COLUMNS, 0)) | {"gpu_hours_held": held, "outcomes": {}}
        return msgspec.convert({"key": key, "label": key, **figures}, wire.UsageRow)

    days = [first + timedelta(days=n) for n in range(len(hours))]
    return wire.Usage(
        by="day",
        since=days[0].isoformat(),
        until=days[-1].isoformat(),
        owner="me",
        now=datetime.now(UTC).isoformat(),
        complete=True,
        rows=[row(day.isoformat(), held) for day, held in zip(days, hours, strict=True) if held],
        total=row("total", sum(hours)),
    )


@pytest.mark.parametrize("length", [1, 2, 31, 62, 63, 366, 1_800, 9_000])
def test_a_chart_has_every_day_once_and_fits(length: int) -> None:
    hours = [float(n % 7) for n in range(length)]
    chart = draw(usage_of(date(2026, 1, 1), hours))
    assert len(chart.columns) <= MOST_BARS
    assert chart.columns[0].first == date(2026, 1, 1)
    assert chart.columns[-1].last == date(2026, 1, 1) + timedelta(days=length - 1)
    assert sum(column.held for column in chart.columns) == sum(hours)
    for column, following in zip(chart.columns, chart.columns[1:], strict=False):
        assert following.first == column.last + timedelta(days=1)
        assert following.x >= column.x + column.width
    assert all(0 <= column.held_height <= HEIGHT for column in chart.columns)
    assert chart.columns[-1].x + chart.columns[-1].width <= 100
    assert len(chart.labels) <= 9
    assert chart.lines[0].value == 0


def test_a_chart_without_usage_has_no_bars() -> None:
    assert {column.held_height for column in draw(usage_of(date(2026, 1, 1), [0.0] * 5)).columns} == {0}
    assert table(usage_of(date(2026, 1, 1), [0.0])).count("\r\n") == 1
