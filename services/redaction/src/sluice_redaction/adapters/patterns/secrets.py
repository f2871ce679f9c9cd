"""API keys, access tokens and private keys: by their issuer's prefix, or by the word that introduces them."""

import math
import re
from collections import Counter

from .recognizer import Check, Pattern, Recognizer

# Each issuer's documented prefix and alphabet. \b alone would let a prefix match inside a longer word.
_EDGE, _STOP = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
_ISSUED = {
    "AWS access key id": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
    "AWS Bedrock key": r"ABSK[A-Za-z0-9+/]{100,200}={0,2}",
    "GitHub token": r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
    "GitLab token": r"gl(?:pat|dt|rt|ptt|cbt|agent|soat|ft|imt|oas)-[A-Za-z0-9_\-]{20,255}",
    "Slack token": r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9\-]{10,255}",
    "OpenAI, Anthropic or OpenRouter key": r"sk-(?:ant-|proj-|svcacct-|admin-|or-)?[A-Za-z0-9_\-]{20,255}",
    "Stripe key": r"(?:[rsp]k_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{24,255})",
    "Google API key": r"AIza[0-9A-Za-z_\-]{35}",
    "Google OAuth": r"(?:ya29\.[0-9A-Za-z_\-]{20,2000}|GOCSPX-[0-9A-Za-z_\-]{20,40}|1//0[0-9A-Za-z_\-]{40,200})",
    "Azure client secret": r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.\-]{31,34}",
    "Twilio id or key": r"(?:AC|SK)[0-9a-f]{32}",
    "SendGrid key": r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,64}",
    "Hugging Face token": r"(?:hf_|api_org_)[A-Za-z0-9]{30,64}",
    "package registry token": r"(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,255}|rubygems_[a-f0-9]{48}|oy2[a-z0-9]{43})",
    "Docker token": r"dckr_(?:pat|oat)_[A-Za-z0-9_\-]{20,64}",
    "DigitalOcean token": r"do[opr]_v1_[a-f0-9]{64}",
    "Shopify token": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "Databricks token": r"dapi[a-f0-9]{32}(?:-[0-9])?",
    "Mailgun key": r"key-[0-9a-f]{32}",
    "Mailchimp key": r"[0-9a-f]{32}-us[0-9]{1,2}",
    "Brevo key": r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",
    "Telegram bot token": r"[0-9]{8,10}:[A-Za-z0-9_\-]{35}",
    "Discord bot token": r"[MNO][A-Za-z0-9_\-]{23,25}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,38}",
    "Groq, xAI, Replicate or Perplexity key": r"(?:gsk_|xai-|r8_|pplx-)[A-Za-z0-9]{30,255}",
    "NVIDIA, LangSmith or Pinecone key": r"(?:nvapi-[A-Za-z0-9_\-]{60,80}|lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}|pcsk_[A-Za-z0-9_]{40,90})",
    "Atlassian token": r"ATATT3[A-Za-z0-9_\-=]{50,250}",
    "Linear, Notion, Figma or Postman key": (
        r"(?:lin_api_[A-Za-z0-9]{40}|ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43}|figd_[A-Za-z0-9_\-]{38,60}"
        r"|PMAK-[a-f0-9]{24}-[a-f0-9]{34})"
    ),
    "New Relic, Sentry, Grafana or Dynatrace key": (
        r"(?:NRAK-[A-Z0-9]{27}|sntry[su]_[A-Za-z0-9+/=_]{40,300}|gl(?:c|sa)_[A-Za-z0-9+/_]{32,300}={0,2}"
        r"|dt0c01\.[A-Z2-7]{24}\.[A-Z2-7]{64})"
    ),
    "Vault or Terraform token": r"(?:hv[sbr]\.[A-Za-z0-9_\-]{24,300}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-=]{60,80})",
    "hosting token": (
        r"(?:nfp_[A-Za-z0-9]{36}|sbp_[a-f0-9]{40}|pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_\-.]{32,64}|dp\.(?:pt|st|ct)\.[A-Za-z0-9]{40,44}"
        r"|HRKU-[A-Za-z0-9_\-]{36,70}|fm[12]_[A-Za-z0-9+/=_\-]{80,2000}|tskey-[a-z]{2,10}-[A-Za-z0-9]{8,20}-[A-Za-z0-9]{20,40}"
        r"|CCIPAT_[A-Za-z0-9]{22}_[a-f0-9]{40}|pul-[a-f0-9]{40}|LTAI[A-Za-z0-9]{12,20})"
    ),
    "payment token": (
        r"(?:sq0(?:atp|csp|idp)-[A-Za-z0-9_\-]{22,43}|access_token\$production\$[a-z0-9]{16}\$[a-f0-9]{32}"
        r"|FLWSECK(?:_TEST)?-[a-fA-F0-9]{12,40}|rzp_(?:live|test)_[A-Za-z0-9]{14}|access-(?:production|sandbox)-[0-9a-f\-]{36})"
    ),
    "Meta access token": r"EAA[A-Za-z0-9]{60,300}",
    "age secret key": r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    # Signature and payload may be missing while a stream is still growing: the head alone is enough.
    "JSON web token": r"eyJ[A-Za-z0-9_\-]{10,4000}(?:\.[A-Za-z0-9_\-]{0,8000}){0,2}",
}
# base64 lines up to the END line, or to the end of the text if it does not come (a cut-off or streaming key).
_PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s\\:,.]|-(?!----)){0,12000}?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=-----)|(?=[^A-Za-z0-9+/=\s\\:,.\-]))"
)
_PUTTY = r"PuTTY-User-Key-File-[23]:(?:(?!PuTTY-User-Key-File)[^\x00]){0,4000}?(?:Private-MAC:[ ][0-9a-f]{40,64}|\Z)"
_NAMED = (
    r"(?:api|access|secret|private|auth|client|signing|encryption|master|bearer|refresh|session|account|subscription|license"
    r"|app|webhook|service)[ _\-]?(?:key|token|secret)|secret|token|apikey"
)
# key = value, "key": "value", KEY=value: anything of eight characters behind an assignment, if it looks random.
_ASSIGNED = (
    rf"(?<![A-Za-z])(?:{_NAMED})(?:[ _\-]?(?:id|key|value))?[\"']?[ \t]{{0,3}}(?::=|=>|=|:)[ \t]{{0,3}}[\"'`]?"
    r"(?P<value>[^\s\"'`,;<>]{8,512})"
)
# "my token is ab12...": only something with a digit or a sign in it, so that "the token is expired" stays.
_TOLD = (
    rf"(?<![A-Za-z0-9_])(?:{_NAMED})[ \t]{{1,3}}is[ \t:]{{1,3}}[\"'`]?"
    r"(?P<value>(?=[^\s\"'`]{0,127}[0-9!@#$%^&*_+=])[^\s\"'`,;<>]{8,256})"
)
_CODE = re.compile(
    r"[()\[\]{}]|^[$%<]|^(?:os|process|env|self|this|config|settings|request|args|req|ctx|options|props|data)\.|^\*+$|\.\.\.$"
)


