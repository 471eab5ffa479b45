"""Recovery as files, for machines that are never on a network: a recovery key, and a proposal that gathers signatures.

    key      = {0:1, 1:seed32, 2:mesh_id, 3:place among the recovery keys}
    proposal = {0:1, 1:[object 0, ..., object k-1], 2:payload of object k, 3:signature by root k,
                4:[signature by each member], 5:[[place, signature], ...]}

A proposal holds the whole chain, so that who signs it far from the mesh can check from object 0 on what it would succeed.
Nothing is believed because it is in such a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from overlay.core.authority.contents import MEMBERS_MAX, NUMBER_MAX, OBJECT_MAX, Contents, ObjectKind, hash_of, read_next
from overlay.core.authority.objects import (
    AuthorityObject,
    Signatures,
    assemble,
    check_signature,
    payload_of,
    to_be_signed,
    verify_next,
    verify_object_zero,
)
from overlay.core.authority.recovery_keys import RECOVERY_MAX, SIGNATURES
from overlay.core.certificates import parse_root
from overlay.core.enrolment_files import FILE_MAX, armor, unarmor
from overlay.core.keys import Ed25519Signer, MeshId
from overlay.core.wire import Array, Bytes, UInt, decode, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import Reason

KEY: Final = "RECOVERY KEY"
PROPOSAL: Final = "RECOVERY PROPOSAL"
KEY_MAX: Final = 256
ROOT: Final = 3  # the field of a payload


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """One of the keys that object 0 names."""

    seed: bytes = field(repr=False)  # 32
    mesh_id: MeshId
    place: int  # from 0

    @property
    def signer(self) -> Ed25519Signer:
        """What signs."""
        return Ed25519Signer(self.seed)

    def to_text(self, mesh_name: str, keys: int, threshold: int) -> str:
        """The file, with words for whoever finds it in ten years."""
        head = (
            f"Recovery key {self.place + 1} of {keys} of the mesh {mesh_name}\n"
            f"mesh {self.mesh_id}\n\n"
            f"Any {threshold} of the {keys} keys can put a new authority in place of one that is lost: `overlay ca recover`.\n"
            "Keep this file offline, away from the other keys and from every machine of the mesh.\n\n"
        )
        return head + armor(KEY, make_map(self.seed, self.mesh_id, self.place))

    @classmethod
    def from_text(cls, text: str) -> "RecoveryKey":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        seed, mesh_id, place = open_map(
            unarmor(KEY, text), Bytes(32), Bytes(32), UInt(RECOVERY_MAX - 1), limit=KEY_MAX
        )
        return cls(seed, MeshId(mesh_id), place)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryProposal:
    """An object that names a new authority, complete but for signatures of recovery keys. All that there is was verified."""

    chain: tuple[AuthorityObject, ...]  # from object 0 to the one that it follows
    contents: Contents
    root_signed: bytes = field(repr=False)
    members_signed: tuple[bytes, ...] = field(repr=False)
    recovery: Mapping[int, bytes] = field(default_factory=dict, repr=False)  # by place of the key

    @property
    def payload(self) -> bytes:
        """What all sign, without label and mesh."""
        return self.contents.pack()

    @property
    def hash(self) -> bytes:
        """By which it is known. 32 bytes."""
        return hash_of(self.payload)

    @property
    def missing(self) -> int:
        """How many recovery keys have still to sign."""
        return max(0, self.contents.recovery.threshold - len(self.recovery))

    @property
    def object(self) -> bytes | None:
        """The complete object."""
        if self.missing or not self.recovery:
            return None
        return assemble(self.payload, Signatures(self.root_signed, self.members_signed, recovery=self.recovery))

    def signed_by(self, key: RecoveryKey) -> "RecoveryProposal":
        """With one more signature.

        Raises:
            Refused: OTHER_MESH for the key of another mesh; BAD_AUTHORITY_OBJECT for one that object 0 does not name, or that
                has signed already: it does not count twice.
        """
        contents = self.contents
        if key.mesh_id != contents.mesh_id:
            hint = "the words above the key name its mesh"
            raise Refused(Reason.OTHER_MESH, "the recovery key is of another mesh", hint=hint)
        public = key.signer.public_key
        if public not in contents.recovery.keys:
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "object 0 of the mesh does not name this recovery key")
        place = contents.recovery.keys.index(public)
        if place in self.recovery:
            raise Refused(
                Reason.BAD_AUTHORITY_OBJECT, f"recovery key {place + 1} has signed this proposal already",
                hint=f"it takes {contents.recovery.threshold} different keys",
            )
        signature = key.signer.sign(to_be_signed(contents.mesh_id, self.payload))
        return replace(self, recovery={**self.recovery, place: signature})

    def merged(self, other: "RecoveryProposal") -> "RecoveryProposal":
        """With the signatures that another copy has gathered; raises Refused(BAD_AUTHORITY_OBJECT) for another proposal."""
        if other.hash != self.hash:
            raise Refused(
                Reason.BAD_AUTHORITY_OBJECT, "the files are of two different proposals",
                hint="two recoveries in one place stop each other: make one, and let all keys sign that one",
            )
        return replace(self, recovery={**other.recovery, **self.recovery})

    # --- as a file --------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """The file. Nothing in it is a secret. Raises Refused(TOO_LARGE) for a chain that no file may hold."""
        recovery = [[place, signature] for place, signature in sorted(self.recovery.items())]
        raws = [item.raw for item in self.chain]
        text = armor(PROPOSAL, make_map(raws, self.payload, self.root_signed, list(self.members_signed), recovery))
        if len(text) > FILE_MAX:
            raise Refused(Reason.TOO_LARGE, f"the proposal has {len(text)} characters where {FILE_MAX} are allowed")
        return text

    @classmethod
    def from_text(cls, text: str) -> "RecoveryProposal":
        """Checked from object 0 on; which mesh that founds is for the caller to compare.

        Raises:
            Refused: BAD_AUTHORITY_OBJECT, BAD_CERTIFICATE, OTHER_MESH, WRONG_GENERATION, MALFORMED, TOO_LARGE or UNSUPPORTED.
        """
        raws, payload, root_signed, members_signed, gathered = open_map(
            unarmor(PROPOSAL, text), Array(Bytes(1, OBJECT_MAX), NUMBER_MAX + 1), Bytes(1, OBJECT_MAX), Bytes(64),
            Array(Bytes(64), MEMBERS_MAX), SIGNATURES, limit=FILE_MAX,
        )
        if not raws:
            malformed("a chain begins with object 0")
        chain = [_founding(raws[0])]
        for raw in raws[1:]:
            chain.append(verify_next(raw, chain[-1].contents))
        contents = read_next(payload, chain[-1].contents)
        if contents.kind is not ObjectKind.RECOVERY:
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "the file proposes no recovery")
        found = cls(
            chain=tuple(chain), contents=contents, root_signed=root_signed, members_signed=tuple(members_signed),
            recovery=_places(gathered),
        )
        found._check()
        return found

    def _check(self) -> None:
        contents, payload = self.contents, self.payload
        if len(self.members_signed) != len(contents.members):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "one signature by each member")
        holders = zip((contents.root.identity, *contents.members), (self.root_signed, *self.members_signed), strict=True)
        for key, signature in holders:
            check_signature(key, signature, contents.mesh_id, payload)
        if self.recovery:
            some = replace(contents.recovery, threshold=1)
            some.verify(self.recovery, to_be_signed(contents.mesh_id, payload))


def _founding(raw: bytes) -> AuthorityObject:
    """Object 0, under the root that it names itself."""
    payload: Any = decode(payload_of(raw), limit=OBJECT_MAX)
    der = payload.get(ROOT) if isinstance(payload, dict) else None
    if not isinstance(der, bytes):
        malformed("object 0 names no root")
    return verify_object_zero(raw, parse_root(der))


def _places(gathered: list[tuple[int, bytes]]) -> dict[int, bytes]:
    places = [place for place, _ in gathered]
    if places != sorted(set(places)):
        malformed("signatures of recovery keys are in order, and of different keys")
    return dict(gathered)
