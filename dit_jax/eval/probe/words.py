"""Probes: what is done to the words of an expression, and which of them say what."""

import re
from dataclasses import dataclass

import numpy as np

from dit_jax.eval.relations import relation_classes

# Words that name nothing that could be looked for.
FUNCTION = re.compile(
    r"an?|the|of|on|in|at|to|from|for|with|and|or|as|by|up|off|out|over|into|only|just|very"
    r"|that|this|which|who|whose|is|are|was|be|being|has|have|had|there|can|see"
    r"|its?|h(?:is|er|im)|s?he|the(?:y|ir|m)|we|our|us|you|your|me|my|i|s"
    r"|ones?|things?|objects?|items?|parts?|pictures?|photos?|images?|sides?|corners?|edges?|ends?"
)
# Words that may all mean the same person.
PERSON = re.compile(
    r"(?:gentle|wo)?m[ae]n|guys?|girls?|boys?|lad(?:y|ies)|dudes?|chicks?|kids?"
    r"|child(?:ren)?|persons?|people|(?:fe)?males?|players?|adults?|teens?|some(?:one|body)|humans?"
    r"|m[ou]m(?:my)?|mother|dad(?:dy)?|father|bab(?:e|y|ies)|couple|family|crowd"
)


@dataclass(frozen=True)
class Shortened:
    """A text without one of its words, and what kind of word that was."""

    text: str
    dropped: tuple[str, ...]  # relation classes that went with it, else "function" or "other"


def shuffled(text: str, *, rng: np.random.Generator) -> str | None:
    """The same words in another order; None where they have no other order."""
    words = text.split()
    if len({word.lower() for word in words}) < 2:
        return None
    while True:
        order = [words[i] for i in rng.permutation(len(words))]
        if [word.lower() for word in order] != [word.lower() for word in words]:
            return " ".join(order)


def shortened(text: str, *, rng: np.random.Generator) -> Shortened | None:
    """The text without a word drawn at random; None where nothing would be left."""
    words = text.split()
    rests = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    places = [i for i, rest in enumerate(rests) if plain_words(rest)]
    if not places:
        return None
    place = places[int(rng.integers(len(places)))]
    lost = set(relation_classes(text)) - set(relation_classes(rests[place])) - {"none"}
    if lost:
        return Shortened(rests[place], tuple(sorted(lost)))
    function = all(FUNCTION.fullmatch(word) for word in plain_words(words[place]))
    return Shortened(rests[place], ("function" if function else "other",))


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def content_words(text: str) -> frozenset[str]:
    """Words that name objects and colours, in a common form: no plurals, every person a "person".

    Left out are places, sizes and other relations, which fit something in almost any picture.
    """
    words = (_common(word) for word in plain_words(text) if not FUNCTION.fullmatch(word))
    return frozenset(word for word in words if set(relation_classes(word)) <= {"colour", "none"})


def names_something(text: str) -> bool:
    """Whether the words say what to look for in two ways, not only by colours: "white bus"."""
    words = content_words(text)
    return len(words) > 1 and any(relation_classes(word) == ("none",) for word in words)


def _common(word: str) -> str:
    if PERSON.fullmatch(word):
        return "person"
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word
