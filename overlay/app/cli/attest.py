"""`overlay attest`: what was measured on this machine, what a policy has to say of it, and whether a quote is good."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from attest.credential import parse_endorsement_key
from attest.ek_certificates import read_certificate
from attest.event_log import PCR_MAX, BootEvent
from attest.ima import PCR as IMA_PCR
from attest.ima import read_all
from attest.manifest import installed_root, package_manifest
from attest.offline import Appraised, appraise
from attest.policy import DEFAULT_PCRS, Measured, file_rules, judge_quote
from attest.quote import AK_PUBLIC_MAX, QUOTE_MAX, SIGNATURE_MAX
from attest.replay import Values, digest_of, extend, replay, separators_missing
from overlay.app.cli.common import Invocation, setting_option, standard_options
from overlay.app.cli.policy_words import describe_policy
from overlay.app.config import SETTING
from overlay.app.machine_logs import MachineLogs, read_bytes, read_logs
from overlay.app.output import counted, note, plain, say, say_json, say_table
from overlay.app.tpm import open_tpm
from overlay.core.certificate_profile import ek_tag
from overlay.core.keys import MeshId
from overlay.core.policy import Policy
from overlay.core.policy_file import parse_policy_toml
from overlay.errors import UsageError
from overlay.net.system import wall_clock
from overlay.store.exchange import read_text
from overlay.store.membership import MeshRecord, load_mesh
from overlay.store.state import StateFolder

FILE_MAX: Final = 4096  # of a quote, a signature, a key: far above what they take
ZEROS: Final = bytes(32)

boot_option = click.option("--boot-log", type=Path, metavar="FILE", help="Boot event log; else this machine's own.")
ima_option = click.option("--ima", type=Path, metavar="FILE", help="Measurement list of the kernel; else this machine's own.")
mesh_option = click.option("--mesh", "mesh_text", metavar="ID", help="The mesh in which to give the EK's tag; else our own.")
pcrs_option = click.option("--pcrs", metavar="0,1,...", help="Which PCRs; else those of the mesh's policy, or 0,1,2,7,14.")


@click.group()
def attest() -> None:
    """What was measured on this machine, and what that is worth."""


# --- this machine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """The PCRs of the TPM, and what of them the logs account for."""

    values: Values = field(repr=False)
    events: tuple[BootEvent, ...] = field(repr=False)
    explained: frozenset[int]  # PCRs to which a log leads

    @classmethod
    def of(cls, values: Values, logs: MachineLogs) -> "Seen":
        """Each PCR by itself: a log may be right in all but one."""
        replayed = dict(replay(logs.boot))
        if logs.measured is not None:
            value = ZEROS
            for entry in read_all(logs.measured):
                value = extend(value, entry.extended)
            replayed[IMA_PCR] = value
        touched = {event.pcr for event in logs.boot.events if event.is_extended} | ({IMA_PCR} if logs.measured else set())
        right = frozenset(pcr for pcr in touched if replayed[pcr] == values[pcr])
        return cls(values, logs.boot.events, right)

    def word(self, pcr: int) -> str:
        """For people."""
        if pcr in self.explained:
            return f"{sum(event.pcr == pcr and event.is_extended for event in self.events) or ''} events lead to it".strip()
        return "nothing was measured" if self.values[pcr] in (ZEROS, b"\xff" * 32) else "no log leads to it"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """Whose TPM it is: what an operator needs to write into a policy."""

    tag: bytes | None  # None in no mesh
    issuer: str  # of the EK's certificate; empty without one
    above: int  # certificates that the TPM has of those above

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"ek_tag": None if self.tag is None else self.tag.hex(), "ek_issuer": self.issuer, "ek_above": self.above}

    def lines(self) -> list[str]:
        """For people."""
        found = [] if self.tag is None else [f"EK tag in the mesh: {self.tag.hex()}"]
        if not self.issuer:
            return [*found, "EK certified by: nobody, as far as the TPM says"]
        return [*found, f"EK certified by: {self.issuer}; the TPM holds {counted(self.above, 'certificate')} above that one"]


def _endorsement(invocation: Invocation, tcti: str | None, mesh_id: MeshId | None) -> Endorsement:
    with open_tpm(invocation.config(tcti=tcti).tcti) as tpm:
        name, chain = parse_endorsement_key(tpm.endorsement_public()).name, tpm.endorsement_chain()
    own = read_certificate(chain[0]) if chain else None
    issuer = "" if own is None else plain(own.issuer.rfc4514_string() or "a maker without a name")
    if mesh_id is None and (mesh := _mesh(invocation)) is not None:
        mesh_id = mesh.root.mesh_id
    return Endorsement(None if mesh_id is None else ek_tag(mesh_id, name), issuer, max(0, len(chain) - 1))


@attest.command()
@boot_option
@ima_option
@mesh_option
@setting_option(SETTING["tcti"])
@standard_options
def show(
    invocation: Invocation, boot_log: Path | None, ima: Path | None, mesh_text: str | None, tcti: str | None
) -> None:
    """Show the PCRs of this machine's TPM, to which of them its logs lead, and whose TPM it is."""
    logs, mesh_id = read_logs(boot_log, ima), None if mesh_text is None else _mesh_id(mesh_text)
    seen, owner = Seen.of(_values(invocation, tcti), logs), _endorsement(invocation, tcti, mesh_id)
    bitmap, missing = _policy_pcrs(invocation), separators_missing(seen.events)
    manifest = package_manifest(installed_root()).hex()
    if invocation.json:
        say_json({
            "pcrs": {str(pcr): value.hex() for pcr, value in seen.values.items()}, "explained": sorted(seen.explained),
            "boot_events": len(seen.events), "separators_missing": list(missing) if seen.events else [],
            "policy_pcrs": _numbers(bitmap), "pcr_digest": digest_of(seen.values, bitmap).hex(), "manifest": manifest,
            **owner.fields(),
        })
        return
    say_table(("PCR", "VALUE", ""), [(pcr, value.hex(), seen.word(pcr)) for pcr, value in seen.values.items()])
    if not seen.events:
        note("there is no boot log: name one with --boot-log")
    elif missing:
        note(f"the firmware has not closed PCRs {_list(missing)}: what ran after it can pretend to be firmware")
    say(f"digest over PCRs {_list(_numbers(bitmap))}: {digest_of(seen.values, bitmap).hex()}")
    say(f"package manifest: {manifest}")
    for line in owner.lines():
        say(line)


