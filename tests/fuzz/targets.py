"""What is fuzzed: one plain function per parser, bytes in. A parser may raise `Refused` and nothing else; a target, nothing.

A parser behind a signature would never be reached by changed bytes. So a first byte decides in most targets whether what
follows is taken as it stands, or as content that the right key then signs.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tests.fuzz import (
    authority_targets,
    evidence_targets,
    fork_targets,
    identity_targets,
    link_targets,
    message_targets,
    note_targets,
    wire_targets,
    work_targets,
)

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "record": wire_targets.record,
    "frame": wire_targets.frame,
    "cbor": wire_targets.cbor,
    "cose": wire_targets.cose,
    "announcement": wire_targets.announcement,
    "control": wire_targets.control,
    "replication": wire_targets.replication,
    "certificate": identity_targets.certificate,
    "request": identity_targets.request,
    "endorsement": identity_targets.endorsement,
    "enrolment": identity_targets.enrolment,
    "evidence": evidence_targets.evidence,
    "tpm": evidence_targets.tpm,
    "boot-log": evidence_targets.boot_log,
    "measurements": evidence_targets.measurements,
    "log-parts": evidence_targets.log_parts,
    "order": authority_targets.order,
    "revocations": authority_targets.revocations,
    "authority": authority_targets.authority,
    "join": authority_targets.join,
    "signing": authority_targets.signing,
    "runs": authority_targets.runs,
    "message": message_targets.message,
    "batch": message_targets.batch,
    "audit": message_targets.audit,
    "note": note_targets.note,
    "witness": note_targets.witness,
    "fork": fork_targets.fork,
    "admission": link_targets.admission,
    "link": link_targets.link,
    "cuts": link_targets.cuts,
    "work": work_targets.work,
}
