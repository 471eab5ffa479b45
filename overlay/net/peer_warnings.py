"""What someone should know of linked peers: evidence that passes though the policy does not list it, or that does not come."""

from collections.abc import Iterable

from overlay.net.link import Link


def peer_warnings(links: Iterable[Link], now: float, overdue: float) -> tuple[str, ...]:
    """Sentences for people, by name. `overdue`: seconds after which the next evidence should have come."""
    open_links = sorted((link for link in links if link.is_open), key=lambda link: link.peer.name)
    return tuple(warning for link in open_links for warning in _of(link, now, overdue))


def _of(link: Link, now: float, overdue: float) -> tuple[str, ...]:
    lease, name = link.session.lease, link.peer.name
    if lease is None:
        return ()
    found = tuple(f"{name}: {warning}" for warning in lease.appraisal.warnings)
    silent = now - lease.since
    if silent <= overdue:
        return found
    return (*found, f"{name} has shown no evidence for {silent:.0f} s; its link ends in {max(0.0, lease.ends - now):.0f} s")