@attest.command()
@pcrs_option
@setting_option(SETTING["tcti"])
@standard_options
def learn(invocation: Invocation, pcrs: str | None, tcti: str | None) -> None:
    """Print what a policy has to say for machines that have measured the same as this one, as TOML."""
    bitmap = _policy_pcrs(invocation) if pcrs is None else _bitmap(pcrs)
    digest = digest_of(_values(invocation, tcti), bitmap).hex()
    manifest = package_manifest(installed_root()).hex()
    if invocation.json:
        say_json({"pcrs": _numbers(bitmap), "pcr_digests": [digest], "manifests": [manifest]})
        return
    say(f"pcrs = [{_list(_numbers(bitmap))}]")
    say(f'pcr_digests = ["{digest}"]')
    say(f'manifests = ["{manifest}"]')


@attest.command()
@click.argument("file", type=Path, required=False)
@standard_options
def policy(invocation: Invocation, file: Path | None) -> None:
    """Show the policy in force here, or check one in a TOML FILE."""
    found = _policy(invocation) if file is None else parse_policy_toml(read_text(file))
    if found is None:
        raise UsageError("this machine is in no mesh", hint="name a policy file to check it")
    fields = describe_policy(found)
    if invocation.json:
        say_json(fields)
        return
    for name, value in fields.items():
        for one in value if isinstance(value, list) and name != "pcrs" else [value]:
            say(f"{name:15} {_list(one) if isinstance(one, list) else one}")


# --- a quote out of files ---------------------------------------------------------------------------------------------


