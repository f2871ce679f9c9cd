"""Numbers that the governments of continental Europe give to persons and companies."""

from collections.abc import Callable

from presidio_analyzer.predefined_recognizers import (
    DeFuehrerscheinRecognizer,
    DeHandelsregisterRecognizer,
    DeHealthInsuranceRecognizer,
    DeIdCardRecognizer,
    DePassportRecognizer,
    DeSocialSecurityRecognizer,
    DeTaxIdRecognizer,
    DeTaxNumberRecognizer,
    DeVatIdRecognizer,
    EsNieRecognizer,
    EsNifRecognizer,
    EsPassportRecognizer,
    FiPersonalIdentityCodeRecognizer,
    ItDriverLicenseRecognizer,
    ItFiscalCodeRecognizer,
    ItIdentityCardRecognizer,
    ItPassportRecognizer,
    ItVatCodeRecognizer,
    PlPeselRecognizer,
    SeOrganisationsnummerRecognizer,
    SePersonnummerRecognizer,
)

from . import checksums
from .checksums import check
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_EDGE, _STOP = r"(?<![0-9A-Za-z.\-/])", r"(?![0-9A-Za-z]|[.\-/][0-9])"


def _german() -> list[Recognizer]:
    return [
        from_presidio(DeTaxIdRecognizer(), "mod 11-10", context=["steuer-id", "steuer id", "idnr", "tax id", "steueridentifikationsnummer"]),
        from_presidio(DeTaxNumberRecognizer(), context=["steuernummer", "tax number"]),
        from_presidio(DeSocialSecurityRecognizer(), "mod 10", ignore_case=False),
        from_presidio(DeHealthInsuranceRecognizer(), "mod 10", context=["health insurance"], ignore_case=False),
        from_presidio(DeIdCardRecognizer(), "mod 10", context=["personalausweis", "german id", "id card"], ignore_case=False),
        from_presidio(DePassportRecognizer(), "mod 10", context=["reisepass", "passport"], ignore_case=False),
        from_presidio(DeFuehrerscheinRecognizer(), ignore_case=False),
        from_presidio(DeVatIdRecognizer(), "mod 11-10", context=["vat", "ust-id", "ust"], ignore_case=False),
        from_presidio(DeHandelsregisterRecognizer(), ignore_case=False),
    ]  # fmt: skip


def _latin() -> list[Recognizer]:
    return [
        Recognizer(
            "NirRecognizer",
            "FR_NIR",
            [Pattern.of("NIR", rf"{_EDGE}[1-478][ ]?[0-9]{{2}}[ ]?(?:0[1-9]|1[0-2]|[2-9][0-9])[ ]?(?:[0-9]{{2}}|2[AB])[ ]?[0-9]{{3}}[ ]?[0-9]{{3}}[ ]?[0-9]{{2}}{_STOP}", 0.5)],
            context=Context(["nir", "sécurité sociale", "securite sociale", "numéro de sécurité sociale", "insee", "social security"]),
            check=check("mod 97", checksums.nir),
        ),
        Recognizer(
            "SiretRecognizer",
            "FR_SIRET",
            [Pattern.of("SIREN or SIRET", rf"{_EDGE}[0-9]{{3}}[ ]?[0-9]{{3}}[ ]?[0-9]{{3}}(?:[ ]?[0-9]{{5}})?{_STOP}", 0.3)],
            context=Context(["siret", "siren", "rcs"]),
            needs_context=True,
            check=check("luhn", checksums.siret),
        ),
        _spanish(),
        from_presidio(EsNieRecognizer(), "mod 23", context=["nie"], check_suffices=True, ignore_case=False),
        from_presidio(EsPassportRecognizer(), ignore_case=False),
        Recognizer(
            "CifRecognizer",
            "ES_CIF",
            [Pattern.of("CIF", r"(?<![0-9A-Za-z])[A-HJNP-SUVW]-?[0-9]{7}-?[0-9A-J](?![0-9A-Za-z])", 0.4)],
            context=Context(["cif", "nif", "empresa"]),
            needs_context=True,
            check=check("mod 10", checksums.spanish_cif),
        ),
        from_presidio(ItFiscalCodeRecognizer(), "letter", context=["codice fiscale", "fiscal code"], needs_context=False),
        from_presidio(ItVatCodeRecognizer(), "luhn", context=["partita iva", "p.iva", "vat"]),
        from_presidio(ItIdentityCardRecognizer(), context=["carta d'identità", "carta di identità", "identity card"], ignore_case=False),
        from_presidio(ItDriverLicenseRecognizer(), context=["patente", "patente di guida"], ignore_case=False),
        from_presidio(ItPassportRecognizer(), context=["passaporto"], ignore_case=False),
        Recognizer(
            "PortugueseNifRecognizer",
            "PT_NIF",
            [Pattern.of("NIF", rf"{_EDGE}[1-35689][0-9]{{2}}[ ]?[0-9]{{3}}[ ]?[0-9]{{3}}{_STOP}", 0.3)],
            context=Context(["nif", "contribuinte", "número de contribuinte"]),
            needs_context=True,
            check=check("mod 11", checksums.portuguese),
        ),
    ]  # fmt: skip


def _spanish() -> Recognizer:
    theirs = EsNifRecognizer()
    return Recognizer(
        "EsNifRecognizer",
        "ES_NIF",
        [Pattern.of("DNI", r"(?<![0-9A-Za-z.\-])[0-9]{8}[\- ]?[A-HJ-NP-TV-Z](?![0-9A-Za-z])", 0.5)],
        context=Context(["dni", "nif", "documento nacional de identidad", "identificación"]),
        check=Check("mod 23", lambda value: theirs.validate_result(value.replace(" ", ""))),
    )


