"""The check of the installation by API: for operators, and only on Kubernetes."""

from __future__ import annotations

from web_site import Running, looked

PATH = "api/v1/doctor"


async def test_operators_read_every_fact(run: Running) -> None:
    run.site.doctor = looked
    async with run.client("operators") as client:
        answer = await client.get(PATH)
    assert answer.status_code == 200
    assert answer.json() == {
        "ok": False,
        "facts": [
            {"id": "store", "name": "database", "ok": True, "found": "it answers", "todo": ""},
            {"id": "clock", "name": "clock", "ok": False, "found": "2 min behind", "todo": "Set it."},
        ],
    }


async def test_nobody_else_looks(run: Running) -> None:
    run.site.doctor = looked
    for token, status in (("alices", 403), (None, 401)):
        async with run.client(token) as client:
            assert (await client.get(PATH)).status_code == status


async def test_a_hub_on_one_machine_says_so(run: Running) -> None:
    async with run.client("operators") as client:
        answer = await client.get(PATH)
    assert answer.status_code == 409
    assert "health/ready" in answer.text
