"""Our shares of the mesh key on the disk: the one in force, and the one that takes its place with an authority object."""

from dataclasses import dataclass, field

import trio

from overlay.app.authority.ledger import Ledger
from overlay.app.authority.share_vault import PlainVault, ShareVault, read_share
from overlay.core.authority.objects import AuthorityObject
from overlay.core.authority.sharing import SIZE_MAX, Share
from overlay.core.keys import NodeId
from overlay.core.wire import Bytes, make_map, open_map
from overlay.errors import OverlayError, Refused, StateDamaged
from overlay.store.files import damaged
from overlay.store.state import FOUNDING_KEY, SHARE_NEXT, StateFolder


@dataclass(frozen=True, slots=True)
class NextShare:
    """A share that nobody uses yet, and the transcript that an object names when it counts."""

    share: Share = field(repr=False)
    transcript: bytes  # 32


class Shares:
    """Of one node. A share is never on the disk unless it is in force or may come to be."""

    def __init__(self, folder: StateFolder, ledger: Ledger, own_id: NodeId, vault: ShareVault | None = None) -> None:
        """Blocks. Raises StateDamaged."""
        self._folder = folder
        self._own_id = own_id
        self._ledger = ledger
        self._vault = vault or PlainVault()
        self._locked: OverlayError | None = None
        self.next = self._load()
        self._changing = trio.Lock()

    @property
    def locked(self) -> OverlayError | None:
        """Why a share on our disk cannot be used now: the one in force, or the one that waits; None if all can."""
        return self._ledger.locked or self._locked

    async def check(self) -> None:
        """Before anything that ends with another share: raises what `locked` says of one that waits for its object.

        Such a share must not be overwritten: the object that it waits for may come.
        """
        if self._locked is not None:
            await self.unlock()
        if self._locked is not None:
            raise self._locked

    async def unlock(self) -> bool:
        """Try again to open what could not be opened: whether something has changed."""
        async with self._changing:
            before, changed = self.next, await self._ledger.unlock()
            if self._locked is not None:
                try:
                    self.next = await trio.to_thread.run_sync(self._load)
                except StateDamaged as error:  # it opens, and makes no sense: no reason to end a node that runs
                    self._locked = error
            if changed or self.next is not before:
                await self._settle()
                return True
            return False

    async def keep_next(self, found: NextShare) -> None:
        """Durable on return."""
        data = make_map(found.transcript, found.share.pack_with_secret())
        async with self._changing:
            await trio.to_thread.run_sync(self._write_next, data)
            self.next = found

    def _write_next(self, data: bytes) -> None:
        self._folder.write(SHARE_NEXT, self._vault.close(SHARE_NEXT, data))

    async def drop_next(self) -> None:
        """It will never be used."""
        async with self._changing:
            await self._drop_next()

    async def _drop_next(self) -> None:
        await trio.to_thread.run_sync(self._folder.remove, SHARE_NEXT)
        self.next = self._locked = None

    async def take(self, share: Share) -> None:
        """Into use, instead of what there is; durable on return."""
        async with self._changing:
            await self._ledger.keep_share(share)

    async def settle(self) -> None:
        """If the newest object names the next share, it takes the place of the old one, which is erased for good."""
        async with self._changing:
            await self._settle()

    async def _settle(self) -> None:
        ledger, kept = self._ledger, self.next
        newest = ledger.chain.newest
        if kept is not None and newest.contents.transcript == kept.transcript:
            try:
                await ledger.keep_share(kept.share)
            except OverlayError as error:  # the TPM is away: it waits on the disk as it did, and `unlock` tries again
                self.next, self._locked = None, error
                return
            await self._drop_next()
        if newest.number == 0:
            return
        useless = ledger.share is not None and not _is_of(ledger.share, newest, self._own_id)
        if useless or (ledger.locked is not None and self._own_id not in newest.member_ids):
            await ledger.keep_share(None)
        await trio.to_thread.run_sync(self._folder.remove, FOUNDING_KEY)

    def _load(self) -> NextShare | None:
        try:
            data, self._locked = read_share(self._folder, SHARE_NEXT, self._vault), None
        except OverlayError as error:
            data, self._locked = None, error
        if data is None:
            return None
        try:
            transcript, packed = open_map(data, Bytes(32), Bytes(1, 2 * SIZE_MAX), limit=3 * SIZE_MAX)
            return NextShare(Share.unpack(packed), transcript)
        except Refused as error:
            raise damaged(self._folder.file(SHARE_NEXT), str(error)) from None


def _is_of(share: Share, newest: AuthorityObject, own_id: NodeId) -> bool:
    """Whether it is the one with which this node signs in that generation."""
    group, members = share.group, newest.member_ids
    same = (group.threshold, len(group.shares)) == (newest.threshold, len(members))
    ours = own_id in members and members.index(own_id) + 1 == share.identifier
    return same and ours and group.public == newest.root.public_key
