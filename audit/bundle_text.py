"""What stands in the README of a bundle: how others check each part with tools of their own."""

from typing import Final

README: Final = """\
Audit logs of the mesh {name}, made on {made}.

Mesh id: {mesh}

    overlay audit verify THIS.zip --root {mesh}

checks all of it with no mesh and no network. Whoever checks it must know the mesh id from somewhere else than this file.

With other tools:

root.pem            openssl x509 -in root.pem -noout -text
certificates/*.pem  openssl verify -CAfile root.pem -untrusted FILE FILE; add -no_check_time: certificates end, logs stay
endorsements/*.cose COSE_Sign1 (RFC 9052) by the key of the certificate, external AAD "overlay/1 endorse\\0" || mesh id
logs/*/entries.cborseq
                    a sequence (RFC 8742) of COSE_Sign1 by the message key in the endorsement whose SHA-256 is the kid,
                    external AAD "overlay/1 audit\\0" || mesh id. Field 4 of the payload is SHA-256(0x00 || the message before)
logs/*/*.checkpoint signed notes and cosignatures (c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature) under roots of
                    the tree of RFC 6962 over the entries
proofs/*.tlog-proof c2sp.org/tlog-proof
forks/*.cbor        that a node has told two stories: both of them, signed

The keys for signed notes, as other tools take them:
{keys}
"""
