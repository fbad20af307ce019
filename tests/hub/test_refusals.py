"""What the Hub must not do for anybody, whatever his token allows: a real Hub, driven over its REST API."""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from gpudev import login
from gpudev_hub.hub.tokens import LONGEST_LIFE, LONGEST_NOTE, MOST
from hub_users import wait_for
from stack import Stack, running_stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder), pool="1x2") as running,
    ):
        yield running


def alice_with(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, scopes: tuple[str, ...]
) -> Iterator[httpx.Client]:
    with monkeypatch.context() as patch:
        patch.setattr(login, "SCOPES", scopes)
        token = login.by_password(stack.url, "alice", stack.password("alice"))
    with httpx.Client(
        base_url=f"{stack.url}/hub/api/users/alice",
        headers={"Authorization": f"token {token}"},
        trust_env=False,
        timeout=30,
    ) as client:
        yield client


@pytest.fixture
def hub(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Alice with a token that may start and edit her servers, and nothing else."""
    scopes = ("start:servers!user", "read:servers!user", "delete:servers!user")
    yield from alice_with(stack, monkeypatch, scopes)


@pytest.fixture
def strict(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Alice with a token that may start her servers, and nothing else."""
    yield from alice_with(stack, monkeypatch, ("start:servers!user",))


@pytest.fixture
def tokens(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Alice with a token that may make tokens, and nothing else."""
    yield from alice_with(stack, monkeypatch, ("tokens!user",))


def folders(stack: Stack) -> set[Path]:
    """One for each server that was ever started."""
    return set(stack.settings.servers.iterdir())


def nothing_started(stack: Stack, before: set[Path] | frozenset[Path] = frozenset()) -> bool:
    return folders(stack) <= before and stack.server_processes() == {}


def test_no_server_past_the_queue(stack: Stack, hub: httpx.Client) -> None:
    default = hub.post("/server")
    assert default.status_code == 403
    assert "This hub has no default server" in default.json()["message"]
    for body in ({}, {"gpus": 2}, {"user_options": {"gpus": 2, "form": True}}):
        made_up = hub.post("/servers/made-up", json=body)
        assert made_up.status_code == 403, made_up.text
        assert "reservations" in made_up.json()["message"]
    assert nothing_started(stack)
    assert stack.api("GET", "reservations", None, "alice")["reservations"] == []


def test_a_refused_start_leaves_nothing_in_the_hub(stack: Stack, hub: httpx.Client) -> None:
    said = len(stack.log("hub"))
    before, named = server_tokens(stack), servers_known(stack)
    for name in ("made-up", "made-up-too"):
        assert hub.post(f"/servers/{name}", json={"blob": "y" * 100_000}).status_code == 403
        assert hub.put(f"/servers/{name}").status_code == 403
    assert server_tokens(stack) == before
    assert servers_known(stack) == named
    assert "Failed to cleanup" not in stack.log("hub")[said:]


def test_made_up_names_are_limited_and_leave_no_row(stack: Stack) -> None:
    """Neither by the spawn page nor by its form."""
    before = servers_known(stack)
    with in_the_browser(stack, "dave") as browser:
        answers: list[httpx.Response] = []
        while len(answers) < 100 and (not answers or answers[-1].status_code == 303):
            path = f"/hub/spawn/dave/made-up-{len(answers)}"
            answers.append(browser.get(path, follow_redirects=False))
            answers.append(browser.post(path, data={"_xsrf": xsrf(browser)}, follow_redirects=False))
        assert len(answers) > 20
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert "bursts of 20" in answers[-1].text
    assert servers_known(stack) == before


def test_tokens_are_limited_in_number_and_size(stack: Stack, tokens: httpx.Client) -> None:
    """Nobody fills the Hub's database, nor makes their own page of tokens too long for it."""
    for body, status in (
        ({"note": "x" * LONGEST_NOTE}, 201),
        ({"note": "x" * (LONGEST_NOTE + 1)}, 400),
        ({"note": ["x" * 100_000]}, 400),
        ({"expires_in": LONGEST_LIFE}, 201),
        ({"expires_in": LONGEST_LIFE + 1}, 400),
        ({"expires_in": 10**30}, 400),
        ({}, 201),
    ):
        answer = tokens.post("/tokens", json=body)
        assert answer.status_code == status, answer.text
    made = tokens.post("/tokens", json={}).json()
    life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created"])
    assert round(life.total_seconds() / 60) == LONGEST_LIFE / 60, "a token without an expiry gets the longest"
    with closing(sqlite3.connect(stack.settings.hub / "jupyterhub.sqlite", timeout=30)) as database:
        database.executemany(
            "INSERT INTO api_tokens (user_id, client_id, hashed, prefix, scopes)"
            " SELECT id, 'jupyterhub', 'filling ' || ?, 'none', '[]' FROM users WHERE name = 'alice'",
            [(number,) for number in range(MOST)],
        )
        database.commit()
        refused = tokens.post("/tokens", json={})
        assert (refused.status_code, f"the limit is {MOST}" in refused.json()["message"]) == (403, True)
        database.execute("DELETE FROM api_tokens WHERE hashed LIKE 'filling %'")
        database.commit()
    assert tokens.post("/tokens", json={}).status_code == 201


def test_an_opened_picker_leaves_no_row(stack: Stack) -> None:
    before = servers_known(stack)
    with in_the_browser(stack, "carol") as browser:
        page = new_spawn_page(browser)
        assert page.status_code == 200
        form = {"_xsrf": xsrf(browser), "hours": "so many"}
        assert browser.post(page.url.path, data=form).status_code == 400
        assert browser.get(page.url.path).status_code == 200
        assert servers_known(stack) == before


def test_the_hub_lists_what_was_reserved_and_nothing_that_was_looked_at(stack: Stack) -> None:
    """Pickers opened and left, links with options, and one that was submitted."""
    with in_the_browser(stack, "bob") as browser:
        before = servers_known(stack)
        pages = [
            new_spawn_page(browser),
            new_spawn_page(browser, gpus="2", hours="2"),
            new_spawn_page(browser),
        ]
        assert all(page.status_code == 200 for page in pages)
        browser.get(pages[0].url.path)
        assert servers_known(stack) == before
        form = {"_xsrf": xsrf(browser), "gpus": "1", "hours": "1"}
        sent = browser.post(pages[0].url.path, data=form, follow_redirects=False)
        assert sent.status_code in (302, 303), sent.text
        reserved = pages[0].url.path.rpartition("/")[2]
        stack.wait_state(reserved, "ready", "bob")
        assert servers_known(stack) == before | {reserved}
        stack.api("DELETE", f"reservations/{reserved}", None, "bob")
        stack.wait_state(reserved, "ended", "bob")
        wait_for("its row to be forgotten", lambda: servers_known(stack) == before)


def xsrf(browser: httpx.Client) -> str:
    """What the Hub's own forms send along."""
    found = next(c.value for c in browser.cookies.jar if c.name == "_xsrf" and c.path.startswith("/hub"))
    assert found is not None
    return found


def servers_known(stack: Stack) -> set[str]:
    """Names of the servers that the Hub has a row of."""
    with closing(sqlite3.connect(stack.settings.hub / "jupyterhub.sqlite")) as database:
        return {name for (name,) in database.execute("SELECT name FROM spawners WHERE name != ''")}


def test_a_log_in_with_a_large_body_is_refused_and_kept_by_nobody(stack: Stack) -> None:
    def resident() -> int:
        status = Path(f"/proc/{stack.part('hub')}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]

    before = resident()
    for url in ("/hub/login", "/hub/api/users/alice/tokens"):
        answer = httpx.post(f"{stack.url}{url}", content=bytes(40 << 20), trust_env=False, timeout=30)
        assert answer.status_code == 413, answer.text
        assert f"The body has {40 << 20} bytes; the limit is 262144." in answer.json()["message"]
    assert resident() - before < 20 << 10


def server_tokens(stack: Stack) -> int:
    """Tokens that the Hub has made for servers."""
    with closing(sqlite3.connect(stack.settings.hub / "jupyterhub.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM api_tokens WHERE note LIKE 'Server at%'").fetchone()
    return int(count)


def test_a_token_that_starts_servers_reserves_nothing(stack: Stack, hub: httpx.Client) -> None:
    headers = {"Authorization": hub.headers["Authorization"]}
    url = f"{stack.url}/services/gpudev/api/v1/reservations"
    before = folders(stack)
    answer = httpx.post(url, headers=headers, json={"gpus": 1}, trust_env=False)
    assert answer.status_code in (401, 403)
    assert nothing_started(stack, before)


def test_queued_and_somebody_elses(stack: Stack, hub: httpx.Client) -> None:
    first = stack.reserve("bob", gpus=2)
    waiting = stack.reserve("alice", gpus=1)
    queued = hub.post(f"/servers/{waiting['id']}")
    assert queued.status_code == 409
    assert stack.api("GET", f"reservations/{waiting['id']}", None, "alice")["state"] == "queued"
    assert hub.post(f"/servers/{first['id']}").status_code == 403
    assert not list(stack.settings.servers.glob(f"{waiting['id']}-*"))
    stack.api("DELETE", f"reservations/{waiting['id']}", None, "alice")
    stack.api("DELETE", f"reservations/{first['id']}", None, "bob")
    stack.wait_state(first["id"], "ended", "bob")


def test_a_queued_request_is_no_failure_on_the_page_of_a_slow_answer(stack: Stack) -> None:
    """A form whose answer takes the Hub more than a second leads there."""
    first = stack.reserve("bob", gpus=2)
    stack.wait_state(first["id"], "ready", "bob")
    with in_the_browser(stack, "carol") as browser:
        form = new_spawn_page(browser)
        fields = {"_xsrf": xsrf(browser), "profile": "simulated-1x1", "hours": "1", "image": "default"}
        answer = browser.post(form.url.path, data=fields, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        there, made = answer.headers["Location"], form.url.path.rpartition("/")[2]
        assert there == f"/services/gpudev/reservations/{made}"
        page = browser.get(f"/hub/spawn-pending/carol/{made}", follow_redirects=False).text
    assert "<h1>Your request is in the queue</h1>" in page
    assert f"Reservation {made} has place 1 in the queue" in page
    assert f'<meta http-equiv="refresh" content="0; url={there}">' in page
    assert "did not start" not in page
    stack.api("DELETE", f"reservations/{made}", None, "carol")
    stack.api("DELETE", f"reservations/{first['id']}", None, "bob")
    stack.wait_state(first["id"], "ended", "bob")


def test_a_server_keeps_its_name(stack: Stack, hub: httpx.Client) -> None:
    first, waiting = stack.reserve("bob", gpus=2), stack.reserve("alice", gpus=1)
    assert hub.put(f"/servers/{waiting['id']}").status_code == 201
    renamed = hub.patch(f"/servers/{waiting['id']}", json={"name": "two"})
    assert renamed.status_code == 403
    assert "cannot be renamed" in renamed.json()["message"]
    assert hub.get("/servers/two").status_code == 404
    for record, owner in ((waiting, "alice"), (first, "bob")):
        stack.api("DELETE", f"reservations/{record['id']}", None, owner)
        stack.wait_state(record["id"], "ended", owner)
    wait_for("its row to be forgotten", lambda: waiting["id"] not in servers_known(stack))


def test_the_token_of_a_log_in_lists_its_owners_servers_and_no_more(stack: Stack) -> None:
    """As editors ask that connect to a JupyterHub."""
    record = stack.reserve("alice", gpus=1)
    ready = stack.wait_state(record["id"], "ready", "alice")
    headers = {"Authorization": f"token {stack.token_for('alice')}"}
    with httpx.Client(base_url=f"{stack.url}/hub/api", headers=headers, trust_env=False, timeout=30) as hub:
        found = hub.get("/users/alice").raise_for_status().json()
        assert not set(found) & {"auth_state", "pending", "last_activity", "roles"}
        (server,) = found["servers"].values()
        assert (server["name"], server["ready"], server["url"]) == (
            record["id"],
            True,
            ready["url"].removeprefix(stack.url).removesuffix("lab"),
        )
        assert "state" not in server
        assert hub.get(f"/users/alice/servers/{record['id']}").status_code == 200
        for method, path in (
            ("POST", f"/users/alice/servers/{record['id']}"),
            ("DELETE", f"/users/alice/servers/{record['id']}"),
            ("POST", "/users/alice/tokens"),
            ("GET", "/users/alice/tokens"),
            ("GET", "/users"),
        ):
            assert hub.request(method, path).status_code == 403, (method, path)
        assert hub.get("/users/bob").status_code in (403, 404)
    stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
    stack.wait_state(record["id"], "ended", "alice")


def test_a_start_right_after_its_removal_is_refused_in_words(stack: Stack, hub: httpx.Client) -> None:
    record = stack.reserve("alice", gpus=1)
    stack.wait_state(record["id"], "ready", "alice")
    server = f"/servers/{record['id']}"
    removed = threading.Thread(target=hub.request, args=("DELETE", server), kwargs={"json": {"remove": True}})
    removed.start()
    answers: list[httpx.Response] = []
    while not answers or (answers[-1].status_code != 403 and len(answers) < 500):
        answers.append(hub.post(server))
    removed.join()
    said = {(answer.status_code, answer.json()["message"].partition("\n")[0]) for answer in answers}
    assert {status for status, _ in said} <= {400, 403, 409}, said
    assert "has ended" in answers[-1].json()["message"]
    assert any(status == 409 for status, _ in said), said
    # Some starts are under way when the service, which knows of the end, has the Hub forget the server.
    assert all(re.search("is stopping|was stopped while", words) for status, words in said if status == 409)
    assert all("already running" in words for status, words in said if status == 400)
    stack.wait_state(record["id"], "ended", "alice")


@contextmanager
def in_the_browser(stack: Stack, user: str) -> Iterator[httpx.Client]:
    """Logged in at the Hub's form."""
    with httpx.Client(base_url=stack.url, trust_env=False, follow_redirects=True, timeout=30) as browser:
        browser.get("/hub/login")
        form = {"username": user, "password": stack.password(user), "_xsrf": browser.cookies["_xsrf"]}
        browser.post("/hub/login", data=form)
        yield browser


def new_spawn_page(browser: httpx.Client, **fields: str) -> httpx.Response:
    """The picker, on an id that was handed out for it."""
    page = browser.get("/services/gpudev/new", params=fields)
    xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert xsrf is not None
    return browser.post("/services/gpudev/new", data={"_xsrf": xsrf[1], **fields})


def test_an_id_of_the_picker_is_no_way_past_the_queue(stack: Stack, strict: httpx.Client) -> None:
    """An id that was handed out to her own browser; only the form, with her cookie, makes something of it."""
    before = folders(stack)
    with in_the_browser(stack, "alice") as browser:
        page = new_spawn_page(browser)
        minted = page.url.path.rpartition("/")[2]
        options = {"profile": "1x1", "gpus": "1", "hours": "1", "name": "sneaky"}
        for body in ({}, {"gpus": 1, "hours": 1}, {"user_options": options, "form": True}):
            answer = strict.post(f"/servers/{minted}", json=body)
            assert answer.status_code == 403, answer.text
            assert "has no reservation yet" in answer.json()["message"]
        token = {"Authorization": strict.headers["Authorization"]}
        with httpx.Client(base_url=stack.url, headers=token, trust_env=False, timeout=30) as robot:
            for at in (page.url.path, f"{page.url.path}?gpus=1&hours=1", "/hub/spawn/alice?gpus=1"):
                robot.get(at)
                robot.post(at, data=options)
        # Nor does a link, followed with her cookie.
        shown = browser.get(f"{page.url.path}?gpus=1&hours=1&name=linked")
        assert 'value="linked"' in shown.text
    assert nothing_started(stack, before)
    assert stack.api("GET", "reservations", None, "alice")["reservations"] == []


def test_what_has_ended_or_waits_can_be_neither_started_nor_taken_over(
    stack: Stack, hub: httpx.Client, strict: httpx.Client
) -> None:
    """Neither her own, which the queue has not admitted (any more), nor by giving another server its name."""
    ended = stack.reserve("alice", gpus=1)
    stack.wait_state(ended["id"], "ready", "alice")
    stack.api("DELETE", f"reservations/{ended['id']}", None, "alice")
    stack.wait_state(ended["id"], "ended", "alice")
    answer = strict.post(f"/servers/{ended['id']}", json={"gpus": 1})
    assert answer.status_code == 403
    assert f"Reservation {ended['id']} has ended (released)." in answer.json()["message"]
    first, waiting = stack.reserve("bob", gpus=2), stack.reserve("alice", gpus=1)
    running = stack.wait_state(first["id"], "ready", "bob")
    assert hub.put("/servers/spare").status_code == 403
    assert hub.put(f"/servers/{waiting['id']}").status_code == 201
    for name in ("spare", running["id"], ended["id"]):
        assert hub.patch(f"/servers/{waiting['id']}", json={"name": name}).status_code in (403, 409)
        assert strict.post(f"/servers/{name}").status_code == 403
        assert not list(stack.settings.servers.glob(f"{waiting['id']}-*"))
    assert strict.post(f"/servers/{running['id']}").status_code == 403
    others = str(strict.base_url).replace("/users/alice", "/users/bob")
    assert strict.post(f"{others}/servers/{running['id']}").status_code in (403, 404)
    assert stack.api("GET", f"reservations/{waiting['id']}", None, "alice")["state"] == "queued"
    for record, owner in ((waiting, "alice"), (first, "bob")):
        stack.api("DELETE", f"reservations/{record['id']}", None, owner)
        stack.wait_state(record["id"], "ended", owner)


def test_the_address_of_an_ended_server_leads_to_its_reservation(stack: Stack) -> None:
    ended = stack.reserve("carol", gpus=1)
    stack.wait_state(ended["id"], "ready", "carol")
    stack.api("DELETE", f"reservations/{ended['id']}", None, "carol")
    stack.wait_state(ended["id"], "ended", "carol")
    with in_the_browser(stack, "carol") as browser:
        page = browser.get(f"/user/carol/{ended['id']}/lab/tree/a.ipynb")
        assert f'url=/services/gpudev/reservations/{ended["id"]}"' in page.text
        assert 'url=/services/gpudev/"' in browser.get("/user/carol/lab").text


def test_a_link_fills_the_form_and_reserves_nothing(stack: Stack) -> None:
    with in_the_browser(stack, "carol") as browser:
        page = browser.get("/hub/spawn")
        assert page.url.path == "/services/gpudev/new", "the default server's page leads to ours"
        form_page = new_spawn_page(browser, gpus="2", hours="3", name="mine")
        assert form_page.url.path.startswith("/hub/spawn/carol/")
        assert form_page.status_code == 200
        assert 'value="mine"' in form_page.text
    assert stack.api("GET", "reservations", None, "carol")["reservations"] == []


def test_an_operator_is_no_admin_of_the_hub(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token with everything that an operator may do: neither the Hub nor others' servers are theirs."""
    record = stack.reserve("alice", gpus=1)
    stack.wait_state(record["id"], "ready", "alice")
    before = folders(stack)
    with monkeypatch.context() as patch:
        patch.setattr(login, "SCOPES", ("inherit",))
        token = login.by_password(stack.url, stack.user, stack.password(stack.user))
    headers = {"Authorization": f"token {token}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as hub:
        me = hub.get("/hub/api/user").raise_for_status().json()
        assert me["admin"] is False
        assert "custom:gpudev:operate" in me["scopes"]
        for method, path in (
            ("POST", "shutdown"),
            ("GET", "users"),
            ("POST", "users/mallory"),
            ("PATCH", f"users/{stack.user}"),
            ("DELETE", "users/alice"),
            ("POST", "users/alice/server"),
            ("POST", f"users/alice/servers/{record['id']}"),
            ("DELETE", f"users/alice/servers/{record['id']}"),
            ("POST", "users/alice/tokens"),
            ("GET", "proxy"),
        ):
            answer = hub.request(method, f"/hub/api/{path}", json={})
            # To who may not even read a user, the Hub says that there is none.
            assert answer.status_code in (403, 404), (method, path, answer.text)
        assert hub.get(f"/user/alice/{record['id']}/api/contents").status_code == 403
    assert stack.jupyter(stack.wait_state(record["id"], "ready", "alice"), "alice") == 200
    assert folders(stack) == before
    stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
    stack.wait_state(record["id"], "ended", "alice")


def test_the_admin_page_leads_operators_to_ours(stack: Stack) -> None:
    with in_the_browser(stack, stack.user) as browser:
        page = browser.get("/hub/admin")
        assert page.status_code == 200
        assert 'content="0; url=/services/gpudev/operator"' in page.text
        for word in ("Shutdown", "Start All", "bootstrap"):
            assert word not in page.text
    with in_the_browser(stack, "alice") as browser:
        page = browser.get("/hub/admin")
        assert page.status_code == 403
        assert "g-body" in page.text, "in our look"
