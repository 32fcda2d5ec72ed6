"""Recall by a character TF-IDF: what plain matching of characters finds, to hold a model's figures against.

    python benchmarks/tfidf_recall.py --similar_text_pair quickstart/data/semantic_similar_pair.tsv \\
        --corpus_file quickstart/data/corpus_file --recall_result_file quickstart/tfidf.txt
    python evaluate.py --similar_pair_file quickstart/data/semantic_similar_pair.tsv \\
        --recall_result_file quickstart/BatchNeg/BatchNeg.txt --compare_with quickstart/tfidf.txt

In:  pairs and corpus as for recall.py. Out: a result file in its form, with cosines of TF-IDF vectors over character
1- to 3-grams (scikit-learn, which paddlenlp installs, with its default weighting).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from data import read_pairs, read_texts
from files import whole_file

BLOCK = 256  # sources at once: their scores over the corpus are dense


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    cli.add_pair_file_flag(parser)
    parser.add_argument("--corpus_file", required=True, type=cli.existing_file, help="one text a line")
    parser.add_argument("--recall_result_file", required=True, type=cli.output_file, help="the result file to write")
    parser.add_argument("--recall_num", type=cli.positive_int, default=50, help="texts listed for a pair")
    args = parser.parse_args(argv)
    from sklearn.feature_extraction.text import TfidfVectorizer

    pairs, texts = read_pairs(args.pair_file), list(dict.fromkeys(read_texts(args.corpus_file)))
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), dtype=np.float32)
    corpus = vectorizer.fit_transform(texts)
    with whole_file(args.recall_result_file) as file:
        for start in range(0, len(pairs), BLOCK):
            sources = [source for source, _ in pairs[start : start + BLOCK]]
            scores = (vectorizer.transform(sources) @ corpus.T).toarray()
            for source, row in zip(sources, scores):
                best = np.argsort(-row, kind="stable")[: args.recall_num + 1]  # one more: the source takes no place
                for i in [i for i in best if texts[i] != source][: args.recall_num]:
                    file.write(f"{source}\t{texts[i]}\t{row[i]:.6f}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
