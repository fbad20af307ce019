"""Texts of the reference pages around the generated parts."""

from __future__ import annotations

from gpudev_hub.core.errors import Code
from gpudev_hub.service.remembered import REMEMBERED
from gpudev_hub.web.routes import Access
from gpudev_hub.web.settings import MAX_WAIT, WebSettings

WEB = WebSettings(public_url="http://127.0.0.1:8000/")
MADE = "<!-- made from the code by tools/reference.py; change it there -->\n\n"

API_HEAD = f"""\
# API

{MADE}JSON over HTTP below `/services/gpudev/`. The OpenAPI 3.1 document at `api/v1/openapi.json`
describes it in full.

```console
$ curl -H "Authorization: Bearer $(gpu-dev config get token)" http://127.0.0.1:8000/services/gpudev/api/v1/me
```

- **Authentication.** Send a Hub token with the scope `custom:gpudev:reserve` as `Authorization: Bearer …` or
  `token …`. `gpu-dev login` makes one. Browsers send the cookie of their login instead. With the cookie,
  changes need the header `X-XSRFToken`, and so do requests from scripts (`fetch`). Links need no header:
  `GET` changes nothing. Operator tokens have the scope `custom:gpudev:operate` as well. Routes for servers
  take the server's own token.
- **Bodies** are JSON with `Content-Type: application/json`, {WEB.max_body // 1024} KiB at most. Unknown
  fields and parameters are refused.
- **Errors** have one form: `{{"error": {{"code", "message", "hint"}}}}`. If an address does not support a
  method, the answer is 405 with `Allow`. While a part of the hub restarts, the answer is 503 with
  `Retry-After`.
- **Times** are in RFC 3339 format in UTC. Durations are in hours. `gpus` is per node, `total_gpus` is for all
  nodes.
- **Retries.** Send your own `request_id` (8 to 64 of the characters `A-Z a-z 0-9 _ -`) with
  `POST api/v1/reservations`. A retry with the same id returns the same reservation, while it is live or among
  the last {REMEMBERED:,} ended reservations of all users. An older id makes a new reservation, so retry
  within minutes, not days. For `POST …/extend`, the service remembers the last 8 ids of each reservation.
  Every change that was acknowledged is durable.
- **Waiting.** `GET api/v1/reservations/{{ref}}?wait=20&version=7` answers when the version is no longer 7, or
  after 20 seconds ({MAX_WAIT:.0f} at most).
- **Rate limits** of each user: {WEB.writes.per_second:.0f} changes per second with bursts of
  {WEB.writes.burst}, and {WEB.reads.per_second:.0f} other requests per second with bursts of
  {WEB.reads.burst}. At most {WEB.max_polls} long polls can be open. Above a limit, the answer is 429 with
  `Retry-After`. Requests with a valid token are never refused because of other requests from the same
  address. Without a valid token, an address gets {WEB.strangers.per_second:.0f} answers per second, with
  bursts of {WEB.strangers.burst}.
"""
TITLES = {
    Access.PERSON: "For users",
    Access.OPERATOR: "For operators",
    Access.SERVER: "For servers, with their own token",
    Access.MONITOR: "For monitoring",
    Access.ANYBODY: "Without a token",
}
API_TYPES = """
## Types

You can leave out fields that have a default in a request. Answers have every field. Not built yet:
`likely_start` is always null, and no reservation ends with the outcome `idle`.
"""
API_ERRORS = """
## Errors

Every answer that is not 2xx is an [ErrorBody](#errorbody): `{"error": {"code", "message", "hint"}}`. Codes
are stable. The message says what happened to which object, and the hint says what to do next.

| code | HTTP status | |
|---|---|---|
"""
MEANINGS = {
    Code.INVALID_REQUEST: "the body, a field or a parameter is not valid for the route",
    Code.INVALID_SHAPE: "no pool has so many GPUs or nodes; the hint says what you can ask for",
    Code.INVALID_HOURS: "not a length of time, or shorter than the shortest hold time",
    Code.INVALID_NAME: "not a name: a letter, then `a`–`z`, `0`–`9` and single hyphens, at most 30",
    Code.INVALID_IMAGE: "the pool has no such image",
    Code.UNKNOWN_GPU_TYPE: "no pool has this GPU type",
    Code.NAME_TAKEN: "another live reservation of the owner has this name",
    Code.NOT_FOUND: "no such reservation, node, user or address",
    Code.ACCESS_REVOKED: "the owner may no longer use this hub; the message says why",
    Code.FORBIDDEN: "owned by another user, for operators only, or the token does not have the scope",
    Code.UNAUTHENTICATED: "no token, or a token that the Hub does not know or has revoked",
    Code.QUOTA_EXCEEDED: "above a limit of the owner",
    Code.EXTENSION_REFUSED: "a waiting request would start after its guaranteed start; the message gives "
    "the longest extension available",
    Code.WRONG_STATE: "not possible in the reservation's state",
    Code.REQUEST_ID_REUSED: "this `request_id` was used for a different request",
    Code.TOO_LARGE: "the body is larger than 16 KiB",
    Code.RATE_LIMITED: "too many requests; `Retry-After` says when to try again",
    Code.UNAVAILABLE: "service, database or Hub does not answer now; retry with the same `request_id`",
    Code.METHOD_NOT_ALLOWED: "the address does not support this method; `Allow` names those that it supports",
    Code.UNSUPPORTED_MEDIA_TYPE: "the body is not `application/json`",
    Code.INTERNAL_ERROR: "an error inside the service; quote the request id of the answer to an operator",
}
CLI_HEAD = f"""\
# Command line

{MADE}`NAME` is the name of one of your live reservations, or the id of any reservation. `--json` prints one
JSON document to standard output. Progress and error messages go to standard error. To complete commands and
names in bash, run `eval "$(_GPU_DEV_COMPLETE=bash_source gpu-dev)"`. For zsh and fish, use `zsh_source` or
`fish_source`.

`HOURS` is a length of time: `4`, `0.5` and `0,5` are hours. `90m`, `1:30`, `1h30`, `1h 30m`, `2d` and
`1d 12h` work too. The pages, `~/.gpu-dev-config` and the library (as strings) accept the same formats. The
API accepts only numbers of hours.
"""
CLI_EXITS = """
## Exit codes

| code | meaning |
|---|---|
| 0 | success |
| 1 | unexpected error |
| 2 | invalid usage or input |
| 3 | reservation not found |
| 4 | refused now: limit, extension, name taken, … |
| 5 | not logged in, or not allowed |
| 6 | hub or service not reachable |
| 7 | timeout while waiting; the reservation keeps its place in the queue |
| 8 | the reservation ended or failed while waiting |
| 9 | the configuration file or an environment variable cannot be used |
| 130 | interrupted |

`gpu-dev ssh` exits with the status of `ssh`: the status of the command, or 255 if `ssh` itself failed. With
`--json`, an error prints `{"error": {"code", "message", "hint"}}`.

## Configuration

`~/.gpu-dev-config` is a JSON object with mode 0600. `GPUDEV_CONFIG` names another file. `GPUDEV_URL` and
`GPUDEV_TOKEN` take precedence over the file. A token is only sent to the hub that it belongs to. Keys of
other tools are kept. A file that cannot be parsed is an error, and `gpu-dev` does not change it.

| key | meaning |
|---|---|
"""
CLI_NETWORK = """
## Network

Proxies come from `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` (`http://`, `https://`, `socks5://`). Exceptions
come from `NO_PROXY`: domains with their subdomains, addresses, and networks such as `10.0.0.0/8`. Domains and
addresses may have a port. A hub on this machine is never reached through a proxy. Certificate authorities
come from `SSL_CERT_FILE` or `SSL_CERT_DIR`. If a variable cannot be used, the error names it.

Requests without an answer are retried for 20 seconds. After 2 seconds, and then every 5 seconds, `gpu-dev`
reports on standard error what it waits for. Escape sequences in logs and messages are removed; logs keep
their colours.
"""
LIBRARY_HEAD = f"""\
# Library

{MADE}```python
import gpudev

with gpudev.reserve(2, hours=1, name="demo") as box:  # waits in the queue; released at the end
    print(box.ssh_command, box.ends_at)
    box.run("nvidia-smi")
```

Settings come from arguments, then `GPUDEV_URL` and `GPUDEV_TOKEN`, then `~/.gpu-dev-config` ([its
keys](reference-cli.md#configuration)). On a server of the hub, its variables take precedence over the file. A
token is only sent to the hub that it belongs to. If an answer is lost, the library retries with the same
`request_id`, so a retry never makes a second reservation.

In a checkout, `pip install .` installs the library and the command. `pip install ".[widgets]"` adds the live
panel for notebooks.

## Copies

`upload` and `download` copy like rsync: the same call again gives the same tree at the same place. Files are
replaced, other files stay, and links stay links.

| call | copy |
|---|---|
| `box.upload("proj")`, `box.upload("proj", ".")` | `~/proj` on the server |
| `box.upload("proj", "work")` | `~/work`: the tree, with this name |
| `box.upload("proj", "work/")` | `~/work/proj`: a final slash means *into this folder* |
| `box.download("work", "here")` | `here` on this machine |
| `box.download("work")`, `box.download("work", "here/")` | `work`, `here/work` |

A slash at the end of the source has no meaning. If the target of a file is an existing folder, the file goes
into that folder.

## Functions

Each function is also a method of [Client](#gpudevclient), for several hubs or users in one program.
"""
LIBRARY_ERRORS = """
## Errors

Every error has a `.message`, a `.hint` (what to do next, part of `str(error)`), a stable `.code`, and the
`.exit_code` of `gpu-dev`. If the service refused, the code is one of its [error
codes](reference-api.md#errors).

| error | is a | exit code | |
|---|---|---|---|
"""
