"""Serve: saved indexes over HTTP, and a page to search them.

    python serve.py --index bank=recall_result_dir/index --params_path checkpoints/latest
    python serve.py --index bank=batch_neg/index --index bank_hardest=hardest_neg/index \\
        --params_path batch_neg/latest --params_path hardest_neg/latest

In:  index folders that recall.py wrote, by the names under which they are asked for, and the checkpoints that they
     were made with, or exports of these; which belongs to which their manifests tell.
Out: the page on http://127.0.0.1:8000, and there /search, /v1/embeddings and more, see docs/serving.md. SIGHUP loads
     the indexes again that have changed; SIGTERM ends the service when what is running is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import cli
from cli import notice
from files import UserError

# Seconds that an idle connection is kept. nginx keeps its own for 60: who closes first must not be this side, or a
# request may meet a connection that has just gone.
KEEP_ALIVE = 75
KEY_VARIABLE = "SEMANTIC_INDEX_API_KEY"
VERSION_FILE = Path(__file__).with_name("pyproject.toml")


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("--index", action="append", required=True, metavar="NAME=DIR",
                        help="an index folder and its name; may be given several times, the first is the default")
    parser.add_argument("--params_path", action="append", required=True, type=cli.model_path,
                        help="checkpoint of an index, or an export of it; may be given several times")
    parser.add_argument("--model_name_or_path", help="encoder of a bare parameter file, which has no config beside it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; one that others reach needs a key")
    parser.add_argument("--port", type=port, default=8000, help="0 takes a free one")
    parser.add_argument("--api_key", default=os.environ.get(KEY_VARIABLE) or None,
                        help=f"requests have to bring it as `Authorization: Bearer KEY` (default: ${KEY_VARIABLE})")
    parser.add_argument("--num_threads", type=cli.positive_int, help="threads to compute with (default: all cores)")
    cli.add_device_flag(parser)
    load = parser.add_argument_group("load")
    load.add_argument("--no_batching", action="store_true", help="compute every request by itself, for comparison")
    load.add_argument("--batch_wait_ms", type=cli.non_negative, default=2, help="a batch waits so long under load")
    load.add_argument("--cache_size", type=cli.natural, default=10_000, help="texts whose vectors are kept")
    load.add_argument("--max_queue", type=cli.positive_int, default=256, help="requests at work; one more gets a 429")
    load.add_argument("--max_body_bytes", type=cli.positive_int, default=1 << 20, help="bytes of a request's body")
    load.add_argument("--max_texts", type=cli.positive_int, default=256, help="texts of a request")
    load.add_argument("--max_characters", type=cli.positive_int, default=512, help="characters of a text")
    load.add_argument("--max_k", type=cli.positive_int, default=1000, help="results of a text")
    load.add_argument("--timeout", type=cli.positive, default=10, help="seconds for a whole request")
    args = parser.parse_args(argv)
    args.index = named_folders(parser, args.index)
    from guard import is_loopback

    if not is_loopback(args.host) and not args.api_key:
        parser.error(f"--host {args.host} can be reached by others; protect it with --api_key or ${KEY_VARIABLE}")
    if args.api_key and not re.fullmatch(r"[!-~]+", args.api_key):
        parser.error("argument --api_key: an HTTP header holds ASCII without blanks; choose another key")
    return args


def port(text: str) -> int:
    number = cli.natural(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: it is above 65535")
    return number


def named_folders(parser: cli.Parser, given: list[str]) -> dict[str, str]:
    folders: dict[str, str] = {}
    for entry in given:
        name, _, folder = entry.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or not folder:
            parser.error(f"argument --index: {entry!r} is not NAME=DIR with a name of letters, digits, `.`, `_` and "
                         f"`-`, 64 at most")
        if name in folders:
            parser.error(f"argument --index: the name {name!r} is given twice")
        folders[name] = folder
    return folders


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to load again
    with contextlib.closing(bind(args.host, args.port)) as listening:
        from guard import Guard, Limits, Metrics
        from served import Batching, Catalog
        from service import OPEN_PATHS, make_app

        metrics = Metrics()
        batching = Batching(not args.no_batching, args.batch_wait_ms / 1000, args.cache_size,
                            lambda what, size: metrics.batches.labels(what).observe(size),
                            lambda there: metrics.cached.labels("hit" if there else "miss").inc())
        encoding = argparse.Namespace(**vars(args), output_emb_size=None, output_dim=None, batch_size=64)
        catalog = Catalog(args.index, encoding, batching)
        for name in args.index:
            catalog.load(name)
            notice(f"index {name}: {catalog.served[name].facts['texts']} texts, {catalog.served[name].engine}")
        limits = Limits(args.max_body_bytes, args.max_texts, args.max_characters, args.max_k, args.timeout,
                        args.max_queue)
        app = make_app(catalog, limits, metrics, project_version())
        paths = OPEN_PATHS | frozenset(app.openapi()["paths"])
        run(Guard(app, paths, limits, args.api_key, metrics, OPEN_PATHS), catalog, limits, listening)


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address, held before the long work of loading; UserError where that can't be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}; choose another address or port, or "
                        f"stop what listens there") from error
    return listening


def run(app, catalog, limits, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; then finish what is running."""
    import uvicorn

    from http_protocol import Protocol

    Protocol.timeout = limits.timeout
    host, number = listening.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{number}"

    reloads: list[asyncio.Task] = []  # a task that nobody holds may vanish before its end

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:  # uvicorn's would end the process by the signal after it
            loop = asyncio.get_running_loop()
            for end in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(end, self.handle_exit, end, None)
            loop.add_signal_handler(signal.SIGHUP, lambda: reloads.append(loop.create_task(reload(catalog))))
            notice(f"serving {', '.join(catalog.served)} on {where}")
            yield

    config = uvicorn.Config(app, http=Protocol, log_level="error", access_log=False, lifespan="off", ws="none",
                            server_header=False, timeout_keep_alive=KEEP_ALIVE,
                            timeout_graceful_shutdown=int(limits.timeout) + 1)
    Server(config).run(sockets=[listening])


async def reload(catalog) -> None:
    """SIGHUP: what can't be loaded is said, and the service goes on with what it has."""
    for known in await catalog.reload(list(catalog.served)):
        state = known.get("error") or f"{known['texts']} texts, {'new' if known['changed'] else 'as before'}"
        notice(f"index {known['name']}: {state}")


def project_version() -> str:
    found = re.search(r'^version = "(.+)"', VERSION_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    sys.exit(main())
