"""Which finding answers which gold value: both belong to a family, because systems name and divide the kinds differently."""

import re

# First match wins; the order matters (EMAIL_ADDRESS before ADDRESS, MEDICAL_LICENSE before LICENSE).
_SYSTEM = (
    ("EMAIL", r"EMAIL"),
    ("GOVERNMENT_ID", r"ID_CARD|IDENTITY_CARD|CZ_BIRTH_NUMBER|ORGANISATIONSNUMMER"),
    ("IP", r"^IP_|IPV?[46]"),
    ("MAC", r"^MAC"),
    ("USERNAME", r"USER_?NAME|LOGIN|^USER_?ID|HANDLE"),
    ("SECRET", r"PASSWORD|API_KEY|TOKEN|SECRET|PRIVATE_KEY|CREDENTIAL|JWT"),
    ("HEALTH_ID", r"MEDICAL|HEALTH|NHS|NPI|DEA_|^DEA|MEDICARE|MBI$|DEVICE|MEMBER|PATIENT|PRESCRI|BENEFICIARY"),
    ("PASSPORT", r"PASSPORT"),
    ("LICENCE", r"DRIV|FUEHRERSCHEIN|LICEN[CS]E_NUMBER"),
    ("CARD", r"CARD"),
    ("IBAN", r"IBAN"),
    ("CRYPTO", r"CRYPTO|BITCOIN|ETHEREUM|WALLET"),
    ("BANK", r"BANK|ROUTING|SORT_CODE|BSB|IFSC|ACCOUNT|SWIFT"),
    ("VEHICLE", r"PLATE|_KFZ$|(^|_)VIN$|VEHICLE"),
    ("BIRTH", r"BIRTH|^DOB"),
    ("AGE", r"(^|_)AGE$"),
    ("PHONE", r"PHONE"),
    ("ADDRESS", r"ADDRESS|STREET"),
    ("PERSON", r"^PERSON|^NAME|(FIRST|LAST|FULL)_NAME|NAME$"),
    ("URL", r"^URL"),
    ("PLACE", r"LOCATION|CITY|COUNTRY|GPE|POST(AL)?_?CODE|ZIP"),
    ("DATE", r"^DATE"),
    ("GROUP", r"NRP|ORGANI|NATIONALITY|RELIGI"),
    ("GOVERNMENT_ID", r"SSN|ITIN|TAX|NINO|GOVERNMENT|NATIONAL_ID|IDENTITY|^[A-Z]{2}_"),
)
_GOLD = {
    **dict.fromkeys(["API_KEY", "TOKEN", "PRIVATE_KEY", "PASSWORD"], "SECRET"),
    **dict.fromkeys(["MEDICAL_RECORD", "HEALTH_PLAN", "NPI", "DEA", "UK_NHS", "DEVICE_ID"], "HEALTH_ID"),
    **dict.fromkeys(["PLATE", "VIN"], "VEHICLE"),
    "DRIVING_LICENCE": "LICENCE",
    **dict.fromkeys(
        "US_SSN US_ITIN UK_NINO IN_AADHAAR IN_PAN AU_TFN SG_NRIC ES_DNI IT_FISCAL_CODE DE_TAX_ID NL_BSN BR_CPF PL_PESEL FR_NIR CA_SIN".split(),
        "GOVERNMENT_ID",
    ),
}
# Kinds that are a matter of policy: they may answer a gold value of these families and are never false alarms.
OPTIONAL = {
    "PLACE": frozenset({"ADDRESS"}),
    "DATE": frozenset({"BIRTH", "AGE"}),
    "GROUP": frozenset[str](),
    "URL": frozenset({"URL"}),
}
FAMILIES = (
    "PERSON ADDRESS PHONE EMAIL IP MAC BIRTH AGE GOVERNMENT_ID PASSPORT LICENCE CARD IBAN BANK CRYPTO SECRET USERNAME "
    "HEALTH_ID VEHICLE URL"
).split()


def family_of_finding(kind: str) -> str:
    """The family of a system's kind; its own name where none fits, which then can only be a false alarm."""
    return next((family for family, shape in _SYSTEM if re.search(shape, kind)), kind)


def family_of_gold(kind: str) -> str:
    return _GOLD.get(kind, kind)


def answers(finding_family: str, gold_family: str) -> bool:
    return finding_family == gold_family or gold_family in OPTIONAL.get(finding_family, ())
