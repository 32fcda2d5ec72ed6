"""The command line as people use it: the published commands word for word, the README's, bad input, the wrappers."""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import sys

import numpy as np
import pytest
from conftest import (
    PROJECT,
    SHARED_DATA,
    SOURCES,
    TARGETS,
    launch,
    pair_lines,
    readme_excerpts,
    recall_of,
    run_process,
    write,
)
from hugging_face import WORDPIECES, config_of, random_weights, wordpiece, write_folder

import ann_util
import cli
import evaluate
import predict
import recall
import runtime
import train_batch_neg
from runtime import configure_environment, threads_of_rank

SCRIPTS = ["train_batch_neg.py", "train_hardest_neg.py", "train_pairwise.py", "recall.py", "evaluate.py", "predict.py",
           "search.py", "inspect_index.py", "export_index.py", "export_model.py", "lexical_recall.py", "fuse.py", "pretrain_mlm.py",
           "distill.py", "import_encoder.py", "pretrain_embeddings.py", "mine_hard_negatives.py"]


@pytest.fixture
def folder(tmp_path):
    """A working folder with a user's files under the names of the published commands."""
    write(tmp_path / "semantic_pair_train.tsv", pair_lines())
    write(tmp_path / "semantic_similar_pair.tsv", pair_lines(6))
    write(tmp_path / "corpus_file", "".join(f"{text}\n" for text in TARGETS + SOURCES[6:]))
    for script in SCRIPTS:  # the commands name scripts by their bare names
        (tmp_path / script).symlink_to(PROJECT / script)
    (tmp_path / "configs").symlink_to(PROJECT / "configs")
    config = config_of("bert", len(WORDPIECES), max_position_embeddings=80)
    write_folder(tmp_path / "my_encoder", config, random_weights(config), wordpiece())
    return tmp_path


def readme_commands(name: str) -> list[str]:
    text = (PROJECT / name).read_text(encoding="utf-8")
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines() if line]


def test_the_readme_s_commands_run_in_order(folder):
    commands = readme_commands("README.md")
    assert len(commands) == 28
    for command in commands:
        result = run_process(*shlex.split(command), cwd=folder)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    assert np.load(folder / "vectors.npy").shape == (26, 256)
    rows = (folder / "recall_result_dir" / "recall_result.txt").read_text().splitlines()
    assert len(rows) == 6 * 26 - sum(source in SOURCES[6:] for source in SOURCES[:6])


def test_both_readmes_show_the_same_commands_and_excerpts():
    assert readme_commands("README.md") == readme_commands("README_zh.md")
    excerpts, same = readme_excerpts("README.md"), readme_excerpts("README_zh.md")
    assert excerpts == same and len(excerpts) > 20


@pytest.mark.parametrize("script", ["train_batch_neg.py", "train_hardest_neg.py"])
def test_the_published_training_command(folder, script):
    result = launch(1, script, *shlex.split(
        "--device cpu --save_dir ./checkpoints/ --batch_size 64 --learning_rate 5E-5 --epochs 3 --output_emb_size 256 "
        "--save_steps 500 --max_seq_length 64 --margin 0.2 --train_set_file semantic_pair_train.tsv "
        "--model_name_or_path configs/ernie_tiny"), cwd=folder)
    assert result.returncode == 0, result.stdout
    assert (folder / "checkpoints" / "model_3" / "model_state.pdparams").is_file()


def test_the_published_prediction_command_on_two_ranks(folder, trained):
    flags = shlex.split(f"--device cpu --params_path {trained} --batch_size 128 --max_seq_length 64 "
                        "--text_pair_file semantic_similar_pair.tsv")
    one = run_process("python", "predict.py", *flags, cwd=folder)
    two = launch(2, "predict.py", *flags, cwd=folder)
    assert one.returncode == two.returncode == 0, one.stderr + two.stdout
    numbers = [float(line) for line in one.stdout.splitlines()]
    got = [float(line) for line in two.stdout.splitlines() if re.fullmatch(r"-?\d\.\d{6}", line)]
    assert len(numbers) == 6 and got == pytest.approx(numbers, abs=1e-5)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_without_importing_paddle(script):
    code = f"import sys, {script[:-3]} as s; c = s.main(['--help']); sys.exit(c or ('paddle' in sys.modules) * 9)"
    result = run_process("python", "-c", code)
    assert result.returncode == 0 and "--" in result.stdout


@pytest.mark.parametrize("spelling", ["--similar_text_pair", "--similar_text_pair_file", "--similar_pair_file"])
def test_the_three_spellings(folder, trained, spelling):
    pairs = str(folder / "semantic_similar_pair.tsv")
    assert recall.main(["--device", "cpu", "--params_path", trained, spelling, pairs, "--corpus_file",
                        str(folder / "corpus_file"), "--recall_result_dir", str(folder / "o")]) == 0
    assert evaluate.main([spelling, pairs, "--recall_result_file", str(folder / "o" / "recall_result.txt")]) == 0


