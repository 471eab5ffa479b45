"""What a node claims about its software, and how one proof becomes one piece of evidence per binding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from attest.binding import Tree, bind, leaf_hash, qualifying_data
from overlay.core.evidence import Binding, Evidence
from overlay.core.wire import Bytes, Maybe, Text, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason

CLAIMS_MAX: Final = 1024  # the limit of overlay.core.rounds; ours take about 60 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What stands beside a quote. The TPM does not know these words; they are bound to the link by their hash only."""

    software_version: str
    policy_version: int
    kind: EvidenceKind
    boot_log_hash: bytes | None = None  # 32 bytes; no boot log is sent yet
    pcr_bitmap: int  # bit i stands for PCR i
    manifest: bytes  # 32 bytes: the package manifest hash

    def pack(self) -> bytes:
        """The CBOR that is hashed into every binding."""
        return make_map(
            self.software_version,
            self.policy_version,
            int(self.kind),
            self.boot_log_hash,
            self.pcr_bitmap,
            self.manifest,
        )


def parse_claims(data: bytes) -> Claims:
    """Raises Refused: MALFORMED, TOO_LARGE, or EVIDENCE_NOT_ACCEPTED for a kind of evidence that we do not know."""
    version, policy_version, kind, boot_log_hash, bitmap, manifest = open_map(
        data, Text(64), UInt(), UInt(255), Maybe(Bytes(32)), UInt(2**32 - 1), Bytes(32), limit=CLAIMS_MAX
    )
    if kind not in {EvidenceKind.SOFTWARE, EvidenceKind.TPM}:
        raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, f"unknown kind of evidence {kind}")
    return Claims(
        software_version=version, policy_version=policy_version, kind=EvidenceKind(kind), boot_log_hash=boot_log_hash,
        pcr_bitmap=bitmap, manifest=manifest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a TPM or a key made over 32 bytes of qualifying data: see `Evidence` for what each field holds."""

    ak_public: bytes = b""
    quote: bytes
    signature: bytes = b""


def prove_all(bindings: Sequence[Binding], claims: bytes, prove: Callable[[bytes], Proof]) -> list[Evidence]:
    """One proof for all bindings: evidence in their order. Two equal bindings, which a peer can cause, share a leaf."""
    if not bindings:
        return []
    leaves = [leaf_hash(bind(binding, claims)) for binding in bindings]
    tree = Tree.of(set(leaves))
    proof = prove(qualifying_data(tree.count, tree.root))
    evidence = []
    for leaf in leaves:
        index = tree.index(leaf)
        evidence.append(
            Evidence(
                count=tree.count, index=index, path=tree.path(index), claims=claims, ak_public=proof.ak_public,
                quote=proof.quote, signature=proof.signature,
            )
        )
    return evidence
