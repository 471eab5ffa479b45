"""Numbers of incarnations: none is ever used twice, also by who has forgotten some."""

from datetime import timedelta

from audit.author import LogSigner, former_of
from audit.batch import NEWER_COPY, UNCONFIRMED, Batch
from audit.fork_sides import Side
from audit.forks import make_fork, parse_fork
from overlay.errors import Refused
from overlay.registry import ForkKind
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()


def begun(start: int, reason: str, *, later: timedelta) -> tuple[int, Side]:
    """An old copy of a folder is started, and opens its next log. Its number, and what it has signed."""
    member = make_member(MESH, "alice", start=start)
    signer = LogSigner(member.message, member.credentials)
    old = Batch.begin(MESH.root, signer, MESH.at, 0, None)
    batch = Batch(old.own, MESH.at + later)
    (entry,) = batch.begin_next(signer, former_of(old.own.state, reason), 1)
    return batch.own.state.k, Side.of_entry(entry.raw, member.credentials)


def test_who_could_not_ask_takes_a_number_that_it_cannot_have_used() -> None:
    (first, one), (second, other) = (begun(start, UNCONFIRMED, later=timedelta(minutes=start)) for start in (1, 2))
    assert (first, second) == tuple(int(MESH.at.timestamp()) + 60 * start for start in (1, 2))
    try:
        parse_fork(make_fork(ForkKind.OPENINGS, one, other)).verify(MESH.root, MESH.at)
    except Refused as error:
        assert error.detail == "two logs with different numbers"


def test_who_has_asked_counts_on() -> None:
    assert begun(1, NEWER_COPY, later=timedelta(minutes=1))[0] == 1
