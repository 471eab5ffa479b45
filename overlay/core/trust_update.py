"""TRUST_UPDATE: what moves the trust set of whoever hears it, and the same as a node keeps it.

    TRUST_UPDATE = {0:1, 1:[revocation list DER, ...], 2:policy?, 3:gate key?}
    kept         = {0:1, 1:[[root certificate DER, accepted], ...], 2:[list DER, ...], 3:policy, 4:[[node, until, order], ...]}

Nothing in an update is believed because of who sends it: each part is signed by the mesh key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from overlay.core.certificates import Root
from overlay.core.gate_keys import GATE_KEY_MAX
from overlay.core.keys import NodeId
from overlay.core.limits import CHAIN_BYTES_MAX, TRUST_UPDATE_MAX
from overlay.core.policy import POLICY_MAX, verify_policy
from overlay.core.revocation_profile import LIST_MAX, TIME_MAX
from overlay.core.revocations import is_of_unknown_root
from overlay.core.roots import ROOTS_MAX, Roots
from overlay.core.trust import Quarantine, TrustSet
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason

LISTS_MAX: Final = 64  # that no other one replaces: our guess
QUARANTINES_MAX: Final = 4096  # our guess
KEPT_MAX: Final = 64 * 1024 * 1024

_DER: Final = Bytes(1, CHAIN_BYTES_MAX)
_LISTS: Final = Array(Bytes(1, LIST_MAX), LISTS_MAX)
_TIME: Final = UInt(TIME_MAX)


@dataclass(frozen=True, slots=True)
class TrustUpdate:
    """What somebody says has changed; nothing of it is verified."""

    lists: tuple[bytes, ...] = field(default=(), repr=False)
    policy: bytes | None = field(default=None, repr=False)
    gate: bytes | None = field(default=None, repr=False)  # the newest gate key, as it is carried (`gate_keys.py`)

    def pack(self) -> bytes:
        """The body."""
        return make_map(list(self.lists), self.policy, self.gate)

    @classmethod
    def unpack(cls, body: bytes) -> "TrustUpdate":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        lists, policy, gate = open_map(
            body, _LISTS, Maybe(Bytes(1, POLICY_MAX)), Maybe(Bytes(1, GATE_KEY_MAX)), limit=TRUST_UPDATE_MAX
        )
        return cls(tuple(lists), policy, gate)

    def applied(self, trust: TrustSet) -> TrustSet:
        """The set after it; an older policy, and what is by a root that is still to come, is passed over.

        Raises:
            Refused: BAD_REVOCATION_LIST, TOO_LARGE, BAD_POLICY, MALFORMED or UNSUPPORTED for what no honest node passes on.
        """
        for der in self.lists:
            if not is_of_unknown_root(der, trust.roots.all):
                trust = trust.with_list(der)
        if self.policy is None:
            return trust
        try:
            return trust.with_policy(self.policy)
        except Refused as error:
            if error.reason is Reason.BAD_POLICY:
                return trust
            raise


def update_of(trust: TrustSet) -> TrustUpdate:
    """All that we know, for somebody who may know less."""
    return TrustUpdate(tuple(one.der for one in trust.lists), trust.policy.raw)


def pack_trust(trust: TrustSet) -> bytes:
    """For a file."""
    later = [[one.root.der, int(one.accepted.timestamp())] for one in trust.later]
    quarantines = [[one.node_id, int(one.until.timestamp()), one.order_hash] for one in sorted(trust.quarantines)]
    return make_map(later, [one.der for one in trust.lists], trust.policy.raw, quarantines)


def unpack_trust(data: bytes, root: Root) -> TrustSet:
    """What `pack_trust` packed, verified again under the founding root.

    Raises:
        Refused: for anything else.
    """
    later, lists, policy, quarantines = open_map(
        data, Array(Tuple((_DER, _TIME)), ROOTS_MAX), _LISTS, Bytes(1, POLICY_MAX),
        Array(Tuple((Bytes(32), _TIME, Bytes(32))), QUARANTINES_MAX), limit=KEPT_MAX,
    )
    trust = with_roots(root, policy, [(der, _time(accepted)) for der, accepted in later])
    for der in lists:
        trust = trust.with_list(der)
    for node_id, until, order_hash in quarantines:
        trust = trust.with_quarantine(Quarantine(NodeId(node_id), _time(until), order_hash))
    return trust


def with_roots(root: Root, policy: bytes, later: Sequence[tuple[bytes, datetime]]) -> TrustSet:
    """A set whose policy is signed by any of its roots; raises Refused."""
    roots = Roots(root)
    recovered = root.recovered()
    for der, accepted in later:
        before, found = recovered.get(der, (b"", None))
        if found is not None and before == roots.newest.key_hash:
            roots = roots.with_recovered(found, accepted)
        else:
            roots = roots.with_later(der, accepted)
    for signer in reversed(roots.all):
        try:
            return TrustSet(root, verify_policy(policy, signer), later=roots.later)
        except Refused as error:
            if error.reason is not Reason.BAD_POLICY:
                raise
    raise Refused(Reason.BAD_POLICY, "signed by none of the mesh's roots")


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
