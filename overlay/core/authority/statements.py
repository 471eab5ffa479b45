"""What the members of one run say to all, signed, one statement per member and kind; and the proof when one says two things.

    body    = {0:1, 1:content, 2:signature, 3:extra?}
    content = what is said to all, the same bytes for everybody
    extra   = what is for the receiver alone, or passed on for others; not part of the statement
    signed  = label || mesh_id || run (32) || kind (1) || SHA-256(content) (32), by the author's message key

The signature covers a digest, so that an echo, and the proof that somebody said two things, need no contents.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from overlay.core.keys import MeshId, NodeId, Signer, verify_signature
from overlay.core.wire import Bytes, Maybe, Tuple, UInt, Value, encode, lv, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, Reason, RoundKind

BODY_MAX: Final = 48 * 1024  # an echo of 64 members takes 12 KiB, a contribution 6 KiB; and it fits into a frame
SESSION_SIZE: Final = 16

_DIGEST: Final = Bytes(32)
_SIGNATURE: Final = Bytes(64)
_ROW: Final = 32 + 64  # of an echo
_PROOF: Final = Tuple((UInt(255), _DIGEST, _SIGNATURE, _DIGEST, _SIGNATURE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one run is about. A statement made under other terms does not verify under these."""

    label: bytes
    mesh_id: MeshId
    session: bytes  # 16 bytes, from the order
    parameters: Value  # members, thresholds: whatever all of them have to mean alike
    message_keys: Mapping[NodeId, bytes] = field(repr=False)  # of everyone who takes part
    run: bytes = field(init=False)  # 32 bytes that stand for all of it

    def __post_init__(self) -> None:
        if len(self.session) != SESSION_SIZE:
            raise ValueError("a session id has 16 bytes")
        run = sha256(self.label, self.mesh_id, lv(self.session), encode(self.parameters))
        object.__setattr__(self, "run", run)

    def signed(self, kind: RoundKind, digest: bytes) -> bytes:
        """The bytes under a signature."""
        return self.label + self.mesh_id + self.run + bytes([kind]) + digest


