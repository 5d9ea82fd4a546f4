from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from doorward.config.loading import load
from doorward.config.problems import ConfigurationRefused
from doorward.policy.model import Action, PortRange
from doorward.policy.routes import NO_ROUTE

POLICY = """
[networks]
lab = ["10.0.0.0/8"]
[upstreams.corp]
kind = "http"
address = "192.0.2.1:3128"
through = "edge"
[upstreams.edge]
kind = "socks5"
address = "192.0.2.2:1080"
[[route]]
name = "lab stays here"
to = ["network:lab"]
via = ["direct"]
[[route]]
name = "the web"
from = ["192.168.0.0/16"]
protocols = ["https"]
via = ["corp", "direct"]
"""


def test_routes_have_the_words_of_rules_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text(POLICY)
    configuration = load(path)
    lab, web = configuration.routes.routes
    assert (lab.rule.name, lab.rule.line, lab.via) == ("lab stays here", 11, ("direct",))
    assert lab.rule.to_networks == (ip_network("10.0.0.0/8"),)
    assert (web.via, web.rule.action) == (("corp", "direct"), Action.ALLOW)
    assert web.rule.ports == (PortRange("tcp", 443, 443),)
    assert web.rule.sources == (ip_network("192.168.0.0/16"),)
    assert set(configuration.upstreams) == {"corp", "edge"}
    assert configuration.upstreams["corp"].host == ip_address("192.0.2.1")


def test_a_policy_without_routes_has_none(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text("")
    assert not load(path).routes
    assert NO_ROUTE.via == ("direct",)


@pytest.mark.parametrize("via", ['"nobody"', '"direct", "corp"', '"corp", "corp"', ""])
def test_a_way_that_cannot_be_meant_is_a_mistake(tmp_path: Path, via: str) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text(POLICY.replace('"corp", "direct"', via))
    with pytest.raises(ConfigurationRefused):
        load(path)
