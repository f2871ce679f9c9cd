"""User names and passwords, where the text says that they are: "username: jdoe", "my password is hunter2"."""

import re

from .recognizer import Check, Pattern, Recognizer

_NAMED = r"(?:pass(?:word|wd|phrase|code)|(?:user|db|admin|root)[ _\-]?pass|pwd|passw|passwort|kennwort|mot de passe|contraseña|contrasena|senha|wachtwoord|(?:wi-?fi|wlan)[ _\-]key)"
_EDGE = r"(?<![A-Za-z0-9])"
# Behind an assignment; the quoted form may be a plain word.
_ASSIGNED = rf"{_EDGE}{_NAMED}[\"']?[ \t]{{0,3}}(?::=|=>|->|=|:)[ \t]{{0,3}}(?P<value>[^\s\"'`,;<>]{{4,128}})"
_QUOTED = rf"{_EDGE}{_NAMED}[\"']?[ \t]{{0,3}}(?::=|=>|->|=|:|is)[ \t]{{0,3}}[\"'`](?P<value>[^\n\"'`]{{4,128}})[\"'`]"
# "my password is hunter2", "pw hunter2": only something with a digit or a sign, so that "the password is wrong" stays.
_TOLD = (
    rf"{_EDGE}(?:{_NAMED}|pw|pass)[ \t]{{1,3}}(?:(?:is|was|to|ist|es|est)[ \t:]{{1,3}})?[\"'`]?"
    r"(?P<value>(?=[^\s\"'`]{0,127}[0-9!@#$%^&*_+=])(?=[^\s\"'`]{0,127}[A-Za-z])[^\s\"'`,;<>()]{5,128})"
)
_PIN = r"(?<![A-Za-z0-9])(?:pin(?:[ ](?:code|number))?|passcode|one[ -]time[ ](?:code|password)|otp|verification[ ]code|security[ ]code)(?:[ ]is|:)[ ]{0,2}(?P<value>[0-9]{4,8})(?![0-9])"
_CARD_CODE = r"(?<![A-Za-z0-9])(?:cvv2?|cvc2?|card[ ](?:security|verification)[ ](?:code|number|value))(?:[ ](?:code|number))?(?:[ ]is|[ ]?[:=])?[ ]{0,2}(?P<value>[0-9]{3,4})(?![0-9A-Za-z])"
_URL = r"(?<![A-Za-z0-9])[a-z][a-z0-9+.\-]{1,20}://[^\s:@/]{0,64}:(?P<value>[^\s@/]{3,128})@"
_NAME = r"(?:user[ _\-]?name|user[ _\-]?id|login(?:[ _\-]?(?:name|id))?|screen[ _\-]?name|account[ ]name|benutzername|nom d'utilisateur|usuario|nome utente|gebruikersnaam)"
_VALUE = r"(?P<value>[A-Za-z0-9][A-Za-z0-9._@\-]{1,38}[A-Za-z0-9])(?![A-Za-z0-9(\[])"
_NOBODY = frozenset(
    [
        "string",
        "str",
        "text",
        "varchar",
        "null",
        "none",
        "nil",
        "true",
        "false",
        "undefined",
        "required",
        "optional",
        "invalid",
        "valid",
        "missing",
        "empty",
        "unknown",
        "wrong",
        "taken",
        "already",
        "not",
        "available",
        "the",
        "that",
        "this",
        "and",
        "for",
        "with",
        "must",
        "should",
        "page",
        "form",
        "here",
        "failed",
        "successful",
        "button",
        "field",
        "password",
        "username",
        "user",
        "users",
        "name",
        "email",
        "admin",
        "root",
        "case",
        "being",
        "also",
        "your",
        "yours",
        "credentials",
        "details",
        "information",
        "prompt",
        "screen",
        "attempts",
        "request",
        "requests",
        "below",
        "above",
        "stored",
        "correct",
        "incorrect",
        "unique",
        "used",
    ]
)
_CODE = re.compile(
    r"[()\[\]{}]|^[$%<*]|^(?:os|process|env|self|this|config|settings|request|args|req|ctx|options|props|data|user|form)\.|\*{3}"
)
_WORDLIKE = re.compile(r"[A-Za-z]+[.!?:]?")


