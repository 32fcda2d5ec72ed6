"""Generate the sample data: pairs of Chinese customer-service questions that mean the same, and a corpus to search.

Command (all flags optional):

    python scripts/make_sample_data.py [--output_dir DIR] [--seed N]
                                       [--train_pairs N] [--eval_pairs N] [--corpus_texts N]

Outputs, in --output_dir (UTF-8, "\\n" line ends, no header, no quoting):

    semantic_pair_train.tsv      source TAB target: two texts of one meaning, to train on
    semantic_similar_pair.tsv    source TAB target: the evaluation cases
    semantic_similar_pair.part   the kind of the evaluation case on the same line
    corpus_file                  one text a line, all different: the candidates the targets are searched among

Kinds of evaluation case. The meaning of a text is its intent plus its slot values (tables: sample_grammar.py):

    same_template      one template, never used with this meaning in training; other names for the slot values
    seen_template      training has the meaning and both templates, but never the source's template with this meaning
    new_template       source or target is said in a template that training never uses
    new_combination    training has each slot value with the intent, but never these values together with it

The texts of training and of evaluation are disjoint, and no text stands for two meanings. Same seed and sizes give
the same files.
"""

import itertools
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sample_grammar as grammar

import cli
from files import UserError, make_folder, whole_file

SAME, SEEN = "same_template", "seen_template"
NEW_TEMPLATE, NEW_COMBINATION = "new_template", "new_combination"
PART_SHARES = {SEEN: 0.15, SAME: 0.3, NEW_TEMPLATE: 0.35, NEW_COMBINATION: 0.2}

HELD_OUT_TEMPLATES = 0.3  # share of each intent's templates kept for evaluation
HELD_OUT_COMBINATIONS = 0.15  # share of each intent's slot combinations kept for evaluation
SECOND_TARGET = 0.15  # chance that an evaluation source gets a second target
REUSED_SOURCE = 0.3  # chance that a train pair starts from a text that training has already
SAME_TEMPLATE = 0.1  # chance that a train pair differs in names and wrappers only
SOURCE_IN_CORPUS = 0.05  # chance that an evaluation source also stands in the corpus
MAX_UNMARKED = 3  # corpus texts that mean what an evaluation case means without being its target
NEAR_MISSES = 5  # misleading corpus texts made from each text of an evaluation pair
TRAIN_SHARE = 0.4  # share of the corpus that may be texts of training
PLAIN_NAME = 0.55  # chance to name a slot value by its first name rather than by any of its names
VARIANT, TYPO, PREFIX, SUFFIX = 0.4, 0.08, 0.3, 0.25  # chances of the surface changes
POPULARITY_EXPONENT, POPULARITY_SHIFT = 2.0, 10  # how unevenly training has the intents; see popularity()
MAX_MISSES = 2000  # fruitless draws in a row after which the grammar counts as exhausted

BRAND = "brand"
SLOT = re.compile(r"\{(\w+)\}")
VARIANT_KEYS = re.compile("|".join(sorted(grammar.VARIANTS, key=len, reverse=True)))


@dataclass(frozen=True)
class Intent:
    """One thing a customer can want: how it is said in training and in evaluation only, and its slot values."""

    name: str
    domain: str
    slots: tuple[str, ...]
    seen_templates: tuple[str, ...]
    new_templates: tuple[str, ...]
    seen_values: tuple[tuple[str, ...], ...]
    new_values: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Meaning:
    """What a text means: an intent and a value (by its plain name) for each of the intent's slots."""

    intent: Intent = field(repr=False, compare=False)
    key: tuple[str, ...]  # intent name and values; the only part compared
    values: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A finished text, with what it was made from."""

    text: str
    meaning: Meaning
    template: str
    names: tuple[str, ...]


@dataclass
class EvalSet:
    """The evaluation cases, and what training and the corpus must know of them."""

    cases: list[tuple[Text, Text, str]] = field(default_factory=list)
    reserved: set[tuple[Meaning, str]] = field(default_factory=set)  # (meaning, template) pairs kept from training
    meanings: set[Meaning] = field(default_factory=set)


# --- grammar ---------------------------------------------------------------------------------------------------------


def slot_table(domain: grammar.Domain) -> dict[str, dict[str, tuple[str, ...]]]:
    """The slots a domain may use: slot -> plain name of a value -> all its names."""
    table = {}
    for slot, values in {**grammar.SHARED_SLOTS, **domain.slots, BRAND: domain.brands}.items():
        names = [tuple(value.split("/")) for value in values.split()]
        table[slot] = {ways[0]: ways for ways in names}
    return table


def add_brand(domain: grammar.Domain, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The templates of an intent, with the brand before the slot when it is the only one and the domain's own."""
    slots = set(SLOT.findall("".join(templates)))
    if len(slots) != 1 or not slots <= domain.slots.keys():
        return templates
    return tuple(SLOT.sub(rf"{{{BRAND}}}的{{\1}}", template, count=1) for template in templates)


