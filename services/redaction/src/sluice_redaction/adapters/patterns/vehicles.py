"""Vehicles: registration plates and identification numbers."""

import re

from presidio_analyzer.predefined_recognizers import (
    DeKfzRecognizer,
    InVehicleRegistrationRecognizer,
    NgVehicleRegistrationRecognizer,
    TrLicensePlateRecognizer,
    UkVehicleRegistrationRecognizer,
    ZaLicensePlateRecognizer,
)

from . import checksums
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_PLATE_WORDS = [
    "plate", "plates", "license plate", "licence plate", "number plate", "tag number", "registration number", "vehicle registration",
    "plate number", "reg", "vrm", "kennzeichen", "plaque", "immatriculation", "matrícula", "matricula", "targa", "kenteken", "rego",
]  # fmt: skip


def _is_mixed(value: str) -> bool | None:
    """False for letters or digits alone: the pattern's look ahead may have seen those of the next word."""
    return None if re.search("[0-9]", value) and re.search("[A-Z]", value) else False


def vehicles() -> list[Recognizer]:
    """Recognizers of plates by country, of plates named as such, and of VIN."""
    return [
        Recognizer(
            "VinRecognizer",
            "VIN",
            [
                Pattern.of("checked", r"(?<![0-9A-Za-z])(?=[A-Z0-9]{0,16}[A-Z])(?=[A-Z0-9]{0,16}[0-9])[A-HJ-NPR-Z0-9]{8}[0-9X][A-HJ-NPR-Z0-9]{2}[A-HJ-NPR-Z0-9]{2}[0-9]{4}(?![0-9A-Za-z])", 0.5, check=checksums.check("mod 11", checksums.vin)),
                Pattern.of("named", r"(?<![0-9A-Za-z])[A-HJ-NPR-Za-hj-npr-z0-9]{17}(?![0-9A-Za-z])", 0.4, needs_context=True),
            ],
            context=Context(["vin", "vehicle identification", "chassis", "chassis number"]),
        ),
        from_presidio(UkVehicleRegistrationRecognizer(), "structure", ignore_case=False),
        from_presidio(InVehicleRegistrationRecognizer(), "region", context=["car", "vehicle number", "plate"], ignore_case=False, least_score=0.2),
        Recognizer(
            "InVehicleRegistrationRecognizer",
            "IN_VEHICLE_REGISTRATION",
            [Pattern.of("state, district, series, number", r"(?<![0-9A-Za-z])(?:A[NPRS]|B[HR]|C[GH]|D[DLN]|G[AJ]|H[PR]|J[HK]|K[AL]|L[AD]|M[HLNPZ]|NL|O[DR]|P[BY]|RJ|SK|T[NRS]|U[KP]|WB)[ \-]?[0-9]{2}[ \-]?[A-Z]{1,3}[ \-]?[0-9]{4}(?![0-9A-Za-z])", 0.6)],
        ),
        from_presidio(NgVehicleRegistrationRecognizer(), ignore_case=False),
        from_presidio(ZaLicensePlateRecognizer(), "province", ignore_case=False),
        from_presidio(TrLicensePlateRecognizer(), "structure", ignore_case=False),
        from_presidio(DeKfzRecognizer(), context=["kennzeichen", "plate", "license plate"], ignore_case=False),
        Recognizer(
            "PlateRecognizer",
            "LICENSE_PLATE",
            [
                Pattern.of("letters and digits", r"(?<![0-9A-Za-z\-])(?=[A-Z0-9 \-]{0,8}[A-Z])(?=[A-Z0-9 \-]{0,8}[0-9])[A-Z0-9]{1,4}[ \-]?[A-Z0-9]{2,4}(?:[ \-][A-Z0-9]{2,4})?(?![0-9A-Za-z\-])", 0.3, check=Check("", _is_mixed)),
            ],
            context=Context(_PLATE_WORDS),
            needs_context=True,
        ),
        Recognizer(
            "EuropeanPlateRecognizer",
            "LICENSE_PLATE",
            [Pattern.of("France, Italy or Spain", r"(?<![0-9A-Za-z\-])(?:[A-HJ-NP-TV-Z]{2}-[0-9]{3}-[A-HJ-NP-TV-Z]{2}|[0-9]{4}[ \-]?[B-DF-HJ-NP-TV-Z]{3})(?![0-9A-Za-z\-])", 0.3)],
            context=Context([*_PLATE_WORDS, "car", "voiture", "coche", "auto", "vehicle"]),
            needs_context=True,
        ),
    ]  # fmt: skip
