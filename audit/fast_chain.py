"""Long runs of ordinary entries, judged by `audit.chain`'s rules with less Python: for who verifies or takes in whole logs.

Sound, and not complete: what it accepts `extend` accepts, with the same state after it, which a property shows. What is not
exactly of the usual form (keys, references, another key in force, anything wrong) it leaves to `extend`, which says why.

An entry under a key in force begins with bytes that are known beforehand, up to its clock, and ends with its signature. What is
signed is a known beginning and the payload as it stands in the entry.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Final

import cbor2
import nacl.bindings
import nacl.exceptions

from audit.chain import KEYED, ChainState, Extension, KeyInForce, advance, extend
from audit.entry import Entry
from overlay.core.certificates import Root
from overlay.core.limits import ENTRY_MAX
from overlay.core.merkle import HASH_SIZE
from overlay.core.mesh.chains import HLC_MAX, HLC_SHIFT, hlc_of, latest
from overlay.core.wire import decode
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_SIGN1_TAG_BYTE, EntryType, Label

Row = Sequence[object]  # seq, hlc, type, hash, raw, as the store says; nothing of it has been checked

_SIGNATURE: Final = 64
_TAIL: Final = 2 + _SIGNATURE  # a byte string of 64 bytes
_TAIL_HEAD: Final = b"\x58\x40"
_HLC: Final = 8
_BODY: Final = 7  # the field of an entry
_U64: Final = 0x1B  # RFC 8949, section 3: an unsigned integer of eight bytes follows
_MILLISECOND: Final = 1 << HLC_SHIFT
_APPLICATION: Final = b"\x06" + cbor2.dumps(int(EntryType.APPLICATION)) + b"\x07\xa2\x00"  # the type, then a map of two


@dataclass(frozen=True, slots=True)
class Run:
    """What all entries of a log under one key have in common."""

    log_id: bytes
    public: bytes  # the message key
    low: int  # the clock within the life of the endorsement
    high: int
    beginning: bytes = field(repr=False)  # of an entry, up to its payload
    place: bytes = field(repr=False)  # of the payload, up to seq
    signed: bytes = field(repr=False)  # what is signed, up to the payload

    @classmethod
    def under(cls, state: ChainState, key: KeyInForce, root: Root) -> "Run":
        """From a state on, for as long as the key is in force."""
        protected = cbor2.dumps(cbor2.dumps({1: COSE_EDDSA, 4: key.kid}))
        aad = cbor2.dumps(Label.AUDIT + root.mesh_id)
        return cls(
            log_id=state.log_id, public=key.peer.message_public, low=_first(key.not_before),
            high=hlc_of(key.not_after) + _MILLISECOND - 1,
            beginning=bytes([COSE_SIGN1_TAG_BYTE, 0x84]) + protected + b"\xa0",
            place=b"\xa9\x00\x01\x01\x58\x20" + state.node_id + b"\x02\x50" + state.log_id + b"\x03",
            signed=b"\x84" + cbor2.dumps("Signature1") + protected + aad,
        )

    def until(self, at: datetime) -> "Run":
        """The same, without what has to wait at this time."""
        return replace(self, high=min(self.high, latest(at)))

    def follow(self, rows: Iterable[Row], seq: int, last: object, hlc: object) -> tuple[list[bytes], int]:
        """As many entries as are of the usual form and hold, from number `seq` on.

        Returns:
            Their hashes, and the clock of the last one.
        """
        hashes: list[bytes] = []
        if type(last) is not bytes or len(last) != HASH_SIZE or type(hlc) is not int:
            return hashes, 0  # nonsense in the file
        for number, recorded, kind, recorded_hash, raw in rows:
            found = self._entry(raw, seq, last, hlc)
            if found is None or (number, recorded, kind, recorded_hash) != (seq, *found):
                break
            hlc, _, last = found
            hashes.append(last)
            seq += 1
        return hashes, hlc

    def entries(self, raws: Sequence[bytes], start: int, state: ChainState, key: KeyInForce) -> list[Entry]:
        """As many entries as are of the usual form and hold, of `raws[start:]`, which follow that state under that key."""
        found: list[Entry] = []
        seq, last, hlc = state.size, state.last, state.hlc
        for raw in islice(raws, start, None):
            one = self._entry(raw, seq, last, hlc)
            if one is None:
                break
            prev, (hlc, kind, last) = last, one
            payload = _text_of(raw[len(self.beginning) : -_TAIL])
            assert payload is not None
            body = cbor2.loads(payload)[_BODY]  # its form has been looked at
            found.append(
                Entry(
                    node_id=state.node_id, log_id=state.log_id, seq=seq, prev=prev, hlc=hlc, type=kind, body=body, kid=key.kid,
                    hash=last, raw=raw,
                )
            )  # fmt: skip
            seq += 1
        return found

    def _entry(self, raw: object, seq: int, last: bytes, hlc: int) -> tuple[int, int, bytes] | None:
        """Clock, type and hash of an entry that holds."""
        begin = len(self.beginning)
        if type(raw) is not bytes or len(raw) > ENTRY_MAX or not raw.startswith(self.beginning):
            return None
        if raw[-_TAIL:-_SIGNATURE] != _TAIL_HEAD:
            return None
        section = raw[begin:-_TAIL]
        payload = _text_of(section)
        known = self.place + cbor2.dumps(seq) + b"\x04\x58\x20" + last + b"\x05"
        at = len(known) + 1
        if payload is None or not payload.startswith(known) or payload[at - 1 : at] != bytes([_U64]):
            return None
        clock = int.from_bytes(payload[at : at + _HLC], "big")
        if not hlc < clock <= HLC_MAX or not self.low <= clock <= self.high:
            return None
        kind = _rest(payload[at + _HLC :])
        if kind is None or not self._signed(raw[-_SIGNATURE:], section):
            return None
        return clock, kind, hashlib.sha256(b"\0" + raw).digest()

    def _signed(self, signature: bytes, section: bytes) -> bool:
        try:
            nacl.bindings.crypto_sign_open(signature + self.signed + section, self.public)
        except nacl.exceptions.BadSignatureError:
            return False
        return True


def fast_extend(state: ChainState, rows: Sequence[Row], root: Root) -> tuple[ChainState, list[bytes]]:
    """The state after as many rows as can be judged fast, and the hashes of their entries."""
    if state.key is None:
        return state, []
    run = Run.under(state, state.key, root)
    hashes, hlc = run.follow(rows, state.size, state.last, state.hlc)
    if not hashes:
        return state, []
    return replace(state, tree=state.tree.extend(hashes), last=hashes[-1], hlc=hlc), hashes


def extend_by_runs(state: ChainState, raws: Sequence[bytes], root: Root, *, at: datetime) -> Extension:
    """The same as `audit.chain.extend`, faster for long runs: what is not of the usual form, or has to wait, it judges."""
    entries: list[Entry] = []
    while len(entries) < len(raws):
        if state.key is not None:
            found = Run.under(state, state.key, root).until(at).entries(raws, len(entries), state, state.key)
            state = advance(state, found, state.key)
            entries += found
        one = extend(state, raws[len(entries) : len(entries) + 1], root, at=at)  # nothing at the end
        state = one.state
        entries += one.entries
        if one.held is not None:
            return Extension(state=state, entries=tuple(entries), held=one.held)
    return Extension(state=state, entries=tuple(entries))


def _text_of(section: bytes) -> bytes | None:
    """The content of a byte string of 24 to 65,535 bytes, if it is in its shortest form and nothing else."""
    head = section[:1]
    if head == b"\x58" and section[1:2] >= b"\x18" and section[1] == len(section) - 2:
        return section[2:]
    if head == b"\x59" and section[1:2] >= b"\x01" and int.from_bytes(section[1:3], "big") == len(section) - 3:
        return section[3:]
    return None


def _rest(fields: bytes) -> int | None:
    """The type, of the fields 6 (type), 7 (a map) and 8 (no references) in their one encoding; None for other things."""
    if fields.startswith(_APPLICATION) and _is_application(fields[len(_APPLICATION) :]):
        return EntryType.APPLICATION
    try:
        found = decode(b"\xa3" + fields, limit=ENTRY_MAX)
    except Refused:
        return None
    kind, body = found.get(6), found.get(7)
    good = len(found) == 3 and type(kind) is int and kind <= 255 and kind not in KEYED
    return kind if good and type(body) is dict and found.get(8) == [] else None


def _is_application(fields: bytes) -> bool:
    """Whether this is a short text in ASCII, key 1, a byte string, and no references: most entries are."""
    end = fields[0] - 0x5F if fields else 0
    if not 1 <= end <= 24 or fields[end : end + 1] != b"\x01" or not fields[:end].isascii():
        return False
    value = fields[end + 1 : -2]
    short = len(value) <= 24 and value[:1] == bytes([0x3F + len(value)])
    return fields.endswith(b"\x08\x80") and (short or _text_of(value) is not None)


def _first(at: datetime) -> int:
    """The first value of the clock that is not before this time."""
    value = hlc_of(at)
    return value if not at.microsecond % 1000 else value + _MILLISECOND
