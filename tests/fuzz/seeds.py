"""The inputs that fuzzing starts from: valid messages of every kind. `python -m tests.fuzz.seeds` writes `corpus/` again."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import (
    authority_seeds,
    evidence_seeds,
    fork_seeds,
    identity_seeds,
    link_seeds,
    message_seeds,
    note_seeds,
    wire_seeds,
    work_seeds,
)

CORPUS: Final = Path(__file__).parent / "corpus"


def seeds() -> Mapping[str, Sequence[bytes]]:
    """Inputs by target."""
    found = {
        "record": wire_seeds.records(), "frame": wire_seeds.frames(), "cbor": wire_seeds.cbor(), "cose": wire_seeds.cose(),
        "announcement": wire_seeds.announcements(), "control": wire_seeds.control(), "replication": wire_seeds.replication(),
        "certificate": identity_seeds.certificates(), "request": identity_seeds.requests(),
        "endorsement": identity_seeds.endorsements(), "enrolment": identity_seeds.enrolment(),
        "evidence": evidence_seeds.evidence(), "tpm": evidence_seeds.tpm(), "message": message_seeds.messages(),
        "batch": message_seeds.batches(), "audit": message_seeds.audit(), "admission": link_seeds.admission(),
        "boot-log": evidence_seeds.boot_log(), "measurements": evidence_seeds.measurements(), "order": authority_seeds.order(),
        "log-parts": evidence_seeds.log_parts(),
        "revocations": authority_seeds.revocations(), "authority": authority_seeds.authority(), "join": authority_seeds.join(),
        "signing": authority_seeds.signing(), "runs": authority_seeds.runs(),
        "note": note_seeds.notes(), "witness": note_seeds.witness(), "fork": fork_seeds.forks(),
        "link": link_seeds.link(), "cuts": link_seeds.cuts(),
        "work": work_seeds.work(),
    }  # fmt: skip
    return {name: list(inputs) for name, inputs in found.items()}


def main() -> None:
    """Write all of it, once all of it is made."""
    made = seeds()
    shutil.rmtree(CORPUS, ignore_errors=True)
    for target, inputs in made.items():
        (CORPUS / target).mkdir(parents=True)
        for number, data in enumerate(inputs):
            (CORPUS / target / f"{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
