"""Street addresses as several countries write them, with unit, post code and town where they follow.

Number first (English, French) and street first (German, Dutch, Italian, Spanish, Polish). A word for a street, a post code
or a state has to be there: "12 Angry Men" is none.
"""

from .recognizer import Pattern, Recognizer

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿ"
# A full stop only behind an abbreviation ("St. James"), so that no name runs into the next sentence.
_NAME = rf"(?:[{_UPPER}][{_LOWER}]{{0,3}}\.(?=[ ])|[{_UPPER}][{_UPPER}{_LOWER}0-9'’\-]{{0,24}})"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Parkway|Pkwy|Highway|Hwy"
    r"|Circle|Cir|Crescent|Cres|Close|Row|Alley|Trail|Trl|Plaza|Gardens|Grove|Mews|Walk|Hill|Quay|Parade|Pde|Esplanade|Loop|Path|Pike|Run|Turnpike"
    r"|Expressway|Freeway|Broadway|Nagar|Marg|Chowk|Salai|Path|Layout|Colony|Enclave|Vihar|Bagh|Jalan|Jln|Lorong|Crossing|Point|Bend|Cove|Ridge"
    r"|street|road|avenue|lane|boulevard|drive)\b(?:(?<=St|Av|Rd|Ln|Dr|Ct|Pl|Sq)\.|(?<=Ave|Ter|Hwy|Cir)\.|(?<=Blvd|Pkwy)\.)?"
)
_DIRECTION = r"(?:[NSEW]\.?|N[EW]|S[EW]|North|South|East|West)"
_UNIT_WORD = r"(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Flat|Room|Rm|Bldg|Building|Block|Blk|Lot|Level|Shop|Office)"
_UNIT = rf"(?:,?[ ](?:{_UNIT_WORD}\.?[ ]?\#?[0-9A-Z\-]{{1,6}}|\#[ ]?[0-9]{{1,5}}(?:-[0-9]{{1,5}})?[A-Z]?))"
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AIT]|W[AIVY]|NSW|VIC|QLD|TAS|ACT|NT"
    r"|ON|QC|BC|AB|MB|SK|NS|NB|NL|PE|YT)"
)
_UK_POST = r"[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKMNPR-Y]?[ ]?[0-9][ABD-HJLNP-UW-Z]{2}"
_CA_POST = r"[ABCEGHJ-NPRSTVXY][0-9][A-Z][ ]?[0-9][A-Z][0-9]"
_TOWN_NAME = rf"{_NAME}(?:[ \-]{_NAME}){{0,3}}"
# What may follow a street: a town, then state and code (US, CA, AU), a post code (UK), a PIN code (IN, SG).
_GAP = r"[ ,]{1,3}(?:\n[ ]{0,4})?"
_TOWN = (
    rf"(?:{_GAP}{_TOWN_NAME}){{0,3}}?(?:{_GAP}(?:{_STATE}|{_TOWN_NAME})[ ,]{{1,2}}[0-9]{{4,5}}(?:-[0-9]{{4}})?(?![0-9])"
    rf"|{_GAP}(?:{_STATE}[ ])?(?:{_UK_POST}|{_CA_POST})(?![0-9A-Za-z])|{_GAP}(?:{_TOWN_NAME}[ ]?[\-,][ ]?|Singapore[ ]|PIN(?:[ ]code)?[:\- ]{{1,2}})?[0-9]{{3}}[ ]?[0-9]{{3}}(?![0-9]))"
)
_STATE_TOWN = rf"{_TOWN_NAME},[ ](?:{_STATE})[ ]{{1,2}}[0-9]{{5}}(?:-[0-9]{{4}})?(?![0-9])"
_HOUSE = r"(?<![0-9A-Za-z.,$€£/\-])(?:(?:No\.?|Blk|Block)[ ])?[0-9]{1,5}(?:[\-/][0-9]{1,5})?[A-Za-z]?"
_NUMBER_AND_WORDS = rf"{_HOUSE}(?:[ ]{_NAME}){{1,3}}"
_ENGLISH = rf"{_HOUSE},?[ ](?:{_DIRECTION}[ ])?(?:{_NAME}[ ]){{1,4}}{_STREET}(?:[ ]{_DIRECTION}(?![A-Za-z]))?(?:(?<!\.)[ ][0-9]{{1,3}}(?![0-9]))?(?:{_UNIT}){{0,2}}"
_NUMBERED = rf"{_HOUSE}[ ](?:{_DIRECTION}[ ])?(?:[0-9]{{1,3}}(?:st|nd|rd|th)|Avenue[ ][A-Z]|(?:State[ ])?(?:Route|Highway|Hwy|Road|Rd|CR)[ ][0-9]{{1,4}})(?:[ ]{_STREET})?(?:[ ]{_DIRECTION}(?![A-Za-z]))?(?:{_UNIT}){{0,2}}"
_FLAT_FIRST = r"(?<![A-Za-z])(?:Flat|Apartment|Apt|Unit|Suite|House|Plot|Door|H\.?[ ]?No|Shop|Villa|Room)\.?[ ]?(?:No\.?|Number|\#)?[ :]?[0-9A-Z][0-9A-Z\-/]{0,8},[ ]"
_SMALL = r"(?:de la|de l['’]|du|des|de|d['’]|della|del|di|dei|degli|delle|dello|los|las|el|la|den|der|dem|von|van|het|da|do|dos|das|zum|zur)"
_WORDS = rf"(?:(?:{_SMALL})[ ]?)?{_NAME}(?:[ \-](?:(?:{_SMALL})[ ]?)?{_NAME}){{0,4}}"
# Post code and town behind a continental street: "75008 Paris", "1012 AB Amsterdam", "SE-114 55 Stockholm".
_CONTINENTAL_TOWN = rf"(?:,?[ ]?(?:\n[ ]{{0,4}})?(?:,[ ])?(?:[A-Z]{{1,2}}-)?(?:[0-9]{{4,5}}|[0-9]{{3}}[ ][0-9]{{2}}|[0-9]{{4}}[ ]?[A-Z]{{2}}|[0-9]{{2}}-[0-9]{{3}}|[0-9]{{4}}-[0-9]{{3}}|[0-9]{{5}}-[0-9]{{3}})[ ]{_TOWN_NAME}(?:[ ]\([A-Z]{{2}}\))?)?"
_NUMBER = r"[0-9]{1,4}(?:[ ]?[a-zA-Z](?![A-Za-z]))?(?:[ ]?[/\-][ ]?[0-9]{1,4}[a-z]?)?(?![0-9A-Za-z])"
_GERMAN = (
    rf"(?<![{_UPPER}{_LOWER}])(?:[{_UPPER}][{_LOWER}]{{1,20}}[ \-]){{0,3}}[{_UPPER}{_LOWER}]{{1,24}}-?(?:[Ss]tra(?:ß|ss)e|[Ss]tr\.|[Ww]eg|[Pp]latz|[Aa]llee|[Gg]asse|[Rr]ing|[Dd]amm"
    rf"|[Uu]fer|[Cc]haussee|[Mm]arkt|[Hh]of|straat|laan|plein|gracht|kade|dijk|singel|steeg|dreef|gatan|vägen|gata|veien|vej|gade|katu|tie|torget)[ ]{_NUMBER}"
)
_GERMAN_PREPOSITION = rf"(?<![A-Za-z])(?:Am|An der|An den|Auf der|Auf dem|Im|In der|In den|Unter den|Unter der|Zum|Zur|Bei der|Hinter der)[ ][{_UPPER}][{_LOWER}]{{2,24}}(?:[ ][{_UPPER}][{_LOWER}]{{2,24}})?[ ]{_NUMBER},?[ ]?\n?(?:D-)?[0-9]{{5}}[ ]{_TOWN_NAME}"
_FRENCH = rf"(?<![0-9A-Za-z.,])[0-9]{{1,4}}(?:[ ]?(?:bis|ter|quater))?,?[ ](?:rue|avenue|av\.|boulevard|bd\.?|place|chemin|impasse|allée|allee|quai|cours|route|passage|square|villa|cité|sentier|Rue|Avenue|Boulevard|Place|Chemin|Quai|Allée)[ ]{_WORDS}"
_SOUTHERN = (
    rf"(?<![A-Za-zÀ-ÿ/])(?:Calle|C/|C\.|Avda\.?|Avenida|Av\.|Plaza|Pza\.?|Paseo|Pº|Carrer|Camino|Ronda|Travesía|Via|Viale|V\.le|Piazza|Piazzale|P\.zza|Corso|C\.so|Largo|Vicolo|Strada|Rua|R\.|Travessa|Praça"
    rf"|Alameda|Estrada)[ ]?{_WORDS},?[ ](?:n\.?[º°o]?\.?[ ]?|nº[ ]?)?{_NUMBER}(?:,?[ ](?:[0-9]{{1,2}}[ºª°]?[ ]?[A-Z0-9]{{0,2}}(?![0-9A-Za-z])|piso[ ][0-9]{{1,2}}|int\.?[ ][0-9]{{1,3}}))?"
)
_SLAVIC = rf"(?<![A-Za-z])(?:ul\.|al\.|pl\.|os\.|ulica|aleja)[ ]{_WORDS}[ ][0-9]{{1,4}}[A-Za-z]?(?:[ ]?(?:/|m\.)[ ]?[0-9]{{1,4}})?"
_BOX = r"(?<![A-Za-z])(?:P\.?[ ]?O\.?[ ]?Box|Post Office Box|GPO Box|Locked Bag|Private Bag|Postfach|Postbus|Apartado(?: de Correos)?|Casella Postale|Boîte Postale|B\.P\.|Caixa Postal)[ ]?:?[ ]?(?:No\.?[ ])?[0-9]{1,6}(?:[ ][0-9]{2,3}){0,2}(?![0-9A-Za-z])"


