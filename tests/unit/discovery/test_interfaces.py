"""Which interfaces are announced on, and how an address is dialled from here."""

import pytest

from discovery.interfaces import Interface, list_interfaces, preference, scoped, usable

LO = Interface("lo", 1, ("127.0.0.1", "::1"))
ETH = Interface("eth0", 2, ("192.168.7.2", "fd00::2", "fe80::2"))
WLAN = Interface("wlan0", 3, ("192.168.8.2",))


def names(*interfaces: Interface, include_loopback: bool = False, only: tuple[str, ...] = ()) -> list[str]:
    return [one.name for one in usable(interfaces, include_loopback=include_loopback, only=only)]


@pytest.mark.parametrize("name", ["docker0", "br-1f2e3d", "veth12ab", "virbr0", "cni0", "vEthernet (WSL)"])
def test_bridges_and_cables_of_containers_are_skipped(name: str) -> None:
    assert names(LO, ETH, Interface(name, 9, ("172.17.0.1",))) == ["eth0"]


def test_an_eth0_is_used_whatever_it_is_made_of() -> None:
    assert names(LO, ETH, WLAN) == ["eth0", "wlan0"]


def test_loopback_is_used_when_nothing_else_is_up() -> None:
    assert names(LO) == ["lo"]
    assert names(LO, Interface("docker0", 4, ("172.17.0.1",))) == ["lo"]


def test_loopback_is_used_when_asked_for() -> None:
    assert names(LO, ETH, include_loopback=True) == ["lo", "eth0"]
    assert names(LO, ETH, only=("lo",)) == ["lo"]


def test_a_container_bridge_is_used_when_it_is_named() -> None:
    assert names(LO, ETH, Interface("docker0", 4, ("172.17.0.1",)), only=("docker0",)) == ["docker0"]


def test_an_interface_without_address_is_skipped() -> None:
    assert names(LO, Interface("eth1", 5, ())) == ["lo"]


def test_a_link_local_address_is_dialled_with_its_interface() -> None:
    assert scoped("fe80::1", ETH) == "fe80::1%eth0"
    assert scoped("fe80::1%7", ETH) == "fe80::1%eth0"
    assert scoped("fd00::1", ETH) == "fd00::1"
    assert scoped("169.254.1.1", ETH) == "169.254.1.1"


def test_ipv4_and_wide_addresses_come_before_link_local_ones() -> None:
    found = ["fe80::2%eth0", "fd00::2", "169.254.9.9", "192.168.7.2"]
    assert sorted(found, key=preference) == ["192.168.7.2", "fd00::2", "169.254.9.9", "fe80::2%eth0"]


def test_this_host_has_a_loopback_interface_that_is_up() -> None:
    assert any(one.is_loopback and "127.0.0.1" in one.ipv4 for one in list_interfaces())