@attest.command()
@click.option("--quote", type=Path, required=True, metavar="FILE", help="What was attested: tpm2_quote -m.")
@click.option("--signature", type=Path, required=True, metavar="FILE", help="The signature: tpm2_quote -s.")
@click.option("--key", type=Path, required=True, metavar="FILE", help="The attestation key: tpm2_readpublic -o.")
@click.option("--nonce", metavar="HEX", help="What the quote has to be for.")
@boot_option
@ima_option
@click.option("--policy", "policy_file", type=Path, metavar="FILE", help="Compare with this policy, TOML.")
@standard_options
def check(
    invocation: Invocation, *, quote: Path, signature: Path, key: Path, nonce: str | None, boot_log: Path | None,
    ima: Path | None, policy_file: Path | None,
) -> None:
    """Check a quote, with neither TPM nor network: exit code 4 and the reason if it does not hold."""
    compared = None if policy_file is None else parse_policy_toml(read_text(policy_file))
    logs = read_logs(boot_log, ima) if boot_log or ima else MachineLogs()
    found = appraise(
        read_bytes(quote, max(QUOTE_MAX, FILE_MAX)), read_bytes(signature, max(SIGNATURE_MAX, FILE_MAX)),
        read_bytes(key, max(AK_PUBLIC_MAX, FILE_MAX)), nonce=None if nonce is None else _hex(nonce),
        boot=logs.boot if boot_log or ima else None, measured=logs.measured,
        rules=() if compared is None else file_rules(compared, wall_clock()),
    )
    warnings = () if compared is None else _warnings(compared, found)
    _tell(invocation, found, nonce, warnings, compared=compared is not None)


def _warnings(policy: Policy, found: Appraised) -> tuple[str, ...]:
    """Raises Refused for what the policy does not let pass."""
    measured = Measured(found.bitmap, found.quote.pcr_digest, found.quote.header.firmware, found.logs)
    if found.logs is None and policy.references.has_rules:
        note("the policy's rules about logs were not looked at: no logs were given")
    return judge_quote(policy, wall_clock(), measured)


def _tell(
    invocation: Invocation, found: Appraised, nonce: str | None, warnings: tuple[str, ...], *, compared: bool
) -> None:
    header, logs = found.quote.header, found.account
    if invocation.json:
        say_json({
            "key": found.key.name.hex(), "nonce": header.extra_data.hex(), "pcrs": _numbers(found.bitmap),
            "pcr_digest": found.quote.pcr_digest.hex(), "firmware": f"{header.firmware:016x}", "clock": list(header.clock),
            "events": None if logs is None else len(logs.events), "surplus": None if logs is None else logs.surplus,
            "measurements": None if logs is None else logs.position.entries, "warnings": list(warnings),
        })
        return
    say(f"signature   good, by the key {found.key.name.hex()}")
    say(f"nonce       {header.extra_data.hex() or 'none'}{'' if nonce else ' (nothing to compare it with)'}")
    say(f"PCRs        {_list(_numbers(found.bitmap))}: {found.quote.pcr_digest.hex()}")
    if logs is None:
        say("logs        none were given: what was measured is not known")
    else:
        later = f", {logs.surplus} later events do not count" if logs.surplus else ""
        say(f"logs        {len(logs.events)} events and {logs.position.entries} measurements lead to that{later}")
    for warning in warnings:
        note(warning)
    if compared and not warnings:
        say("policy      lets it pass")


# --- what all need ------------------------------------------------------------------------------------------------------


def _values(invocation: Invocation, tcti: str | None) -> dict[int, bytes]:
    with open_tpm(invocation.config(tcti=tcti).tcti) as tpm:
        return {pcr: tpm.read_pcr(pcr) for pcr in range(PCR_MAX)}


def _mesh(invocation: Invocation) -> MeshRecord | None:
    """The mesh that the state folder is of; None without one."""
    try:
        with StateFolder.open(invocation.folder, exclusive=False) as folder:
            return load_mesh(folder)
    except UsageError:
        return None


def _policy(invocation: Invocation) -> Policy | None:
    mesh = _mesh(invocation)
    return None if mesh is None else mesh.trust.policy.policy


def _policy_pcrs(invocation: Invocation) -> int:
    found = _policy(invocation)
    return (0 if found is None else found.pcr_bitmap) or DEFAULT_PCRS


def _bitmap(text: str) -> int:
    """`0,1,7`; raises UsageError."""
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) < PCR_MAX for part in numbers):
        raise UsageError(f"{text!r} is no list of PCRs", hint=f"for example 0,1,2,7,14; there are 0 to {PCR_MAX - 1}")
    return sum({1 << int(part) for part in numbers})


def _mesh_id(text: str) -> MeshId:
    """Raises UsageError."""
    try:
        return MeshId.parse(text)
    except ValueError:
        raise UsageError(f"{text!r} is no id of a mesh", hint="`overlay status` on a member shows it, 52 letters") from None


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{text!r} is not hexadecimal") from None


def _numbers(bitmap: int) -> list[int]:
    return [pcr for pcr in range(PCR_MAX) if bitmap >> pcr & 1]


def _list(values: Any) -> str:
    return ", ".join(map(str, values))
