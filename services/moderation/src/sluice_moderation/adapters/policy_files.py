"""Policies from YAML files; every mistake is told with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.policy import Action, Direction, Policy, Rule

SHIPPED = Path(__file__).parent / "policies"
_FIELDS = {"policy", "version", "description", "fail_closed", "rules"}
_ACTIONS = {"flag": Action.FLAG, "block": Action.BLOCK}


class PolicyMistake(ValueError):
    """A policy file cannot be used; the message gives file, line and what to do."""


class _LinedLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, instead of taking the last."""


class _Lined(dict[str, Any]):
    """A mapping that knows the line of each of its keys."""

    lines: dict[str, int]


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> _Lined:
    result = _Lined()
    result.lines = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node))  # type: ignore[no-untyped-call]
        if key in result:
            raise PolicyMistake(f"line {key_node.start_mark.line + 1}: {key} stands here a second time; keep one.")
        result[key] = loader.construct_object(value_node, deep=True)  # type: ignore[no-untyped-call]
        result.lines[key] = key_node.start_mark.line + 1
    return result


_LinedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_policies(*folders: Path) -> Mapping[str, Policy]:
    """Policies of all `*.yaml` in the folders by id; a later folder replaces what an earlier one has. Raises PolicyMistake."""
    policies: dict[str, Policy] = {}
    for folder in folders:
        if not folder.is_dir():
            raise PolicyMistake(f"{folder} is no folder; SLUICE_MODERATION_POLICIES must name one with *.yaml files.")
        here: dict[str, Path] = {}
        for path in sorted(folder.glob("*.yaml")):
            policy = read_policy(path)
            if policy.policy_id in here:
                raise PolicyMistake(
                    f"{path}: policy {policy.policy_id} also stands in {here[policy.policy_id]}; keep one."
                )
            here[policy.policy_id] = path
            policies[policy.policy_id] = policy
    return policies


def read_policy(path: Path) -> Policy:
    """One policy. Raises PolicyMistake."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _LinedLoader)  # noqa: S506 - a SafeLoader
        return _policy(document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise PolicyMistake(f"{path}: line {line}: not YAML: {getattr(error, 'problem', error)}.") from None
    except (PolicyMistake, UnicodeDecodeError) as mistake:
        raise PolicyMistake(f"{path}: {mistake}") from None


def _policy(document: Any) -> Policy:
    if not isinstance(document, _Lined):
        raise PolicyMistake("line 1: a policy is a mapping with policy, version, description, fail_closed and rules.")
    for key in document:
        _expect(key in _FIELDS, document, key, f"unknown field; known are {', '.join(sorted(_FIELDS))}.")
    for key in sorted(_FIELDS - set(document)):
        raise PolicyMistake(f"line 1: {key} is missing.")
    name, version = document["policy"], document["version"]
    _expect(
        isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64,
        document,
        "policy",
        "must be 1 to 64 letters, digits, - or _.",
    )
    _expect(type(version) is int and version >= 1, document, "version", "must be a whole number from 1.")
    _expect(isinstance(document["fail_closed"], bool), document, "fail_closed", "must be true or false.")
    _expect(isinstance(document["description"], str), document, "description", "must be text.")
    _expect(isinstance(document["rules"], _Lined), document, "rules", "must hold input and output.")
    return Policy(name, version, document["description"], tuple(_rules(document["rules"])), document["fail_closed"])


def _rules(directions: _Lined) -> list[Rule]:
    rules = []
    for direction, categories in directions.items():
        _expect(direction in set(Direction), directions, direction, "must be input or output.")
        _expect(isinstance(categories, _Lined), directions, direction, "must map categories to thresholds.")
        for category, thresholds in categories.items():
            _expect(
                category in CATEGORIES, categories, category, f"unknown category; known are {', '.join(CATEGORIES)}."
            )
            _expect(
                isinstance(thresholds, _Lined) and bool(thresholds),
                categories,
                category,
                "must be like {flag: 0.7, block: 0.9}.",
            )
            for action, threshold in thresholds.items():
                _expect(action in _ACTIONS, thresholds, action, "must be flag or block.")
                valid = isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 < threshold <= 1
                _expect(valid, thresholds, action, "must be a number above 0 and at most 1.")
                rules.append(Rule(category, Direction(direction), float(threshold), _ACTIONS[action]))
            ordered = thresholds.get("flag", 0) < thresholds.get("block", 2)
            _expect(ordered, categories, category, "flag must be lower than block, else nothing is ever flagged.")
    return rules


def _expect(holds: bool, mapping: _Lined, key: str, message: str) -> None:
    if not holds:
        raise PolicyMistake(f"line {mapping.lines[key]}: {key}: {message}")
