"""How deep in JSON strings a place stands: tool calls carry JSON inside JSON, and values are escaped once a level."""

_LEVELS = {
    0: 1,
    1: 2,
    3: 3,
    7: 4,
    15: 5,
}  # backslashes before a quotation mark -> the level of string it begins or ends
_BLANKS = frozenset(" \t\r\n")


class JsonDepth:
    """Follows a text that comes in pieces, character by character: the same for any pieces.

    A string holds JSON if its first sign is a bracket; quotation marks in other strings are just that.
    """

    def __init__(self) -> None:
        self._holds_json: list[bool] = []
        self._backslashes = 0
        self._fresh = False  # nothing but blanks yet in the innermost string

    @property
    def depth(self) -> int:
        """Strings around the place after what was followed so far."""
        return len(self._holds_json)

    def follow(self, text: str) -> None:
        for character in text:
            if character == "\\":
                self._backslashes += 1
                continue
            if character == '"':
                self._quotation_mark()
            elif self._fresh and not self._is_blank(character):
                self._holds_json[-1] = character in "{["
                self._fresh = False
            self._backslashes = 0

    def _is_blank(self, character: str) -> bool:
        return character in _BLANKS or (self._backslashes > 0 and character in "nrt")

    def _quotation_mark(self) -> None:
        level = _LEVELS.get(self._backslashes, 0)
        if 0 < level <= self.depth:
            del self._holds_json[level - 1 :]
            self._fresh = False
        elif level == self.depth + 1 and all(self._holds_json):
            self._holds_json.append(False)
            self._fresh = True
        else:
            self._fresh = False
