"""Keys, tokens and passwords in text: rules over their published shapes, with an entropy test where a shape alone says little.

Shapes are those the issuers document (AWS, GitHub, GitLab, Slack, Stripe, Google, OpenAI, Anthropic, npm, PyPI, ... ). A placeholder
such as `AKIAIOSFODNN7EXAMPLE`, `<your key>` or `xxxx` is no secret.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

CERTAIN, LIKELY = 0.99, 0.8


@dataclass(frozen=True)
class SecretRule:
    """A pattern whose first group (or whole match) is the secret. `entropy`: fewest bits a character it must have."""

    reason: str
    pattern: re.Pattern[str]
    score: float = CERTAIN
    entropy: float = 0.0


def _rule(reason: str, pattern: str, score: float = CERTAIN, entropy: float = 2.5) -> SecretRule:
    return SecretRule(reason, re.compile(pattern), score, entropy)


_EDGE, _END = r"(?<![A-Za-z0-9_\-])", r"(?![A-Za-z0-9_\-])"
# Every quantifier is bounded and no two neighbours match the same character, so a rule costs time linear in the text.
RULES = (
    _rule("private_key", r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----", entropy=0),
    _rule("aws_access_key_id", rf"{_EDGE}((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}){_END}"),
    _rule(
        "aws_secret_access_key",
        r"(?i:aws)[\w .\-]{0,20}(?i:secret|key)[\w .\-]{0,20}[\"']?\s{0,3}[:=]{1,2}\s{0,3}[\"']?"
        r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
        entropy=3.5,
    ),
    _rule("github_token", rf"{_EDGE}((?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_[A-Za-z0-9_]{{60,100}})){_END}"),
    _rule("gitlab_token", rf"{_EDGE}(gl(?:pat|dt|rt|cbt|ptt|soat|agent)-[A-Za-z0-9_\-]{{20,64}}){_END}"),
    _rule("slack_token", rf"{_EDGE}(xox[abeoprs]-[A-Za-z0-9\-]{{10,250}}){_END}"),
    _rule("slack_webhook", r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30})"),
    _rule("stripe_key", rf"{_EDGE}((?:sk|rk)_(?:live|test)_[A-Za-z0-9]{{16,247}}){_END}"),
    _rule("stripe_webhook_secret", rf"{_EDGE}(whsec_[A-Za-z0-9+/=]{{24,64}})"),
    _rule("google_api_key", rf"{_EDGE}(AIza[A-Za-z0-9_\-]{{35}}){_END}"),
    _rule("google_oauth_secret", rf"{_EDGE}((?:GOCSPX-[A-Za-z0-9_\-]{{20,40}}|ya29\.[A-Za-z0-9_\-]{{20,250}})){_END}"),
    _rule("openai_key", rf"{_EDGE}(sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_\-]{{20,200}}){_END}", entropy=3.2),
    _rule("anthropic_key", rf"{_EDGE}(sk-ant-[A-Za-z0-9_\-]{{20,200}}){_END}"),
    _rule("hugging_face_token", rf"{_EDGE}((?:hf_|api_org_)[A-Za-z]{{30,40}}){_END}"),
    _rule("npm_token", rf"{_EDGE}(npm_[A-Za-z0-9]{{36}}){_END}"),
    _rule("pypi_token", rf"{_EDGE}(pypi-AgE[A-Za-z0-9_\-]{{50,250}})"),
    _rule("sendgrid_key", rf"{_EDGE}(SG\.[A-Za-z0-9_\-]{{16,32}}\.[A-Za-z0-9_\-]{{16,64}}){_END}"),
    _rule("twilio_key", rf"{_EDGE}((?:SK|AC)[0-9a-f]{{32}}){_END}"),
    _rule("mailgun_key", rf"{_EDGE}(key-[0-9a-f]{{32}}){_END}"),
    _rule("mailchimp_key", rf"{_EDGE}([0-9a-f]{{32}}-us[0-9]{{1,2}}){_END}"),
    _rule("telegram_bot_token", rf"{_EDGE}([0-9]{{8,10}}:AA[A-Za-z0-9_\-]{{33}}){_END}"),
    _rule("discord_token", rf"{_EDGE}([MNO][A-Za-z0-9_\-]{{23,27}}\.[A-Za-z0-9_\-]{{6}}\.[A-Za-z0-9_\-]{{27,40}}){_END}"),
    _rule("digitalocean_token", rf"{_EDGE}(do[opr]_v1_[0-9a-f]{{64}}){_END}"),
    _rule("shopify_token", rf"{_EDGE}(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{{32}}){_END}"),
    _rule("databricks_token", rf"{_EDGE}(dapi[0-9a-f]{{32}}){_END}"),
    _rule("vault_token", rf"{_EDGE}(hv[sbr]\.[A-Za-z0-9_\-]{{24,250}}){_END}"),
    _rule("azure_storage_key", r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    # Without the signature: a token can be longer than the windows in which texts are read, and this much is in one.
    _rule("json_web_token", rf"{_EDGE}(eyJ[A-Za-z0-9_\-]{{10,400}}\.eyJ[A-Za-z0-9_\-]{{10,200}})"),
    _rule("url_password", r"[a-z][a-z0-9+.\-]{1,15}://[^\s:/@<{$]{1,64}:([^\s:/@<{$]{6,64})@[A-Za-z0-9]", LIKELY, 2.3),
    _rule("bearer_token", r"(?i:authorization|bearer)[\"']?\s{0,3}[:=]?\s{0,3}(?i:bearer\s{1,3})?([A-Za-z0-9_\-.+/=]{24,400})", LIKELY, 3.4),
    _rule(
        "labelled_secret",
        r"(?i:pass(?:word|wd|phrase)?|pwd|secret|api[_ \-]?key|access[_ \-]?key|auth[_ \-]?token|"
        r"access[_ \-]?token|client[_ \-]?secret|token)[\"'`*]{0,3}"
        r"\s{0,3}(?:is|=>|:=|[:=])\s{0,3}[\"'`*]{0,3}([^\s\"'`,;<>{}()$]{8,200}+)(?!\()",  # a value with a bracket behind it is a call in code
        LIKELY,
        2.9,
    ),
)  # fmt: skip
_PLACEHOLDER = re.compile(
    r"(?i)example|placeholder|your[_\-]?|xxx|changeme|redacted|default|dummy|sample|insert|replace|\*{3}|\.{3}|1234567890|abcdefgh|<|\[|_here|null|none|true|false|undefined|required|optional|^(?:password|passwd|secret|admin|root|test|guest)\d?$"
)
# A secret that a person chose, after a label, has letters and digits or marks; a word does not.
_MIXED = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9!#%&*+^~@?])")
_GENERIC = ("labelled_secret", "bearer_token", "openai_key")
_HINT = re.compile(r"(?i)[A-Za-z0-9_\-/+]{20}|pass|pwd|secret|key|token|bearer|auth|://|begin")


@dataclass(frozen=True)
class Secret:
    reason: str
    score: float


def secrets_in(text: str) -> list[Secret]:
    """What kinds of secret stand in the text; never the secret itself."""
    if not _HINT.search(text):
        return []
    return [
        Secret(rule.reason, rule.score)
        for rule in RULES
        if any(_is_secret(rule, m) for m in rule.pattern.finditer(text))
    ]


def _is_secret(rule: SecretRule, match: re.Match[str]) -> bool:
    value = match[1] if match.re.groups else match[0]
    if rule.reason == "private_key":
        return True
    if _PLACEHOLDER.search(value) or _bits(value) < rule.entropy:
        return False
    return rule.reason not in _GENERIC or _MIXED.match(value) is not None


def _bits(value: str) -> float:
    """Shannon entropy of the characters, bits each."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
