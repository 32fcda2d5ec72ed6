"""The model card: README.md of a checkpoint, for those who find it without its history."""

from __future__ import annotations

from pathlib import Path

from files import made_by

STRATEGIES = {"batch_neg": "BatchNeg: all other targets of the batch are negatives",
              "hardest_neg": "HardestNeg: the hardest other target of the batch is the negative",
              "masked_lm": "masked language model: hidden tokens of the text itself are named",
              "distilled": "distillation: the vectors of a bigger model are learnt",
              "pairwise": "Baseline: one random target is the negative"}


def model_card(args, strategy: str, model, data, data_sha256: str | None, step: int, total_steps: int, ranks: int,
               evaluation: dict | None) -> str:
    """Text of the card, in Markdown.

    Args:
        data: the training set (`train_data.TrainSet`), of a file with this SHA-256 (None: it was a pipe).
        evaluation: of this very step, as `train_eval.Evaluation.run` returns it.
    """
    config, negatives = model.ptm.config, sum(map(len, data.negatives))
    versions = [f"- {name} {version}" for name, version in made_by().items() if name not in ("user", "host")]
    lines = [
        f"# Semantic index model: {strategy}, step {step} of {total_steps}", "",
        f"{_purpose(strategy, model)} Encoder: {config.model_type}, {config.num_hidden_layers} layers x "
        f"{config.hidden_size}, from `{args.init_from_ckpt or args.model_name_or_path}`; {_head(strategy, model)}.", "",
        "## Training", "",
        f"- Strategy: {STRATEGIES[strategy]}",
        f"- Data: `{Path(args.train_set_file).name}`, {len(data)} {'texts' if data.unlabelled else 'pairs'}, "
        f"{len(data.texts)} different texts, {negatives} mined negatives, SHA-256 {data_sha256 or 'unknown (a pipe)'}",
        f"- Rows seen: {step} steps of {args.batch_size * ranks} at most, {ranks} rank(s)", "",
        "| flag | value |", "| --- | --- |",
        *(f"| `--{name}` | {_cell(value)} |" for name, value in sorted(vars(args).items()) if value is not None),
        "", "## Evaluation", "", *_evaluation(args, evaluation), "",
        "## Use", "",
        "In the folder of the project that wrote this, with CHECKPOINT for the path of this folder:", "",
        "```bash",
        *_commands(strategy, args.max_seq_length),
        "```", "",
        "`model_state.pdparams` is a pickle of NumPy arrays; `ptm.*` are those of the encoder. "
        "`semantic_index.json` holds the SHA-256 of every file.", "",
        "## Versions", "", *versions]
    return "\n".join(lines) + "\n"


def _purpose(strategy: str, model) -> str:
    if strategy == "masked_lm":
        return "An encoder to train from; it gives no vectors of texts yet."
    return (f"Embeds short texts as unit vectors of {model.dimension} dimensions, so that texts of the same meaning "
            f"have a high cosine.")


def _head(strategy: str, model) -> str:
    if strategy == "masked_lm":
        return "the output layer of a masked language model"
    projection = f", linear projection to {model.output_emb_size}" if model.output_emb_size else ""
    return f"{model.pooling} pooling{projection}"


def _commands(strategy: str, max_seq_length: int) -> list[str]:
    if strategy == "masked_lm":
        return [f"python train_batch_neg.py --model_name_or_path CHECKPOINT --max_seq_length {max_seq_length} "
                f"--train_set_file pairs.tsv"]
    flags = f"--params_path CHECKPOINT --max_seq_length {max_seq_length}"
    return [f"python predict.py {flags} --text_pair_file pairs.tsv",
            f"python recall.py {flags} --similar_text_pair pairs.tsv --corpus_file corpus.txt --index_dir index",
            f"python search.py {flags} --index_dir index --query TEXT"]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _evaluation(args, evaluation: dict | None) -> list[str]:
    if evaluation is None:
        return ["This step was not evaluated."]
    corpus = f"`{Path(args.eval_corpus_file).name}`" if args.eval_corpus_file else "the texts of the pairs"
    return [f"Pairs `{Path(args.eval_pair_file).name}` against {evaluation['texts']} texts of {corpus}, exact search, "
            f"the source itself left out; percent, with 95 % bootstrap interval.", "",
            "| metric | value | interval |", "| --- | --- | --- |",
            *(f"| {name} | {evaluation[name]:.2f} | {low:.2f} to {high:.2f} |"
              for name, (low, high) in evaluation["intervals"].items())]
