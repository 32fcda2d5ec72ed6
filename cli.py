"""What the entry scripts share: flags declared once, runtime settings, notices, and errors that end in one line."""

from __future__ import annotations

import argparse
import functools
import io
import math
import os
import signal
import sys
from typing import Any, Callable, NoReturn

from tqdm import tqdm

from files import UserError, is_stream

OTHERS_SPEAK_WITHIN = 6  # seconds; the launcher looks at its ranks every two


class LostRankError(UserError):
    """Another rank has ended in the middle of the work; the launcher names it."""


def rank() -> int:
    """Number of this process among those the launcher started (0 without a launcher)."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """How many processes the launcher started (1 without a launcher)."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def notice(text: str, every_rank: bool = False) -> None:
    """Tell the user something on stderr, once for all ranks; results alone go to stdout."""
    if rank() == 0 or every_rank:
        print(text, file=sys.stderr, flush=True)


def progress_bar(total: int, label: str | None) -> tqdm:
    """A bar on rank 0's terminal; none where there is no label or no terminal."""
    return tqdm(total=total, desc=label, unit=" texts", leave=False, disable=None if label and rank() == 0 else True)


def entry_point(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Make `main(argv)` return an exit code: 0, or 2 after one line on stderr for any fault of input or machine."""

    @functools.wraps(main)
    def guarded(argv: list[str] | None = None) -> int:
        if sys.stdout is None:  # started with stdout closed
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
        if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal in GBK has no emoji
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _exit_code(main, argv)
        _leave_launch(code)
        return code

    return guarded


def _exit_code(main: Callable[[list[str] | None], int | None], argv: list[str] | None) -> int:
    try:
        code = main(argv) or 0
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse: --help (0) or a bad flag (2)
        return int(leaving.code or 0)
    except UserError as error:
        report(str(error), lost_rank=isinstance(error, LostRankError))
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        report(f"{where}{error.strerror or error}; check the path, its rights and the free space")
    except MemoryError:
        report("out of memory; use a smaller --batch_size or a machine with more memory")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 2


def _leave_launch(code: int) -> None:
    """End a rank at once: Paddle's connections can abort one that tears them down after another has left.

    The work is done by then, but the launcher would see a signal (exit code -6) and call the run a failure.
    """
    distributed = sys.modules.get("paddle.distributed")
    if world_size() > 1 and distributed is not None and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def report(error: str, lost_rank: bool = False) -> None:
    """The one line of a failed run.

    The launcher copies rank 0's log to the console, and repeats the log of the first rank that it finds failed. Most
    faults (files, flags) strike all ranks alike: so rank 0 leaves the word to another rank and waits to be ended, and
    the user reads the line once. If nothing ends it, it is alone with its error and speaks. Where another rank was lost
    all speak, and then wait, so that the launcher finds and names the lost one.
    """
    if lost_rank:
        print(f"error: {error}", file=sys.stderr, flush=True)
    if world_size() > 1 and (rank() == 0 or lost_rank):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if signal.sigtimedwait({signal.SIGTERM}, OTHERS_SPEAK_WITHIN):
            return
    if not lost_rank:
        print(f"error: {error}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, defaults in the help and no abbreviated flags."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, allow_abbrev=False, formatter_class=_HelpFormatter)

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Like argparse's; an output that would overwrite an input, or another output, is an error."""
        parsed = super().parse_args(args, namespace)
        for flag, path in self._files(parsed, output_file):
            self.keep_apart(flag, path, parsed)
        return parsed

    def keep_apart(self, flag: str, path: str | os.PathLike, parsed: argparse.Namespace) -> None:
        """Refuse to write `path`, the output of `flag`, over a file that another flag names."""
        for other, named in self._files(parsed, existing_file, checkpoint_path, model_path, output_file):
            if other != flag and os.path.realpath(named) == os.path.realpath(path):
                self.error(f"{flag} would overwrite {str(path)!r}, the file of {other}; name another")

    def _files(self, parsed: argparse.Namespace, *types: Callable) -> list[tuple[str, str]]:
        """(flag, path) of all files of these types that were given."""
        files = []
        for action in self._actions:
            given = getattr(parsed, action.dest, None) if action.type in types else None
            name = action.option_strings[0] if action.option_strings else action.dest
            files += [(name, path) for path in (given if isinstance(given, list) else [given]) if path]
        return files

    def error(self, message: str) -> NoReturn:
        report(f"{message}; see {self.prog} --help")
        self.exit(2)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the docstring's commands as they are; show a flag's default where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        hidden = action.default in (None, False, argparse.SUPPRESS) or action.required
        return action.help if hidden else f"{action.help} (default: %(default)s)"


def positive_int(text: str) -> int:
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def descending_ints(text: str) -> list[int]:
    """Sizes between commas, the largest first."""
    sizes = [positive_int(part) for part in text.split(",")]
    if sizes != sorted(set(sizes), reverse=True):
        raise argparse.ArgumentTypeError(f"{text!r} is not in descending order")
    return sizes


def natural(text: str) -> int:
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def seed(text: str) -> int:
    return _number(text, int, lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


def positive(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def non_negative(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < math.inf, "a number, 0 or more")


def fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, "a number from 0 up to, but not, 1")


def share(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _number(text: str, kind: Callable[[str], Any], fits: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def existing_file(text: str) -> str:
    """A path of a readable file, checked before any work starts."""
    if not os.path.exists(text) or os.path.isdir(text):  # a pipe will do
        problem = "is a folder, not a file" if os.path.isdir(text) else "does not exist"
        raise argparse.ArgumentTypeError(f"{text!r} {problem}; check the path")
    if not os.access(text, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text!r} can't be read; check its rights")
    return text


def output_file(text: str) -> str:
    """A path that a file can be written to, checked before any work starts."""
    if is_stream(text):
        if not os.access(text, os.W_OK):
            raise argparse.ArgumentTypeError(f"{text!r} can't be written to; choose another place")
        return text
    folder = os.path.dirname(os.path.realpath(text))
    if os.path.isdir(text) or not os.path.basename(text):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, not a file; name a file in it")
    if not os.path.isdir(folder):
        raise argparse.ArgumentTypeError(f"{text!r}: the folder {folder!r} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text!r}: the folder {folder!r} is not writable; choose another place")
    return text


def model_path(text: str) -> str:
    """A checkpoint as `checkpoint_path` takes it, or an export of one."""
    return text if os.path.isfile(os.path.join(text, "export.json")) else checkpoint_path(text)


def checkpoint_path(text: str) -> str:
    """A parameter file, or a checkpoint folder that holds a model_state.pdparams."""
    if os.path.isdir(text):
        inside = os.path.join(text, "model_state.pdparams")
        if not os.path.isfile(inside):
            raise argparse.ArgumentTypeError(f"the folder {text!r} has no model_state.pdparams; name a checkpoint")
        return inside
    return existing_file(text)


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Flags of the scripts that load a trained checkpoint."""
    parser.add_argument("--params_path", required=required, type=model_path,
                        help="checkpoint: a model_state.pdparams, the folder that holds it, or an export of it")
    parser.add_argument("--model_name_or_path", help="encoder of a bare parameter file, which has no config beside it")
    parser.add_argument("--output_emb_size", type=natural,
                        help="only checked: must be the dimension that the checkpoint was trained with")
    parser.add_argument("--output_dim", type=positive_int,
                        help="cut vectors to their first dimensions: one of the --matryoshka_dims of the training")
    parser.add_argument("--max_seq_length", type=positive_int, default=64, help="tokens kept of a text")
    parser.add_argument("--batch_size", type=positive_int, default=64,
                        help="texts of full length encoded at once, at most; of shorter ones more, up to as many "
                             "tokens; a CPU takes no more than fit its caches")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16", "int8"], default="auto",
                        help="auto is the fastest that the processor has at no loss in recall; fp16 is for GPUs, int8 "
                             "for CPUs")
    parser.add_argument("--num_threads", type=positive_int, help="threads to compute with (default: all cores)")
    add_device_flag(parser)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["cpu", "gpu"], help="where to compute (default: gpu if there is one)")


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that choose how neighbours are found in an index."""
    parser.add_argument("--ann_engine", choices=["hnsw", "flat", "milvus"], default="hnsw", help="flat is exact")
    parser.add_argument("--hnsw_m", type=positive_int, default=100, help="links a node keeps, 2 to 100")
    parser.add_argument("--hnsw_ef", type=positive_int, default=100, help="candidates while building and searching")
    parser.add_argument("--hnsw_deterministic", action="store_true",
                        help="build in one thread, so that equal vectors give an equal graph")
    parser.add_argument("--vector_dtype", choices=["float32", "float16", "int8"], default="float32",
                        help="what --ann_engine flat scans: a smaller copy in memory, its best ones scored exactly")
    parser.add_argument("--milvus_uri", help="a server (http://host:19530) or a milvus-lite file for --ann_engine "
                                             "milvus (default: milvus.db in the index folder)")


def check_engine_flags(parser: Parser, args: argparse.Namespace) -> None:
    if not 2 <= args.hnsw_m <= 100:
        parser.error(f"argument --hnsw_m: {args.hnsw_m} is not between 2 and 100")
    if args.vector_dtype != "float32" and args.ann_engine != "flat":
        parser.error(f"--vector_dtype {args.vector_dtype} goes with --ann_engine flat, not {args.ann_engine}")
    if args.milvus_uri and args.ann_engine != "milvus":
        parser.error(f"--milvus_uri goes with --ann_engine milvus, not {args.ann_engine}")
    if args.hnsw_deterministic and args.ann_engine != "hnsw":
        parser.error(f"--hnsw_deterministic goes with --ann_engine hnsw, not {args.ann_engine}")


def engine_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `IndexStore.open_engine` takes of these flags."""
    return {"m": args.hnsw_m, "ef": args.hnsw_ef, "deterministic": args.hnsw_deterministic,
            "vector_dtype": args.vector_dtype, "uri": args.milvus_uri, "on_gpu": on_gpu()}


def on_gpu() -> bool:
    """Whether Paddle was started on a GPU."""
    paddle = sys.modules.get("paddle")
    return paddle is not None and paddle.get_device() != "cpu"


def add_pair_file_flag(parser: argparse.ArgumentParser) -> None:
    """The evaluation pairs, under each of the three spellings in use."""
    parser.add_argument("--similar_text_pair", "--similar_text_pair_file", "--similar_pair_file", dest="pair_file",
                        required=True, type=existing_file, metavar="FILE",
                        help="evaluation pairs, `source TAB target` a line")


def add_recall_flags(parser: argparse.ArgumentParser, result_file: str) -> None:
    """What is recalled from what, and the file that it goes into."""
    add_pair_file_flag(parser)
    parser.add_argument("--corpus_file", required=True, type=existing_file, help="one text a line")
    parser.add_argument("--recall_result_dir", default="recall_result_dir", help="folder of the result")
    parser.add_argument("--recall_result_file", default=result_file, help="name of the result file in it")
    parser.add_argument("--recall_num", type=positive_int, default=50, help="texts recalled for a source")
    parser.add_argument("--keep_self", action="store_true", help="keep the source itself among the recalled texts")


def check_result_file(parser: Parser, args: argparse.Namespace, taken: tuple[str, ...] = ()) -> None:
    """Refuse a result file that is no plain name, a folder (or one of the names `taken` by a folder), or an input."""
    name, folder = args.recall_result_file, args.recall_result_dir
    if not name.strip() or os.path.basename(name) != name or name.startswith("."):
        parser.error(f"argument --recall_result_file: {name!r} is not a plain file name; the folder goes into "
                     f"--recall_result_dir")
    if os.path.isdir(os.path.join(folder, name)) or name in taken:
        parser.error(f"argument --recall_result_file: {name!r} is a folder in {folder}; choose another name")
    parser.keep_apart("--recall_result_file", os.path.join(folder, name), args)
