"""API keys, tokens, private keys and passwords: Presidio has no recognizer for them."""

import re

from .grouped_patterns import GroupedPattern, GroupedPatternRecognizer

# Each issuer's documented prefix and alphabet. \b alone would let a prefix match inside a longer word.
_EDGE, _STOP = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
_ISSUED = {
    "AWS access key id": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
    "GitHub token": r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
    "GitLab token": r"gl(?:pat|dt|rt|ptt|cbt)-[A-Za-z0-9_\-]{20,255}",
    "Slack token": r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9\-]{10,255}",
    "OpenAI or Anthropic key": r"sk-(?:ant-|proj-|svcacct-|admin-|or-)?[A-Za-z0-9_\-]{20,255}",
    "Stripe key": r"(?:[rsp]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{24,255})",
    "Google API key": r"AIza[0-9A-Za-z_\-]{35}",
    "Google OAuth": r"(?:ya29\.[0-9A-Za-z_\-]{20,2000}|GOCSPX-[0-9A-Za-z_\-]{20,40})",
    "Twilio id or key": r"(?:AC|SK)[0-9a-f]{32}",
    "SendGrid key": r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,64}",
    "Hugging Face token": r"hf_[A-Za-z0-9]{30,64}",
    "package registry token": r"(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,255})",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{64}",
    "Shopify token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "Databricks token": r"dapi[a-f0-9]{32}",
    "Mailgun key": r"key-[0-9a-f]{32}",
    "Telegram bot token": r"[0-9]{8,10}:[A-Za-z0-9_\-]{35}",
    "Groq, xAI, Replicate or Perplexity key": r"(?:gsk_|xai-|r8_|pplx-)[A-Za-z0-9]{30,255}",
    # Signature and payload may be missing while a stream is still growing: the head alone is enough.
    "JSON web token": r"eyJ[A-Za-z0-9_\-]{10,4000}(?:\.[A-Za-z0-9_\-]{0,8000}){0,2}",
}
# base64 lines up to the END line, or to the end of the text if it does not come (a cut-off or streaming key).
_PEM = (
    r"(?P<value>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.\-]{0,12000}?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=[^A-Za-z0-9+/=\s\\:,.\-])))"
)
_NAMED = (
    r"(?:api|access|secret|private|auth|client|signing|encryption|master|bearer|refresh|session)[ _\-]?"
    r"(?:key|token|secret)|secret|token|passwd|password|passphrase|pwd"
)
# key = value, "key": "value": anything of eight characters behind an assignment.
_ASSIGNED = (
    rf"(?<![A-Za-z])(?:{_NAMED})(?:[ _\-]?(?:id|key|value))?[\"']?[ \t]{{0,3}}(?::=|=>|=|:)[ \t]{{0,3}}[\"'`]?"
    r"(?P<value>[^\s\"'`,;<>]{6,512})"
)
# "my password is hunter2": only something with a digit or a sign in it, so that "the password is wrong" stays.
_TOLD = (
    rf"\b(?:{_NAMED})[ \t]{{1,3}}is[ \t]{{1,3}}[\"'`]?"
    r"(?P<value>(?=[^\s\"'`]{0,127}[0-9!@#$%^&*_+=])[^\s\"'`,;<>]{6,128})"
)
_PATTERNS = (
    *(
        GroupedPattern(name, re.compile(f"{_EDGE}(?P<value>{expression}){_STOP}"), 0.95)
        for name, expression in _ISSUED.items()
    ),
    GroupedPattern("private key block", re.compile(_PEM), 1.0),
    GroupedPattern(
        "AWS secret key", re.compile(r"(?i)aws[^\n]{0,40}?[\"'=:\s](?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"), 0.9
    ),
    GroupedPattern(
        "authorization header",
        re.compile(r"(?i)\b(?:bearer|basic)[ \t]{1,3}(?P<value>[A-Za-z0-9._~+/=\-]{16,4000})"),
        0.8,
    ),
    GroupedPattern(
        "password in a URL",
        re.compile(r"(?i)\b[a-z][a-z0-9+.\-]{1,20}://[^\s:@/]{0,64}:(?P<value>[^\s@/]{3,128})@"),
        0.9,
    ),
    GroupedPattern(
        "storage account key",
        re.compile(r"(?i)(?:AccountKey|SharedAccessKey)=(?P<value>[A-Za-z0-9+/]{40,100}={0,2})"),
        0.95,
    ),
    GroupedPattern("assigned secret", re.compile(f"(?i){_ASSIGNED}"), 0.7),
    GroupedPattern("told secret", re.compile(f"(?i){_TOLD}"), 0.6),
)


class ApiKeyRecognizer(GroupedPatternRecognizer):
    """Finds secrets by their issuer's prefix, or by the word that introduces them."""

    def __init__(self) -> None:
        super().__init__("API_KEY", _PATTERNS, name="ApiKeyRecognizer")
