"""The one place that copes with a machine without tpm2-pytss: everything else asks here for a TPM and what lives in it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from overlay.core.evidence import Prover
from overlay.core.keys import Signer
from overlay.errors import HostLacks

if TYPE_CHECKING:
    from attest.evidence import Claims
    from attest.key_blob import KeyBlob
    from attest.tpm import Tpm

try:
    from attest import tpm as _tpm
    from attest import tpm_keys as _tpm_keys
except ImportError as error:
    _missing: str | None = f"the Python package tpm2-pytss does not load: {error}"
else:
    _missing = None

HINT = "install the Debian package libtss2-dev, then `pip install attested-overlay[tpm]`; or go on with --evidence software"
DEFAULT_TCTI = "device:/dev/tpmrm0"  # the kernel's resource manager


def missing() -> str | None:
    """None if TPM software works here, else what is missing. It says nothing about a TPM."""
    return _missing


def open_tpm(tcti: str, *, ours: bool = False) -> "Tpm":
    """The TPM behind a TCTI string such as `device:/dev/tpmrm0` or `swtpm:path=...`; blocks.

    Args:
        tcti: handed on to libtss2 as it is.
        ours: nobody else uses this TPM, so what an earlier process left in it may be flushed.

    Raises:
        HostLacks: the library is missing (`missing` then says so), or no TPM answers there.
    """
    if _missing is not None:
        raise HostLacks(_missing, hint=HINT)
    return _tpm.Tpm.open(tcti, ours=ours)


def open_tpm_later(tcti: str) -> "Tpm":
    """A TPM that did not answer when the node started: each use tries again, and fails until it does."""
    if _missing is not None:
        raise HostLacks(_missing, hint=HINT)
    return _tpm.Tpm(tcti)


def tpm_signer(tpm: "Tpm", blob: "KeyBlob") -> Signer:
    """The identity key in the TPM; signing blocks."""
    return _tpm_keys.TpmIdentitySigner(tpm, blob)


def tpm_prover(tpm: "Tpm", blob: "KeyBlob", claims: "Claims", logs: Callable[[], bytes | None]) -> Prover:
    """Quotes under the AK; `logs` looks at those of this machine anew and gives the hash of the boot log."""
    return _tpm_keys.TpmProver(tpm=tpm, ak=blob, claims=claims, logs=logs)
