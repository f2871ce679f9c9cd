"""Secrets by rule: what is found, what only looks like one, and that no text takes long."""

import random
import string
import time

import pytest
from sluice_moderation.adapters.secrets import SecretRules
from sluice_moderation.domain.detector import SECRETS
from sluice_moderation.domain.secrets import secrets_in
from sluice_moderation.domain.windows import windowed

DETECTOR = SecretRules()


def test_a_web_token_longer_than_a_window_is_found() -> None:
    drawn = random.Random(1)
    letters = string.ascii_letters + string.digits
    claims = "".join(drawn.choices(letters, k=3000))
    text = f"Here you go: {'eyJ' + 'hbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9'}.{'eyJ' + claims}.{claims[:342]} and good luck."
    found = DETECTOR.scores(list(windowed(text)))
    assert found.max() >= 0.8


# The tokens are put together here, so that no scanner takes this file for a leak.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AKIA" + "2OGYBAH6STMMNXNN is the id", "aws_access_key_id"),
        ("use ghp" + "_16C7e42F292c6912E7710c838347Ae178B4a", "github_token"),
        ("glpat" + "-k3JfW9xQz7LmN2pRt5vB", "gitlab_token"),
        ("xoxb" + "-238471923847-98237498237-pQ7rWzT4vKx9Lm2n", "slack_token"),
        ("sk_live" + "_4eC39HqLyjWDarjtT1zdp7dc", "stripe_key"),
        ("AIza" + "SyD9tSrke72PouQMnMX-a7eZSW0jkFMBWYQ", "google_api_key"),
        ("sk-proj" + "-a8Jd92kslQpZ71mNbv34Xy", "openai_key"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE", "private_key"),
        ("postgres://app:S3cr3tPw9x@db.internal/x", "url_password"),
        ("The password is hunter2extra!", "labelled_secret"),
        ("Authorization: Bearer abcDEF123ghiJKL456mnoPQR789", "bearer_token"),
    ],
)
def test_a_secret_is_found_and_named_by_kind(text: str, reason: str) -> None:
    assert reason in DETECTOR.reasons(text, SECRETS)
    assert DETECTOR.scores([text])[0, 0] >= 0.8
    assert all(feature.replace("_", "").isalpha() for feature, _ in DETECTOR.contributions(text, SECRETS, limit=9))


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE", "password: <YOUR_PASSWORD>", "The password is required", "token: null", "the access token expired yesterday",
        "The secret is to keep stirring", "postgres://user:password@localhost", "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "sk-learn-contrib-package-name-is-long-a", "api_key = os.environ['API_KEY']", "How do I reset my password?", "",
        "secret = base64.b64encode(os.urandom(32))", "password = hash_sha256(typed, salt)", "token=oauth2_client.fetch_token(url)",
        "password=${DB_PASSWORD:-default123}",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_secret_is_left_alone(text: str) -> None:
    assert secrets_in(text) == []


@pytest.mark.parametrize("piece", ["a", "password ", "a://", "key=a ", "eyJ", "pass", "sk-", "x:y@", "aws key "])
def test_the_time_grows_with_the_length_of_the_text_and_no_faster(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        began = time.process_time()
        secrets_in(text)
        return time.process_time() - began

    # Sixteen times the text: quadratic growth would take 256 times as long.
    assert min(seconds(320_000) for _ in range(2)) < 100 * max(min(seconds(20_000) for _ in range(3)), 1e-3)
