"""A log that nobody can quietly edit: signed entries in chains, replicated and verified. Works with no network.

The names load on first use: importing `audit` alone loads no SQLite and no trio, and none of them loads trio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audit.author import LogSigner as LogSigner
    from audit.bundle_check import BundleReport as BundleReport
    from audit.entry import Entry as Entry
    from audit.member import open_log as open_log
    from audit.member import verify as verify
    from audit.proofs import CheckedProof as CheckedProof
    from audit.proofs import check_proof as check_proof
    from audit.query import Query as Query
    from audit.tlog_proof import parse_tlog_proof as parse_tlog_proof
    from audit.verifier import Fault as Fault
    from audit.verifier import LogReport as LogReport
    from audit.verifier import Report as Report
    from audit.writer import LogWriter as LogWriter

_HOMES = {
    "audit.author": ("LogSigner",),
    "audit.bundle_check": ("BundleReport",),
    "audit.entry": ("Entry",),
    "audit.member": ("open_log", "verify"),
    "audit.proofs": ("CheckedProof", "check_proof"),
    "audit.query": ("Query",),
    "audit.tlog_proof": ("parse_tlog_proof",),
    "audit.verifier": ("Fault", "LogReport", "Report"),
    "audit.writer": ("LogWriter",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """A public name, from where it is defined (PEP 562)."""
    try:
        home = _HOME_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
