"""Detection over a text of any length or a stream: segment by segment, each with what went before as context."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .arbitration import arbitrate, join_addresses
from .disguise import find
from .findings import Detector, Finding
from .names import names_in
from .placeholders import placeholder_like
from .policy import Policy
from .segments import CutRule

# Whole texts: large segments, so that the detectors see much context; streams: a sentence or a line at first, two or three
# once the reader has something to read.
WHOLE_TEXT = CutRule(shortest=1_200, patience=600, longest=8_000, context=200)
STREAM = CutRule(shortest=24, patience=400, longest=4_000, context=120, steady=120)

# Allowed in a local part by the standard, and never in anybody's: around addresses they are Markdown, quotation, a path or
# a query ("?to=").
_BEFORE_ADDRESS = re.compile(r"[^@]*[?&/|{}`*~](?:(?<=[?&])[\w.\-]{1,40}=)?|[_'=]+")
_UNBROKEN = re.compile(r"\S+")
_AFTER_A_VALUE = re.compile(r"[\s.,;:!?)\]}\"'”’>*_`]*")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text that is decided: its findings do not overlap and do not reach beyond it."""

    text: str
    findings: Sequence[Finding]


OwnTokens = Callable[[str], Sequence[tuple[int, int]]]


def decide(found: Iterable[Finding], text: str, policy: Policy, own: Sequence[tuple[int, int]]) -> list[Finding]:
    """From everything the detectors found to what counts: names tidied, addresses joined, policy applied, our own tokens
    spared, overlaps arbitrated. What the policy keeps hides nothing that it replaces."""
    tidy: list[Finding] = []
    for finding in found:
        tidy.extend(_tidied(finding, text))
    accepted = [finding for finding in join_addresses(tidy, text) if policy.accepts(finding, text)]
    spared = _outside(own, accepted)
    replaced = arbitrate((finding for finding in spared if not policy.keeps(finding.kind)), text)
    settled = [finding for finding in replaced if policy.accepts(finding, text)]
    kept = [finding for finding in spared if policy.keeps(finding.kind)]
    apart = [one for one in arbitrate(kept, text) if not any(one.overlaps(other) for other in settled)] if kept else []
    return sorted([*settled, *apart])


def _tidied(finding: Finding, text: str) -> Iterable[Finding]:
    """Without what the pattern or the model swept along: words beside a name, what stands before an address."""
    if finding.kind == "PERSON":
        return names_in(finding, text)
    if (
        finding.kind == "EMAIL_ADDRESS"
        and not finding.disguise
        and (marks := _BEFORE_ADDRESS.match(text, finding.start, finding.end))
    ):
        return (replace(finding, start=marks.end()),)
    return (finding,)


class SegmentedDetection:
    """Feed text in pieces of any size; get decided segments that are the same for every way of cutting the pieces.

    A value is not cut in two: a segment at whose end a finding stands grows (each time to at least double, so that
    the work stays linear) until nothing stands at its end, the text is over, or `rule.longest` is reached. In the last
    case the unbroken run of characters that follows is taken for the rest of the same value.
    """

    def __init__(self, policy: Policy, rule: CutRule, *, own_tokens: OwnTokens | None = None) -> None:
        """own_tokens: where a text holds what earlier redaction put there; placeholders unless told otherwise."""
        self._own_tokens = own_tokens or (lambda text: list(placeholder_like(text, policy.custom_kinds)))
        self._policy = policy
        self._rule = rule
        self._context = ""
        self._pending = ""
        self._position = 0  # in the text, of what is pending
        self._minimum = 0
        self._spilling: str | None = None

    @property
    def held_characters(self) -> int:
        return len(self._pending)

    def push(self, text: str) -> None:
        self._pending += text

    def has_work(self, *, final: bool = False) -> bool:
        """True if `step` would analyse something now. Cheap: safe on an event loop."""
        return bool(self._pending) and self._cut(final=final) is not None

    def step(self, detector: Detector, *, final: bool = False) -> Segment | None:
        """Analyses once. The next decided segment, or None: the segment has to grow, or there is no work."""
        cut = self._cut(final=final) if self._pending else None
        if cut is None:
            return None
        segment = self._pending[:cut]
        findings = self._findings(segment, detector)
        is_last = final and cut == len(self._pending)
        if not is_last and cut < self._rule.longest and _reaches_the_end(findings, segment):
            self._minimum = 2 * cut
            return None
        self._release(segment, findings, cut)
        return Segment(segment, findings)

    def _cut(self, *, final: bool) -> int | None:
        return self._rule.next_cut(self._pending, position=self._position, minimum=self._minimum, final=final)

    def _findings(self, segment: str, detector: Detector) -> list[Finding]:
        before = len(self._context)
        window = self._context + segment
        accompanied = self._policy.with_recognizers(detector)
        decided = find(window, accompanied, self._policy.kinds, self._decide, decoded=self._decide_decoded)
        findings = [_clip(finding.shifted(-before)) for finding in decided if finding.end > before]
        run = _UNBROKEN.match(segment) if self._spilling else None
        if run is None or self._spilling is None:
            return findings
        rest = Finding(0, run.end(), self._spilling, 1.0, "segmenting", "continuation")
        return arbitrate([*findings, rest], segment)

    def _decide(self, found: Iterable[Finding], text: str) -> list[Finding]:
        return decide(found, text, self._policy, self._own_tokens(text))

    def _decide_decoded(self, found: Iterable[Finding], text: str) -> list[Finding]:
        """A decoded stretch is one finding, and what the policy keeps must not decide about the whole of it."""
        return [finding for finding in self._decide(found, text) if not self._policy.keeps(finding.kind)]

    def _release(self, segment: str, findings: Sequence[Finding], cut: int) -> None:
        splits_a_word = cut < len(self._pending) and not segment[-1].isspace()
        self._spilling = findings[-1].kind if splits_a_word and findings and findings[-1].end == cut else None
        self._context = self._rule.tail(self._context + segment)
        self._pending = self._pending[cut:]
        self._position += cut
        self._minimum = 0


def detect(text: str, detector: Detector, policy: Policy, rule: CutRule = WHOLE_TEXT) -> list[Finding]:
    """Findings of one whole text, in order, not overlapping."""
    detection = SegmentedDetection(policy, rule)
    detection.push(text)
    findings: list[Finding] = []
    offset = 0
    while detection.has_work(final=True):
        segment = detection.step(detector, final=True)
        if segment is not None:
            findings.extend(finding.shifted(offset) for finding in segment.findings)
            offset += len(segment.text)
    return findings


def _clip(finding: Finding) -> Finding:
    return finding if finding.start >= 0 else replace(finding, start=0)


def _reaches_the_end(findings: Sequence[Finding], segment: str) -> bool:
    """Nothing but blanks and closing punctuation between the last finding and the end."""
    return bool(findings) and _AFTER_A_VALUE.fullmatch(segment, findings[-1].end) is not None


def _outside(spans: Sequence[tuple[int, int]], findings: Sequence[Finding]) -> list[Finding]:
    """What is left of the findings where the spans, which are in order, are cut out of them."""
    if not spans:
        return list(findings)
    pieces: list[Finding] = []
    for finding in findings:
        start = finding.start
        for begin, end in spans:
            if begin >= finding.end or end <= start:
                continue
            if begin > start:
                pieces.append(replace(finding, start=start, end=begin))
            start = end
        if start < finding.end:
            pieces.append(replace(finding, start=start))
    return pieces
