"""The plain words for synsets and categories, from narrow to wide, and texts that are written with them.

Which hypernyms serve as words is a table of ours, `_KINDS`; the narrowest word is that of `naming.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from saliency_r1.data.samples import Synset
from saliency_r1.language.naming import OBJECT, NameBook, plain_chain, words_in
from saliency_r1.nano.name_tree import NameTree

_KINDS = {
    lemma: lemma
    for lemma in words_in(
        "terrier,hound,spaniel,retriever,setter,poodle,corgi,schnauzer,dog,wolf,fox,big cat,cat,bear,"
        "monkey,ape,lemur,elephant,rabbit,sheep,antelope,rodent,whale,seal,animal,parrot,owl,eagle,finch,"
        "heron,stork,duck,goose,grouse,bird,snake,lizard,turtle,frog,salamander,crocodile,shark,ray,fish,"
        "spider,scorpion,beetle,butterfly,insect,crab,lobster,snail,worm,person,truck,bus,van,car,train,"
        "cart,wagon,bicycle,sled,boat,ship,aircraft,vehicle,guitar,piano,drum,bottle,jar,glass,cup,mug,"
        "bowl,box,basket,bag,pot,pan,plate,lamp,clock,watch,chair,table,sofa,cabinet,furniture,hat,helmet,"
        "cap,shoe,skirt,coat,dress,swimsuit,clothing,ball,toy,knife,gun,weapon,tool,hammer,pen,camera,"
        "computer,keyboard,telephone,screen,oven,building,house,tower,bridge,fence,tent,flower,plant,"
        "mushroom,tree,fruit,apple,squash,vegetable,bread,dessert,sandwich,dish,food,drink,towel,mask,bell,"
        "wheel,umbrella,tank,machine,appliance,container,cow"
    )
} | {
    "domestic cat": "cat",
    "cattle": "cow",
    "bovine": "cow",
    "swine": "pig",
    "leporid": "rabbit",
    "anthropoid ape": "ape",
    "crocodilian reptile": "crocodile",
    "gastropod": "snail",
    "gallinaceous bird": "bird",
    "equine": "horse",
    "musical instrument": "instrument",
    "footwear": "shoe",
    "garment": "clothing",
    "motor vehicle": "vehicle",
    "conveyance": "vehicle",
    "craft": "vehicle",
    "edible fruit": "fruit",
    "beverage": "drink",
    "edge tool": "tool",
    "plaything": "toy",
    "timepiece": "clock",
    "headdress": "hat",
    "fungus": "mushroom",
    "foodstuff": "food",
    "nutriment": "food",
    "baked goods": "food",
    "course": "food",
    "home appliance": "appliance",
    "drinking vessel": "cup",
    "baby bed": "bed",
    "vascular plant": "plant",
    "handcart": "cart",
    "implement": "tool",
    "establishment": "building",
    "public transport": "vehicle",
}
_ABOVE = {"n07930864": ("drinking vessel", "container")}
"""Hypernyms in place of WordNet's: this "cup" is a punch there, but the photos that carry it show cups."""
MOST_WORDS = 3
"""In a name; longer ones are left to their hypernyms."""


def tree_of(
    synsets: Iterable[Synset], categories: Iterable[tuple[Sequence[str], Sequence[str]]] = ()
) -> NameTree:
    """The tree of synsets and categories.

    Args:
        synsets: each once; the order is that of the classes.
        categories: the names of a thing, the first of which it is known by, and its hypernyms. Each
            becomes a class beside those that its name can be said of, for what is none of them.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for synset in synsets:
        chain = words_of(synset)
        if chain:
            classes[synset.id] = chain
    for names, above in categories:
        known = ((name, chain) for name in names for chain in classes.values() if name in chain)
        name, chain = next(known, (names[0], (names[0], *above)))
        classes.setdefault(names[0], chain[chain.index(name) :])
    return NameTree(tuple(classes), tuple(classes.values()))


def words_of(synset: Synset) -> tuple[str, ...]:
    """The plain words for a synset, the narrowest first; none if it has none.

    Example:
        >>> words_of(Synset("n1", "pug", (), ("dog", "canine", "mammal", "animal")))
        ('pug', 'dog', 'animal')
        >>> words_of(Synset("n07930864", "cup", (), ("punch", "mixed drink", "alcohol", "beverage", "food")))
        ('cup', 'container')
    """
    own = plain_chain(synset)
    above = [] if "person" in own or OBJECT in own else _ABOVE.get(synset.id, synset.hypernyms)
    words = [*own, *(_KINDS[lemma] for lemma in above if lemma in _KINDS)]
    return tuple(dict.fromkeys(word for word in words if word != OBJECT and len(word.split()) <= MOST_WORDS))


class TreeNames(NameBook):
    """The names of a tree for synsets and categories, in the form in which texts are written with them.

    Args:
        tree: its narrowest word for a thing is the name, the next one the hypernym.
    """

    def __init__(self, tree: NameTree) -> None:
        super().__init__({}, minimum=1)
        self.tree = tree

    def chain(self, synset: Synset) -> tuple[str, ...]:
        """The words for a synset, the narrowest first; those of the tree alone."""
        if synset.id in self.tree.number:
            return self.tree.chains[self.tree.number[synset.id]]
        return tuple(word for word in words_of(synset) if word in self.tree.below)

    def of_category(self, *names: str) -> tuple[str, ...]:
        """The words for a category that goes by these names."""
        for name in names:
            if name in self.tree.number:
                return self.tree.chains[self.tree.number[name]]
            if name in self.tree.below:
                chain = self.tree.chains[self.tree.below[name][0]]
                return chain[chain.index(name) :]
        return ()

    def name(self, synset: Synset) -> str:
        return next(iter(self.chain(synset)), OBJECT)

    def rewordings(self, synset: Synset) -> tuple[str | None, str | None, str]:
        chain = self.chain(synset)
        return None, chain[1] if len(chain) > 1 else None, OBJECT
