"""What a node knows of who may be here, in memory and on the disk. Values go in by assignment; `flush` makes them durable.

Whatever binds (what a signer promised, whom it approved) is flushed before anything that rests on it leaves the machine; all
else (lists, orders of others) is written soon, because others would tell it again.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

import trio

from overlay.app.authority.share_vault import PlainVault, ShareVault, read_share
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.sharing import GroupKey, Share
from overlay.core.authority.stored_chain import pack_chain, unpack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import VerifiedCertificate
from overlay.core.grace import GraceTimes
from overlay.core.keys import NodeId
from overlay.core.members import Members
from overlay.core.renewal_book import RenewalBook
from overlay.core.trust import TrustSet
from overlay.core.trust_update import pack_trust, unpack_trust
from overlay.errors import OverlayError, Refused, StateDamaged
from overlay.store.files import damaged
from overlay.store.identity import load_founding_key
from overlay.store.membership import MeshRecord
from overlay.store.restored import load_count
from overlay.store.state import (
    AUTHORITY,
    BINDINGS,
    FOUNDING_KEY,
    INVITES,
    MEMBERS,
    ORDERS,
    RENEWALS,
    SHARE,
    TRUST,
    StateFolder,
)

T = TypeVar("T")

WRITE_SOON: Final = 0.2  # seconds in which changes gather that nobody waits for: our guess


class Ledger:
    """Everything of it. Only the task that runs the node changes it."""

    def __init__(self, folder: StateFolder, mesh: MeshRecord, vault: ShareVault | None = None) -> None:
        """Blocks. Raises StateDamaged. Without a vault a share that a TPM has sealed is not opened."""
        self._folder = folder
        self._vault = vault or PlainVault()
        root = mesh.root
        self._trust = load_trust(folder, mesh) or mesh.trust
        self._chain = _load(folder, AUTHORITY, lambda data: unpack_chain(data, root)) or AuthorityChain.begin(
            mesh.authority_object, root
        )
        self._trust = _with_members(_with_recovered(self._trust, self._chain), self._chain)
        self._orders = _load(folder, ORDERS, OrderBook.unpack) or OrderBook()
        self._invites = _load(folder, INVITES, InviteBook.unpack) or InviteBook()
        self._bindings = _load(folder, BINDINGS, Bindings.unpack) or Bindings()
        self._renewals = _load(folder, RENEWALS, RenewalBook.unpack) or RenewalBook()
        self._members = _load(folder, MEMBERS, Members.unpack) or Members()
        self._trust = replace(self._trust, old_serials=self._members.frozen)
        self._locked: OverlayError | None = None
        self._share = self._open_share() or _founding_share(folder, self._chain)
        self.lowest_count = load_count(folder)  # of what this node numbers by itself, once it was restored
        self._dirty: set[str] = set()
        self._news = trio.Event()
        self._writing = trio.Lock()

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def trust(self) -> TrustSet:
        """Roots, policy, revocations, quarantines."""
        return self._trust

    @trust.setter
    def trust(self, value: TrustSet) -> None:
        self._trust = replace(_with_members(value, self._chain), old_serials=self._members.frozen)
        self._touch(TRUST)

    @property
    def chain(self) -> AuthorityChain:
        """Who has held the mesh key."""
        return self._chain

    @chain.setter
    def chain(self, value: AuthorityChain) -> None:
        self._chain = value
        self._trust = _with_members(self._trust, value)
        self._touch(AUTHORITY)

    @property
    def orders(self) -> OrderBook:
        """What operators want."""
        return self._orders

    @orders.setter
    def orders(self, value: OrderBook) -> None:
        self._orders = value
        self._touch(ORDERS)

    @property
    def invites(self) -> InviteBook:
        """Whom we have approved, and under which name."""
        return self._invites

    @invites.setter
    def invites(self, value: InviteBook) -> None:
        self._invites = value
        self._touch(INVITES)

    @property
    def bindings(self) -> Bindings:
        """What we have promised to sign, and nothing else in its place."""
        return self._bindings

    @bindings.setter
    def bindings(self, value: Bindings) -> None:
        self._bindings = value
        self._touch(BINDINGS)

    @property
    def renewals(self) -> RenewalBook:
        """Which serials were replaced, and by what."""
        return self._renewals

    @renewals.setter
    def renewals(self, value: RenewalBook) -> None:
        self._renewals = value
        self._touch(RENEWALS)

    @property
    def members(self) -> Members:
        """Who was ever seen with a good certificate."""
        return self._members

    def saw(self, certificate: VerifiedCertificate) -> None:
        """Somebody has shown a good certificate."""
        members = self._members.with_certificate(certificate)
        if members is not self._members:
            self._members = members
            self._touch(MEMBERS)

    def freeze_old_leaves(self) -> None:
        """There is a newer root: of leaves of the earlier ones those count that were seen until now."""
        self._members = self._members.at_new_root()
        self._touch(MEMBERS)

    @property
    def share(self) -> Share | None:
        """Our part of the mesh key; with one machine, all of it."""
        return self._share

    @property
    def locked(self) -> OverlayError | None:
        """Why the share on our disk cannot be used now; None if it can, or there is none."""
        return self._locked

    async def keep_share(self, share: Share | None) -> None:
        """Take a share into use, or erase it; durable on return. Raises OverlayError if the TPM cannot seal it."""
        data = None if share is None else share.pack_with_secret()
        async with self._writing:
            await trio.to_thread.run_sync(self._write_share, data)
        self._share, self._locked = share, None

    async def unlock(self) -> bool:
        """Try again to open the share on our disk: whether there is one more than before."""
        if self._locked is None:
            return False
        async with self._writing:
            try:
                share = await trio.to_thread.run_sync(self._open_share)
            except StateDamaged as error:  # it opens, and makes no sense: no reason to end a node that runs
                self._locked = error
                return False
        if share is not None and self._share is None:
            self._share = share
            return True
        return False

    def _write_share(self, data: bytes | None) -> None:
        if data is None:
            self._folder.remove(SHARE)
        else:
            self._folder.write(SHARE, self._vault.close(SHARE, data))

    def _open_share(self) -> Share | None:
        try:
            data, self._locked = read_share(self._folder, SHARE, self._vault), None
        except OverlayError as error:
            data, self._locked = None, error
        return None if data is None else _read(self._folder, SHARE, data, Share.unpack)

    # --- on the disk ------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """All that was assigned until now outlives a crash. Raises HostLacks if the disk does not take it."""
        async with self._writing:
            while self._dirty:
                names, self._dirty = self._dirty, set()
                contents = {name: self._pack(name) for name in names}
                try:
                    await trio.to_thread.run_sync(self._write, contents)
                except BaseException:
                    self._dirty |= names
                    raise

    async def run(self) -> None:
        """Write what nobody waits for, until cancelled; then once more."""
        try:
            while True:
                await self._news.wait()
                await trio.sleep(WRITE_SOON)
                self._news = trio.Event()
                await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                await self.flush()

    def _touch(self, name: str) -> None:
        self._dirty.add(name)
        self._news.set()

    def _pack(self, name: str) -> bytes:
        packers: dict[str, Callable[[], bytes]] = {
            TRUST: lambda: pack_trust(self._trust), AUTHORITY: lambda: pack_chain(self._chain), ORDERS: self._orders.pack,
            INVITES: self._invites.pack, BINDINGS: self._bindings.pack, RENEWALS: self._renewals.pack,
            MEMBERS: self._members.pack,
        }
        return packers[name]()

    def _write(self, contents: dict[str, bytes]) -> None:
        for name, data in sorted(contents.items()):  # the authority before the trust set, whose roots may stand on it
            self._folder.write(name, data)

    # --- who is who -------------------------------------------------------------------------------------------------

    def is_signer(self, node_id: NodeId) -> bool:
        """Whether it is a member of the authority in force."""
        return self._chain.is_signer(node_id)

    def was_signer(self, node_id: NodeId) -> bool:
        """Whether it is, or ever was, a member of the authority."""
        return any(node_id in one.member_ids for one in self._chain.objects)

    def forget(self, at: datetime) -> None:
        """Leave out what is long over."""
        for name, value in (
            ("orders", self._orders.forget(at)), ("invites", self._invites.forget(at)),
            ("bindings", self._bindings.without(at)), ("trust", self._trust.without_ended(at)),
        ):
            if value != getattr(self, name):
                setattr(self, name, value)


def load_trust(folder: StateFolder, mesh: MeshRecord) -> TrustSet | None:
    """What a node keeps of roots, policy, revocations and quarantines. Raises StateDamaged."""
    return _load(folder, TRUST, lambda data: unpack_trust(data, mesh.root))


def _load(folder: StateFolder, name: str, read: Callable[[bytes], T]) -> T | None:
    content = folder.read(name)
    return None if content is None else _read(folder, name, content, read)


def _read(folder: StateFolder, name: str, content: bytes, read: Callable[[bytes], T]) -> T:
    try:
        return read(content)
    except Refused as error:
        raise damaged(folder.file(name), str(error)) from None


def _with_members(trust: TrustSet, chain: AuthorityChain) -> TrustSet:
    """Members of the authority may renew for longer."""
    members = frozenset(chain.newest.member_ids)
    return trust if trust.grace.members == members else replace(trust, grace=GraceTimes(members=members))


def _with_recovered(trust: TrustSet, chain: AuthorityChain) -> TrustSet:
    """After a crash between the two files: roots that came into force by recovery, and what follows them."""
    known, since = {root.key_hash for root in trust.roots.all}, dict(chain.recovered)
    for before, after in zip(chain.objects[:-1], chain.objects[1:], strict=True):
        if after.number in since and after.root.key_hash not in known:
            trust = trust.with_recovered_root(after.root, since[after.number], before.root)
    return trust


def _founding_share(folder: StateFolder, chain: AuthorityChain) -> Share | None:
    """The founding key as the only share of a group of one, so that one machine signs as many do."""
    seed = load_founding_key(folder)
    if seed is None or chain.newest.number:
        return None
    secret = Scalar.of_seed(seed)
    public = (BASE * secret).encode()
    if public != chain.newest_root.public_key:
        raise damaged(folder.file(FOUNDING_KEY), "it is the key of another root")
    return Share(1, 0, secret, GroupKey(1, public, {1: public}))
