"""Meanings of the sample data, and the texts that say them: the grammar's tables put to work.

A meaning is an intent and a value for each of its slots. A text is one way of saying a meaning: a template of the
intent, names for the values, and the surface changes of real questions (synonyms, politeness, typing errors).
"""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import dataclass, field

import sample_grammar as grammar

from files import UserError

HELD_OUT_TEMPLATES = 0.3  # share of each intent's templates kept for evaluation
HELD_OUT_COMBINATIONS = 0.15  # share of each intent's slot combinations kept for evaluation
PLAIN_NAME = 0.55  # chance to name a slot value by its first name rather than by any of its names
VARIANT, TYPO, PREFIX, SUFFIX = 0.4, 0.08, 0.3, 0.25  # chances of the surface changes

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


# --- grammar ---------------------------------------------------------------------------------------------------------


def slot_tables() -> dict[str, dict[str, dict[str, tuple[str, ...]]]]:
    """The slot table of each domain."""
    return {name: slot_table(domain) for name, domain in grammar.DOMAINS.items()}


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
