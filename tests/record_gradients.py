"""Run a training script, and keep the gradients of each rank's first step, as they are before clipping.

python tests/record_gradients.py OUTPUT_FOLDER train_batch_neg.py [FLAG ...]
"""

import importlib
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from runtime import configure_environment


def main() -> int:
    configure_environment("cpu")
    import paddle

    folder, script, *flags = sys.argv[1:]
    path = Path(folder, f"gradients_{cli.rank()}.npz")
    clip = paddle.nn.utils.clip_grad_norm_

    def record(parameters, *rest):
        if not path.exists():
            np.savez(path, *[parameter.grad.numpy() for parameter in parameters])
        return clip(parameters, *rest)

    paddle.nn.utils.clip_grad_norm_ = record
    return importlib.import_module(script.removesuffix(".py")).main(flags)


if __name__ == "__main__":
    sys.exit(main())