def test_predict_reports_labels_and_writes_files(trained, tmp_path, capsys):
    pairs = write(tmp_path / "p.tsv", "".join(f"{s}\t{t}\t{i % 2}\n" for i, (s, t) in enumerate(zip(SOURCES, TARGETS))))
    flags = ["--device", "cpu", "--params_path", trained, "--text_pair_file", pairs]
    assert predict.main(flags) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 16 and "Spearman" in err and "AUC" in err
    assert predict.main([*flags, "--output_file", str(tmp_path / "o.tsv")]) == 0
    rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert [row[2] for row in rows] == out.splitlines() and rows[3][:2] == [SOURCES[3], TARGETS[3]]


@pytest.mark.parametrize("flags, words", [
    ([], ["--text_pair_file", "--text_file"]),
    (["--text_file", "{texts}"], ["--output_embeddings"]),
    (["--text_pair_file", "{pairs}", "--pad_to_max_seq_len", "False"], ["unrecognized arguments"]),
    (["--text_pair_file", "{pairs}", "--output_file", "/no/such/folder/o"], ["--output_file", "'/no/such/folder' does not"]),
    (["--text_pair_file", "{pairs}", "--output_file", "{pairs}"], ["--output_file would overwrite", "--text_pair_file"]),
    (["--text_file", "{texts}", "--output_embeddings", "{texts}"], ["--output_embeddings would overwrite", "--text_file"]),
    (["--text_pair_file", "{pairs}", "--batch_size", "0"], ["--batch_size", "'0'"]),
    (["--text_pair_file", "{pairs}", "--text_file", "{texts}", "--output_embeddings", "{texts}.npy"], ["--text_pair_file", "one of"]),
    (["--text_file", "{texts}", "--output_embeddings", "{texts}.npy", "--output_file", "{texts}.o"], ["--output_file goes with"]),
])
def test_bad_flags_of_predict(trained, tmp_path, pair_file, failure, flags, words):
    texts = write(tmp_path / "texts", "a\n")
    flags = [flag.format(texts=texts, pairs=pair_file) for flag in flags]
    line = failure(predict.main, ["--device", "cpu", "--params_path", trained, *flags])
    assert all(word in line for word in words)
    assert (tmp_path / "texts").read_text() == "a\n" and (tmp_path / "pair.tsv").read_text() == pair_lines()


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


def test_crlf_files_give_what_lf_files_give(trained, tmp_path, capsys):
    flags = ["--device", "cpu", "--params_path", trained, "--text_pair_file"]
    assert predict.main([*flags, write(tmp_path / "lf", pair_lines(4))]) == 0
    plain = capsys.readouterr().out
    assert predict.main([*flags, write(tmp_path / "crlf", pair_lines(4).replace("\n", "\r\n"))]) == 0
    assert capsys.readouterr().out == plain


def test_wrappers_pass_flags_and_exit_codes_on(folder):
    scripts = PROJECT / "scripts"
    small = ["--max_steps", "2", "--batch_size", "4"]
    for command, environment, code in (
            (["run_train.sh", *small], {"MODEL": "configs/ernie_tiny", "STRATEGY": "hardest_neg"}, 0),
            (["run_recall.sh", "--recall_num", "3"], {}, 0), (["run_evaluate.sh"], {}, 0),
            (["run_predict.sh"], {"TEXT_PAIR_FILE": "semantic_similar_pair.tsv"}, 0),
            (["run_train.sh"], {"TRAIN_SET_FILE": "nope"}, 2), (["run_train.sh", "--nope"], {"PROCESSES": "2"}, 2)):
        result = run_process("bash", str(scripts / command[0]), *command[1:], cwd=folder, DEVICE="cpu", **environment)
        assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
    manifest = json.loads((folder / "checkpoints" / "latest" / "semantic_index.json").read_text())
    assert manifest["strategy"] == "hardest_neg" and manifest["step"] == 2
    assert len((folder / "recall_result_dir" / "recall_result.txt").read_text().splitlines()) == 6 * 3


needs_environment = pytest.mark.skipif(not (PROJECT / ".venv" / "installed").is_file(),
                                       reason="scripts/setup.sh has not made the environment: this would install it")


