"""Text to token ids and chats to prompts, from the checkpoint's own files: no transformers, and nothing on the event loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from sluice_inference.domain.generation import Chat, ChatTurn, GenerationInput, RawPrompt, TokenPrompt
from sluice_inference.domain.refusals import InvalidRequest, ModelUnusable


class CheckpointTokens:
    """Tokenizer and chat template of a checkpoint folder in Hugging Face's layout. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelUnusable."""
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelUnusable(
                f"The tokenizer of {folder} cannot be read: tokenizer.json and tokenizer_config.json are needed."
            ) from error
        self._special = {name: _text(self._config.get(name)) for name in ("bos_token", "eos_token", "unk_token")}
        self._template = _template(folder, self._config)
        self._forbidden = frozenset(
            added.content for added in self._tokenizer.get_added_tokens_decoder().values() if added.special
        )
        self.vocabulary_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.eos_token_id = self._tokenizer.token_to_id(self._special["eos_token"] or "")

    @property
    def has_template(self) -> bool:
        return self._template is not None

    def encode(self, source: GenerationInput) -> list[int]:
        """Raises InvalidRequest when the template does not take the chat."""
        match source:
            case TokenPrompt(token_ids):
                return list(token_ids)
            case RawPrompt(text):
                return self._ids(text, special=True)
            case Chat(turns):
                # The template writes the special tokens itself.
                return self._ids(self._render(turns), special=False)

    def text_of(self, token_id: int) -> str:
        """One token's text; pieces of characters become U+FFFD."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def _render(self, turns: tuple[ChatTurn, ...]) -> str:
        assert self._template is not None
        messages = [{"role": turn.role, "content": self._defused(turn.content)} for turn in turns]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest(
                "chat.messages", "the model's chat template does not take this order of roles."
            ) from error

    def _defused(self, content: str) -> str:
        """Control tokens spelt in a message are broken up, or a caller could forge the end of a message and a role."""
        for token in self._forbidden:
            if token in content:
                content = content.replace(token, token[0] + " " + token[1:])
        return content


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, config: dict[str, Any]) -> Any:
    """The compiled chat template, or None. Conventions of transformers' apply_chat_template. Raises ModelUnusable."""
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = next((one["template"] for one in source if one.get("name") == "default"), None)
    if not source:
        return None
    environment: Environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ModelUnusable(f"The chat template of {folder} is no Jinja template: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
