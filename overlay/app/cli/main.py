"""The command `overlay`: which commands there are, and what becomes of their errors.

Exit codes: 0 done, 1 a check failed, 2 usage, 3 the host lacks something (a TPM, a running node), 4 refused, 5 state
damaged or in use, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, cast

import click

from overlay.app.output import PROGRAM, complain
from overlay.app.version import VERSION
from overlay.errors import HostLacks, OverlayError, UsageError

ENROLMENT: Final = "overlay.app.cli.enrolment"
AUTHORITY: Final = "overlay.app.cli.authority"
BACKUP: Final = "overlay.app.cli.backup"
TALK: Final = "overlay.app.cli.talk"
SERVICES: Final = "overlay.app.cli.services"
WORK: Final = "overlay.app.cli.work"

# The one table of modules outside the facades that load late: `overlay status` would otherwise wait for zeroconf and SQLite,
# which only other commands need (overlay/app/tpm.py does the same for the TPM's library). A test compares the texts with the
# commands' own.
COMMANDS: Final = {
    "init": (ENROLMENT, "Found a mesh, with this machine as its first node NAME."),
    "request": (ENROLMENT, "Ask to become a member: prints a request for `overlay admit`."),
    "admit": (ENROLMENT, "Make the node that wrote REQUEST a member."),
    "install": (ENROLMENT, "Become a member with the BUNDLE that `overlay admit` made."),
    "invite": (AUTHORITY, "Let a machine join: prints a token for `overlay join`."),
    "join": ("overlay.app.cli.join", "Become a member with a TOKEN that `overlay invite` printed."),
    "withdraw": (AUTHORITY, "Let nobody join by INVITE any more."),
    "run": ("overlay.app.cli.run", "Run the node until SIGTERM or Ctrl-C ends it."),
    "stop": ("overlay.app.cli.stop", "End the node that runs here, in order."),
    "status": ("overlay.app.cli.status", "Show this node and whom it is linked to."),
    "call": (TALK, "Call METHOD of PEER with BODY, and print the answer."),
    "publish": (TALK, "Publish BODY on TOPIC."),
    "subscribe": (TALK, "Print what is published on TOPIC."),
    "expose": (SERVICES, "Let members use SERVICE of this host, until Ctrl-C."),
    "forward": (SERVICES, "Bring SERVICE of a member to the local address LISTEN, until Ctrl-C."),
    "telemetry": ("overlay.app.cli.telemetry", "Signed metrics: send, collect, show."),
    "audit": ("overlay.app.cli.audit", "The audit log of this node and its copies of the others' logs."),
    "work": (WORK, "Signed work: what runs on workers of the mesh is what was signed, checked there before and while it runs."),
    "revoke": (AUTHORITY, "Throw nodes out, for ever."),
    "quarantine": (AUTHORITY, "Keep a node out for 24 hours, at once."),
    "replace": (AUTHORITY, "Let the node NEW take name and roles of OLD, which is revoked."),
    "grant": (AUTHORITY, "Give a node roles."),
    "renew": (AUTHORITY, "Renew the certificate of this node now."),
    "leave": (AUTHORITY, "Leave the mesh for good: this node asks to be revoked, then ends."),
    "ca": (AUTHORITY, "Those who together hold the key of the mesh."),
    "backup": (BACKUP, "Write identity, membership, trust and logs of this node to FILE, encrypted."),
    "restore": (BACKUP, "Make the state folder of a node anew from a backup FILE."),
    "policy": ("overlay.app.cli.policy", "Put the policy in FILE, TOML, in force."),
    "attest": ("overlay.app.cli.attest", "What was measured on this machine, and what that is worth."),
    "config": ("overlay.app.cli.config", "The settings of the node."),
    "doctor": ("overlay.app.cli.doctor", "Say what of this host a node can use."),
    "lab": ("overlay.app.cli.lab", "A mesh of machines in a box, and attacks on it that must fail."),
}


class Commands(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A module holds each of its commands under the command's name."""
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, getattr(import_module(COMMANDS[cmd_name][0]), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All commands with their texts, none of them loaded."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--state", metavar="DIR", help="State folder of the node; else $OVERLAY_STATE, else the default place.")
@click.version_option(VERSION, message="overlay %(version)s")
def overlay(state: str | None) -> None:
    """Machines that prove who they are and what they run, in one mesh with one audit log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. What a user, a file or a peer can cause is told in one line and a hint."""
    try:
        result = overlay.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except OverlayError as error:
        complain(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        complain(UsageError(error.format_message(), hint=_usage_hint(error)))
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except SystemExit:  # click's own way when whoever read our output is gone
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 0
    except OSError as error:
        complain(HostLacks(f"{error.filename or 'the system'}: {error.strerror or error}"))
        return HostLacks.exit_code
    return result if isinstance(result, int) else 0


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f'see "{context.command_path} --help"' if isinstance(context, click.Context) else ""


if __name__ == "__main__":
    sys.exit(main())