def _is_password(value: str) -> bool | None:
    """False for code ("getpass()"), words ("required") and masks ("****")."""
    return False if _CODE.search(value) or _WORDLIKE.fullmatch(value) else None


def _is_quoted_password(value: str) -> bool | None:
    return False if value.lower().strip() in _NOBODY or set(value) <= {"*", ".", "x", "X", "•"} else None


def _is_user_name(value: str) -> bool | None:
    return False if value.lower() in _NOBODY or value.startswith(("www.", "http")) else None


def logins() -> list[Recognizer]:
    """Recognizers of PASSWORD and USERNAME."""
    written, quoted = Check("no code or word", _is_password), Check("no placeholder", _is_quoted_password)
    name = Check("no word", _is_user_name)
    return [
        Recognizer(
            "PasswordRecognizer",
            "PASSWORD",
            [
                Pattern.of("assigned password", _ASSIGNED, 0.75, ignore_case=True, check=written),
                Pattern.of("quoted password", _QUOTED, 0.8, ignore_case=True, check=quoted),
                Pattern.of("told password", _TOLD, 0.6, ignore_case=True, check=written),
                Pattern.of("told pin", _PIN, 0.6, ignore_case=True),
                Pattern.of("card security code", _CARD_CODE, 0.6, ignore_case=True),
                Pattern.of("password of a command", r"(?<![A-Za-z0-9])curl[ ][^\n]{0,120}?(?:-u|--user)[ ]{1,3}[\"']?[A-Za-z0-9][A-Za-z0-9._@\-]{1,62}:(?P<value>[^\s\"'`$]{3,128})", 0.8),
                Pattern.of("password in a URL", _URL, 0.9, ignore_case=True),
            ],
            confirmed=True,
        ),
        Recognizer(
            "UserNameRecognizer",
            "USERNAME",
            [
                Pattern.of("assigned user name", rf"{_EDGE}{_NAME}[\"']?[ \t]{{0,3}}(?::=|=|:)[ \t]{{0,3}}[\"'`]?{_VALUE}", 0.7, ignore_case=True, check=name),
                Pattern.of("told user name", rf"{_EDGE}(?:my|his|her|their|the|your)[ ](?:[a-z]{{2,12}}[ ])?{_NAME}[ ]is[ :]{{1,2}}[\"'`]?{_VALUE}", 0.6, ignore_case=True, check=name),
                Pattern.of("user name and password", rf"{_EDGE}{_NAME}[ ](?:is[ ])?{_VALUE}(?=[ ]{{0,2}}(?:/|,|and|with|\||;)[ ]{{0,2}}(?:the[ ])?(?:password|pw|pwd|pass)\b)", 0.7, ignore_case=True, check=name),
                Pattern.of("user of a URL", r"(?<![A-Za-z0-9])[a-z][a-z0-9+.\-]{1,20}://(?P<value>[^\s:@/]{3,64}):[^\s@/]{1,128}@", 0.6, ignore_case=True, check=name),
                Pattern.of("user of a log line", r"(?<![A-Za-z0-9_.])(?:user|usr|uid|login)=(?P<value>[a-z][a-z0-9._\-]{1,38}[a-z0-9])(?![A-Za-z0-9_.(\[])", 0.6, check=name),
                Pattern.of("user of a command", r"(?<![A-Za-z0-9])curl[ ][^\n]{0,120}?(?:-u|--user)[ ]{1,3}[\"']?(?P<value>[A-Za-z0-9][A-Za-z0-9._@\-]{1,62}):", 0.7),
                Pattern.of("social handle", r"(?<![A-Za-z0-9])(?:twitter|instagram|insta|telegram|tiktok|snapchat|discord|github|skype|mastodon|bluesky|threads|handle)(?![A-Za-z])[^\n@.]{0,24}(?P<value>@[A-Za-z0-9_.]{2,30}[A-Za-z0-9_])", 0.6, ignore_case=True),
            ],
            confirmed=True,
        ),
    ]  # fmt: skip
