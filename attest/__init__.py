"""Proof of the software that runs: TPM quotes and software evidence, made and appraised. Appraises with no TPM."""
