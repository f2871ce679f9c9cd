"""What is said of an answer: language, repetition, support by the context."""

import pytest
from sluice_gateway.adapters.languages import NoLanguages, detector
from sluice_gateway.domain.answer import JUDGED_CHARACTERS, judge, repetition_permille
from sluice_gateway.domain.chat import ChatMessage, ChatRequest, Role, ToolCall
from sluice_gateway.domain.completion import Completion, Operation, Protocol
from sluice_gateway.domain.groundedness import context_of, grounded_sentences

DOCUMENT = (
    "Items can be returned within 30 days of delivery. Refunds are paid to the original payment method within 5 working "
    "days. Gift cards cannot be returned. Write to <EMAIL_ADDRESS_1> for a label."
)
LANGUAGES = detector()


def said(*messages: ChatMessage, answer: str, languages: object = LANGUAGES) -> Completion:
    completion = Completion(Operation.CHAT, Protocol.HTTP, 0.0, "key", "acme", "default")
    judge(ChatRequest(model="m", messages=messages), [answer], completion, languages)  # type: ignore[arg-type]
    return completion


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def test_an_answer_in_another_language_is_a_mismatch() -> None:
    found = said(user("Wie lange darf ich ein Buch ausleihen?"), answer="You may keep a book for four weeks.")
    assert (found.input_language, found.output_language, found.language_mismatch) == ("de", "en", True)


def test_whoever_asks_for_a_language_gets_no_mismatch() -> None:
    asked = user("Translate into German: where is the railway station?")
    assert said(asked, answer="Wo ist bitte der Bahnhof dieser Stadt?").language_mismatch is None


@pytest.mark.parametrize(
    "text", ["ok", "<PERSON_1> <PERSON_2> <EMAIL_ADDRESS_3>", "```\nfor each in items: pass\n```", "\x00\ud800 ab"]
)
def test_too_little_text_is_not_judged_for_its_language(text: str) -> None:
    found = said(user(text), answer="You may keep a book for four weeks.")
    assert (found.input_language, found.language_mismatch) == ("", None)


def test_control_characters_are_no_reason_not_to_judge() -> None:
    assert (
        said(
            user("Where may I\x00 return the shoes I bought?"), answer="At any\x07 of our stores in the city."
        ).language_mismatch
        is False
    )


def test_without_a_detector_no_answer_is_judged_for_its_language() -> None:
    found = said(user("Where may I return them?"), answer="At any of our stores.", languages=NoLanguages())
    assert found.language_mismatch is None


def test_the_share_of_repeated_runs_is_counted() -> None:
    words = [f"w{number}" for number in range(20)]
    assert repetition_permille(" ".join(words)) is None
    assert repetition_permille(" ".join(words * 2)) == (37 - 20) * 1000 // 37
    assert repetition_permille(" ".join(f"w{number}" for number in range(40))) == 0


@pytest.mark.parametrize(
    "messages",
    [
        (ChatMessage(Role.SYSTEM, f"Be brief.\n\nContext:\n{DOCUMENT}"), user("How long?")),
        (user(f"<documents>\n{DOCUMENT}\n</documents>\nHow long?"),),
        (
            user("How long?"),
            ChatMessage(Role.ASSISTANT, "", tool_calls=(ToolCall("1", "find", "{}"),)),
            ChatMessage(Role.TOOL, DOCUMENT, tool_call_id="1"),
        ),
    ],
)
def test_what_tools_return_and_what_follows_a_mark_is_the_context(messages: tuple[ChatMessage, ...]) -> None:
    found = said(
        *messages, answer="You can return items within 30 days of delivery. They also repair shoes in 9 cities."
    )
    assert (found.context_sentences, found.grounded_sentences) == (2, 1)


def test_without_a_context_nothing_is_judged_against_it() -> None:
    assert said(user("How long may I return items?"), answer="Within 30 days of delivery.").context_sentences == 0
    assert context_of([user("The context of this poem is the war of 1870.")]) == ""


def test_a_number_that_the_context_does_not_have_is_not_supported() -> None:
    request = ChatRequest(model="m", messages=(ChatMessage(Role.TOOL, DOCUMENT), user("How long?")))
    assert grounded_sentences(request, "Refunds are paid within 6 working days.") == (1, 0)


def test_the_same_placeholder_is_the_same_value_and_another_is_not() -> None:
    request = ChatRequest(
        model="m", messages=(ChatMessage(Role.TOOL, DOCUMENT), user("Whom do I write to for a label?"))
    )
    assert grounded_sentences(request, "Write to <EMAIL_ADDRESS_1> label.") == (1, 1)
    assert grounded_sentences(request, "Write <EMAIL_ADDRESS_2> <PERSON_3>.") == (1, 0)


def test_a_refusal_claims_nothing_and_an_empty_answer_is_not_judged_further() -> None:
    context = ChatMessage(Role.TOOL, DOCUMENT)
    assert (
        said(context, user("How long?"), answer="I'm sorry, I can't help with that request here.").context_sentences
        == 0
    )
    empty = said(context, user("How long may I keep it?"), answer=" \n")
    assert (empty.empty_answer, empty.input_language, empty.repetition_permille) == (True, "", None)


def test_a_very_long_answer_is_judged_by_its_beginning() -> None:
    long = "You can return items within 30 days of delivery. " * 1000
    found = said(ChatMessage(Role.TOOL, DOCUMENT), user("How long?"), answer=long)
    assert 0 < found.context_sentences <= JUDGED_CHARACTERS // 49 + 1
