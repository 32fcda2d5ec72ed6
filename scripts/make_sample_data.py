"""Generate the sample data: pairs of Chinese customer-service questions that mean the same, and a corpus to search.

Command (all flags optional):

    python scripts/make_sample_data.py [--output_dir DIR] [--seed N]
                                       [--train_pairs N] [--eval_pairs N] [--corpus_texts N]

Outputs, in --output_dir (UTF-8, "\\n" line ends, no header, no quoting):

    semantic_pair_train.tsv      source TAB target: two texts of one meaning, to train on
    semantic_similar_pair.tsv    source TAB target: the evaluation cases
    semantic_similar_pair.part   the kind of the evaluation case on the same line
    corpus_file                  one text a line, all different: the candidates the targets are searched among

Kinds of evaluation case. The meaning of a text is its intent plus its slot values (sample_texts.py):

    same_template      one template, never used with this meaning in training; other names for the slot values
    seen_template      training has the meaning and both templates, but never the source's template with this meaning
    new_template       source or target is said in a template that training never uses
    new_combination    training has each slot value with the intent, but never these values together with it

The texts of training and of evaluation are disjoint, and no text stands for two meanings. Same seed and sizes give
the same files.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sample_texts import Intent, Meaning, MeaningDrawer, Text, Writer, load_intents, make_meaning, slot_tables

import cli
from files import UserError, make_folder, whole_file

SAME, SEEN = "same_template", "seen_template"
NEW_TEMPLATE, NEW_COMBINATION = "new_template", "new_combination"
PART_SHARES = {SEEN: 0.15, SAME: 0.3, NEW_TEMPLATE: 0.35, NEW_COMBINATION: 0.2}

SECOND_TARGET = 0.15  # chance that an evaluation source gets a second target
REUSED_SOURCE = 0.3  # chance that a train pair starts from a text that training has already
SAME_TEMPLATE = 0.1  # chance that a train pair differs in names and wrappers only
SOURCE_IN_CORPUS = 0.05  # chance that an evaluation source also stands in the corpus
MAX_UNMARKED = 3  # corpus texts that mean what an evaluation case means without being its target
NEAR_MISSES = 5  # misleading corpus texts made from each text of an evaluation pair
TRAIN_SHARE = 0.4  # share of the corpus that may be texts of training
POPULARITY_EXPONENT, POPULARITY_SHIFT = 2.0, 10  # how unevenly training has the intents; see popularity()
MAX_MISSES = 2000  # fruitless draws in a row after which the grammar counts as exhausted


@dataclass
class EvalSet:
    """The evaluation cases, and what training and the corpus must know of them."""

    cases: list[tuple[Text, Text, str]] = field(default_factory=list)
    reserved: set[tuple[Meaning, str]] = field(default_factory=set)  # (meaning, template) pairs kept from training
    meanings: set[Meaning] = field(default_factory=set)


# --- evaluation ------------------------------------------------------------------------------------------------------


def choose_templates(rng: random.Random, intent: Intent, part: str, count: int) -> list[str] | None:
    """Templates for a source and its targets, all different but for SAME; None when the intent has too few of them."""
    if part == SAME:
        return [rng.choice(intent.seen_templates)] * count
    chosen = rng.sample(intent.seen_templates, min(count, len(intent.seen_templates)))
    if part == NEW_TEMPLATE:
        new = rng.sample(intent.new_templates, len(intent.new_templates))
        # Half the time the targets are said in new ways, where there are enough of these; else the source is.
        targets_new = len(new) >= count - 1 and rng.random() < 0.5
        chosen = [chosen[0], *new] if targets_new else [*new[:1], *chosen] if new else []
    return chosen[:count] if len(chosen) >= count else None


def make_case(rng: random.Random, writer: Writer, meaning: Meaning, part: str) -> list[Text] | None:
    """A source followed by its targets, or None when the grammar does not give them."""
    if not meaning.values:  # the intent's only meaning: reserving a template for it would take it from training
        return None
    templates = choose_templates(rng, meaning.intent, part, 3 if rng.random() < SECOND_TARGET else 2)
    if templates is None:
        return None
    texts = [writer.write(meaning, template) for template in templates]
    if None in texts or len({text.text for text in texts}) < len(texts):
        return None
    return texts if part != SAME or all(text.names != texts[0].names for text in texts[1:]) else None


def make_eval_set(rng: random.Random, writer: Writer, intents: list[Intent], count: int) -> EvalSet:
    """Evaluation cases of every part in its share; each source has a meaning of its own."""
    result = EvalSet()
    drawers = {held_out: MeaningDrawer(rng, intents, held_out) for held_out in (False, True)}
    for part, want in part_sizes(count).items():
        done = misses = 0
        while done < want:
            if misses == MAX_MISSES:
                raise UserError(f"--eval_pairs {count}: the grammar has too few meanings for so many")
            meaning = drawers[part == NEW_COMBINATION].draw()
            case = None if meaning in result.meanings else make_case(rng, writer, meaning, part)
            misses = misses + 1 if case is None else 0
            if case is None:
                continue
            source, targets = case[0], case[1:1 + want - done]
            result.cases += [(source, target, part) for target in targets]
            result.meanings.add(meaning)
            result.reserved.add((meaning, source.template))
            done += len(targets)
    # Mix the parts, but leave the lines of one source together.
    groups = [list(lines) for _, lines in itertools.groupby(result.cases, key=lambda case: case[0].text)]
    rng.shuffle(groups)
    result.cases = [case for group in groups for case in group]
    return result


def part_sizes(count: int) -> dict[str, int]:
    """How many evaluation lines each part gets; the first part takes the rounding."""
    sizes = {part: int(count * share) for part, share in PART_SHARES.items()}
    sizes[SEEN] += count - sum(sizes.values())
    return sizes


# --- training --------------------------------------------------------------------------------------------------------


def make_train_pairs(rng: random.Random, writer: Writer, intents: list[Intent], evaluation: EvalSet,
                     count: int) -> list[tuple[Text, Text]]:
    """Train pairs; none holds a text of evaluation, and none repeats another, in either direction."""
    closed = {text.text for source, target, _ in evaluation.cases for text in (source, target)}
    drawer = MeaningDrawer(rng, intents, popularity=popularity(rng, intents))
    known: dict[Meaning, list[Text]] = {}
    pairs: dict[frozenset[str], tuple[Text, Text]] = {}
    due = due_items(rng, evaluation)
    misses = 0
    while len(pairs) < count:
        if misses == MAX_MISSES:
            raise UserError(f"--train_pairs {count}: the grammar gives only about {len(pairs)}")
        misses += 1
        meaning, template = due[-1] if due else (drawer.draw(), None)
        pair = make_train_pair(rng, writer, meaning, template, known.get(meaning, []), evaluation.reserved)
        if pair is None or pair[0].text == pair[1].text or closed & {pair[0].text, pair[1].text}:
            continue
        texts = frozenset(text.text for text in pair)
        if texts not in pairs:
            pairs[texts] = pair
            known.setdefault(meaning, []).extend(pair)
            due, misses = due[:-1], 0
    result = list(pairs.values())
    rng.shuffle(result)
    return result


def popularity(rng: random.Random, intents: list[Intent]) -> dict[str, float]:
    """A weight for each intent: as in a real log of questions, a few come up all the time and many hardly ever."""
    ranked = rng.sample(intents, len(intents))
    return {intent.name: (rank + POPULARITY_SHIFT) ** -POPULARITY_EXPONENT for rank, intent in enumerate(ranked)}


def due_items(rng: random.Random, evaluation: EvalSet) -> list[tuple[Meaning, str | None]]:
    """Meanings, some with a template, that training must have for the parts of the evaluation to be what they are."""
    due: list[tuple[Meaning, str | None]] = []
    templates: dict[str, None] = {}  # those that are due already
    for source, target, part in evaluation.cases:
        intent, values = source.meaning.intent, source.meaning.values
        if part != NEW_COMBINATION:
            due.append((source.meaning, None))
        else:  # each value of the new combination, in some other combination
            others = [[other for other in intent.seen_values if other[i] == value] for i, value in enumerate(values)]
            due += [(make_meaning(intent, rng.choice(some)), None) for some in others if some]
        for template in (source.template, target.template):
            meanings = [make_meaning(intent, other) for other in intent.seen_values]
            free = [meaning for meaning in meanings if (meaning, template) not in evaluation.reserved]
            if template in intent.seen_templates and (intent.name + template) not in templates and free:
                templates[intent.name + template] = None
                due.append((rng.choice(free), template))
    return due


def make_train_pair(rng: random.Random, writer: Writer, meaning: Meaning, template: str | None, known: list[Text],
                    reserved: set[tuple[Meaning, str]]) -> tuple[Text, Text] | None:
    """Two texts of the meaning, the first by the template if one is given; None when the draw gives none."""
    templates = [each for each in meaning.intent.seen_templates if (meaning, each) not in reserved]
    reuse = known and not template and rng.random() < REUSED_SOURCE
    source = rng.choice(known) if reuse else writer.write(meaning, template or rng.choice(templates))
    if source is None:
        return None
    if rng.random() >= SAME_TEMPLATE:
        templates = [each for each in templates if each != source.template]
    target = writer.write(meaning, rng.choice(templates)) if templates else None
    return (source, target) if target else None


# --- corpus ----------------------------------------------------------------------------------------------------------


class Corpus:
    """The corpus under construction: different texts, few of them unmarked equivalents of an evaluation target."""

    def __init__(self, evaluation: EvalSet, size: int) -> None:
        self.texts: dict[str, None] = {}  # a dict for its order, which a set would leave to the hash seed
        self.size = size
        self.evaluation = evaluation
        self.unmarked: Counter[Meaning] = Counter()

    def add(self, text: Text | None, marked: bool = False) -> None:
        """Put a text in, unless it is there, there is no room, or its meaning has had its unmarked texts."""
        if text is None or text.text in self.texts or len(self.texts) >= self.size:
            return
        if not marked and text.meaning in self.evaluation.meanings:
            if self.unmarked[text.meaning] >= MAX_UNMARKED:
                return
            self.unmarked[text.meaning] += 1
        self.texts[text.text] = None


def near_misses(rng: random.Random, writer: Writer, intents: list[Intent], text: Text) -> Iterator[Text | None]:
    """Texts that look like the given one and mean something else: another slot value, or another intent."""
    siblings = [intent for intent in intents if intent.slots == text.meaning.intent.slots and intent.slots
                and intent.domain == text.meaning.intent.domain and intent != text.meaning.intent]
    for turn in range(NEAR_MISSES):
        if turn % 2 and siblings:  # same names, other intent
            intent = rng.choice(siblings)
            meaning = make_meaning(intent, text.meaning.values)
            yield writer.write(meaning, rng.choice(intent.seen_templates + intent.new_templates), text.names)
        elif text.names:  # same words, other value
            yield swap_value(rng, writer, text)


def swap_value(rng: random.Random, writer: Writer, text: Text) -> Text | None:
    """The same text with one slot value changed for another, wrapper and typo left as they are."""
    intent, i = text.meaning.intent, rng.randrange(len(text.names))
    table = writer.tables[intent.domain][intent.slots[i]]
    value = rng.choice([value for value in table if value != text.meaning.values[i]])
    name = rng.choice(table[value])
    if text.text.count(text.names[i]) != 1:
        return None
    values = (*text.meaning.values[:i], value, *text.meaning.values[i + 1:])
    swapped = Text(text.text.replace(text.names[i], name), make_meaning(intent, values), text.template,
                   (*text.names[:i], name, *text.names[i + 1:]))
    return swapped if writer.claim(swapped.text, swapped.meaning) else None


def make_corpus(rng: random.Random, writer: Writer, intents: list[Intent], evaluation: EvalSet,
                train: list[tuple[Text, Text]], size: int) -> list[str]:
    """Targets, a few sources, near misses of both, texts of training, and others up to the size, shuffled."""
    targets = {target.text for _, target, _ in evaluation.cases}
    if size < len(targets):
        raise UserError(f"--corpus_texts {size}: the evaluation targets alone are {len(targets)}")
    corpus = Corpus(evaluation, size)
    sources = list({source.text: source for source, _, _ in evaluation.cases}.values())
    for _, target, _ in evaluation.cases:
        corpus.add(target, marked=True)
    for source in sources:
        if rng.random() < SOURCE_IN_CORPUS:
            corpus.add(source)
    for text in [text for source, target, _ in evaluation.cases for text in (source, target)]:
        for miss in near_misses(rng, writer, intents, text):
            corpus.add(miss)
    for text in rng.sample([text for pair in train for text in pair], min(len(train) * 2, int(size * TRAIN_SHARE))):
        corpus.add(text)
    fill_corpus(rng, writer, intents, corpus, {source.text for source in sources})
    texts = list(corpus.texts)
    rng.shuffle(texts)
    return texts


def fill_corpus(rng: random.Random, writer: Writer, intents: list[Intent], corpus: Corpus, sources: set[str]) -> None:
    """Add texts of any meaning, said in any template, until the corpus has its size."""
    drawers = [MeaningDrawer(rng, intents, held_out) for held_out in (False, False, False, True)]
    misses, length = 0, len(corpus.texts)
    while length < corpus.size:
        if misses == MAX_MISSES:
            raise UserError(f"--corpus_texts {corpus.size}: the grammar gives only about {length}")
        meaning = rng.choice(drawers).draw()
        text = writer.write(meaning, rng.choice(meaning.intent.seen_templates + meaning.intent.new_templates))
        if text and text.text not in sources:
            corpus.add(text)
        misses = 0 if len(corpus.texts) > length else misses + 1
        length = len(corpus.texts)


# --- command ---------------------------------------------------------------------------------------------------------


def generate(seed: int, train_pairs: int, eval_pairs: int, corpus_texts: int) -> dict[str, list[str]]:
    """All the lines of every file, by file name."""
    rng = random.Random(seed)
    tables = slot_tables()
    intents = load_intents(rng, tables)
    writer = Writer(rng, tables)
    evaluation = make_eval_set(rng, writer, intents, eval_pairs)
    train = make_train_pairs(rng, writer, intents, evaluation, train_pairs)
    corpus = make_corpus(rng, writer, intents, evaluation, train, corpus_texts)
    return {
        "semantic_pair_train.tsv": [f"{source.text}\t{target.text}" for source, target in train],
        "semantic_similar_pair.tsv": [f"{source.text}\t{target.text}" for source, target, _ in evaluation.cases],
        "semantic_similar_pair.part": [part for _, _, part in evaluation.cases],
        "corpus_file": corpus,
    }


def print_summary(output_dir: Path, files: dict[str, list[str]]) -> None:
    """Say what was written, with the first lines of each file."""
    for name, lines in files.items():
        print(f"{output_dir / name}: {len(lines)} lines")
        if name.endswith(".part"):
            print("    " + ", ".join(f"{part} {number}" for part, number in sorted(Counter(lines).items())))
        else:
            print("".join(f"    {line}\n" for line in lines[:3]), end="")


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", default="sample_data", help="folder of the files")
    parser.add_argument("--seed", type=cli.seed, default=2024, help="same seed and sizes, same files")
    parser.add_argument("--train_pairs", type=cli.positive_int, default=20000, help="lines of semantic_pair_train.tsv")
    parser.add_argument("--eval_pairs", type=cli.positive_int, default=1000, help="lines of semantic_similar_pair.tsv")
    parser.add_argument("--corpus_texts", type=cli.positive_int, default=20000, help="lines of corpus_file")
    args = parser.parse_args(argv)
    folder = make_folder(args.output_dir)
    files = generate(args.seed, args.train_pairs, args.eval_pairs, args.corpus_texts)
    for name, lines in files.items():
        with whole_file(folder / name) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
    print_summary(folder, files)


if __name__ == "__main__":
    sys.exit(main())
