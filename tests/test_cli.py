"""The command line: bad input, pipes, how a run ends, bounds and defaults of flags, threads and devices."""

import argparse
import os
import signal
import sys

import pytest
from conftest import SOURCES, TARGETS, run_process, write

import ann_util
import cli
import evaluate
import predict
import recall
import runtime
from runtime import configure_environment, threads_of_rank


@pytest.mark.parametrize("flags, words", [
    (["--hnsw_m", "1"], ["--hnsw_m", "1"]), (["--hnsw_m", "101"], ["--hnsw_m", "101"]),
    (["--recall_result_file", "a/b"], ["'a/b'"]),
    (["--recall_result_file", ".lock"], ["'.lock'"]), (["--recall_result_file", "index"], ["'index' is a folder"]),
    (["--recall_result_dir", "{tmp}", "--recall_result_file", "corpus.txt"], ["would overwrite", "--corpus_file"]),
    (["--recall_result_dir", "{tmp}", "--index_dir", "{tmp}/."], ["--index_dir and --recall_result_dir are both"]),
    (["--corpus_file", "nope"], ["--corpus_file", "'nope'"]), (["--keep_self", "False"], ["unrecognized"]),
    (["--recall_result_dir", "/proc/no"], ["/proc/no"]), (["--output_emb_size", "128"], ["128", "256"]),
    (["--device", "tpu"], ["--device", "tpu"]),
])
def test_bad_flags_of_recall(trained, pair_file, corpus_file, tmp_path, failure, flags, words):
    base = ["--device", "cpu", "--params_path", trained, "--similar_text_pair", pair_file, "--corpus_file", corpus_file,
            "--recall_result_dir", str(tmp_path / "o")]
    line = failure(recall.main, base + [flag.format(tmp=tmp_path) for flag in flags])
    assert all(word in line for word in words)


@pytest.mark.parametrize("content", [b"", b"one column\n", b"a\tb\tc\n", b"a\tb\xff\n", b"a\tb\n\nc\td\n"])
def test_bad_pair_files_of_recall(trained, corpus_file, tmp_path, failure, content):
    (tmp_path / "bad.tsv").write_bytes(content)
    line = failure(recall.main, ["--device", "cpu", "--params_path", trained, "--similar_text_pair",
                                 str(tmp_path / "bad.tsv"), "--corpus_file", corpus_file, "--recall_result_dir",
                                 str(tmp_path / "o")])
    assert "bad.tsv" in line and not (tmp_path / "o").exists()


@pytest.mark.parametrize("flags, words", [
    (["--output_json", "{result}"], ["--output_json would overwrite", "--recall_result_file"]),
    (["--trec_run", "{other}"], ["--trec_run would overwrite", "--compare_with"]),
    (["--trec_run", "{tmp}/x", "--trec_qrels", "{tmp}/./x"], ["would overwrite", "--trec_"]),
    (["--output_json", "{tmp}"], ["--output_json", "is a folder"]),
])
def test_no_file_of_the_user_is_overwritten_by_evaluate(pair_file, tmp_path, failure, flags, words):
    result, other = (write(tmp_path / name, f"{SOURCES[0]}\t{TARGETS[0]}\t0.5\n") for name in ("r.txt", "o.txt"))
    line = failure(evaluate.main, ["--similar_text_pair", pair_file, "--recall_result_file", result, "--compare_with", other,
                                   *(flag.format(result=result, other=other, tmp=tmp_path) for flag in flags)])
    assert all(word in line for word in words)


def test_input_from_a_pipe_and_closed_stdout(pair_file, tmp_path):
    result = write(tmp_path / "r.txt", f"{SOURCES[0]}\t{TARGETS[0]}\t0.5\n")
    command = f"cat {result} | python evaluate.py --similar_text_pair {pair_file} --recall_result_file /dev/stdin"
    piped = run_process("bash", "-c", command)
    assert piped.returncode == 0 and piped.stdout.startswith("6.25\t6.25\n"), piped.stderr
    closed = run_process("bash", "-c", f"{command} >&-")
    assert closed.returncode == 0 and "Traceback" not in closed.stderr


