"""`python -m bench [ROW ...] [--runs 5] [--profile]`: prints one JSON line per row; what a host lacks is said on stderr."""

import argparse
import cProfile
import json
import pstats
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import trio

from bench import (
    authority,
    forwarding,
    idle,
    links,
    logs,
    long_logs,
    measured,
    neighbours,
    quotes,
    streams,
    telemetry,
    work,
    work_start,
)
from bench.row import Row
from overlay.errors import HostLacks

ROWS: dict[str, Callable[[int], Awaitable[list[Row]]]] = {
    "bulk_vs_tls": streams.bulk,
    "bulk_signed_vs_tls": streams.bulk,
    "bulk_vs_tcp": streams.bulk,
    "ping_rtt_vs_tls": streams.ping,
    "call_rtt_us": links.call_rtt,
    "call_rtt_p99_us": links.call_rtt,
    "dial_vs_mtls": links.dial,
    "rekey_p99_ratio": links.rekey_p99,
    "messages_per_s": links.messages,
    "rekey_ms": links.rekey,
    "durable_appends_per_s": logs.appends,
    "append_alone_vs_sqlite": logs.alone,
    "verify_vs_libsodium": logs.verify,
    "verify_two_cores": logs.verify,
    "start_million_ms": long_logs.million,
    "inclusion_proof_ms": long_logs.million,
    "catch_up_s": long_logs.catch_up,
    "catch_up_mb": long_logs.catch_up,
    "catch_up_cpu_s": long_logs.catch_up,
    "entry_to_20_nodes_p99_ms": long_logs.news,
    "entry_cpu_ms": long_logs.news,
    "quote_appraisal_vs_ecdsa": quotes.quotes,
    "quotes_to_meet_50": neighbours.neighbours,
    "quotes_a_round_vs_few_peers": neighbours.neighbours,
    "attest_check_20000_files_ms": measured.measured,
    "next_quote_100_files_ms": measured.measured,
    "idle_link_kb": idle.idle,
    "forward_vs_tunnel": forwarding.forwarding,
    "forward_signed_vs_tunnel": forwarding.forwarding,
    "pgbench_vs_tls": forwarding.database,
    "pgbench_select_vs_tls": forwarding.database,
    "frost_signer_ms": authority.signing,
    "frost_coordinator_ms": authority.signing,
    "signing_ms": authority.linked,
    "key_generation_ms": authority.generation,
    "key_generation_16_ms": authority.generation,
    "revocation_20_nodes_ms": authority.revocation,
    "join_swtpm_s": authority.joining,
    "work_check_ms": work.checks,
    "work_check_two_persons_ms": work.checks,
    "work_check_again_ms": work.checks,
    "artifact_hash_gb_per_s": work.hashing,
    "work_submit_to_start_ms": work_start.starts,
    "telemetry_samples_per_s": telemetry.collecting,
}


def main() -> int:
    """Measure what was asked for, or all."""
    options = _options()
    with ExitStack() as stack:
        if options.profile:
            profile = stack.enter_context(cProfile.Profile())
            stack.callback(lambda: pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30))
        for measure in dict.fromkeys(ROWS[name] for name in options.rows or ROWS):
            _measure(measure, options)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all unless said")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; the median counts")
    parser.add_argument("--profile", action="store_true", help="say on stderr where this process spent its time")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown or options.runs < 1:
        parser.error(f"there is no row {unknown[0]}" if unknown else "measure at least once")
    return options


def _measure(measure: Callable[[int], Awaitable[list[Row]]], options: argparse.Namespace) -> None:
    try:
        rows = trio.run(measure, options.runs)
    except HostLacks as error:
        sys.stderr.write(f"bench: {measure.__name__} is left out: {error}\n")
        return
    for row in rows:
        if not options.rows or row.name in options.rows:
            sys.stdout.write(json.dumps(row.fields()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
