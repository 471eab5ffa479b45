"""One member's side of making a mesh key that no machine ever holds: COCKTAIL-DKG over links, with an echo round.

    KEY_ROUND_1      P_i, and a signature by d_i over run || node id: the static key of this run
    KEY_ROUND_2      msg_1 of COCKTAIL: commitment, proof of possession, ephemeral key, one sealed share for each
    KEY_ECHO         what we hold of both by everyone: digest and signature
    KEY_CERTIFICATE  signature by d_i over the transcript T, 64 bytes; once we hold all: again, with those of the others
    KEY_FAILED       why, who, and the proof if there is one

Each is a statement (`statements.py`) under Label.KEY_GENERATION, mesh id, session, members and threshold, to all others.

COCKTAIL wants long-term keys d_i, P_i = d_i * B in the group of the mesh key. A member's own long-term keys are of no use
for that: an identity key may be P-256 and may live in a TPM, and a signing key is not lent to a key exchange. So each
member makes d_i for one run and shows P_i in KEY_ROUND_1, signed by its message key, which its endorsement ties to its
identity; with the run d_i is gone, and nobody who takes a member's keys later can open a share that was recorded. What that
costs: no recovery of a share from old ciphertexts (COCKTAIL's "Share Recovery"); the others repair a lost share.

There is a result only with the certificates of all members over the same T. T has the static keys, commitments, proofs and
ephemeral keys of all, by its context the run, and by its extension everything that was said in KEY_ROUND_2. A member that
has finished cannot know that all others have: take the key into use only when all members have signed the authority object.

All of it is in memory: a member that restarts in the middle has lost its part, and the run fails for everyone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority import cocktail
from overlay.core.authority.cocktail import Contribution, Setup
from overlay.core.authority.cocktail_primitives import (
    SIGNATURE_SIZE,
    add_scalars,
    random_scalar,
    read_point,
    sign,
    verify,
)  # fmt: skip
from overlay.core.authority.group import BASE, POINT_SIZE, Point, Scalar
from overlay.core.authority.run_events import Event, Failed
from overlay.core.authority.runs import ROUND_TIMEOUT, THRESHOLD_MIN, Blamed, Machine, Room, blaming
from overlay.core.authority.sharing import MEMBERS_MAX, GroupKey, Share
from overlay.core.authority.statements import Board, Statement, Terms
from overlay.core.chance import Chance
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

FIRST_GENERATION: Final = 0  # of shares; each refresh or resharing adds one
STATIC_KEY_SIZE: Final = POINT_SIZE + SIGNATURE_SIZE

# What is waited for from everyone, one after the other
ROUNDS: Final = (RoundKind.KEY_ROUND_1, RoundKind.KEY_ROUND_2, RoundKind.KEY_ECHO, RoundKind.KEY_CERTIFICATE)
ECHOED: Final = (RoundKind.KEY_ROUND_1, RoundKind.KEY_ROUND_2)


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """What a run comes to: our share, and what shows to anybody how the key came about."""

    share: Share = field(repr=False)
    group: GroupKey
    transcript: bytes = field(repr=False)
    transcript_hash: bytes  # SHA-256, 32 bytes, for the authority object
    certificates: tuple[Statement, ...] = field(repr=False)  # of all members, by index; each content signs the transcript


@dataclass(frozen=True, slots=True)
class _Secrets:
    """Gone when the run is over."""

    static: Scalar = field(repr=False)
    ephemeral: Scalar = field(repr=False)
    coefficients: tuple[Scalar, ...] = field(repr=False)

    @classmethod
    def make(cls, threshold: int, chance: Chance) -> "_Secrets":
        coefficients = tuple(random_scalar(chance) for _ in range(threshold))
        return cls(random_scalar(chance), random_scalar(chance), coefficients)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the contributions come to, before anybody may use it."""

    share: Share = field(repr=False)
    transcript: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """One key generation, as the order lays it down. Members in the order of their node ids; index i is the i-th of them."""

    mesh_id: MeshId
    session: bytes
    members: tuple[NodeId, ...]
    threshold: int
    message_keys: Mapping[NodeId, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)) or len(self.members) > MEMBERS_MAX:
            raise ValueError("members stand in the order of their ids, each once")
        if not THRESHOLD_MIN <= self.threshold <= len(self.members):
            raise ValueError("a threshold from two to all members")

    def terms(self) -> Terms:
        """What all of them have to mean alike."""
        return Terms(
            label=Label.KEY_GENERATION, mesh_id=self.mesh_id, session=self.session,
            parameters=[list(self.members), self.threshold],
            message_keys={member: self.message_keys[member] for member in self.members},
        )  # fmt: skip


