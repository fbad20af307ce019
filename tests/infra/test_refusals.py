"""Values that a plan refuses, and the sentences that say what to change.

``input.tftest.hcl`` and ``pool.tftest.hcl`` try every check of a value; these are what operators meet.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tofu import Json, Tofu, said

pytestmark = pytest.mark.timeout(300)

RESERVATION: Json = {
    "id": "cr-0123456789abcdef1",
    "kind": "block",
    "instance_type": "p5.48xlarge",
    "zone_id": "use2-az3",
    "count": 4,
}


def pool(count: int = 4, **changed: Any) -> Json:
    """Return the values of one pool whose nodes come from the reservation."""
    generations = {
        "a": {"release": "1.35.6-20260714", "groups": {"all": {"count": count, "reservation": "block"}}}
    }
    base: Json = {"instance_type": "p5.48xlarge", "zone_id": "use2-az3", "generations": generations}
    return {"h100": base | changed}


REFUSED: dict[str, tuple[Json, str]] = {
    "an unknown environment": (
        {"environment": "staging"},
        'The environment is "staging". Use "test" or "prod", each with its own tfvars and tfbackend file.',
    ),
    "a domain that is an address": (
        {"domain": "https://gpudev.example.org"},
        'Write it in lower case and without https://, such as "gpudev.example.org".',
    ),
    "a zone of another region": (
        {"zone_ids": ["use2-az1", "use1-az3"]},
        "zone_ids has use1-az3, but zone ids of us-east-2 are use2-az1, use2-az2 and so on.",
    ),
    "a block of another zone": (
        {"pools": pool(), "reservations": {"block": RESERVATION | {"zone_id": "use2-az1"}}},
        "cr-0123456789abcdef1 is in use2-az1. Use a reservation in use2-az3, or set zone_id of the pool to",
    ),
    "a block of another type": (
        {"pools": pool(), "reservations": {"block": RESERVATION | {"instance_type": "p5en.48xlarge"}}},
        "Pool h100 has p5.48xlarge, but cr-0123456789abcdef1 is for p5en.48xlarge.",
    ),
    "more nodes than the block has": (
        {"pools": pool(count=5), "reservations": {"block": RESERVATION}},
        "groups ask for 5 nodes of cr-0123456789abcdef1, which has 4. Lower the counts of the groups",
    ),
    "a reservation that is not listed": (
        {"pools": pool(), "reservations": {}},
        "Pool h100: block is not in reservations. Add it there, or correct the group's reservation.",
    ),
    "an instance type without an entry for EFA": (
        {"pools": pool(instance_type="p5.4xlarge"), "reservations": {"block": RESERVATION}},
        "the EFA interfaces of p5.4xlarge are not known. Add the type to pool/types.tf",
    ),
}


@pytest.fixture(scope="module")
def tofu(program: str) -> Tofu:
    made = Tofu(program, "refusals")
    made.init("cluster")
    return made


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_refuses(tofu: Tofu, case: str) -> None:
    values, sentence = REFUSED[case]
    options = [
        f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
    done = tofu.run("cluster", "plan", "-var-file=prod.tfvars", "-input=false", *options)
    assert done.returncode == 1
    assert sentence in said(done)
