"""The chain of authority objects as a node keeps it.

    {0:1, 1:[object, ...], 2:[one successor, the other]?, 3:[[recovery that waits, first seen], ...], 4:[[number, since], ...]}

Times are Unix seconds. Everything is verified again when it is read.
"""

from datetime import UTC, datetime
from typing import Final

from overlay.core.authority.contents import NUMBER_MAX, OBJECT_MAX, ObjectKind, number_of, refuse
from overlay.core.authority.objects import AuthorityObject, payload_of, verify_next, verify_object_zero
from overlay.core.authority.recovery import Candidate
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import Root
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, open_map

STORED_MAX: Final = OBJECT_MAX * (NUMBER_MAX + 1)

_OBJECT: Final = Bytes(1, OBJECT_MAX)
_TIME: Final = UInt(2**40)  # some 30,000 years: what `datetime` cannot hold is found below


def pack_chain(chain: AuthorityChain) -> bytes:
    """For a file."""
    return make_map(
        [item.raw for item in chain.objects],
        None if chain.fork is None else [item.raw for item in chain.fork],
        [[item.object.raw, int(item.first_seen.timestamp())] for item in chain.candidates],
        [[number, int(since.timestamp())] for number, since in chain.recovered],
    )


def unpack_chain(data: bytes, root: Root) -> AuthorityChain:
    """What `pack_chain` packed, under the founding root that we trust.

    Raises:
        Refused: for anything else.
    """
    raws, rivals, waiting, recovered = open_map(
        data, Array(_OBJECT, NUMBER_MAX + 1), Maybe(Tuple((_OBJECT, _OBJECT))), Array(Tuple((_OBJECT, _TIME)), 2),
        Array(Tuple((UInt(NUMBER_MAX), _TIME)), NUMBER_MAX), limit=STORED_MAX,
    )
    if not raws:
        refuse("a chain begins with object 0")
    objects = [verify_object_zero(raws[0], root)]
    for raw in raws[1:]:
        objects.append(verify_next(raw, objects[-1].contents))
    chain = AuthorityChain(
        tuple(objects), None if rivals is None else (_beside(rivals[0], objects), _beside(rivals[1], objects)),
        tuple(Candidate(_beside(raw, objects), _time(seconds)) for raw, seconds in waiting),
        tuple((number, _time(seconds)) for number, seconds in recovered),
    )
    _check(chain)
    return chain


def _beside(raw: bytes, objects: list[AuthorityObject]) -> AuthorityObject:
    """An object that is not in force, verified against the one before it."""
    number = number_of(payload_of(raw))
    if number == 0:
        return verify_object_zero(raw, objects[0].root)
    if number > len(objects):
        refuse("it follows none of ours")
    return verify_next(raw, objects[number - 1].contents)


def _check(chain: AuthorityChain) -> None:
    """Each is where it belongs."""
    recoveries = [item.number for item in chain.objects if item.kind is ObjectKind.RECOVERY]
    if [number for number, _ in chain.recovered] != recoveries:
        refuse("each recovery has the time since when it is in force")
    if any(item.object.kind is not ObjectKind.RECOVERY for item in chain.candidates):
        refuse("only a recovery waits")
    if chain.fork is not None and _is_no_fork(*chain.fork):
        refuse("two different successors in one place are a fork, nothing else is")


def _is_no_fork(first: AuthorityObject, second: AuthorityObject) -> bool:
    recovery = ObjectKind.RECOVERY in (first.kind, second.kind)
    return recovery or first.number != second.number or first.hash >= second.hash


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        refuse("no time")