def _low_countries_and_alps() -> list[Recognizer]:
    return [
        Recognizer(
            "BsnRecognizer",
            "NL_BSN",
            [Pattern.of("BSN", rf"{_EDGE}[0-9]{{4}}[ .]?[0-9]{{2}}[ .]?[0-9]{{3}}{_STOP}", 0.3)],
            context=Context(["bsn", "burgerservicenummer", "sofinummer", "citizen service number"]),
            needs_context=True,
            check=check("11 test", checksums.bsn),
        ),
        Recognizer(
            "BelgianNumberRecognizer",
            "BE_NATIONAL_NUMBER",
            [
                Pattern.of("written", rf"{_EDGE}[0-9]{{2}}\.[0-9]{{2}}\.[0-9]{{2}}[\- ][0-9]{{3}}[.][0-9]{{2}}{_STOP}", 0.6),
                Pattern.of("digits", rf"{_EDGE}[0-9]{{11}}{_STOP}", 0.3, needs_context=True),
            ],
            context=Context(["rijksregisternummer", "numéro national", "registre national", "national number", "insz", "niss"]),
            check=check("mod 97", checksums.belgian),
        ),
        Recognizer(
            "AhvRecognizer",
            "CH_AHV",
            [Pattern.of("AHV", rf"{_EDGE}756[. ]?[0-9]{{4}}[. ]?[0-9]{{4}}[. ]?[0-9]{{2}}{_STOP}", 0.6)],
            context=Context(["ahv", "avs", "ahv-nummer", "sozialversicherungsnummer"]),
            check=check("ean-13", checksums.ean),
        ),
        Recognizer(
            "AustrianSvnrRecognizer",
            "AT_SVNR",
            [Pattern.of("SVNR", rf"{_EDGE}[1-9][0-9]{{3}}[ ]?(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{{2}}{_STOP}", 0.3)],
            context=Context(["svnr", "sozialversicherungsnummer", "sv-nummer", "versicherungsnummer"]),
            needs_context=True,
            check=check("mod 11", checksums.austrian),
        ),
    ]  # fmt: skip


def _nordic() -> list[Recognizer]:
    date = r"(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])[0-9]{2}"
    return [
        from_presidio(SePersonnummerRecognizer(), "luhn", context=["personnummer", "personal identity number"], least_score=0.5),
        from_presidio(SeOrganisationsnummerRecognizer(), "luhn", context=["organisationsnummer", "orgnr"], least_score=0.6),
        from_presidio(FiPersonalIdentityCodeRecognizer(), "mod 31", needs_context=False, least_score=0.5),
        Recognizer(
            "NorwegianIdRecognizer",
            "NO_FODSELSNUMMER",
            [Pattern.of("birth number", rf"{_EDGE}[0-7][0-9][0-9]{{4}}[ ]?[0-9]{{5}}{_STOP}", 0.4)],
            context=Context(["fødselsnummer", "fodselsnummer", "personnummer", "birth number", "fnr"]),
            needs_context=True,
            check=check("mod 11", checksums.norwegian),
        ),
        Recognizer(
            "CprRecognizer",
            "DK_CPR",
            [
                Pattern.of("with a hyphen", rf"{_EDGE}{date}-[0-9]{{4}}{_STOP}", 0.4),
                Pattern.of("digits", rf"{_EDGE}{date}[0-9]{{4}}{_STOP}", 0.2),
            ],
            context=Context(["cpr", "cpr-nummer", "cpr-nr", "personnummer", "cpr number"]),
            needs_context=True,
        ),
    ]  # fmt: skip


def _eastern() -> list[Recognizer]:
    return [
        from_presidio(PlPeselRecognizer(), "mod 10", context=["pesel"]),
        _digits("PolishNipRecognizer", "PL_NIP", r"[0-9]{3}-?[0-9]{3}-?[0-9]{2}-?[0-9]{2}", "nip|numer identyfikacji podatkowej", "mod 11", checksums.polish_nip),
        _digits("CzechBirthNumberRecognizer", "CZ_BIRTH_NUMBER", r"[0-9]{6}/?[0-9]{4}", "rodné číslo|rodne cislo|rc|birth number|rodné číslo", "mod 11", checksums.czech),
        _digits("RomanianCnpRecognizer", "RO_CNP", r"[1-9][0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{6}", "cnp|cod numeric personal", "mod 11", checksums.romanian),
        _digits("BulgarianEgnRecognizer", "BG_EGN", r"[0-9]{10}", "egn|егн", "mod 11", checksums.bulgarian),
        _digits("CroatianOibRecognizer", "HR_OIB", r"[0-9]{11}", "oib", "mod 11-10", checksums.mod_11_10),
        _digits("GreekAfmRecognizer", "GR_AFM", r"[0-9]{9}", "afm|αφμ|α.φ.μ.", "mod 11", checksums.greek_afm),
        _digits("HungarianTaxRecognizer", "HU_TAX_ID", r"8[0-9]{9}", "adóazonosító|adoazonosito|adóazonosító jel", "mod 11", checksums.hungarian),
    ]  # fmt: skip


def _digits(name: str, kind: str, form: str, words: str, check_name: str, passes: Callable[[str], bool]) -> Recognizer:
    return Recognizer(
        name,
        kind,
        [Pattern.of("digits", rf"{_EDGE}{form}{_STOP}", 0.4)],
        context=Context(words.split("|")),
        needs_context=True,
        check=check(check_name, passes),
    )


def european_ids() -> list[Recognizer]:
    """Recognizers by country; most need a word beside the number, because ten or eleven digits pass a check too often."""
    return [*_german(), *_latin(), *_low_countries_and_alps(), *_nordic(), *_eastern()]
