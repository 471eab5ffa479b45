"""A recovery that this machine has proposed, in its state folder: the new mesh key, and the object that waits for signatures.

    {0:1, 1:the new share, 2:text of the proposal}

The new authority is this machine alone, as a founder is: so it takes nobody else to begin, and `overlay ca distribute` goes on
from there. Every function blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from overlay.core.authority.contents import ClosingCheckpoint, next_contents
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.rollover import ROOT_LIFE
from overlay.core.authority.roots import NextRoot
from overlay.core.authority.sharing import SIZE_MAX, GroupKey, Share
from overlay.core.authority.succession import AuthorityChain
from overlay.core.enrolment_files import FILE_MAX
from overlay.core.keys import Ed25519Signer, IdentityKey
from overlay.core.recovery_files import RecoveryProposal
from overlay.core.wire import Bytes, Text, make_map, open_map, sha256
from overlay.errors import Refused, UsageError
from overlay.store.files import damaged
from overlay.store.state import RECOVERY, StateFolder

NO_KEYS = "object 0 of this mesh names no recovery keys"
NO_KEYS_HINT = "they are named when a mesh is founded: `overlay init --recovery-out DIR`; without them, found a new mesh"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proposal, and the share that counts once it is in force."""

    proposal: RecoveryProposal
    share: Share = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposer:
    """Who proposes."""

    identity: IdentityKey
    sign: Callable[[bytes], bytes] = field(repr=False)  # by the identity key
    heads: Callable[[tuple[bytes, ...]], Sequence[ClosingCheckpoint]]  # where the logs of the old signers end, as far as known
    seed: bytes = field(repr=False)  # 32, fresh: the new mesh key


def prepare(folder: StateFolder, chain: AuthorityChain, by: Proposer, at: datetime) -> Prepared:
    """The proposal of this machine for the place that is free: the one that was made already, or a new one, durable on return.

    Raises:
        UsageError: object 0 names no recovery keys, or is itself forked.
        StateDamaged: what is in the folder cannot be read.
    """
    check_recoverable(chain)
    kept = load_prepared(folder)
    before = chain.to_be_recovered
    assert before is not None
    if kept is not None and kept.proposal.contents.previous == before.hash:
        return kept
    prepared = make(chain, by, at)
    folder.write(RECOVERY, make_map(prepared.share.pack_with_secret(), prepared.proposal.to_text()))
    return prepared


def make(chain: AuthorityChain, by: Proposer, at: datetime) -> Prepared:
    """A new one, in memory. Raises UsageError as `prepare`."""
    check_recoverable(chain)
    before = chain.to_be_recovered
    assert before is not None
    key = Ed25519Signer(by.seed)
    begin = at.astimezone(UTC).replace(microsecond=0)
    certificate = NextRoot.of(before.root, key.public_key, begin, begin + ROOT_LIFE)
    root = certificate.seal_root(key.sign(certificate.root_to_be_signed))
    contents = next_contents(
        before.contents, root, [by.identity], 1, transcript=sha256(root.der), closing=by.heads(before.member_ids)
    )
    data = to_be_signed(contents.mesh_id, contents.pack())
    proposal = RecoveryProposal(
        chain=chain.objects[: before.number + 1], contents=contents, root_signed=key.sign(data),
        members_signed=(by.sign(data),),
    )
    secret = Scalar.of_seed(by.seed)
    return Prepared(proposal, Share(1, 0, secret, GroupKey(1, key.public_key, {1: (BASE * secret).encode()})))


def check_recoverable(chain: AuthorityChain) -> None:
    """Raises UsageError."""
    before = chain.to_be_recovered
    if before is None:
        raise UsageError("there are two objects 0, and nothing before them", hint="found a new mesh")
    if not before.recovery.keys:
        raise UsageError(NO_KEYS, hint=NO_KEYS_HINT)


def load_prepared(folder: StateFolder) -> Prepared | None:
    """What this machine has proposed. Raises StateDamaged."""
    content = folder.read(RECOVERY)
    if content is None:
        return None
    try:
        share, text = open_map(content, Bytes(1, 2 * SIZE_MAX), Text(FILE_MAX), limit=FILE_MAX + 3 * SIZE_MAX)
        return Prepared(RecoveryProposal.from_text(text), Share.unpack(share))
    except Refused as error:
        raise damaged(folder.file(RECOVERY), str(error)) from None


def forget(folder: StateFolder) -> None:
    """It has its place, or never will."""
    folder.remove(RECOVERY)
