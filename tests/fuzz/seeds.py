"""The inputs that fuzzing starts from: valid messages of every kind. `python -m tests.fuzz.seeds` writes `corpus/` again."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import evidence_seeds, identity_seeds, link_seeds, message_seeds, wire_seeds

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
        "link": link_seeds.link(), "cuts": link_seeds.cuts(),
    }  # fmt: skip
    return {name: list(inputs) for name, inputs in found.items()}


def main() -> None:
    """Write all of it."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    for target, inputs in seeds().items():
        (CORPUS / target).mkdir(parents=True)
        for number, data in enumerate(inputs):
            (CORPUS / target / f"{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
