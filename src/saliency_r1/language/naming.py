"""Plain English names for WordNet synsets: the words a viewer would use, few enough to learn.

A synset is called by its own name where enough training pictures carry it and the name is plain English;
otherwise by the nearest hypernym that is. Two tables say what is plain: `_PLAIN` renames lemmas whose WordNet
name a viewer would not use or which, in salient object data, show more than the name says (the mask of a
`maillot` is the person in it); `_BASIC` lists the hypernyms that serve as names. Abstract hypernyms (entity,
artifact, instrumentality) are in neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from saliency_r1.data.samples import Sample, Synset
from saliency_r1.language.statements import parse_statements

OBJECT = "object"


def words_in(text: str) -> frozenset[str]:
    """The words or phrases between the commas of a text."""
    return frozenset(text.split(","))


_PLAIN = {
    "American lobster": "lobster",
    "Band Aid": "bandage",
    "Granny Smith": "apple",
    "Model T": "old car",
    "baby bed": "crib",
    "balance beam": "gymnast",
    "ballplayer": "baseball player",
    "basketball": "basketball player",
    "bathing cap": "person in a bathing cap",
    "beach wagon": "car",
    "bullet train": "train",
    "coffee mug": "mug",
    "computer keyboard": "keyboard",
    "concert": "person",
    "convertible": "car",
    "court": "baseball player",
    "cowboy hat": "person in a hat",
    "crash helmet": "person in a helmet",
    "cream": "person",
    "crutch": "person",
    "diaper": "baby in a diaper",
    "digital clock": "clock",
    "display": "screen",
    "electric fan": "fan",
    "face powder": "box of face powder",
    "file": "file cabinet",
    "flute": "person with a flute",
    "garage": "car",
    "groom": "person",
    "guacamole": "dish of guacamole",
    "hair spray": "can of hair spray",
    "hand blower": "hair dryer",
    "head cabbage": "cabbage",
    "horizontal bar": "gymnast",
    "hotdog": "hot dog",
    "iPod": "ipod",
    "ice lolly": "popsicle",
    "intersection": OBJECT,
    "bus stop": OBJECT,
    "jinrikisha": "rickshaw",
    "liner": "ship",
    "lotion": "bottle of lotion",
    "maillot": "person in a swimsuit",
    "maraca": "person",
    "menagerie": "animal",
    "milk can": "can",
    "miniskirt": "person in a skirt",
    "minivan": "van",
    "mixing bowl": "bowl",
    "moped": "motorcycle",
    "mountain bike": "bicycle",
    "neck brace": "person",
    "notebook": "laptop",
    "park bench": "bench",
    "pencil box": "pencil case",
    "perfume": "bottle of perfume",
    "polo": "person",
    "racer": "race car",
    "racket": "person with a racket",
    "rubber eraser": "eraser",
    "rule": "ruler",
    "sax": "saxophone",
    "soup bowl": "bowl",
    "studio couch": "sofa",
    "sunglasses": "pair of sunglasses",
    "sunscreen": "person",
    "swimming trunks": "person in swimming trunks",
    "tape player": "stereo",
    "throne": "chair",
    "unicycle": "person on a unicycle",
    "upright": "piano",
    "vacuum": "vacuum cleaner",
    "vessel": "ship",
    "volleyball": "volleyball player",
    "washer": "washing machine",
    "wreck": "ship",
}

# What a viewer calls anything below it: a beagle is a dog, a bullfrog a frog.
_LEVEL = words_in(
    "bear,bird,butterfly,cat,cow,crab,dog,duck,elephant,fish,fox,frog,lizard,lobster,monkey,pig,rabbit,"
    "seal,sheep,snake,spider,turtle,whale"
)
# WordNet lemma of a hypernym: the name it gives.
_BASIC = {
    **{
        word: word
        for word in words_in(
            "animal,apple,bag,ball,bear,beetle,bench,bicycle,bird,boat,bottle,bowl,box,"
            "building,bus,butterfly,cabbage,can,car,cart,cat,chair,clock,computer,cow,crab,"
            "dessert,dish,dog,drum,duck,elephant,fan,fish,flower,fox,frog,fruit,guitar,"
            "hamburger,hat,helmet,horse,insect,lamp,lizard,lobster,machine,monkey,motorcycle,mug,"
            "person,piano,plant,rabbit,sandwich,seal,sheep,ship,snake,sofa,spider,table,"
            "telephone,tool,train,tree,truck,turtle,van,vegetable,vehicle,whale"
        )
    },
    "appliance": "appliance",
    "baby bed": "crib",
    "cattle": "cow",
    "domestic cat": "cat",
    "drinking vessel": "cup",
    "edible fruit": "fruit",
    "leporid": "rabbit",
    "motor vehicle": "vehicle",
    "musical instrument": "instrument",
    "swine": "pig",
}

_SYNONYMS = {
    "bicycle": "bike",
    "bottle of lotion": "lotion bottle",
    "bottle of perfume": "perfume bottle",
    "bus": "coach",
    "can of hair spray": "spray can",
    "crib": "cot",
    "cup": "mug",
    "hamburger": "burger",
    "eraser": "rubber eraser",
    "file cabinet": "filing cabinet",
    "laptop": "laptop computer",
    "limousine": "limo",
    "monitor": "screen",
    "mug": "cup",
    "pair of sunglasses": "pair of dark glasses",
    "popsicle": "ice lolly",
    "remote control": "remote",
    "ship": "vessel",
    "sofa": "couch",
    "stereo": "tape player",
    "stove": "heater",
    "van": "minivan",
}
# Where the nearest hypernym of WordNet is not what is seen.
_GENERAL = {
    "bottle of lotion": "bottle",
    "bottle of perfume": "bottle",
    "box of face powder": "box",
    "can of hair spray": "can",
    "dish of guacamole": "dish",
    "ladybug": "insect",
    "punching bag": "bag",
    "van": "vehicle",
}
# Lemmas that few would use, or that mean something else to most.
_ODD = words_in(
    "ananas,auto,autobus,beigel,blower,board,bullet,coney,cuke,domestic dog,essence,ewer,"
    "frypan,harp,icebox,landrover,lip rouge,lolly,machine,membranophone,mini,monocycle,"
    "mouth harp,napkin,nappy,ophidian,pizza pie,red hot,rubber,serpent,shades,toad,toad frog,"
    "transverse flute,tympan"
)
_PEOPLE = frozenset(
    {"person", "baby", "gymnast", "baseball player", "basketball player", "volleyball player"}
)
_HARD_U = ("uni", "use", "eu")


class NameBook:
    """The names to use for synsets, by how many training pictures carry each.

    Args:
        counts: pictures of each synset.
        minimum: how many pictures a name should have; a synset with fewer takes the name of a hypernym with
            enough, where there is one.

    Attributes:
        synsets: those of the pictures.

    Example:
        >>> book = NameBook({Synset("n1", "beagle", (), ("hound", "dog", "animal")): 9})
        >>> book.name(Synset("n2", "pug", (), ("dog", "animal")))
        'dog'
    """

    def __init__(self, counts: Mapping[Synset, int], minimum: int = 8) -> None:
        self.minimum = minimum
        self.synsets = tuple(counts)
        self._support: Counter[str] = Counter()
        for synset, pictures in counts.items():
            for name in set(_chain(synset)):
                self._support[name] += pictures

    @classmethod
    def from_samples(cls, samples: Iterable[Sample], minimum: int = 8) -> NameBook:
        """The book of a training set."""
        return cls(Counter(sample.synset for sample in samples if sample.synset is not None), minimum)

    def chain(self, synset: Synset) -> tuple[str, ...]:
        """Plain words for a synset, the narrowest first."""
        return tuple(_chain(synset))

    def name(self, synset: Synset) -> str:
        """The plain, lower-case, countable name; `object` if there is none."""
        chain = _chain(synset)
        for name in chain:
            if self._support[name] >= self.minimum:
                return name
        return chain[0] if chain else OBJECT

    def of_category(self, *names: str) -> tuple[str, ...]:
        """Plain words for a category that goes by these names, the narrowest first."""
        return names[:1]

    def rewordings(self, synset: Synset) -> tuple[str | None, str | None, str]:
        """Other words for the same thing: a synonym, a hypernym (either may be None), and plain `object`."""
        name = self.name(synset)
        synonym = _SYNONYMS.get(name)
        if synonym is None and name == synset.name:
            synonym = next(
                (word for word in synset.synonyms if _is_plain(word) and not _same(word, name)), None
            )
        general = [_GENERAL[name]] if name in _GENERAL else []
        general += ["person"] if is_person(name) else []
        general += [word for word in _chain(synset) if self._support[word] >= self.minimum]
        hypernym = next((word for word in general if word not in (name, synonym, OBJECT)), None)
        return synonym, hypernym, OBJECT

    def vocabulary(self, synsets: Iterable[Synset]) -> Counter[str]:
        """The number of synsets that go by each name."""
        return Counter(self.name(synset) for synset in synsets)


def subject_of(name: str) -> str:
    """The name without what is worn, held or contained: `person` of "person in a hat"."""
    for link in (" in ", " with ", " on "):
        name = name.split(link)[0]
    return name


def is_person(name: str) -> bool:
    """Whether a name is that of a human being, whose clothes have colours rather than they."""
    return subject_of(name) in _PEOPLE


def with_article(words: str) -> str:
    """The words with `a` or `an` before them."""
    vowel = words[:1].lower() in "aeiou" and not words.lower().startswith(_HARD_U)
    return f"{'an' if vowel else 'a'} {words}"


def plain_chain(synset: Synset) -> list[str]:
    """The synset's own plain name, if it has one, and "person" where that is one's."""
    own = _plain(synset.name)
    if own is None:
        return []
    return list(dict.fromkeys([own, "person"] if is_person(own) else [own]))


def _chain(synset: Synset) -> list[str]:
    """Names that fit, the nearest first: the synset's own, then those of its hypernyms in `_BASIC`."""
    own = _plain(synset.name)
    below = [name for name in (_BASIC.get(hypernym) for hypernym in synset.hypernyms) if name in _LEVEL]
    names = [own] if own and not below else []
    # What somebody wears or holds is no hypernym of the person.
    if own and (is_person(own) or own == OBJECT):
        return list(dict.fromkeys([own, "person"] if is_person(own) else [OBJECT]))
    for hypernym in synset.hypernyms:
        if hypernym in _BASIC:
            names.append(_BASIC[hypernym])
    return list(dict.fromkeys(names))


def _plain(lemma: str) -> str | None:
    """The plain name of a lemma; None for one that is technical, Latin, or a proper name."""
    renamed = _PLAIN.get(lemma) or _BASIC.get(lemma)
    if renamed:
        return renamed
    return lemma if _is_plain(lemma) else None


def _same(word: str, other: str) -> bool:
    """Whether two spellings differ in hyphens and spaces only."""
    return word.replace("-", "").replace(" ", "") == other.replace("-", "").replace(" ", "")


def _is_plain(word: str) -> bool:
    """Lower case, at most two words, letters alone, and no cue in it ("brown bear", "small boat")."""
    if word in _ODD or word != word.lower() or len(word.split()) > 2:
        return False
    if not all(part.isalpha() for part in word.replace("-", " ").split()):
        return False
    return not parse_statements(f"the {word} is")