@dataclass(frozen=True, slots=True)
class Statement:
    """What one member said, signed."""

    author: NodeId
    kind: RoundKind
    content: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    digest: bytes = field(init=False, repr=False)  # what the signature covers

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha256(self.content))

    def pack(self, extra: bytes | None = None) -> bytes:
        """The body of a message that carries it."""
        return make_map(self.content, self.signature, extra)


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two statements of one kind by one author: what nobody does by accident. Anyone who knows the terms can check it."""

    author: NodeId
    kind: RoundKind
    digests: tuple[bytes, bytes]
    signatures: tuple[bytes, bytes] = field(repr=False)

    def verify(self, terms: Terms) -> None:
        """Raises Refused(BAD_SIGNATURE) if it proves nothing."""
        if self.digests[0] == self.digests[1]:
            raise Refused(Reason.BAD_SIGNATURE, "one statement is no equivocation")
        for digest, signature in zip(self.digests, self.signatures, strict=True):
            check(terms, self.author, self.kind, digest, signature)

    def pack(self) -> list[int | bytes]:
        """For a field of a map; the author stands beside it."""
        return [int(self.kind), self.digests[0], self.signatures[0], self.digests[1], self.signatures[1]]

    @classmethod
    def unpack(cls, author: NodeId, value: list[Any]) -> Self:
        """From a field that is of the kind PROOF; raises Refused(MALFORMED)."""
        kind, first, first_signature, second, second_signature = value
        return cls(author, round_kind(kind), (first, second), (first_signature, second_signature))


PROOF: Final = Maybe(_PROOF)


def check(terms: Terms, author: NodeId, kind: RoundKind, digest: bytes, signature: bytes) -> None:
    """Raises Refused(BAD_SIGNATURE) unless the author takes part and has signed this digest."""
    if author not in terms.message_keys:
        raise Refused(Reason.BAD_SIGNATURE, "said by nobody who takes part")
    verify_signature(COSE_EDDSA, terms.message_keys[author], signature, terms.signed(kind, digest))


def round_kind(number: int) -> RoundKind:
    """Raises Refused(MALFORMED) for a number that is none."""
    try:
        return RoundKind(number)
    except ValueError:
        raise Refused(Reason.MALFORMED, f"kind {number} of a round") from None


class Board:
    """The statements of one run as one member has them. Nothing here decides what to do about them."""

    def __init__(self, terms: Terms, own: NodeId, signer: Signer) -> None:
        if terms.message_keys.get(own) != signer.public_key:
            raise ValueError("the signer is not the message key that the others know of us")
        self.terms = terms
        self._own = own
        self._signer = signer
        self._held: dict[tuple[NodeId, RoundKind], Statement] = {}

    def say(self, kind: RoundKind, content: bytes) -> Statement:
        """Sign a statement of our own and hold it. Saying something else of this kind later is our bug: ValueError."""
        if (self._own, kind) in self._held:
            raise ValueError(f"{kind.name} was said already")
        signature = self._signer.sign(self.terms.signed(kind, sha256(content)))
        said = Statement(self._own, kind, content, signature)
        self._held[self._own, kind] = said
        return said

    def read(self, author: NodeId, kind: RoundKind, body: bytes) -> tuple[Statement, bytes | None]:
        """The statement in a body and what came along with it; raises Refused(MALFORMED, TOO_LARGE or BAD_SIGNATURE)."""
        content, signature, extra = open_map(
            body, Bytes(0, BODY_MAX), _SIGNATURE, Maybe(Bytes(0, BODY_MAX)), limit=BODY_MAX
        )
        return self.verified(Statement(author, kind, content, signature)), extra

    def verified(self, statement: Statement) -> Statement:
        """The same, its signature checked; raises Refused(BAD_SIGNATURE)."""
        check(self.terms, statement.author, statement.kind, statement.digest, statement.signature)
        return statement

    def hold(self, statement: Statement) -> Equivocation | None:
        """Keep a verified statement. The same one again changes nothing; another one in its place is an equivocation."""
        held = self._held.setdefault((statement.author, statement.kind), statement)
        return _compare(held, statement.digest, statement.signature)

    def get(self, author: NodeId, kind: RoundKind) -> Statement | None:
        """What that member said of that kind."""
        return self._held.get((author, kind))

    def statements(self, kind: RoundKind, authors: Iterable[NodeId]) -> list[Statement]:
        """What each of them said; raises KeyError if one is missing."""
        return [self._held[author, kind] for author in authors]

    def contents(self, kind: RoundKind, authors: Iterable[NodeId]) -> list[bytes]:
        """The same without signatures."""
        return [statement.content for statement in self.statements(kind, authors)]

    def missing(self, kind: RoundKind, authors: Iterable[NodeId]) -> tuple[NodeId, ...]:
        """Who of them has said nothing of that kind."""
        return tuple(author for author in authors if (author, kind) not in self._held)

    def echo(self, kinds: Sequence[RoundKind], authors: Sequence[NodeId]) -> bytes:
        """The content of an echo: digest and signature of all that these authors said of these kinds, in this order."""
        held = [self._held[author, kind] for author in authors for kind in kinds]
        return make_map(b"".join(statement.digest + statement.signature for statement in held))

    def compare_echo(
        self, content: bytes, kinds: Sequence[RoundKind], authors: Sequence[NodeId]
    ) -> Equivocation | None:
        """Whether somebody told another member something else than us.

        Raises:
            Refused: MALFORMED if it is no echo of all these; BAD_SIGNATURE if it claims what its author has not signed.
        """
        slots = [(author, kind) for author in authors for kind in kinds]
        (rows,) = open_map(content, Bytes(len(slots) * _ROW), limit=BODY_MAX)
        for at, (author, kind) in enumerate(slots):
            row = rows[at * _ROW : (at + 1) * _ROW]
            found = self._differs(author, kind, row[:32], row[32:])
            if found is not None:
                return found
        return None

    def _differs(self, author: NodeId, kind: RoundKind, digest: bytes, signature: bytes) -> Equivocation | None:
        held = self._held[author, kind]
        if held.digest == digest:
            return None
        check(self.terms, author, kind, digest, signature)
        return _compare(held, digest, signature)


def _compare(held: Statement, digest: bytes, signature: bytes) -> Equivocation | None:
    if held.digest == digest:
        return None
    return Equivocation(held.author, held.kind, (held.digest, digest), (held.signature, signature))
