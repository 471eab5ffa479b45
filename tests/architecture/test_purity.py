"""Whatever is not listed here as a shell is pure: no clock, chance, file, socket, thread or log, and no shell either.

import-linter watches over overlay.core. This test covers the modules of the three siblings as well, and those that come
later: a new module is pure until it is listed.
"""

import pytest

from tests.architecture.tree import ROOT, dotted, imports, modules

SHELLS = (
    "overlay.app",
    "overlay.net",
    "overlay.store",
    "overlay.testing",
    "overlay.blocking",
    "overlay.aio",
    "overlay.work",  # a node, for its desk
    "discovery.interfaces",  # the host's addresses
    "discovery.mdns",  # a socket
    "discovery.search",  # tasks
    "discovery.static",  # the resolver
    "attest.credential",  # chance, for the secrets of MakeCredential
    "attest.device",  # a thread
    "attest.endorsement_chain",  # the kinds of EKs stand beside MakeCredential
    "attest.enrol",  # makes a credential
    "attest.join",  # makes a credential
    "attest.join_tpm",  # a device
    "attest.manifest",  # files
    "attest.tpm",  # a device
    "attest.tpm_certificates",  # what is stored in it
    "attest.tpm_handles",  # its commands
    "attest.tpm_sealing",  # its commands
    "attest.tpm_keys",  # the same device
    "audit.commits",  # a database
    "audit.log",  # tasks
    "audit.opening",  # a database
    "audit.store",  # a database
    "audit.stored_tree",  # a database
    "audit.member",  # a state folder
    "audit.bundle",  # files
    "audit.bundle_check",  # files
    "audit.raw_logs",  # a database
    "audit.lookahead",  # processes
    "audit.pruning",  # a database
    "audit.part_worker",  # a database
    "audit.prover",  # a database
    "audit.verifier",  # a database
    "audit.walk",  # a database
    "audit.fork_store",  # a database
    "audit.own_checkpoints",  # tasks
    "audit.start",  # tasks
    "audit.witness_news",  # tasks
    "audit.witness_store",  # a database
    "audit.witnessed",  # a database
    "audit.witnessing",  # tasks
    "audit.writer",  # threads
)
IMPURE = {
    "asyncio", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time",
    "tpm2_pytss", "trio", "zeroconf",
}  # fmt: skip


def is_shell(name: str) -> bool:
    return any(name == shell or name.startswith(f"{shell}.") for shell in SHELLS)


@pytest.mark.parametrize("path", [path for path in modules() if not is_shell(dotted(path))])
def test_a_pure_module_imports_nothing_impure(path: str) -> None:
    wrong = [name for name in imports(ROOT / path) if name.partition(".")[0] in IMPURE or is_shell(name)]
    assert wrong == []