def split(rng: random.Random, items: list, share: float) -> tuple[tuple, tuple]:
    """Split items at random into (kept, held out); rounding is random too, so short lists keep the share on average."""
    items = rng.sample(items, len(items))
    if share == 0:
        return tuple(items), ()
    held = min(int(len(items) * share + rng.random()), len(items) * 2 // 5)  # training must keep most of a short list
    return tuple(items[held:]), tuple(items[:held])


def load_intents(rng: random.Random, tables: dict[str, dict]) -> list[Intent]:
    """Read the grammar, and set apart the templates and slot combinations that only evaluation may use."""
    intents = []
    for domain, content in grammar.DOMAINS.items():
        for name, templates in content.intents.items():
            templates = add_brand(content, templates)
            slots = tuple(sorted(SLOT.findall(templates[0])))
            if any(tuple(sorted(SLOT.findall(template))) != slots for template in templates):
                raise UserError(f"grammar: the templates of {domain}.{name} name different slots")
            values = list(itertools.product(*(tables[domain][slot] for slot in slots)))
            # A value alone is no combination: held out, it would be a word that training never has with the intent.
            share = HELD_OUT_COMBINATIONS if len(slots) > 1 else 0.0
            intents.append(Intent(f"{domain}.{name}", domain, slots, *split(rng, list(templates), HELD_OUT_TEMPLATES),
                                  *split(rng, values, share)))
    return intents


class MeaningDrawer:
    """Draws meanings at random, intents with more slot combinations more often but not in proportion."""

    def __init__(self, rng: random.Random, intents: list[Intent], held_out: bool = False,
                 popularity: dict[str, float] | None = None) -> None:
        self.rng = rng
        self.pools = [(intent, intent.new_values if held_out else intent.seen_values) for intent in intents]
        self.pools = [pool for pool in self.pools if pool[1]]
        # The square root keeps "city x day x room" from drowning the intents with a single slot.
        weights = (math.sqrt(len(values)) * (popularity[intent.name] if popularity else 1.0)
                   for intent, values in self.pools)
        self.weights = list(itertools.accumulate(weights))

    def draw(self) -> Meaning:
        """One meaning, drawn with replacement."""
        intent, values = self.rng.choices(self.pools, cum_weights=self.weights)[0]
        return make_meaning(intent, self.rng.choice(values))


def make_meaning(intent: Intent, values: tuple[str, ...]) -> Meaning:
    """The meaning of an intent with these slot values."""
    return Meaning(intent, (intent.name, *values), values)


# --- texts -----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes texts, and keeps the record of which text stands for which meaning."""

    def __init__(self, rng: random.Random, tables: dict[str, dict]) -> None:
        self.rng = rng
        self.tables = tables
        self.owners: dict[str, Meaning] = {}

    def claim(self, text: str, meaning: Meaning) -> bool:
        """Whether the text may stand for the meaning: the first meaning a text stands for is its only one."""
        return self.owners.setdefault(text, meaning) == meaning

    def write(self, meaning: Meaning, template: str, names: tuple[str, ...] = ()) -> Text | None:
        """One way of saying the meaning by the template; None when it already stands for another meaning."""
        names = names or tuple(self._name(meaning, i) for i in range(len(meaning.values)))
        by_slot = dict(zip(meaning.intent.slots, names))
        pieces = SLOT.split(VARIANT_KEYS.sub(self._variant, template))  # words and slot names in turn
        if self.rng.random() < TYPO:
            place = self.rng.randrange(0, len(pieces), 2)  # never in a slot: a wrong name could be another value
            pieces[place] = self._mistype(pieces[place])
        core = "".join(by_slot[piece] if i % 2 else piece for i, piece in enumerate(pieces))
        text = self._wrap(core)
        return Text(text, meaning, template, names) if self.claim(text, meaning) else None

    def _name(self, meaning: Meaning, i: int) -> str:
        value = meaning.values[i]
        names = self.tables[meaning.intent.domain][meaning.intent.slots[i]][value]
        return value if self.rng.random() < PLAIN_NAME else self.rng.choice(names)

    def _variant(self, match: re.Match) -> str:
        word = match.group()
        return self.rng.choice(grammar.VARIANTS[word]) if self.rng.random() < VARIANT else word

    def _mistype(self, words: str) -> str:
        """Type a character wrong, twice, not at all, or after its neighbour."""
        kind = self.rng.choice(("homophone", "homophone", "double", "drop", "swap"))
        allowed = {"homophone": grammar.HOMOPHONES, "drop": grammar.DROPPABLE}.get(kind, words)
        places = [i for i, char in enumerate(words) if char in allowed and char not in grammar.KEEP_IN_PLACE]
        if not places:
            return words
        i = self.rng.choice(places)
        if kind == "swap":
            if words[i + 1:i + 2] in grammar.KEEP_IN_PLACE:  # also at the end, where nothing follows
                return words
            return words[:i] + words[i:i + 2][::-1] + words[i + 2:]
        new = {"homophone": grammar.HOMOPHONES.get(words[i], ""), "double": words[i] * 2, "drop": ""}[kind]
        return words[:i] + new + words[i + 1:]

    def _wrap(self, core: str) -> str:
        """Add the politeness and the particles that suit the text."""
        question = any(word in core for word in grammar.QUESTION_WORDS)
        if self.rng.random() < PREFIX:
            asking = question and not core.startswith(grammar.REQUEST_OPENINGS)
            core = self.rng.choice(grammar.ASKING_PREFIXES if asking else grammar.GREETINGS) + core
        if self.rng.random() < SUFFIX:
            open_ended = question and not core.endswith(grammar.CLOSED_ENDINGS)
            core += self.rng.choice(grammar.QUESTION_SUFFIXES if open_ended else grammar.SUFFIXES)
        return core


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
    tables = {name: slot_table(domain) for name, domain in grammar.DOMAINS.items()}
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
