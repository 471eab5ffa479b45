"""docs/protocol/registry.md says what overlay/registry.py says."""

from collections import Counter

from overlay.registry import Label
from tests.architecture.registry_page import PAGE, page


def test_the_registry_page_is_the_registry() -> None:
    hint = "run `python -m tests.architecture.registry_page` and read the difference"
    assert PAGE.read_text().splitlines() == page().splitlines(), hint


def test_no_label_is_used_twice_or_begins_another() -> None:
    labels = list(Label.all().values())
    assert [label for label, count in Counter(labels).items() if count > 1] == []
    assert all(label.endswith(b"\0") and label.count(b"\0") == 1 for label in labels)