def test_a_closed_pipe_is_no_error(tmp_path):
    pairs, result = write(tmp_path / "p", "q\ta\n"), write(tmp_path / "r", "q\ta\t0.5\n")
    done = run_process("bash", "-c", f"python evaluate.py --similar_pair_file {pairs} --recall_result_file {result} | true; "
                                     "exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error, code, line", [
    (KeyboardInterrupt(), 130, "interrupted\n"), (MemoryError(), 2, "error: out of memory; use a smaller --batch_size"),
    (PermissionError(13, "Permission denied", "some/file"), 2, "error: some/file: Permission denied; check"),
])
def test_what_ends_a_run_is_told_in_one_line(error, code, line, monkeypatch, capsys):
    def main(argv):
        raise error

    monkeypatch.setattr(signal, "sigtimedwait", lambda *_: pytest.fail("a lone process has nobody to wait for"))
    assert cli.entry_point(main)() == code
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == 1


def test_notices_come_from_rank_0_alone(monkeypatch, capsys):
    cli.notice("once")
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    cli.notice("twice")
    assert capsys.readouterr().err == "once\n"


@pytest.mark.parametrize("kind, smallest, refused", [
    (cli.positive_int, "1", ["0", "-1", "1.5"]), (cli.natural, "0", ["-1", "x"]),
    (cli.positive, "1e-9", ["0", "-1", "inf", "nan"]), (cli.non_negative, "0", ["-0.1", "inf", "nan"]),
    (cli.fraction, "0", ["1", "-0.1", "nan"]), (cli.share, "0", ["1.1", "-0.1", "nan"]),
])
def test_the_bounds_of_numbers(kind, smallest, refused):
    assert kind(smallest) == float(smallest)
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            kind(text)


def test_the_published_settings_are_the_defaults():
    from train_flags import add_training_flags

    parser = cli.Parser(None)
    add_training_flags(parser)
    given = vars(parser.parse_args(["--train_set_file", __file__]))
    published = {"batch_size": 64, "learning_rate": 5e-5, "epochs": 3, "output_emb_size": 256, "max_seq_length": 64,
                 "model_name_or_path": "ernie-1.0", "pooling": "cls", "dropout": None, "weight_decay": 0.0,
                 "warmup_proportion": 0.0, "max_grad_norm": 1.0, "max_steps": None, "amp": None, "grad_cache_chunk_size": None,
                 "cross_batch_negatives": True, "resume": False, "keep_checkpoints": None}
    assert {name: given[name] for name in published} == published


def test_threads_are_the_user_s_choice_or_a_rank_s_share_of_the_cores(monkeypatch):
    monkeypatch.delitem(sys.modules, "paddle", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "THREADS_GIVEN", "7,2")  # 2 of an inner level
    for ranks, threads in (("1", "7"), ("4", "2"), ("16", "1")):
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", ranks)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.setenv(name, "7")
        configure_environment("cpu")
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == threads


def test_num_threads_holds_for_index_and_search_too(trained, pair_file, corpus_file, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "threads_asked", None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    flags = ["--device", "cpu", "--params_path", trained, "--max_seq_length", "32", "--similar_text_pair", pair_file,
             "--corpus_file", corpus_file, "--recall_result_dir", str(tmp_path / "o")]
    seen: list[int] = []
    built = ann_util.HnswIndex.build
    monkeypatch.setattr(ann_util.HnswIndex, "build", lambda own, vectors: (seen.append(own.threads), built(own, vectors))[1])
    assert recall.main([*flags, "--num_threads", "3"]) == 0 and threads_of_rank() == 3
    assert recall.main([*flags, "--hnsw_ef", "99"]) == 0 and threads_of_rank() == 8
    assert seen == [3, 8]


@pytest.mark.parametrize("given", ["abc", "0", "-2", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(trained, pair_file, given):
    done = run_process("python", "predict.py", "--device", "cpu", "--params_path", trained, "--text_pair_file", pair_file,
                       OMP_NUM_THREADS=given)
    assert done.returncode == 2 and f"OMP_NUM_THREADS={given} " in done.stderr.splitlines()[-1] and not done.stdout


@pytest.mark.parametrize("intel, given, expected", [(True, None, None), (False, None, "5"), (True, "7", "7"), (False, "7", "7")])
def test_mkl_takes_its_fast_path_on_every_processor(intel, given, expected, monkeypatch):
    """Set on an Intel processor with AVX-512 the variable halves the speed; elsewhere its absence does."""
    monkeypatch.delitem(sys.modules, "paddle", raising=False)
    monkeypatch.setattr(runtime, "_made_by_intel", lambda: intel)
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", given or "")
    if given is None:
        monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    configure_environment("cpu")
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


def test_a_gpu_that_is_not_there_is_told(trained, pair_file, failure, monkeypatch):
    import paddle

    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    assert "sees no GPU" in failure(predict.main, ["--device", "gpu", "--params_path", trained, "--text_pair_file",
                                                   pair_file])
