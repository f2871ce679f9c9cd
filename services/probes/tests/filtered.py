"""A gateway's door whose filters may be turned into pass-throughs."""

from collections.abc import Sequence
from dataclasses import dataclass

from sluice_probes.domain import marks
from sluice_probes.domain.canaries import canaries
from sluice_probes.domain.findings import Answer
from sluice_probes.domain.marks import _mark
from sluice_probes.domain.round import FORBIDDEN_INPUT, OTHER_FORBIDDEN_INPUT

FRAME, VALUES = marks.INVENTED_FRAME, marks.INVENTED_VALUES
INVENTED = f"{FRAME[0]}{VALUES[0]}{FRAME[1]}{VALUES[1]}."
REDACTED = f"{FRAME[0]}<EMAIL_ADDRESS_9>{FRAME[1]}<IBAN_CODE_9>."

SEEDED = [canary for number in range(400) for canary in canaries(number)]
CUT = "[removed: prompt_injection]"


@dataclass(frozen=True)
class Filtered:
    """A gateway's door: a model that reports, between filters that may be turned into pass-throughs."""

    off: frozenset[str] = frozenset()
    away: str = ""
    blind_to: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()
    invents: bool = True
    embedding: frozenset[str] = frozenset()
    """Aliases that do not chat."""
    chatting: frozenset[str] = frozenset({"other"})
    """Aliases that do not embed."""
    open_to: frozenset[str] = frozenset()
    """Aliases on whose way there is no moderation."""
    policy: str = "default@1"
    """Of redaction."""
    cuts: bool = False
    """Whether moderation takes sentences out in place of refusing."""

    async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
        if self.away:
            return Answer(error=self.away)
        if model in self.embedding:
            return Answer(error="MODEL_NOT_FOUND")
        is_forbidden = text == FORBIDDEN_INPUT and "input_moderation" not in self.off and model not in self.open_to
        if is_forbidden and not self.cuts:
            return Answer(error="CONTENT_BLOCKED", policy="general@4")
        heard, vault = self._redacted(CUT if is_forbidden else text)
        said = ""
        if marks.REPORT in system:
            told = ", ".join(
                _mark(word.strip(".,"))
                for word in heard.split()
                if word[:1].isupper() or any(c.isdigit() for c in word)
            )
            repeated = CUT if text == FORBIDDEN_INPUT and self.cuts and self._judges_answers else heard
            said = f"{self._restored(repeated, vault)}\n{marks.MARKS_BEGIN} {told}."
        if marks.INVENT in system:
            said += INVENTED if "output_redaction" in self.off else REDACTED if self.invents else ""
        if marks.OVERSTEP in system:
            if self._judges_answers:
                return Answer(text=CUT) if self.cuts else Answer(withheld=True)
            return Answer(text=marks.FORBIDDEN)
        return Answer(text=said, skipped_filters=self.skipped, redaction_policy=self.policy)

    async def embed(self, model: str, texts: Sequence[str]) -> Answer:
        if self.away:
            return Answer(error=self.away)
        if model in self.chatting:
            return Answer(error="MODEL_NOT_FOUND")
        if FORBIDDEN_INPUT in texts and "input_moderation" not in self.off and model not in self.open_to:
            if not self.cuts:
                return Answer(error="CONTENT_BLOCKED")
            texts = [CUT if text in (FORBIDDEN_INPUT, OTHER_FORBIDDEN_INPUT) else text for text in texts]
        return Answer(vectors=tuple((float(hash(self._redacted(text)[0])),) for text in texts))

    @property
    def _judges_answers(self) -> bool:
        return "output_moderation" not in self.off

    def _redacted(self, text: str) -> tuple[str, dict[str, str]]:
        vault: dict[str, str] = {}
        if "input_redaction" in self.off:
            return text, vault
        for canary in SEEDED:
            if canary.value in text and canary.origin not in self.blind_to:
                vault[f"<{canary.kind}_{canary.origin}>"] = canary.value
                text = text.replace(canary.value, f"<{canary.kind}_{canary.origin}>")
        return text, vault

    def _restored(self, text: str, vault: dict[str, str]) -> str:
        if "restoration" not in self.off:
            for token, value in vault.items():
                text = text.replace(token, value)
        return text
