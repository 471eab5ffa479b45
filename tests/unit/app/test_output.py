"""What others wrote cannot play tricks with a terminal, and errors are plain lines."""

import click
import pytest

from overlay.app.cli.main import COMMANDS, main, overlay
from overlay.app.event_lines import describe
from overlay.app.output import complain, counted, plain, say_table, sentence
from overlay.errors import OverlayError
from overlay.events import PeerWarning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello, wörld 漢", "hello, wörld 漢"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eexe.txt", r"\u202eexe.txt"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_an_error_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    complain(OverlayError("It broke\nin two\x1b.", hint="Try again."))
    assert capsys.readouterr().err == "overlay: error: it broke in two\\x1b\noverlay: hint: try again\n"


@pytest.mark.parametrize(("text", "expected"), [("TPM 2.0 is gone.", "TPM 2.0 is gone"), ("A b", "A b"), ("", "")])
def test_names_keep_their_capitals(text: str, expected: str) -> None:
    assert sentence(text) == expected


def test_a_table_without_a_terminal_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("NAME", "LEVEL"), [("bob", 2), ("[red]x", "\x1b")])
    assert capsys.readouterr().out == "NAME    LEVEL\nbob     2\n[red]x  \\x1b\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_commands_say(name: str) -> None:
    command = overlay.get_command(click.Context(overlay), name)
    assert command is not None
    assert (command.help or "").replace("\n", " ").startswith(COMMANDS[name][1])


def test_an_error_of_the_system_is_no_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(overlay, "main", fail)
    assert main([]) == 3
    assert capsys.readouterr().err == "overlay: error: /somewhere: Permission denied\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (click.Abort(), 130), (click.UsageError("X"), 2)])
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(overlay, "main", fail)
    assert main([]) == code


def test_what_is_counted_has_a_plural() -> None:
    assert [counted(number, "peer") for number in range(3)] == ["0 peers", "1 peer", "2 peers"]


def test_a_warning_of_the_policy_is_a_sentence() -> None:
    warning = PeerWarning(name="bob", node="b", detail="pcr mismatch: PCR digest 9f86")
    assert describe(warning) == "bob is not what the policy lists, which only warns: pcr mismatch: PCR digest 9f86"
