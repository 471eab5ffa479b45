"""Credentials for the three kinds of endorsement key, opened by a real TPM 2.0 (swtpm)."""

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT, TPM2B_PUBLIC, TPMT_PUBLIC, TPMT_SYM_DEF
from tpm2_pytss.utils import ek_template

from attest.areas import IDENTITY_TEMPLATE
from attest.credential import make_credential, parse_endorsement_key
from attest.tpm import Tpm
from overlay.core.wire import sha256
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

SECRET = sha256(b"secret")


@pytest.mark.parametrize("kind", ["EK-RSA2048", "EK-ECC256", "EK-HIGH-ECC384"])
def test_the_tpm_opens_what_was_wrapped_for_it(swtpm: Swtpm, kind: str) -> None:
    esapi = ESAPI(swtpm.tcti)
    template = TPM2B_PUBLIC(publicArea=ek_template.lookup(kind).template.publicArea)
    ek, public, *_ = esapi.create_primary(None, template, ESYS_TR.ENDORSEMENT)
    area, _ = TPMT_PUBLIC.unmarshal(IDENTITY_TEMPLATE)
    key, key_public, *_ = esapi.create_primary(None, TPM2B_PUBLIC(publicArea=area), ESYS_TR.OWNER)
    credential = make_credential(
        parse_endorsement_key(public.publicArea.marshal()), bytes(key_public.get_name()), SECRET
    )
    session = ESYS_TR.PASSWORD
    if kind != "EK-HIGH-ECC384":
        no_encryption = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        session = esapi.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, no_encryption, TPM2_ALG.SHA256
        )
        esapi.policy_secret(ESYS_TR.ENDORSEMENT, session)
    opened = esapi.activate_credential(
        key, ek, TPM2B_ID_OBJECT(credential.blob), TPM2B_ENCRYPTED_SECRET(credential.encrypted_seed), session2=session
    )
    assert bytes(opened) == SECRET
    esapi.close()


def test_our_endorsement_key_is_that_of_the_profile(swtpm: Swtpm, tpm: Tpm) -> None:
    esapi = ESAPI(swtpm.tcti)
    template = TPM2B_PUBLIC(publicArea=ek_template.lookup("EK-ECC256").template.publicArea)
    handle, public, *_ = esapi.create_primary(None, template, ESYS_TR.ENDORSEMENT)
    esapi.flush_context(handle)
    esapi.close()
    assert tpm.endorsement_public() == public.publicArea.marshal()
