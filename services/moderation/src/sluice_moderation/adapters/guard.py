"""A guard model behind InferenceService (Llama Guard and its like), put in by configuration.

It is asked in the form Llama Guard was trained for: a list of numbered categories and the text; it answers `safe`, or `unsafe` and the numbers
that were violated. The answer is parsed strictly: anything else counts as no answer, and so does a call that fails or takes too long; the policy
then decides what happens to text that could not be checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as rpc
from sluice.types.v1 import chat_pb2, generation_pb2

from sluice_moderation.domain.detector import CATEGORIES, DetectorUnavailable, Scores

# Llama Guard 3's hazard numbers (MLCommons taxonomy) and the categories of ours that they are.
LLAMA_GUARD: Mapping[str, str] = {
    "S1": "violence", "S3": "sexual", "S4": "sexual", "S6": "unsafe_medical_advice", "S9": "violence", "S10": "identity_attack",
    "S11": "self_harm", "S12": "sexual",
}  # fmt: skip
_NAMES = {
    "S1": "Violent Crimes", "S3": "Sex-Related Crimes", "S4": "Child Sexual Exploitation", "S6": "Specialized Advice",
    "S9": "Indiscriminate Weapons", "S10": "Hate", "S11": "Suicide & Self-Harm", "S12": "Sexual Content",
}  # fmt: skip
_ANSWER = re.compile(r"\s*(?:(safe)|unsafe\s*\n\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*))\s*", re.IGNORECASE)
_MOST_TOKENS = 24
_SURE = np.float32(0.95)  # what `unsafe` counts; a guard gives no probability


@dataclass(frozen=True)
class GuardSettings:
    """`model` is the name InferenceService knows; `timeout_seconds` bounds each text; `hazards` maps numbers to categories."""

    target: str
    model: str
    timeout_seconds: float = 5.0
    hazards: Mapping[str, str] = field(default_factory=lambda: LLAMA_GUARD)


class GuardModel:
    """A detector for the categories its hazards are mapped to."""

    method = "guard model: it answers safe or unsafe with hazard numbers; it gives no contributions of words."

    def __init__(self, settings: GuardSettings, channel: grpc.Channel) -> None:
        unknown = sorted({*settings.hazards.values()} - {*CATEGORIES})
        if unknown:
            raise ValueError(f"hazards name unknown categories: {', '.join(unknown)}.")
        self.name = f"guard:{settings.model}"
        self.categories = tuple(c for c in CATEGORIES if c in settings.hazards.values())
        # What was asked is all that is known of a remote model: its weights are named by the service that runs it.
        asked = f"{settings.model}\n{sorted(settings.hazards.items())}\n{_prompt('', settings.hazards)}"
        self.digest = "sha256:" + hashlib.sha256(asked.encode()).hexdigest()
        self._settings, self._stub = settings, rpc.InferenceServiceStub(channel)

    def scores(self, texts: Sequence[str]) -> Scores:
        """All texts are asked for at once. Raises DetectorUnavailable where any has no clear answer in time."""
        calls = [
            self._stub.Generate.future(self._request(text), timeout=self._settings.timeout_seconds) for text in texts
        ]
        result = np.zeros((len(texts), len(self.categories)), np.float32)
        for row, call in enumerate(calls):
            try:
                answer = call.result()
            except grpc.RpcError as error:
                for other in calls:
                    other.cancel()
                raise DetectorUnavailable(f"{self.name}: {error.code().name}") from None
            for category in self._parsed(answer.outputs[0].text if answer.outputs else ""):
                result[row, self.categories.index(category)] = _SURE
        return result

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
        """None. Asking again without each word would cost dozens of generations."""
        return []

    def _parsed(self, answer: str) -> list[str]:
        found = _ANSWER.fullmatch(answer)
        if found is None:
            raise DetectorUnavailable(
                f"{self.name}: an answer of {len(answer)} characters that is neither safe nor unsafe"
            )
        numbers = [] if found[1] else [number.strip().upper() for number in found[2].split(",")]
        return [self._settings.hazards[number] for number in numbers if number in self._settings.hazards]

    def _request(self, text: str) -> pb.GenerateRequest:
        message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=_prompt(text, self._settings.hazards))
        return pb.GenerateRequest(
            spec=pb.GenerationSpec(
                model=self._settings.model, chat=pb.ChatInput(messages=[message]),
                sampling=generation_pb2.SamplingParameters(temperature=0.0),
                stopping=generation_pb2.StoppingParameters(max_tokens=_MOST_TOKENS),
            )
        )  # fmt: skip


def _prompt(text: str, hazards: Mapping[str, str]) -> str:
    """Llama Guard's form. The text cannot close its own part: what looks like the form's marks, or a chat template's, is broken."""
    listed = "\n".join(f"{number}: {_NAMES.get(number, category)}." for number, category in hazards.items())
    # Replaced, not taken out: what is taken out of the middle of a mark leaves a mark.
    shown = re.sub(r"<(?=\s*/?\s*(?:BEGIN|END)\b)|<(?=\|)", "(", text, flags=re.IGNORECASE)
    return (
        "Task: Check if there is unsafe content in the message below according to our safety policy with the below categories.\n\n"
        f"<BEGIN UNSAFE CONTENT CATEGORIES>\n{listed}\n<END UNSAFE CONTENT CATEGORIES>\n\n"
        f"<BEGIN CONVERSATION>\n\nUser: {shown}\n\n<END CONVERSATION>\n\n"
        "Provide your safety assessment for the message above:\n"
        "- First line must read 'safe' or 'unsafe'.\n"
        "- If unsafe, a second line must include a comma-separated list of violated categories."
    )
