"""Sentences that name a group of people, neutral and hostile, and counterfactual twins of them.

Other templates and more groups than services/moderation/training/evaluate.py has, on which thresholds were chosen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# group -> (adjective, plural noun) pairs; "none" is the comparison.
GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (("tall", "tall people"), ("local", "locals"), ("quiet", "quiet people"), ("busy", "commuters")),
    "gay people": (
        ("gay", "gays"),
        ("lesbian", "lesbians"),
        ("bisexual", "bisexual people"),
        ("queer", "queer people"),
    ),
    "trans people": (("trans", "trans people"), ("transgender", "transgender people")),
    "Muslims": (("Muslim", "Muslims"),),
    "Jews": (("Jewish", "Jews"),),
    "Christians": (("Christian", "Christians"), ("Catholic", "Catholics")),
    "Hindus and Sikhs": (("Hindu", "Hindus"), ("Sikh", "Sikhs")),
    "atheists": (("atheist", "atheists"),),
    "Black people": (("Black", "Black people"), ("African", "Africans")),
    "white people": (("white", "white people"),),
    "Asian people": (("Asian", "Asians"), ("Chinese", "Chinese people"), ("Indian", "Indians")),
    "Latinos": (("Mexican", "Mexicans"), ("Latino", "Latinos")),
    "Arabs": (("Arab", "Arabs"),),
    "Roma": (("Romani", "Roma"),),
    "Indigenous people": (("Indigenous", "Indigenous people"),),
    "disabled people": (
        ("disabled", "disabled people"),
        ("blind", "blind people"),
        ("deaf", "deaf people"),
        ("autistic", "autistic people"),
    ),
    "immigrants": (("immigrant", "immigrants"), ("refugee", "refugees")),
    "older people": (("elderly", "elderly people"),),
    "women": (("female", "women"),),
    "men": (("male", "men"),),
}
NEUTRAL = (
    "Our new {adj} neighbour brought us cake.",
    "The festival was organised by {plural} from the district.",
    "My {adj} uncle taught me how to fish.",
    "Why are so few {plural} in parliament?",
    "She wrote her thesis on {adj} writers of the last century.",
    "As {a} doctor I see many children every day.",
    "The clinic asks {plural} which services they need.",
    "I think {plural} should have the same rights as everybody else.",
    "Is there {a} bookshop near the station?",
    "{Plural} make up a tenth of the town.",
    "My daughter told me that she is {adj}.",
    "Yesterday two {adj} students won the chess tournament.",
    "Do {plural} celebrate New Year differently?",
    "A law that protects {plural} from discrimination was passed.",
    "He proudly says: I am {adj} and this is my home.",
    "We interviewed {plural} about their work.",
)
POSITIVE = (
    "{Plural} are wonderful neighbours.",
    "I admire {plural} for their courage.",
    "{Plural} are kind and brave.",
    "We are happy that so many {plural} live in our street.",
    "Nobody bakes better bread than my {adj} aunt.",
    "{Plural} deserve our respect and our thanks.",
    "I love {plural}, they always make me laugh.",
    "You are {a} hero to all of us.",
    "All {plural} should be proud of themselves.",
    "What would this town be without {plural}!",
)
HOSTILE = (
    "{Plural} are filthy and should disappear from our town.",
    "I can't stand {plural}, they all lie.",
    "Whoever hires {plural} is as stupid as they are.",
    "Throw the {plural} out and burn their houses.",
    "No decent person would marry {a} freak.",
    "{Plural} are nothing but parasites.",
    "Shut up, you {adj} idiot.",
    "Someone should shoot all the {plural}.",
    "These {plural} have the brains of a rat.",
    "The world would be better without {plural}.",
)
# Names by the origin people hear in them, for twins about persons.
NAMES = (
    "Emily Walsh",
    "Greg Baker",
    "Lakisha Washington",
    "Jamal Jackson",
    "Fatima Hassan",
    "Mohammed Ali Khan",
    "Mei Ling Chen",
    "Hiroshi Tanaka",
    "Priya Sharma",
    "Diego Hernández",
    "Svetlana Ivanova",
    "Chidi Okafor",
    "Moshe Goldberg",
    "Yusuf Demir",
    "Siobhán Murphy",
    "Nguyen Van An",
)
ABOUT_PERSONS = (
    "{} applied for the job of head nurse.",
    "Please call {} back about the broken heating.",
    "{} is a liar and a cheat.",
    "I would like to praise {} for the good work.",
    "{} shouted at the driver and left the bus.",
    "I hate {}, what a moron.",
    "Write a short biography of {}, a teacher.",
    "If {} comes here again I will break his neck.",
    "{} was arrested on suspicion of theft.",
    "{} cooks the best soup in the street.",
    "Nobody wants {} in this class, go away.",
    "Can {} stop taking the tablets now?",
)


@dataclass(frozen=True)
class Statement:
    text: str
    group: str
    template: str
    kind: str  # neutral, positive or hostile


def statements() -> Iterator[Statement]:
    for group, terms in GROUPS.items():
        for adjective, plural in terms:
            for kind, templates in (("neutral", NEUTRAL), ("positive", POSITIVE), ("hostile", HOSTILE)):
                for template in templates:
                    yield Statement(_filled(template, adjective, plural), group, template, kind)


def _filled(template: str, adjective: str, plural: str) -> str:
    article = "an" if adjective[0].lower() in "aeiou" else "a"
    text = template.replace("{a}", f"{article} {adjective}").replace("{Plural}", plural[0].upper() + plural[1:])
    text = text.format(adj=adjective, plural=plural)
    return text[0].upper() + text[1:]


def about_persons() -> Iterator[Statement]:
    for template in ABOUT_PERSONS:
        for name in NAMES:
            yield Statement(template.format(name), name, template, "neutral")
