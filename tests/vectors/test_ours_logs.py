"""The vectors of logs, played by our modules."""

from collections.abc import Callable
from typing import Any

import pytest

from attest.account import account
from attest.event_log import parse_boot_log
from overlay.core.log_parts import LogPart, LogWanted, unpack
from overlay.errors import Refused
from tests.vectors.make_ours import made

CASES = made("logs.json")["vectors"]


def outcome(act: Callable[[], object]) -> str:
    """What a vector's `expect` says."""
    try:
        act()
    except Refused as error:
        return error.reason.name.lower()
    return "ok"


@pytest.mark.parametrize("case", [one for one in CASES if one["kind"] == "part"], ids=lambda one: one["name"])
def test_what_is_said_of_logs(case: dict[str, Any]) -> None:
    body = bytes.fromhex(case["body"])
    assert outcome(lambda: unpack(body)) == case["expect"]
    if case["expect"] == "ok":
        said = unpack(body)
        parts = [int(said.log), said.offset] + ([said.length, {"hex": said.data.hex()}] if isinstance(said, LogPart) else [])
        assert isinstance(said, LogPart | LogWanted)
        assert [one if isinstance(one, int) else {"hex": bytes.fromhex(_hex(one)).hex()} for one in case["fields"]] == parts


def _hex(one: Any) -> str:
    return str(one["hex"] if isinstance(one, dict) else one)


@pytest.mark.parametrize("case", [one for one in CASES if one["kind"] == "replay"], ids=lambda one: one["name"])
def test_logs_lead_to_the_quote_or_do_not(case: dict[str, Any]) -> None:
    bitmap, quoted = sum(1 << pcr for pcr in case["pcrs"]), bytes.fromhex(case["pcr_digest"])
    boot, files = parse_boot_log(bytes.fromhex(case["boot"])), bytes.fromhex(case["files"])
    assert outcome(lambda: account(bitmap, quoted, boot, files)) == case["expect"]
    if case["expect"] == "ok":
        found, values = account(bitmap, quoted, boot, files), case["values"]
        assert [found.values[pcr].hex() for pcr in case["pcrs"]] == values["pcr_values"]
        assert (found.position.offset, found.position.entries) == (values["files_offset"], values["files_entries"])
