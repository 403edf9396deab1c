"""The filter language: text to a tree, in steps linear in its length. docs/search.md has the grammar."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from aitbc.core.errors import Invalid

MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 32
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>-?[\w.][\w.:+/%-]*)|(?P<sign><=|>=|!=|<>|==|[=<>~()\[\],])"""
)
_SPACE = re.compile(r"\s*")
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # what no value of ours holds
_COMPARISONS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "~": "~"}
_KEYWORDS = ("and", "or", "not", "in", "null")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # string, word, sign or end
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Test:
    """`values` as written; None is `null`. Without an operator the field stands alone."""

    field: Token
    operator: str
    values: tuple[Token | None, ...]
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """`operator` is and, or, not."""

    operator: str
    parts: tuple["Node", ...]
    at: int
    end: int


Node = Test | Group


def wrong(code: str, message: str, at: int, hint: str = "") -> Invalid:
    """422 with the character where the mistake is (from 0), and what may have been meant."""
    detail = f"{message}, at character {at}" + (f": {hint}" if hint else "")
    context = {"position": at, "hint": hint or None}
    return Invalid(f"filter.{code}", detail, errors=[{"loc": ["query", "q"], "msg": detail}], **context)


def did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def parse(text: str) -> Node | None:
    """None for an empty filter, which everything fits. Invalid `filter.syntax`, `.too_long`, `.too_deep`."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise wrong("too_long", f"a filter has at most {MAX_BYTES} bytes", MAX_BYTES)
    return Parser(text).whole()


class Parser:
    """Recursive descent with one token of lookahead. Each step consumes a token or opens a level of one."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.next, self.steps = text, _tokens(text), 0, 0

    def whole(self) -> Node | None:
        if self.peek().kind == "end":
            return None
        found = self.level("or", 0)
        if self.peek().kind != "end":
            raise self.unexpected("and, or, or the end")
        return found

    def level(self, operator: str, depth: int) -> Node:
        """`or` of `and` of single tests: the longest run of one operator is one flat group."""
        at, parts = self.peek().at, [self.part(operator, depth)]
        while self.keyword(operator):
            parts.append(self.part(operator, depth))
        return parts[0] if len(parts) == 1 else Group(operator, tuple(parts), at, parts[-1].end)

    def part(self, operator: str, depth: int) -> Node:
        self.steps += 1
        return self.level("and", depth) if operator == "or" else self.single(depth)

    def single(self, depth: int) -> Node:
        token = self.peek()
        if depth > MAX_DEPTH:
            raise wrong("too_deep", f"a filter is at most {MAX_DEPTH} levels deep", token.at)
        if self.keyword("not"):
            inner = self.single(depth + 1)
            return Group("not", (inner,), token.at, inner.end)
        if not self.sign("("):
            return self.test()
        inner = self.level("or", depth + 1)
        if not self.sign(")"):
            raise self.unexpected("and, or, or )")
        return inner

    def test(self) -> Test:
        field = self.peek()
        if field.kind != "word" or field.text.lower() in _KEYWORDS:
            raise self.unexpected("a field")
        self.take()
        operator, values = self.comparison()
        last = self.tokens[self.next - 1]
        return Test(field, operator, values, field.at, last.at + len(last.text))

    def comparison(self) -> tuple[str, tuple[Token | None, ...]]:
        negated = self.keyword("not")
        if self.keyword("in"):
            return ("not in" if negated else "in"), self.listed()
        if negated:
            raise self.unexpected("in")
        token = self.peek()
        if token.kind == "sign" and token.text in _COMPARISONS:
            return _COMPARISONS[self.take().text], (self.value(),)
        return "", ()

    def listed(self) -> tuple[Token | None, ...]:
        close = "]" if self.sign("[") else ")" if self.sign("(") else ""
        if not close:
            raise self.unexpected("[")
        values = [self.value()]
        while self.sign(","):
            values.append(self.value())
        if not self.sign(close):
            raise self.unexpected(f"a comma or {close}")
        return tuple(values)

    def value(self) -> Token | None:
        token = self.peek()
        word = token.kind == "word"
        if (not word and token.kind != "string") or (word and token.text.lower() in _KEYWORDS[:-1]):
            raise self.unexpected("a value")
        self.take()
        return None if word and token.text.lower() == "null" else token

    def peek(self) -> Token:
        return self.tokens[self.next]

    def take(self) -> Token:
        self.steps += 1
        self.next += 1
        return self.tokens[self.next - 1]

    def keyword(self, word: str) -> bool:
        token = self.peek()
        return token.kind == "word" and token.text.lower() == word and bool(self.take())

    def sign(self, sign: str) -> bool:
        token = self.peek()
        return (token.kind, token.text) == ("sign", sign) and bool(self.take())

    def unexpected(self, wanted: str) -> Invalid:
        token = self.peek()
        found = f"{token.text[:40]} stands" if token.kind != "end" else "the filter ends"
        misspelt = token.kind == "word" and token.text.lower() not in _KEYWORDS
        hint = did_you_mean(token.text, list(_KEYWORDS)) if misspelt else ""
        return wrong("syntax", f"{found} where {wanted} is expected", token.at, hint)


def _tokens(text: str) -> list[Token]:
    if bad := _UNFIT.search(text):
        raise wrong("syntax", "this character has no place in a filter", bad.start())
    found, at = [], _end(_SPACE, text, 0)
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            quote = text[at] in "\"'"
            raise wrong("syntax", "a quotation has no end" if quote else f"{text[at]} is no part of a filter", at)
        found.append(Token(str(match.lastgroup), match.group(), at))
        at = _end(_SPACE, text, match.end())
    return [*found, Token("end", "", len(text))]


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
