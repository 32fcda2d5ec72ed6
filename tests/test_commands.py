"""Commands as people use them: the published ones word for word, the README's, the wrappers, the scripts."""

import json
import re
import shlex
import shutil

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

import evaluate
import recall
import train_batch_neg

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