def _looks_random(value: str) -> bool | None:
    """None (keep) for what has the letters and digits of a key; False for code, words and placeholders."""
    if _CODE.search(value) or value.isalpha() or value.startswith(("YOUR", "your", "xxx", "XXX")):
        return False
    if not any(sign.isdigit() for sign in value) and len(value) < 20:
        return False
    return None if entropy(value) >= 2.5 else False


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits a character. Words of prose have about 2 to 3, random keys over 3.5."""
    counts = Counter(value)
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())


def _issued_is_real(value: str) -> bool | None:
    """Drops what repeats one sign ("sk-xxxxxxxx...") or is a word chain: documentation, not a key."""
    return None if entropy(value) >= 2.8 else False


_ISSUED_CHECK = Check("entropy", _issued_is_real)
_RANDOM = Check("entropy", _looks_random)


def secrets() -> list[Recognizer]:
    """Recognizers of API_KEY."""
    issued = [
        Pattern.of(name, f"{_EDGE}(?P<value>{expression}){_STOP}", 0.95, check=_ISSUED_CHECK)
        for name, expression in _ISSUED.items()
    ]
    others = [
        Pattern.of("private key block", _PEM, 1.0),
        Pattern.of("PuTTY private key", _PUTTY, 1.0),
        Pattern.of("AWS secret key", r"aws[^\n]{0,40}?[\"'=:\s](?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", 0.9, ignore_case=True),
        Pattern.of("AWS secret key beside its id", r"(?:AKIA|ASIA)[A-Z0-9]{16}[\"']?[ \t]{0,3}[:,;/|\s][ \t]{0,3}[\"']?(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", 0.9),
        Pattern.of(
            "authorization header",
            r"\b(?:bearer|basic|authorization:[ ]{0,2}token)[ \t]{1,3}(?P<value>[A-Za-z0-9._~+/=\-]{16,4000})",
            0.8,
            ignore_case=True,
            check=Check("entropy", lambda value: None if any(sign.isdigit() for sign in value) or "=" in value else False),
        ),
        Pattern.of("storage account key", r"(?:AccountKey|SharedAccessKey|sig)=(?P<value>[A-Za-z0-9+/%]{40,100}={0,2})", 0.95, ignore_case=True),
        Pattern.of("webhook address", r"https://(?:hooks\.slack\.com/services/T|discord(?:app)?\.com/api/webhooks/[0-9])(?P<value>[A-Za-z0-9_/\-]{20,200})", 0.9),
        Pattern.of("assigned secret", _ASSIGNED, 0.7, ignore_case=True, check=_RANDOM),
        Pattern.of("told secret", _TOLD, 0.6, ignore_case=True, check=_RANDOM),
    ]  # fmt: skip
    return [Recognizer("ApiKeyRecognizer", "API_KEY", [*issued, *others], confirmed=True)]
