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
    import trainer

    folder, script, *flags = sys.argv[1:]
    path = Path(folder, f"gradients_{cli.rank()}.npz")
    norm = trainer._norm

    def record(parameters):
        if not path.exists():
            np.savez(path, *[parameter.grad.numpy() for parameter in parameters])
        return norm(parameters)

    trainer._norm = record
    return importlib.import_module(script.removesuffix(".py")).main(flags)


if __name__ == "__main__":
    sys.exit(main())
