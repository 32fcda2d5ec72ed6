"""A service as small as can be of sentence-transformers (PyTorch bf16) and faiss, for benchmarks/serve.py.

    python serve_peer.py FOLDER INDEX_DIR PORT

FOLDER is that of benchmarks/encode.py, with a model of the same size; the vectors are those of the saved index.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    folder, index_dir, port = sys.argv[1:]
    import faiss
    import numpy as np
    import torch
    import uvicorn
    from encode_peers import make_sentence_transformer
    from fastapi import FastAPI
    from sentence_transformers import SentenceTransformer

    path = Path(folder, "sentence_transformer")
    if not path.is_dir():
        make_sentence_transformer(Path(folder))
    model = SentenceTransformer(str(path), device="cpu").bfloat16()
    parts = sorted(Path(index_dir, "parts").glob("*.npy"))
    vectors = np.concatenate([np.load(part) for part in parts])
    texts = [text for part in parts for text in part.with_suffix(".txt").read_text(encoding="utf-8").split("\n")[:-1]]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    app = FastAPI()

    @app.get("/search")
    def search(text: str, k: int = 10) -> dict:
        with torch.inference_mode():
            vector = model.encode([text], show_progress_bar=False, convert_to_numpy=False)[0].float().numpy()[None]
        scores, ids = index.search(vector, k)
        return {"results": [{"id": int(i), "score": float(score), "text": texts[i]}
                            for i, score in zip(ids[0], scores[0])]}

    uvicorn.run(app, port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main()
