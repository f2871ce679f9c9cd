"""The detector of the service: patterns and names over one text, each by what is cheapest for it.

Three ways of finding names (`SLUICE_REDACTION_NER`): `fast`, the name tagger alone; `balanced`, the tagger, and its
teachers over the sentences it is in doubt about; `thorough`, the tagger and its teachers over everything.
"""

from collections.abc import Iterable, Sequence

from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.ner import Ner
from sluice_redaction.domain.tagged import is_plausible, without_words

from .doubts import doubtful_stretches
from .findings_cache import FindingsCache, RememberingDetector
from .listed import Listed, ListedDetector
from .name_tagger import NAME, NameTagger, TaggerModel
from .offline import use_packaged_suffix_list
from .patterns.detector import PatternDetector
from .patterns.phone_numbers import DEFAULT_REGIONS
from .patterns.sources import pattern_sources
from .rampart import RampartModel
from .tagger_queue import TaggerQueue
from .teachers import ORGANIZATION, Organizations, Teachers


class ComposedDetector:
    """Fits `domain.findings.Detector`. One thread at a time: make one for each worker."""

    def __init__(
        self, patterns: ListedDetector, tagger: TaggerQueue, ner: Ner = Ner.FAST, teachers: Teachers | None = None
    ) -> None:
        """teachers: needed for every way but `fast`."""
        if ner is not Ner.FAST and teachers is None:
            raise ValueError(f"finding names the {ner.value} way needs the teachers' models")
        self._patterns, self._tagger, self._ner, self._teachers = patterns, tagger, ner, teachers
        self._organizations = Organizations()
        self._tagged_kinds = frozenset(tagger.tagger.kinds)

    def detect(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        """Candidates of every score, overlapping or not. Places are among them whenever names or streets are asked for:
        a town beside a street is part of the address."""
        found = list(self._patterns.detect(text, kinds))
        if not kinds.isdisjoint(self._tagged_kinds):
            found.extend(self._names(text))
        if ORGANIZATION in kinds and self._ner is not Ner.THOROUGH:
            found.extend(self._organizations.find(text))
        return found

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        """As `detect`, without names."""
        return self._patterns.detect(text, kinds)

    def _names(self, text: str) -> list[Finding]:
        tagged = self._tagger.tag(text)
        trimmed = [without_words(finding, text) for finding in tagged.findings()]
        found = [finding for finding in trimmed if is_plausible(finding, text)]
        if self._teachers is None:
            return found
        stretches = [(0, len(text))] if self._ner is Ner.THOROUGH else doubtful_stretches(tagged, text)
        for start, end in stretches:
            found.extend(finding.shifted(start) for finding in self._teachers.find(text[start:end]))
        return found

    def listed(self) -> list[Listed]:
        """What is loaded, as `ListRecognizers` shows it."""
        tagger = Listed(NAME, sorted(self._tagged_kinds), self._tagger.tagger.model.digest)
        teachers = self._teachers.listed() if self._teachers else []
        return [*self._patterns.listed(), tagger, *(Listed(*one) for one in teachers)]


class DetectorFactory:
    """Makes detectors, one for each worker thread; what can be shared between them is loaded once."""

    def __init__(
        self,
        *,
        phone_regions: Sequence[str] = DEFAULT_REGIONS,
        ner: Ner = Ner.FAST,
        cache: FindingsCache | None = None,
    ) -> None:
        """ner: the way of finding names. cache: for texts that come again; without one every text is read."""
        use_packaged_suffix_list()
        self._phone_regions, self._ner, self._cache = phone_regions, ner, cache
        self._tagger = TaggerQueue(NameTagger(TaggerModel()))
        self._rampart = RampartModel() if ner is not Ner.FAST else None

    def __call__(self) -> ListedDetector:
        teachers = Teachers(self._rampart, spacy_names=self._ner is Ner.THOROUGH) if self._rampart else None
        patterns = PatternDetector(pattern_sources(self._phone_regions))
        detector = ComposedDetector(patterns, self._tagger, self._ner, teachers)
        return RememberingDetector(detector, self._cache) if self._cache is not None else detector
