"""The check of GitHub by API: for operators, and only where the hub uses GitHub."""

from __future__ import annotations

from web_site import Running, checked

PATH = "api/v1/github-check"


async def test_operators_read_every_fact(run: Running) -> None:
    run.site.github_check = checked
    async with run.client("operators") as client:
        answer = await client.get(PATH)
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": False,
        "facts": [
            {"name": "App", "ok": True, "found": "gpudev", "todo": ""},
            {"name": "clock", "ok": False, "found": "900 s behind", "todo": "Set the clock."},
        ],
    }


async def test_nobody_else_asks_github(run: Running) -> None:
    run.site.github_check = checked
    for token, status in (("alices", 403), (None, 401)):
        async with run.client(token) as client:
            assert (await client.get(PATH)).status_code == status


async def test_a_hub_without_github_says_so(run: Running) -> None:
    async with run.client("operators") as client:
        answer = await client.get(PATH)
    assert answer.status_code == 409
    assert "does not use GitHub" in answer.text
