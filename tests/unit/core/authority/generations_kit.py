"""Authority objects for tests. The keys of roots are plain Ed25519 keys here: how many made a signature does not show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from overlay.core.authority.contents import ClosingCheckpoint, Contents, next_contents
from overlay.core.authority.objects import Signatures, assemble, make_object_zero, to_be_signed
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.authority.roots import NextRoot
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificate_profile import ED25519_OID
from overlay.core.certificate_profile import seal as sealed
from overlay.core.certificates import Root
from overlay.core.keys import Ed25519Signer, IdentityKey, NodeId, Signer
from overlay.core.wire import sha256
from tests.unit.core.authority_kit import DAY, NOW, P256Signer, make_mesh, seed

MESH = make_mesh()
FOUNDER: Signer = P256Signer(seed("founder"))
FOUNDING_KEY = MESH.authority.key
THIEF = Ed25519Signer(seed("thief"))
RECOVERY = [Ed25519Signer(seed("recovery", str(number))) for number in range(3)]
RECOVERY_KEYS = RecoveryKeys.of(*(key.public_key for key in RECOVERY))
LIFE = DAY * 7000


def node(name: str) -> Signer:
    """The identity key of a node: half of them as a TPM makes them."""
    secret = seed("identity", name)
    return P256Signer(secret) if name > "c" else Ed25519Signer(secret)


def nodes(names: Iterable[str]) -> list[Signer]:
    """By node id, as members stand in an object."""
    return sorted((node(name) for name in names), key=lambda signer: NodeId.of_key(signer.spki))


def keys(signers: Iterable[Signer]) -> list[IdentityKey]:
    """Their public halves."""
    return [IdentityKey.parse(signer.spki) for signer in signers]


def checkpoint(node_id: NodeId) -> ClosingCheckpoint:
    """Some end of a node's log."""
    return ClosingCheckpoint(node_id, sha256(node_id)[:16], 7, sha256(b"root", node_id))


def checkpoints(before: Contents) -> list[ClosingCheckpoint]:
    """One of each signer."""
    return [checkpoint(node_id) for node_id in before.member_ids]


def root_after(before: Root, key: Signer, at: datetime = NOW) -> Root:
    """The self-signed certificate of the next root."""
    content = NextRoot.of(before, key.public_key, at, at + LIFE)
    return content.seal_root(key.sign(content.root_to_be_signed))


def cross_for(before: Root, old_key: Signer, key: Signer, at: datetime = NOW) -> bytes:
    """Its certificate by the root before, or by somebody else."""
    content = NextRoot.of(before, key.public_key, at, at + LIFE).cross_to_be_signed
    return sealed(content, ED25519_OID, old_key.sign(content))


@dataclass(frozen=True, slots=True)
class Generation:
    """An object and all keys behind it."""

    raw: bytes = field(repr=False)
    contents: Contents
    key: Signer = field(repr=False)
    members: Sequence[Signer] = field(repr=False)

    def rollover(self, word: str, names: str = "abc", threshold: int = 2, at: datetime = NOW) -> "Generation":
        """Another key among those members."""
        key = Ed25519Signer(seed("group", word))
        root = root_after(self.contents.root, key, at)
        contents = self._next(root, names, threshold, word, cross=cross_for(self.contents.root, self.key, key, at))
        return self._sealed(contents, key, nodes(names), previous_root=self.key)

    def reshared(self, names: str, threshold: int = 2) -> "Generation":
        """The same key among other members."""
        return self._sealed(self._next(self.contents.root, names, threshold, names), self.key, nodes(names))

    def recovered(self, word: str, names: str = "xyz", threshold: int = 2, by: Sequence[int] = (0, 2)) -> "Generation":
        """Another key, by recovery keys."""
        key = Ed25519Signer(seed("group", word))
        contents = self._next(root_after(self.contents.root, key), names, threshold, word)
        return self._sealed(contents, key, nodes(names), recovery=by)

    def _next(
        self, root: Root, names: str, threshold: int, word: str, *, cross: bytes | None = None
    ) -> Contents:
        return next_contents(
            self.contents, root, keys(nodes(names)), threshold, transcript=sha256(word.encode()),
            closing=checkpoints(self.contents), cross=cross,
        )  # fmt: skip

    @staticmethod
    def _sealed(
        contents: Contents, key: Signer, members: Sequence[Signer], *, previous_root: Signer | None = None,
        recovery: Sequence[int] = (),
    ) -> "Generation":  # fmt: skip
        raw = seal(contents, contents.pack(), key, members, previous_root=previous_root, recovery=recovery)
        return Generation(raw, contents, key, members)


def seal(
    contents: Contents,
    payload: bytes,
    key: Signer,
    members: Sequence[Signer],
    *,
    previous_root: Signer | None = None,
    recovery: Sequence[int] = (),
) -> bytes:
    """Sign a payload by everybody."""
    data = to_be_signed(contents.mesh_id, payload)
    return assemble(
        payload,
        Signatures(
            root=key.sign(data),
            members=[member.sign(data) for member in members],
            previous_root=previous_root.sign(data) if previous_root else None,
            recovery={place: RECOVERY[place].sign(data) for place in recovery},
        ),
    )


def founding(recovery: RecoveryKeys = RECOVERY_KEYS) -> Generation:
    """Object 0."""
    raw = make_object_zero(MESH.root, FOUNDING_KEY, FOUNDER, recovery)
    return Generation(raw, AuthorityChain.begin(raw, MESH.root).newest.contents, FOUNDING_KEY, [FOUNDER])


def chain_of(*generations: Generation, at: datetime = NOW) -> AuthorityChain:
    """The chain of these, the first of them object 0."""
    chain = AuthorityChain.begin(generations[0].raw, MESH.root)
    for generation in generations[1:]:
        chain = chain.with_object(generation.raw, at).chain
    return chain