class KeyGeneration(Machine):
    """receive / tick / messages_to_send / deadline. Nothing that a member does raises; no `result` until all have certified."""

    def __init__(
        self, plan: KeyPlan, own: NodeId, chance: Chance, now: float, *,
        signer: Signer, round_timeout: float = ROUND_TIMEOUT,
    ) -> None:  # fmt: skip
        """`signer` is our message key. Raises ValueError if it is not the one that the plan has of us."""
        room = Room(Board(plan.terms(), own, signer), own, plan.members, RoundKind.KEY_FAILED)
        super().__init__(room, ROUNDS, RoundKind.KEY_CERTIFICATE)
        self.result: GeneratedKey | None = None
        self._members = plan.members
        self._threshold = plan.threshold
        self._timeout = round_timeout
        self._secrets: _Secrets | None = _Secrets.make(plan.threshold, chance)
        self._setup: Setup | None = None
        self._outcome: _Outcome | None = None
        self._round = 0
        room.say(RoundKind.KEY_ROUND_1, self._static_key(self._secrets.static))
        room.until = now + round_timeout

    @property
    def run(self) -> bytes:
        """32 bytes that stand for the terms."""
        return self._room.board.terms.run

    def tick(self, now: float) -> list[Event]:
        """Whoever is silent for too long ends the run."""
        if now < self._room.until:
            return []
        silent = self._room.board.missing(ROUNDS[self._round], self._members)
        return self._fail(Failed(Reason.TIMEOUT, silent, ROUNDS[self._round].name))

    def _heard(self, statement: Statement, extra: bytes | None, now: float) -> list[Event]:
        """As many rounds as are complete now."""
        while self.result is None and not self._room.board.missing(ROUNDS[self._round], self._members):
            self._complete(ROUNDS[self._round])
            self._round += 1
            self._room.until = now + self._timeout
        return [] if self.result is None else self._finish()

    def _complete(self, kind: RoundKind) -> None:
        """All statements of one round are here."""
        if kind is RoundKind.KEY_ROUND_1:
            self._contribute()
        elif kind is RoundKind.KEY_ROUND_2:
            self._outcome = self._combine()
            self._room.say(RoundKind.KEY_ECHO, self._room.board.echo(ECHOED, self._members))
        elif kind is RoundKind.KEY_ECHO:
            self._compare_echoes()
            self._certify()
        else:
            self._conclude()

    # --- Round 1 and 2 ---

    def _static_key(self, static: Scalar) -> bytes:
        return (BASE * static).encode() + sign(static, _static_key_claim(self.run, self._room.own))

    def _contribute(self) -> None:
        secrets = self._secrets
        assert secrets is not None
        keys: dict[bytes, Point] = {}
        for member, content in self._said(RoundKind.KEY_ROUND_1):
            with blaming(member):
                public = _open_static_key(content, self.run, member)
            if public.encode() in keys:
                raise Blamed(member, Reason.MALFORMED, "another member's static key")
            keys[public.encode()] = public
        setup = Setup.of(self._threshold, list(keys.values()), self.run)
        made = cocktail.contribute(setup, secrets.static, secrets.coefficients, secrets.ephemeral)
        self._setup = setup
        self._room.say(RoundKind.KEY_ROUND_2, made.encode())

    def _combine(self) -> _Outcome:
        setup, secrets = self._setup, self._secrets
        assert setup is not None
        assert secrets is not None
        own = self._members.index(self._room.own) + 1
        made: list[Contribution] = []
        shares: list[Scalar] = []
        for index, (member, content) in enumerate(self._said(RoundKind.KEY_ROUND_2), 1):
            with blaming(member):
                made.append(Contribution.parse(content, self._threshold, len(self._members)))
                shares.append(
                    cocktail.unseal_share(setup, made[-1], sender=index, receiver=own, static=secrets.static)
                )
        try:  # the sum is what counts, and Share compares it with the sum of all commitments
            share = Share(own, FIRST_GENERATION, add_scalars(shares), cocktail.combine(setup, made))
        except ValueError:
            self._blame_for(made, shares, own)
            raise
        return _Outcome(share, cocktail.transcript(setup, made, self._extension()))

    def _blame_for(self, made: list[Contribution], shares: list[Scalar], own: int) -> None:
        """Whose share does not fit its own commitment. Raises Refused(BAD_SHARE)."""
        for member, contribution, share in zip(self._members, made, shares, strict=True):
            with blaming(member):
                cocktail.check_share(contribution.commitment, own, share)

    def _extension(self) -> bytes:
        """Binds the sealed shares, which T of COCKTAIL leaves out (its "Ciphertexts Not Bound by the Transcript", option 1)."""
        said = self._room.board.contents(RoundKind.KEY_ROUND_2, self._members)
        return sha256(Label.KEY_GENERATION, self.run, *[sha256(content) for content in said])

    # --- Echo and certificates ---

    def _compare_echoes(self) -> None:
        for member, content in self._said(RoundKind.KEY_ECHO):
            self._room.compare_echo(member, content, ECHOED, self._members)

    def _certify(self) -> None:
        assert self._outcome is not None
        assert self._secrets is not None
        self._room.say(RoundKind.KEY_CERTIFICATE, sign(self._secrets.static, self._outcome.transcript))

    def _conclude(self) -> None:
        setup, outcome = self._setup, self._outcome
        assert setup is not None
        assert outcome is not None
        for public, (member, content) in zip(setup.static_keys, self._said(RoundKind.KEY_CERTIFICATE), strict=True):
            with blaming(member):
                verify(public, outcome.transcript, content)
        certificates = self._room.board.statements(RoundKind.KEY_CERTIFICATE, self._members)
        self._room.pass_on(RoundKind.KEY_CERTIFICATE, self._members)
        self.result = GeneratedKey(
            outcome.share, outcome.share.group, outcome.transcript, sha256(outcome.transcript), tuple(certificates)
        )

    # --- The end ---

    def _said(self, kind: RoundKind) -> list[tuple[NodeId, bytes]]:
        return list(zip(self._members, self._room.board.contents(kind, self._members), strict=True))

    def _erase(self) -> None:
        self._secrets = self._outcome = self._setup = None


def _static_key_claim(run: bytes, member: NodeId) -> bytes:
    """No context and no transcript begins like this."""
    return Label.KEY_GENERATION + run + member


def _open_static_key(content: bytes, run: bytes, member: NodeId) -> Point:
    """P_i of a member who has shown that it knows d_i; raises Refused."""
    if len(content) != STATIC_KEY_SIZE:
        raise Refused(Reason.MALFORMED, "length of a static key")
    public = read_point(content[: POINT_SIZE])
    verify(public, _static_key_claim(run, member), content[POINT_SIZE :])
    return public
