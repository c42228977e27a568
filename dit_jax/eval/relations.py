"""Which relations an expression uses to single out its object: side, depth, order, colour, …

One table of words, as regular expressions. An expression belongs to every class that one of its
words is in, or to "none". The words are those that people wrote in the 66,993 sentences of RefCOCO,
RefCOCO+ and RefCOCOg (val and test), with compounds ("leftmost", "infront") but not typing errors.

Words cannot tell everything: "orange" is a colour here even where the fruit is meant, unless juice
or slices follow, and a "top" that somebody wears is told apart only where it is a tank top.
"""

import re

from dit_jax.data.pixels import SIDE

# What stands in front of every picture: "closest to us" is depth, "closest to the wall" is not.
_US = r"(?:the |our )?(?:us|you|me|u|viewers?|cam(?:era)?(?:man)?|photographer|fore?ground|front)"

# class → whole words that put an expression into it
_WORDS: dict[str, tuple[str, ...]] = {
    "side": (SIDE.pattern, "[lr]hs"),
    "vertical": (
        r"(?<!tank )top(?:most|left|right|center)?",
        r"bottom(?:most|left|right|center)?",
        r"upper(?:most)?|lower|lowest|higher|highest",
        r"above|below|under(?:neath)?|beneath|atop|ontop",
    ),
    "depth": (
        r"front(?:most|left|right)?|infront|upfront|forefront|foremost|foreground|behind",
        # "with his back to us" is a pose
        r"(?<!his )(?<!her )(?<!its )back(?:most|left|right)?(?! to\b| turned| towards?)",
        r"background|rear(?:most)?|distan(?:t|ce)",
        r"far(?! (?:left|right|top|bottom))|(?:far|fur)the(?:r|st)",
        r"(?:clos|near)e(?:r|st)(?! (?:the|to)\b)",
        rf"(?:close(?:r|st)?|near(?:er|est)?) (?:to )?{_US}",
    ),
    "order": (
        r"(?:first|second|third)(?! base)|fourth|fifth|sixth|1st|2nd|3rd|[4-9]th|last",
        r"middle|mid|cent(?:er|re)(?:most)?",
        r"(?:one|two|three|four|[1-9]) (?:in |over )?from",
    ),
    "size": (
        r"big(?:ger|gest)?|small(?:er|est)?|large(?:r|st)?|tall(?:er|est)?|thick(?:er|est)",
        r"(?:short|long|wid|littl|thinn|fatt|skinni)e(?:r|st)",
        r"tiny|huge|giant|medium|size[ds]?",
    ),
    "colour": (
        r"(?:black|blue?|brown|gr[ae]y|green|pink|purple|red|silver|white|yellow)(?:ish|er|est)?",
        r"reddish|blk|dark(?:er|est)?|lightest|blonde?|gold(?:en)?|tan|beige|khaki",
        r"maroon|burgundy|teal|navy|turquoise|lavender|violet|orange(?! juice| slice)",
        r"\w*colou?r(?:ed|ful)?",
    ),
    "near": (
        r"(?:in ?)?between|next|beside|alongside|adjacent|among(?:st)?|against|opposite|touching",
        r"nearby|across from|side by side|surrounded",
        # "parked by a door" is a place, "ridden by a man" and "by itself" are not
        r"(?:(?<!ed )(?<!en )(?<!held )(?<!worn )(?<!rode )|(?<=parked )|(?<=seated ))by"
        r"(?! (?:it|him|her|them)sel)",
        rf"(?:close(?:r|st)?|near(?:er|est)?) to(?! {_US}\b)",
        rf"near(?! to\b)(?! {_US}\b)|nearest(?= the\b)(?! {_US}\b)",
    ),
    "negation": (
        r"not|no(?! ?\d)|without|never|none|nothing|nobody|neither|nor|except|w/o",
        r"(?:ca|do|does|did|is|are|was|has|have)n(?: ?' ?)?t",
    ),
}

RELATIONS: dict[str, re.Pattern] = {
    name: re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE) for name, words in _WORDS.items()
}
CLASSES = (*RELATIONS, "none")


def relation_classes(text: str) -> tuple[str, ...]:
    """The classes of an expression, in the table's order; ("none",) where it has no such word."""
    found = tuple(name for name, pattern in RELATIONS.items() if pattern.search(text))
    return found or ("none",)
