"""Addresses of users' servers where each user has an origin of their own."""

from __future__ import annotations

import re

import pytest

from gpudev_hub.origins import TAKEN, domain_of, servers_of
from manifests import ROOT

HUB = "https://gpudev.example.org/"


def test_each_user_has_a_domain_and_the_pages_stay_on_that_of_the_hub() -> None:
    assert servers_of("ada", HUB, subdomains=True) == "https://ada.gpudev.example.org/user/ada/"
    assert servers_of("ada", HUB, subdomains=False) == "https://gpudev.example.org/user/ada/"
    assert domain_of("gpudev", "gpudev.example.org", "service") == "gpudev.example.org"


@pytest.mark.parametrize("name", ["ssh", "SSH"])
def test_nobody_gets_the_name_of_the_bastion(name: str) -> None:
    domain = domain_of(name, "gpudev.example.org", "user")
    assert domain == "ssh--user.gpudev.example.org"
    assert domain_of("ssh--user", "gpudev.example.org", "user") != domain, "another user's is another one"


def test_the_names_that_are_taken_are_those_of_the_dns_zone() -> None:
    dns = (ROOT / "infra" / "aws" / "cluster" / "dns.tf").read_text()
    found = re.findall(r'name = "([a-z0-9-]+)\.\$\{var\.domain\}"', dns)
    assert set(found) == TAKEN
