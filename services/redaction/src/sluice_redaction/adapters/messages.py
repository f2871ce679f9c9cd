"""Protobuf messages of the redaction service, from and to what the domain knows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.types.v1 import personal_data_pb2, verdict_pb2

from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.holding import Holding
from sluice_redaction.domain.operators import Operation, Operator
from sluice_redaction.domain.policy import Direction, Policy
from sluice_redaction.domain.redaction import RedactedText, RedactingStream
from sluice_redaction.domain.replacing import Replacement
from sluice_redaction.domain.vault import Entry, Vault

from .listed import Listed

_DIRECTIONS = {
    None: verdict_pb2.DIRECTION_UNSPECIFIED,
    Direction.INPUT: verdict_pb2.DIRECTION_INPUT,
    Direction.OUTPUT: verdict_pb2.DIRECTION_OUTPUT,
}


def direction_of(value: int) -> Direction | None:
    """The direction of a request; None where it names none."""
    return next((direction for direction, number in _DIRECTIONS.items() if number == value), None)


def is_json(text_format: int) -> bool:
    return text_format == pb.TEXT_FORMAT_JSON


def detect_response(
    segments: Sequence[pb.TextSegment], found: Sequence[Sequence[Finding]], policy: Policy
) -> pb.DetectResponse:
    return pb.DetectResponse(
        findings=[
            _finding(segment.segment_id, finding, policy.operator_for(finding.kind).operation)
            for segment, findings in zip(segments, found, strict=True)
            for finding in findings
        ],
        policy_id=policy.id,
        policy_version=policy.version,
    )


def redact_response(
    segments: Sequence[pb.TextSegment], texts: Sequence[RedactedText], vault: Vault, policy: Policy
) -> pb.RedactResponse:
    """Without the counts."""
    response = pb.RedactResponse(
        policy_id=policy.id, policy_version=policy.version, policy_digest=policy.digest, vault=vault_message(vault)
    )
    for segment, redacted in zip(segments, texts, strict=True):
        response.segments.add(segment_id=segment.segment_id, text=redacted.text)
        response.findings.extend(
            _finding(segment.segment_id, finding, replacement.operation, replacement)
            for finding, replacement in zip(redacted.findings, redacted.replacements, strict=True)
        )
    return response


def vault_from(message: pb.Vault) -> Vault:
    """Raises ValueError for an entry that no operator makes."""
    return Vault(_entry(entry) for entry in message.entries)


def vault_message(vault: Iterable[Entry]) -> pb.Vault:
    entries = (
        pb.VaultEntry(placeholder=entry.placeholder, value=entry.value, kind=entry.kind, operator=entry.operation)
        for entry in vault
    )
    return pb.Vault(entries=entries)


def kind_counts(counts: Mapping[str, int]) -> list[personal_data_pb2.KindCount]:
    return [personal_data_pb2.KindCount(kind=kind, count=count) for kind, count in sorted(counts.items())]


def finished(stream: RedactingStream, policy: Policy, holding: Holding) -> pb.RedactStreamFinished:
    message = pb.RedactStreamFinished(
        counts=kind_counts(stream.counts),
        restored_count=stream.restored,
        max_held_back_characters=holding.most_characters,
        policy_id=policy.id,
        policy_version=policy.version,
    )
    if holding.first_text_seconds is not None:
        message.time_to_first_text.FromNanoseconds(round(holding.first_text_seconds * 1e9))
    return message


def listing(listed: Sequence[Listed], policy: Policy) -> pb.ListRecognizersResponse:
    """All recognizers by name, those of the policy among them, and what the policy does with each kind."""
    recognizers = [
        pb.Recognizer(
            name=one.name, kinds=one.kinds, languages=["en"], model_digest=one.digest, pattern_count=one.pattern_count
        )
        for one in listed
    ]
    recognizers += _own(policy)
    return pb.ListRecognizersResponse(
        recognizers=sorted(recognizers, key=lambda one: one.name),
        enabled_kinds=sorted(policy.replaced_kinds),
        rules=[_rule(kind, policy) for kind in sorted(policy.kinds)],
        policy_id=policy.id,
        policy_version=policy.version,
        policy_digest=policy.digest,
    )


def _own(policy: Policy) -> Iterator[pb.Recognizer]:
    """A recognizer of patterns and words is one to its author. Patterns and word lists know no language."""
    by_name = sorted(policy.recognizers, key=lambda one: (one.name, one.kind))
    for (name, kind), parts in groupby(by_name, key=lambda one: (one.name, one.kind)):
        several = list(parts)
        yield pb.Recognizer(
            name=name,
            kinds=[kind],
            languages=policy.languages,
            model_digest=several[0].digest,
            pattern_count=sum(one.pattern_count for one in several),
            custom=True,
        )


def _rule(kind: str, policy: Policy) -> pb.KindRule:
    operator: Operator = policy.operator_for(kind)
    return pb.KindRule(
        kind=kind,
        operator=operator.operation,
        min_score=policy.min_score_for(kind),
        restorable=operator.restorable,
        direction=_DIRECTIONS[policy.direction_of(kind)],
    )


def _finding(
    segment_id: str, finding: Finding, operation: Operation, replacement: Replacement | None = None
) -> pb.Finding:
    entry = replacement.entry if replacement else None
    return pb.Finding(
        segment_id=segment_id,
        kind=finding.kind,
        start=finding.start,
        end=finding.end,
        score=finding.score,
        recognizer=finding.recognizer,
        explanation=finding.explanation,
        placeholder=entry.placeholder if entry else "",
        pattern=finding.pattern,
        context=finding.context,
        validation=finding.validation,
        original_score=finding.original_score,
        disguise=finding.disguise,
        operator=operation,
    )


def _entry(message: pb.VaultEntry) -> Entry:
    try:
        operation = Operation(message.operator or Operation.REPLACE)
    except ValueError:
        raise ValueError("a vault entry's operator must be replace, surrogate or encrypt") from None
    return Entry(message.placeholder, message.value, message.kind, operation)
