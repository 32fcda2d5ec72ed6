"""A tiny encoder and a tiny trained checkpoint, made on the spot; the scripts' `main` is called in this process."""

import contextlib
import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["page_browser"]  # fixtures of the page, for several files
PROJECT = Path(__file__).resolve().parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"

from runtime import configure_environment  # noqa: E402

configure_environment("cpu")

SOURCES = ["怎么重置登录密码", "快递三天没更新了", "这款耳机能连两台手机吗", "周末去哪里爬山好", "信用卡怎么提额", "房贷利率是多少",
           "酒店可以提前入住吗", "发票抬头写错了", "空调不制冷怎么办", "机票能改签吗", "医保卡丢了怎么补办", "快递柜超时收费吗",
           "会员怎么取消自动续费", "流量用完了还能上网吗", "宽带多久能装好", "外卖送错了找谁"]
TARGETS = ["登录密码忘了如何重新设置", "物流信息好几天不动怎么办", "耳机支持同时连接两个设备吗", "推荐一个周末爬山的地方", "如何提高信用卡额度",
           "现在买房贷款利息多少", "能不能早点到店办入住", "开票信息填错怎么修改", "空调吹出来的风不凉", "飞机票可以换个时间吗",
           "医保卡不见了去哪里重新办", "包裹放在柜子里太久要钱吗", "怎样关掉会员的自动扣费", "套餐流量没了会断网吗",
           "装宽带要等几天", "送来的餐不是我点的怎么处理"]


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def pair_lines(count: int = 16) -> str:
    return "".join(f"{s}\t{t}\n" for s, t in zip(SOURCES[:count], TARGETS[:count]))


def make_encoder_folder(folder: Path, model_type: str = "ernie", **changes) -> str:
    """A folder with config and vocabulary of an encoder of 1 layer x 32."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted(set("".join(SOURCES + TARGETS)))
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz0123456789",
                  *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"), *"!\"#$%&'()*+,-./:;<=>?@[]", *characters]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    config = {"model_type": model_type, "vocab_size": len(vocabulary), "hidden_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 80, "type_vocab_size": 2,
              "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def byte_level_bpe_folder(folder: Path, texts: list[str]) -> None:
    """Train a byte-level BPE on `texts` and write its vocab.json and merges.txt."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=600, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(folder))


def read_log(save_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (Path(save_dir) / "train_log.jsonl").read_text().splitlines()]


def run_process(*command: str, cwd: Path = PROJECT, timeout: int = 240, **environment: str) -> subprocess.CompletedProcess:
    """Run a command as a user would, with the project's interpreter first on the PATH."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    for name in ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"):
        env.pop(name, None)
    return subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True)


def launch(ranks: int, script: str, *flags: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess:
    return run_process("python", "-u", "-m", "paddle.distributed.launch", "--log_dir", str(cwd / "log"),
                       "--nproc_per_node", str(ranks), str(PROJECT / script), *flags, cwd=cwd)


def train(script, encoder: str, pairs: str, save_dir: Path, *flags: str, expect: int = 0) -> list[dict]:
    code = script.main(["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", pairs, "--save_dir",
                        str(save_dir), "--max_seq_length", "32", "--seed", "1", *flags])
    assert code == expect
    return read_log(save_dir) if code == 0 else []


def weights(save_dir: Path) -> dict[str, np.ndarray]:
    from checkpoint import read_state_dict

    return read_state_dict(save_dir / "latest" / "model_state.pdparams")


def readme_excerpts(name: str) -> list[str]:
    """The indented lines of a README that show files and output."""
    lines = (PROJECT / name).read_text(encoding="utf-8").split("\n")
    return [line.strip() for line in lines if line.startswith("    ") and "bash scripts/" not in line]


def recall_of(pairs, result_file, capsys) -> list[float]:
    """Recall@10 and Recall@50, as evaluate.py prints them."""
    import evaluate

    capsys.readouterr()
    assert evaluate.main(["--similar_text_pair", str(pairs), "--recall_result_file", str(result_file)]) == 0
    return [float(number) for number in capsys.readouterr().out.splitlines()[0].split("\t")]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> str:
    return make_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, encoder_folder) -> str:
    """Parameter file of a checkpoint trained for 8 steps."""
    import train_batch_neg

    folder = tmp_path_factory.mktemp("trained")
    pairs = write(folder / "train.tsv", pair_lines())
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs,
                                 "--save_dir", str(folder / "out"), "--batch_size", "4", "--epochs", "2",
                                 "--learning_rate", "1e-2", "--pooling", "mean", "--dropout", "0"]) == 0
    return str(folder / "out" / "latest" / "model_state.pdparams")


@pytest.fixture
def compiled_once(monkeypatch):
    """An export is compiled once for all runs of the tests that ask for this: it is most of the time of a small run."""
    import inference

    def compiled(folder, *what):
        return _compiled((folder / "model.bin").stat().st_mtime_ns, folder, *what)  # it may be made again meanwhile

    monkeypatch.setitem(inference.RUNTIMES, "openvino", compiled)


@functools.cache
def _compiled(made, *what):
    from inference import OpenVinoRunner

    return OpenVinoRunner(*what)


@pytest.fixture
def pair_file(tmp_path) -> str:
    return write(tmp_path / "pair.tsv", pair_lines())


@pytest.fixture
def corpus_file(tmp_path) -> str:
    return write(tmp_path / "corpus.txt", "".join(f"{text}\n" for text in TARGETS + SOURCES[8:]))


@pytest.fixture
def failure(capsys):
    """`failure(main, flags)` runs a script that has to fail, and returns its one line on stderr."""

    def run(main, flags: list[str]) -> str:
        capsys.readouterr()
        assert main(flags) == 2
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and err.splitlines()[-1] == errors[0], err
        return errors[0]

    return run


@pytest.fixture
def file_size_limit():
    """`with file_size_limit(bytes):` no file may grow beyond that, which stands in for a full disk."""

    @contextlib.contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
