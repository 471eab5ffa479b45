"""The one place that copes with a machine without tpm2-pytss: everything else asks here for a TPM and what lives in it.

The library loads when a TPM is first asked for: it takes a tenth of a second, which most commands do not need to wait.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from overlay.errors import HostLacks

if TYPE_CHECKING:
    from attest.evidence import Claims
    from attest.key_blob import KeyBlob
    from attest.tpm import Tpm
    from overlay.core.evidence import Prover
    from overlay.core.keys import Signer

HINT = "install the Debian package libtss2-dev, then `pip install attested-overlay[tpm]`; or go on with --evidence software"
DEFAULT_TCTI = "device:/dev/tpmrm0"  # the kernel's resource manager


@cache
def missing() -> str | None:
    """None if TPM software works here, else what is missing. It says nothing about a TPM."""
    try:
        import_module("attest.tpm")
    except ImportError as error:
        return f"the Python package tpm2-pytss does not load: {error}"
    return None


def open_tpm(tcti: str, *, ours: bool = False) -> "Tpm":
    """The TPM behind a TCTI string such as `device:/dev/tpmrm0` or `swtpm:path=...`; blocks.

    Args:
        tcti: handed on to libtss2 as it is.
        ours: nobody else uses this TPM, so what an earlier process left in it may be flushed.

    Raises:
        HostLacks: the library is missing (`missing` then says so), or no TPM answers there.
    """
    _check()
    from attest.tpm import Tpm

    return Tpm.open(tcti, ours=ours)


def open_tpm_later(tcti: str) -> "Tpm":
    """A TPM that did not answer when the node started: each use tries again, and fails until it does."""
    _check()
    from attest.tpm import Tpm

    return Tpm(tcti)


def tpm_signer(tpm: "Tpm", blob: "KeyBlob") -> "Signer":
    """The identity key in the TPM; signing blocks."""
    from attest.tpm_keys import TpmIdentitySigner

    return TpmIdentitySigner(tpm, blob)


def tpm_prover(tpm: "Tpm", blob: "KeyBlob", claims: "Claims", logs: Callable[[], bytes | None]) -> "Prover":
    """Quotes under the AK; `logs` looks at those of this machine anew and gives the hash of the boot log."""
    from attest.tpm_keys import TpmProver

    return TpmProver(tpm=tpm, ak=blob, claims=claims, logs=logs)


def _check() -> None:
    """Raises HostLacks."""
    why = missing()
    if why is not None:
        raise HostLacks(why, hint=HINT)