@needs_environment
def test_the_quickstart_in_a_small_form(tmp_path):
    out = tmp_path / "quickstart"
    result = run_process("bash", "scripts/quickstart.sh", "--max_steps", "3", timeout=600, OUTPUT_DIR=str(out),
                         TRAIN_PAIRS="2000", EVAL_PAIRS="100", CORPUS_TEXTS="2000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "installing" not in result.stderr
    table = result.stdout[result.stdout.index("| Strategy | Recall@10 | Recall@50 |"):].splitlines()
    assert [line.split(" | ")[0] for line in table[2:5]] == ["| Baseline", "| BatchNeg", "| HardestNeg"]
    assert (out / "recall.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "scored.tsv").read_text().splitlines()) == 5


@needs_environment
def test_the_test_command_lints_checks_types_and_runs_tests():
    result = run_process("bash", "scripts/test.sh", "tests/test_metrics.py", "-k", "hand")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All checks passed" in result.stdout and "no issues found" in result.stdout and " passed" in result.stdout


def test_batch_neg_learns_from_real_pairs(tmp_path, capsys):
    """From random weights, on a slice: far above the same encoder untrained."""
    if not (SHARED_DATA / "semantic_pair_train.tsv").is_file():
        pytest.skip("the benchmark data is not beside the project")
    lines = (SHARED_DATA / "semantic_pair_train.tsv").read_text(encoding="utf-8").split("\n")[:6400]
    train = write(tmp_path / "train", "\n".join(lines[:6000]) + "\n")
    pairs = write(tmp_path / "pairs", "\n".join(lines[6000:]) + "\n")
    texts = dict.fromkeys(text for line in lines for text in line.split("\t"))
    corpus = write(tmp_path / "corpus", "".join(f"{text}\n" for text in texts))
    recalls = []
    for name, steps in (("untrained", ["--max_steps", "1", "--learning_rate", "1e-12"]),
                        ("trained", ["--epochs", "2", "--learning_rate", "1e-3"])):
        out = str(tmp_path / name)
        assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", str(PROJECT / "configs" / "ernie_tiny"),
                                     "--train_set_file", train, "--save_dir", out, "--pooling", "mean", "--batch_size",
                                     "128", "--max_seq_length", "48", "--warmup_proportion", "0.1", *steps]) == 0
        flags = ["--device", "cpu", "--params_path", f"{out}/latest", "--max_seq_length", "48", "--corpus_file", corpus,
                 "--similar_text_pair", pairs, "--recall_result_dir", out, "--ann_engine", "flat"]
        assert recall.main(flags) == 0
        recalls.append(recall_of(pairs, f"{out}/recall_result.txt", capsys)[0])
    assert recalls[1] > recalls[0] + 10, recalls


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


def test_scores_are_the_cosines_of_the_vectors_and_agree_with_the_labels(trained, tmp_path, capsys):
    rows = [(SOURCES[0], SOURCES[0], 1), (SOURCES[1], TARGETS[7], 0), (SOURCES[2], TARGETS[9], 0)]
    pairs = write(tmp_path / "p", "".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows))
    texts = write(tmp_path / "t", "".join(f"{a}\n{b}\n" for a, b, _ in rows))
    flags = ["--device", "cpu", "--params_path", trained]
    assert predict.main([*flags, "--text_pair_file", pairs]) == 0
    out, err = capsys.readouterr()
    assert predict.main([*flags, "--text_file", texts, "--output_embeddings", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    right = [vectors[2 * i] @ vectors[2 * i + 1] for i in range(3)]
    assert [float(line) for line in out.splitlines()] == pytest.approx(right, abs=2e-6)
    assert "AUC 1.0000; best-threshold accuracy 1.0000" in err


def test_the_results_table_has_its_columns_in_order(tmp_path):
    systems = {"a": {"R@10": {"value": 0.25}, "R@50": {"value": 0.5}}}
    command = ["python", "scripts/results_table.py", write(tmp_path / "m.json", json.dumps({"systems": systems}))]
    assert run_process(*command, "a").stdout.splitlines()[2] == "| a | 25.00 | 50.00 |"
    result = run_process(*command, "b")
    assert result.returncode == 2 and "has no system 'b'" in result.stderr


def test_the_comparison_trains_each_strategy_under_its_own_name(tmp_path):
    """With a `python` that only notes what it is asked to do."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "out").mkdir()  # training makes it
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("compare_strategies.sh", "launch.sh"):
        shutil.copy(PROJECT / "scripts" / name, tmp_path / "scripts")
    write(tmp_path / ".venv" / "bin" / "python", '#!/bin/sh\necho "$*" >>calls\n')
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    result = run_process("bash", "scripts/compare_strategies.sh", "data", "out", "--max_steps", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    for i, (name, script) in enumerate((("Baseline", "train_pairwise"), ("BatchNeg", "train_batch_neg"),
                                        ("HardestNeg", "train_hardest_neg"))):
        assert f"{script}.py" in calls[2 * i] and f"--save_dir out/{name} " in calls[2 * i] and "--max_steps 2" in calls[2 * i]
        assert "recall.py" in calls[2 * i + 1] and f"--params_path out/{name}/latest" in calls[2 * i + 1]
        assert f"--recall_result_dir out/{name} --recall_result_file {name}.txt" in calls[2 * i + 1]
    assert "evaluate.py" in calls[6] and "results_table.py out/metrics.json Baseline BatchNeg HardestNeg" in calls[7]


def test_rank_0_alone_prints_and_writes(trained, pair_file, tmp_path, monkeypatch, capsys):
    import encoder

    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setattr(encoder, "rank", lambda: 0)  # one process has all of the work
    flags = ["--device", "cpu", "--params_path", trained]
    assert predict.main([*flags, "--text_pair_file", pair_file]) == 0
    assert predict.main([*flags, "--text_pair_file", pair_file, "--output_file", str(tmp_path / "o.tsv")]) == 0
    texts = write(tmp_path / "texts", "快递\n")
    assert predict.main([*flags, "--text_file", texts, "--output_embeddings", str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr() == ("", "") and not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob("o.tsv"))
