"""What comes next in a roll-over, by what is durable on this node: so one that crashed goes on from there, or gives up.

A node keeps three things, and each is written before the next step begins: the record (`rollover.py`), its chain of authority
objects, its shares of the keys. Rules:

- the old root signs last: whoever signs with it holds an object that lacks nothing else, and can bring it to its end alone
- before a signer takes part in that, it binds itself: it will sign no other successor
- before that everyone may give up: nothing has been promised, the old key is in force, and what there is of the new one goes.
  But a member that has signed the object keeps its share of the new key until the place is taken: others may complete it
- when the new root has signed, every member has, and the only way is forward, however late
- the old share goes when the complete object stands in this node's own chain, not before
"""

from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Final

from overlay.core.authority.rollover import Rollover, RolloverStep
from overlay.core.authority.succession import AuthorityChain

# Our guess: half of the 48 hours in which leaves under the old root are good, which count from the proposal.
ROLLOVER_WITHIN: Final = timedelta(hours=24)


@unique
class Action(Enum):
    """What to do next: those who can, do it; the others wait for what comes of it."""

    GENERATE_KEY = "generate the key"
    SIGN_ROOT = "sign the new root's certificate with the new key"
    SIGN_CROSS = "sign the cross-certificate with the old key and close the logs"
    SIGN_AS_MEMBER = "sign the object with the identity keys"
    SIGN_WITH_NEW_ROOT = "sign the object with the new key"
    BIND = "bind to this successor"
    SIGN_WITH_OLD_ROOT = "sign the object with the old key"
    PUBLISH = "add the object to the chain and show it"
    ERASE_OLD_SHARE = "erase the share of the old key"
    PARK = "do nothing, and keep the share and this record until another object has the place"
    GIVE_UP = "erase the share of the new key, then this record"
    DONE = "forget this record"


_NEXT: Final = {
    RolloverStep.PROPOSED: Action.GENERATE_KEY,
    RolloverStep.KEY_GENERATED: Action.SIGN_ROOT,
    RolloverStep.ROOT_SIGNED: Action.SIGN_CROSS,
    RolloverStep.CROSS_SIGNED: Action.SIGN_AS_MEMBER,
    RolloverStep.MEMBERS_SIGNED: Action.SIGN_WITH_NEW_ROOT,
    RolloverStep.NEW_ROOT_SIGNED: Action.BIND,
    RolloverStep.BOUND: Action.SIGN_WITH_OLD_ROOT,
    RolloverStep.OLD_ROOT_SIGNED: Action.PUBLISH,
    RolloverStep.PUBLISHED: Action.ERASE_OLD_SHARE,
    RolloverStep.OLD_SHARE_ERASED: Action.DONE,
}


def durable_step(record: Rollover, chain: AuthorityChain, *, has_old_share: bool) -> RolloverStep:
    """How far the roll-over is on this node, by all that is durable."""
    number = record.proposal.number
    if record.public_key is None or len(chain.objects) <= number:
        return record.step
    if chain.objects[number].root.public_key != record.public_key:
        return record.step
    return RolloverStep.PUBLISHED if has_old_share else RolloverStep.OLD_SHARE_ERASED


def next_action(record: Rollover, chain: AuthorityChain, at: datetime, *, has_old_share: bool) -> Action:
    """What this node does next, after a crash as well as before one."""
    step = durable_step(record, chain, has_old_share=has_old_share)
    if step >= RolloverStep.PUBLISHED:
        return _NEXT[step]
    if chain.newest.hash != record.proposal.before.hash:
        return Action.GIVE_UP  # another object has the place: this one can never stand there
    late = record.given_up or at >= record.proposal.proposed_at + ROLLOVER_WITHIN
    if chain.frozen_at is not None or (late and step < RolloverStep.NEW_ROOT_SIGNED):
        return Action.PARK if record.promised or record.bound else Action.GIVE_UP
    return _NEXT[step]
