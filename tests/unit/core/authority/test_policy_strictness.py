"""Which policies let pass more than the one in force, field by field."""

from dataclasses import replace

import pytest

from overlay.core.authority.policy_strictness import is_looser
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_parts import DigestRule, Earlier, FirmwareFloor, MissingLog, Need, Needs, References
from tests.unit.core.authority_kit import seed

A, B, C = seed("a"), seed("b"), seed("c")
RULE = DigestRule(7, allowed=(A,), required=(B,), forbidden=(C,))
FILES = DigestRule(10, forbidden=(C,))
OLD = Policy(
    version=3, mode=Mode.ENFORCE, pcr_bitmap=0b11, pcr_digests=(A,), ek_roots=(b"one",), ek_tags=(A,),
    firmware_floors=(FirmwareFloor(9, 4),), digest_rules=(RULE,), file_rule=FILES,
    earlier=(Earlier(1_000, Mode.WARN, References(pcr_bitmap=1)),),
    needs=Needs(services=(Need("run", 4, ("operator", "worker")),), topics=(Need("news", 2),), roles=(Need("signer", 3),)),
)  # fmt: skip


def needs(**fields: tuple[Need, ...]) -> Needs:
    return replace(OLD.needs, **fields)


def grace(until: int, mode: Mode, references: References) -> Policy:
    return replace(OLD, earlier=(Earlier(until, mode, references),))


AS_STRICT = [
    replace(OLD, version=4),
    replace(OLD, ek_tags=()),
    replace(OLD, firmware_floors=(FirmwareFloor(10, 3),)),
    replace(OLD, firmware_floors=(*OLD.firmware_floors, FirmwareFloor(3))),
    replace(OLD, digest_rules=(DigestRule(4, allowed=(A,)), RULE)),
    replace(OLD, digest_rules=(replace(RULE, allowed=(A, B), required=(A,), forbidden=(A, C)),)),
    replace(OLD, file_rule=replace(FILES, allowed=(A,))),
    replace(OLD, missing_log=MissingLog.REFUSE),
    replace(OLD, earlier=()),
    grace(2_000, Mode.ENFORCE, OLD.references),
    grace(1_000, Mode.WARN, References(pcr_bitmap=1)),
    replace(OLD, needs=needs(services=(Need("other", 1), Need("run", 5, ("worker",))))),
    replace(OLD, needs=needs(topics=(Need("news", 2, ("worker",)),))),
]
LOOSER = [
    replace(OLD, ek_roots=(b"one", b"two")),
    replace(OLD, ek_roots=()),
    replace(OLD, ek_tags=(A, B)),
    replace(OLD, firmware_floors=()),
    replace(OLD, firmware_floors=(FirmwareFloor(8, 4),)),
    replace(OLD, firmware_floors=(FirmwareFloor(9, 5),)),
    replace(OLD, digest_rules=()),
    replace(OLD, digest_rules=(replace(RULE, pcr=8),)),
    replace(OLD, digest_rules=(replace(RULE, allowed=()),)),
    replace(OLD, digest_rules=(replace(RULE, required=()),)),
    replace(OLD, digest_rules=(replace(RULE, forbidden=()),)),
    replace(OLD, file_rule=None),
    replace(OLD, file_rule=replace(FILES, forbidden=(A,))),
    replace(OLD, missing_log=MissingLog.WARN),
    replace(OLD, missing_log=MissingLog.ALLOW),
    grace(1_001, Mode.WARN, References(pcr_bitmap=1)),
    grace(1_000, Mode.LEARN, References(pcr_bitmap=1)),
    grace(1_000, Mode.LEARN, OLD.references),
    grace(1_000, Mode.ENFORCE, replace(OLD.references, pcr_bitmap=1)),
    grace(1_000, Mode.ENFORCE, replace(OLD.references, digest_rules=())),
    grace(1_000, Mode.ENFORCE, replace(OLD.references, firmware_floors=())),
    replace(OLD, needs=Needs()),
    replace(OLD, needs=needs(services=())),
    replace(OLD, needs=needs(services=(Need("run", 3, ("operator", "worker")),))),
    replace(OLD, needs=needs(services=(Need("run", 4),))),
    replace(OLD, needs=needs(services=(Need("run", 4, ("operator", "visitor")),))),
    replace(OLD, needs=needs(topics=(Need("news", 1),))),
    replace(OLD, needs=needs(roles=(Need("signer", 2),))),
]


@pytest.mark.parametrize("new", AS_STRICT)
def test_a_policy_that_asks_for_as_much_is_no_looser(new: Policy) -> None:
    assert not is_looser(new, OLD)


@pytest.mark.parametrize("new", LOOSER)
def test_a_policy_that_asks_for_less_is_looser(new: Policy) -> None:
    assert is_looser(new, OLD)


def test_grace_for_what_was_never_compared_is_no_looser_than_it_was() -> None:
    off = replace(OLD, attestation=Attestation.OFF)
    assert not is_looser(grace(2_000, Mode.LEARN, OLD.references), off)


def test_a_need_that_asked_for_nothing_may_go() -> None:
    assert not is_looser(replace(OLD, needs=Needs()), replace(OLD, needs=Needs(topics=(Need("news"),))))
