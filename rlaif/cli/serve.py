"""`rlaif serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from rlaif.api.service import Recovery
from rlaif.api.setup import JudgeSettings, with_defaults
from rlaif.cli.common.command import Command
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags, spread
from rlaif.cli.common.options import build, config_flag, merge_settings, settings_options
from rlaif.cli.common.output import note, quiet_libraries
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.util.network import check_binding, host_name, listen

_EXAMPLES = """
\b
Examples:
  rlaif serve -c demo
  rlaif serve -c my.yaml --judge Qwen/Qwen3-8B --port 8000
  rlaif serve -c my.yaml -j MODEL --alias gpt-4o-2024-08-06=my:rewardbench
  RLAIF_TOKEN=... rlaif serve -c my.yaml -j MODEL --host 0.0.0.0
  curl localhost:8000/v1/judge/pairwise --json '{"prompt": "...", "response_a": "...", \\
      "response_b": "..."}'

Model names are rlaif/CONSTITUTION:DIALECT. A dialect parses a harness's own judge prompt and
answers in the format that the harness expects. GET /docs shows every endpoint with examples.
On SIGTERM or Ctrl-C, the server stops accepting requests and finishes those in flight.
"""


@click.command(cls=Command, name="serve", epilog=_EXAMPLES)
@click.option(
    "-c",
    "--constitution",
    "constitutions",
    required=True,
    multiple=True,
    help="Constitution: a YAML file or a shipped name; repeat for several, which share the judge.",
)
@click.option("-j", "--judge", help="Judge model. [default: demo]")
@click.option("--writer", help="Model that generates critiques. [default: the judge]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on.",
)
@click.option(
    "--token",
    help="Token that clients must send; overrides $RLAIF_TOKEN. Required if --host is not "
    "local. [default: none]",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME=C:DIALECT",
    help="Additional model name, for harnesses that accept only certain names; repeatable.",
)
@click.option(
    "--max-body-mib",
    default=16.0,
    show_default=True,
    type=click.FloatRange(0.001, 4096),
    help="Maximum request size in MiB.",
)
@click.option(
    "--request-seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(0.001, 1e6),
    help="Maximum seconds per request.",
)
@click.option(
    "--max-waiting",
    default=8192,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum pairs and responses in flight; more are refused with status 429.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Host name that clients may ask for, such as a proxy's; repeatable. Without a token, "
    "other names than this machine's own are refused.",
)
@click.option(
    "--restart-seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds for which a failed engine is restarted before the server exits with status 2; "
    "0 to exit at once.",
)
@click.option("--access-log", is_flag=True, help="Log one line per request (never its content).")
@cache_dir_flag
@config_flag
@settings_options(JudgeSettings, skip=frozenset({"judge", "writer", "aggregation"}))
@settings_options(AggregationSettings)
@engine_flags
def command(
    constitutions: tuple[str, ...],
    judge: str | None,
    writer: str | None,
    host: str,
    port: int,
    token: str | None,
    aliases: tuple[str, ...],
    max_body_mib: float,
    request_seconds: float,
    max_waiting: int,
    allow_host: tuple[str, ...],
    restart_seconds: float,
    access_log: bool,
    cache_dir: Path | None,
    config: str | None,
    **flags: Any,
) -> None:
    """Serve the judge over HTTP, for eval harnesses and other clients.

    All clients share one running batch. Answers are the same as those of `rlaif label`.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    try:
        import uvicorn

        from rlaif.serve.start import open_server
        from rlaif.util.http_protocol import BoundedProtocol
    except ImportError as error:
        raise RlaifError(
            f"`rlaif serve` needs the package {error.name!r}, which is not installed",
            hint="In the checkout, run: pip install '.[serve]'.",
        ) from None
    token = token or os.environ.get("RLAIF_TOKEN") or None
    check_binding(host, token)
    names = (JudgeSettings, AggregationSettings, EngineSettings)
    hidden = frozenset({"judge", "writer", "aggregation"})
    flags["model"] = judge
    values, places = merge_settings(spread(flags), config, names, hidden=hidden)
    engine = build(EngineSettings, {"model": "demo", **values}, places)
    values["aggregation"] = build(AggregationSettings, values, places)
    if writer:
        values["writer"] = engine.model_copy(update={"model": writer})
    settings = build(JudgeSettings, with_defaults(values, engine), places)
    # Bound before the engine starts: an address that is taken is known at once.
    bound = listen(host, port)
    running: list[uvicorn.Server] = []

    def exit_soon() -> None:
        for server in running:
            server.should_exit = True

    recovery = Recovery(restart_seconds, note, exit_soon)
    app = open_server(
        constitutions,
        settings,
        aliases=aliases,
        token=token,
        body_bytes=int(max_body_mib * (1 << 20)),
        seconds=request_seconds,
        most_waiting=max_waiting,
        hosts=None if token else frozenset(map(host_name, allow_host)),
        recovery=recovery,
        context=LabelScreen(None).context(cache_dir),
    )
    port = bound.getsockname()[1]
    note(f"serving at http://{host}:{port} (API docs at /docs); Ctrl-C to stop")
    serving = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        timeout_graceful_shutdown=int(request_seconds) + 30,
    )
    running.append(uvicorn.Server(serving))
    running[0].run(sockets=[bound])
    if app.state.service.problem is not None:
        raise RlaifError("the judge has stopped", hint="The reason is above.")
