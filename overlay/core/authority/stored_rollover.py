"""The record of a roll-over as bytes: as a node keeps it, and as it shows it to the others.

    {0:1, 1:H(payload k-1), 2:[[SPKI of each member], t], 3:proposed at, 4:[public key, transcript]?, 5:root DER?,
     6:[cross-certificate DER, [[node_id, log_id, size, root], ...]]?, 7:[[place, signature], ...], 8:by the new root?,
     9:bound, 10:by the old root?, 11:given up, 12:promised}

What is read is built again step by step, and so checked: another's record is worth no more than its signatures.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from overlay.core.authority.contents import CLOSING, DER, MEMBERS, MEMBERS_MAX, OBJECT_MAX, read_closing, read_members, refuse
from overlay.core.authority.rollover import Proposal, Rollover
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificate_profile import open_signed
from overlay.core.wire import Array, Bytes, Flag, Maybe, Tuple, UInt, make_map, open_map

_SIGNATURE: Final = Bytes(64)
_KEY: Final = Tuple((Bytes(32), Bytes(32)))
_SIGNED: Final = Array(Tuple((UInt(MEMBERS_MAX - 1), _SIGNATURE)), MEMBERS_MAX)
_TIME: Final = UInt(2**40)  # some 30,000 years: what `datetime` cannot hold is found below


def pack_rollover(record: Rollover) -> bytes:
    """For a file or another node."""
    proposal = record.proposal
    key = None if record.public_key is None else [record.public_key, record.transcript]
    contents = record.contents
    cross = None if contents is None else [contents.cross, [item.fields for item in contents.closing]]
    return make_map(
        proposal.before.hash, [[member.spki for member in proposal.members], proposal.threshold],
        int(proposal.proposed_at.timestamp()), key, record.root, cross,
        [[place, signature] for place, signature in sorted(record.members_signed.items())], record.new_root_signed,
        record.bound, record.old_root_signed, record.given_up, record.promised,
    )


def unpack_rollover(data: bytes, chain: AuthorityChain) -> Rollover:
    """What `pack_rollover` packed; the chain holds the object that the roll-over starts from.

    Raises:
        Refused: BAD_AUTHORITY_OBJECT, BAD_CERTIFICATE, MALFORMED, TOO_LARGE or UNSUPPORTED.
    """
    before, members, seconds, key, root, cross, signed, new_root, bound, old_root, given_up, promised = open_map(
        data, Bytes(32), MEMBERS, _TIME, Maybe(_KEY), Maybe(DER), Maybe(Tuple((DER, CLOSING))), _SIGNED, Maybe(_SIGNATURE),
        Flag(), Maybe(_SIGNATURE), Flag(), Flag(), limit=OBJECT_MAX,
    )
    start = next((item.contents for item in chain.objects if item.hash == before), None)
    if start is None:
        refuse("the roll-over starts from another object")
    try:
        proposed_at = datetime.fromtimestamp(seconds, UTC)
        found = Rollover(proposal=Proposal.of(start, read_members(*members), members[1], proposed_at))
        if key is not None:
            found = found.with_key(*key)
        if root is not None:
            found = found.with_root(open_signed(root).signature.as_bytes())
        if cross is not None:
            found = found.with_cross(open_signed(cross[0]).signature.as_bytes(), read_closing(cross[1]))
        for place, signature in signed:
            found = found.with_member(place, signature)
        if new_root is not None:
            found = found.with_new_root(new_root)
        if bound:
            found = found.with_binding()
        if old_root is not None:
            found = found.with_old_root(old_root)
    except (ValueError, OverflowError, OSError):
        refuse("the record of a roll-over has a step without the one before it")
    found = replace(found, given_up=given_up, promised=promised)
    if pack_rollover(found) != data:
        refuse("the record of a roll-over is not in its one form")
    return found
