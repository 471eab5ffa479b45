"""Telemetry as its users have it: nodes and commands as processes, a Prometheus that scrapes, an OTLP receiver that listens."""

import json
import shutil
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.node_kit import Machine, make_pair
from tests.cli.script_kit import OVERLAY
from tests.cli.service_kit import free_port
from tests.shell.telemetry_kit import get, needs_prometheus_client, until

COLLECT = [*OVERLAY, "telemetry", "collect", "--listen", "0", "--json"]
SEND = [*OVERLAY, "telemetry", "send", "--to", "node:alice", "--no-host", "--every", "0.5", "--json"]
RECEIVER = """
import sys, http.server
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json_format.Parse(body, ExportMetricsServiceRequest())
        for resource in request.resource_metrics:
            for metric in resource.scope_metrics[0].metrics:
                for point in (metric.gauge if metric.HasField("gauge") else metric.sum).data_points:
                    labels = {one.key: one.value.string_value for one in point.attributes}
                    print(__import__("json").dumps({"name": metric.name, "value": point.as_double, **labels}), flush=True)
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")

server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(__import__("json").dumps({"port": server.server_port}), flush=True)
server.serve_forever()
"""


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Machine, Machine]]:
    alice, bob = await make_pair(folder)
    async with alice.running() as first, bob.running("--seed", f"127.0.0.1:{first.port}") as second:
        await second.wait(lambda event: event["event"] == "peer-up")
        yield alice, bob


async def has_series(machine: Machine, name: str) -> dict[str, Any]:
    """What `overlay telemetry show` says, once it knows such a series."""
    found: dict[str, Any] = {}

    async def look() -> bool:
        found.update((await machine.overlay("telemetry", "show", name, "--json")).json)
        return bool(found["series"])

    await until(look, within=30)
    return found


@needs_prometheus_client
async def test_metrics_of_one_node_are_shown_and_served_by_another(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        refused = await alice.overlay("telemetry", "show", code=2)
        assert "collects no telemetry" in refused.errors and "hint" in refused.errors
        async with alice.process(COLLECT) as collecting, bob.process(SEND) as sending:
            page = (await collecting.wait(lambda line: "page" in line))["page"]
            await sending.wait(lambda line: line["stream"] == "host")
            found = await has_series(alice, "overlay_level")
            assert [(one["author"], one["level"], one["value"]) for one in found["series"]] == [("bob", 1, 1.0)]
            assert [(one["author"], one["missing"]) for one in found["streams"]] == [("bob", 0)]
            status, text = await trio.to_thread.run_sync(get, page)
            assert status == 200 and 'overlay_level{author="bob",level="1"} 1.0' in text
            assert (await alice.overlay("telemetry", "quarantine")).output == "nothing is in quarantine\n"
            assert "overlay_level" in (await alice.overlay("telemetry", "show", "overlay_")).output
            assert (await collecting.end(signal.SIGINT))[0] == 130
        await alice.overlay("telemetry", "show", code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("collect", "--listen", "nowhere"), "is not an address"),
        (("collect", "--otlp", "gopher://x"), "not an OTLP endpoint"),
        (("send", "--to", "everybody"), "is not a rule"),
    ],
)
async def test_wrong_words_are_refused_before_a_node_is_asked(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = await Machine(tmp_path / "nobody").overlay("telemetry", *words, code=2)
    assert said in done.errors and "hint" in done.errors


@pytest.mark.skipif(find_spec("opentelemetry.proto") is None, reason="this host lacks opentelemetry-proto")
async def test_a_receiver_of_opentelemetry_reads_what_is_exported(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob), alice.process([sys.executable, "-c", RECEIVER]) as receiver:
        port = (await receiver.wait(lambda line: "port" in line))["port"]
        collect = [*OVERLAY, "telemetry", "collect", "--listen", "-", "--otlp", f"http://127.0.0.1:{port}", "--json"]
        async with alice.process(collect) as collecting, bob.process(SEND):
            await collecting.wait(lambda line: "page" in line)
            point = await receiver.wait(lambda line: line.get("name") == "overlay_level")
            assert point == {"name": "overlay_level", "value": 1.0, "author": "bob", "level": "1"}


@needs_prometheus_client
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="this host lacks Prometheus: the Debian package prometheus")
async def test_prometheus_scrapes_it_and_draws_the_authors_by_name_and_level(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob), alice.process(COLLECT) as collecting, bob.process(SEND):
        page = urllib.parse.urlsplit((await collecting.wait(lambda line: "page" in line))["page"])
        await has_series(alice, "overlay_level")
        port = free_port()
        scrape = {"job_name": "overlay", "scrape_interval": "1s", "static_configs": [{"targets": [page.netloc]}]}
        (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
        words = [
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        async with running(words):
            found: list[dict[str, Any]] = []

            async def look() -> bool:
                found[:] = await trio.to_thread.run_sync(query, port, "overlay_level")
                return bool(found)

            await until(look, within=60)
            assert {key: found[0]["metric"][key] for key in ("author", "level")} == {"author": "bob", "level": "1"}
            assert await trio.to_thread.run_sync(query, port, 'overlay_telemetry_missing_batches_total{author="bob"}')


@asynccontextmanager
async def running(words: list[str]) -> AsyncIterator[trio.Process]:
    """A program that says nothing we read."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, words, capture_stdout=True, capture_stderr=True, check=False)
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


def query(port: int, text: str) -> list[dict[str, Any]]:
    """An instant query; nothing while it starts."""
    words = urllib.parse.urlencode({"query": text})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{words}") as answer:
            return list(json.load(answer)["data"]["result"])
    except OSError:
        return []
