"""Every target on its corpus and on changed copies of it: fuzzing without a fuzzer, in seconds."""

import random

import pytest

from tests.fuzz.run import targets
from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS

CHANGED = 200  # inputs a target
FILE_MAX, ALL_MAX = 2048, 100 * 1024  # bytes


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def changed(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """One to four small changes: a byte, a number at a border, a part gone, doubled or taken from another input."""
    wrong = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(wrong) + 1)
        end = min(len(wrong), start + chance.choice([1, 1, 2, 4, 8, 32]))
        part = chance.choice(
            [b"", bytes(wrong[start:end]) * 2, chance.randbytes(end - start), b"\xff" * (end - start), bytes(end - start)]
        )
        wrong[start:end] = part if chance.random() < 0.8 else other[start:end]
    return bytes(wrong)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_refused_comes_out_of_a_parser(target: str) -> None:
    chance, run = random.Random(target), TARGETS[target]
    inputs = corpus(target)
    for data in inputs:
        run(data)
    run(b"")
    for _ in range(CHANGED):
        run(changed(chance.choice(inputs), chance.choice(inputs), chance))


def test_each_target_has_a_corpus_and_all_of_it_is_small() -> None:
    assert targets() == sorted(TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert max(sizes) <= FILE_MAX
    assert sum(sizes) <= ALL_MAX


def test_the_corpus_holds_what_the_seeds_make() -> None:
    assert set(seeds()) == set(TARGETS)
    assert {target: len(corpus(target)) for target in TARGETS} == {target: len(made) for target, made in seeds().items()}
