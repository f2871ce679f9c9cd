"""One call before all policies that judge it: the enforced one decides, the shadows only watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sluice_moderation.domain.judgement import Judgement, Outcome
from sluice_moderation.domain.panel import WindowScores
from sluice_moderation.domain.policy import Action
from sluice_moderation.domain.sentences import Sentence


@dataclass
class Hearing:
    """Gives every sentence to all judgements; only the enforced one's outcome is told."""

    enforced: Judgement
    shadows: list[Judgement] = field(default_factory=list)
    on_failure: Callable[[Exception], None] = lambda _: None

    def add(self, sentence: Sentence, scored: WindowScores) -> Outcome:
        """Take in the scores of one sentence's windows."""
        outcome = self.enforced.add(sentence, scored)
        for shadow in tuple(self.shadows):
            try:
                shadow.add(sentence, scored)
            except Exception as error:  # whatever is wrong with a policy on trial, the answer goes on without it
                self.shadows.remove(shadow)
                self.on_failure(error)
        return outcome


def released(sentence: Sentence, outcome: Outcome) -> str:
    """What goes on of a sentence: itself, a marker in its place, or nothing."""
    if outcome.action.withholds:
        return ""
    return marked(sentence.text, outcome.category) if outcome.action is Action.REDACT else sentence.text


def marked(sentence: str, category: str) -> str:
    """The marker in place of a sentence, between the white space that stood around it."""
    body = sentence.strip()
    if not body:
        return sentence
    start = sentence.index(body)
    return f"{sentence[:start]}[removed: {category}]{sentence[start + len(body) :]}"