def street_addresses() -> Recognizer:
    """The recognizer of STREET_ADDRESS."""
    tail = f"(?:{_TOWN})?"
    return Recognizer(
        "StreetAddressRecognizer",
        "STREET_ADDRESS",
        [
            Pattern.of("number and street", rf"(?:{_FLAT_FIRST})?{_ENGLISH}{tail}", 0.75),
            Pattern.of("number and numbered street", rf"(?:{_FLAT_FIRST})?{_NUMBERED}(?:{_TOWN})", 0.75, trigger=rf"[0-9][A-Za-z]?[ ](?:{_DIRECTION}[ ])?(?:[0-9]{{1,3}}(?:st|nd|rd|th)|Avenue|State|Route|Highway|Hwy|Road|Rd|CR)[ ]"),
            Pattern.of("numbered street", rf"{_HOUSE}[ ](?:{_DIRECTION}[ ])?[0-9]{{1,3}}(?:st|nd|rd|th)[ ]{_STREET}(?:{_UNIT})?{tail}", 0.75),
            Pattern.of("flat, then area and code", rf"{_FLAT_FIRST}(?:[0-9A-Z][A-Za-z0-9'’.\-/]{{0,24}}[ ,]{{1,2}}){{1,12}}[\- ]{{0,2}}[0-9]{{3}}[ ]?[0-9]{{3}}(?![0-9])", 0.75),
            # Any capitalised words behind a number, where a unit or a town with state and post code follows.
            Pattern.of("number, words, unit", rf"{_NUMBER_AND_WORDS}{_UNIT}", 0.75),
            Pattern.of("number, words, town", rf"{_NUMBER_AND_WORDS}(?:{_UNIT})?[ ,]{{0,2}}\n?[ ]{{0,4}}{_STATE_TOWN}", 0.8),
            Pattern.of("number, words, British post code", rf"{_NUMBER_AND_WORDS}(?:{_GAP}{_TOWN_NAME}){{1,3}}{_GAP}{_UK_POST}(?![0-9A-Za-z])", 0.8),
            Pattern.of("town, state, post code", rf"(?<![A-Za-z0-9]){_STATE_TOWN}", 0.6),
            Pattern.of(
                "military address",
                r"(?<![A-Za-z0-9])(?:(?:PSC|Unit|CMR)[ ][0-9]{1,5},?[ ]Box[ ][0-9]{1,5}|US[A-Z]{1,4}[ ][A-Z][a-z]{1,20})?"
                r"[ ,]{0,2}\n?[ ]{0,4}\b[ADF]PO,?[ ]A[AEP],?[ ][0-9]{5}(?![0-9])",
                0.75,
            ),
            Pattern.of("post box", rf"{_BOX}{tail}", 0.75),
            Pattern.of("street, then number", rf"{_GERMAN}{_CONTINENTAL_TOWN}", 0.7),
            Pattern.of("place, number, town", _GERMAN_PREPOSITION, 0.7),
            Pattern.of("French", rf"{_FRENCH}{_CONTINENTAL_TOWN}", 0.7),
            Pattern.of("Spanish, Italian, Portuguese", rf"{_SOUTHERN}{_CONTINENTAL_TOWN}", 0.7),
            Pattern.of("Polish", rf"{_SLAVIC}{_CONTINENTAL_TOWN}", 0.7),
        ],
        confirmed=True,
    )  # fmt: skip
