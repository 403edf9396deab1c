"""The filter language, from text to SQL in one pass, in steps linear in its length. docs/search.md has the grammar.

The SQL is text of ours over an alias `o`; the user's values stand beside it, in an array that is its parameter $1.
It has SQL's three values of truth: what nobody knows of an offer (null) fits neither a test nor its negation.
"""

import re
from typing import Final, NamedTuple

from aitbc.core.errors import Invalid
from apps.marketplace.selectors.values import FIELDS, Field, did_you_mean, read

MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 32
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>-?[\w.][\w.:+/%-]*)"""
    r"""|(?P<sign><=|>=|!=|<>|==|[=<>~()\[\],])|(?P<end>\Z))"""
)
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # what no value of ours holds
_ALIAS = {"==": "=", "<>": "!="}
_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_KEYWORDS = ["and", "or", "not", "in", "null"]
_OPERATORS: Final = {
    **dict.fromkeys(("whole", "float", "amount", "version", "time"), ("=", "!=", "<", "<=", ">", ">=")),
    **dict.fromkeys(("model", "text"), ("=", "!=", "~")),
    **dict.fromkeys(("choice", "uuid", "set", "bool"), ("=", "!=")),
}


Made = tuple[str, str]  # for offers, and for classes, where what they do not know holds


class Token(NamedTuple):
    kind: str  # string, word, sign or end
    text: str
    at: int


class Filter:
    """Recursive descent with one token of lookahead; negations move inwards to the tests. Invalid
    `filter.syntax`, `.too_long`, `.too_deep`, `.unknown_field`, `.type`, with `position` and `hint`."""

    def __init__(self, text: str) -> None:
        self.values: list[str] = []
        self.named: set[str] = set()
        self.parts: list[tuple[str, int, int]] = []  # the filters that must all hold: SQL, and where they stand
        self.steps = self.next = 0
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise _wrong("too_long", f"a filter has at most {MAX_BYTES} bytes", MAX_BYTES)
        self.tokens = _tokens(text)
        self.sql, self.of_class = ("true", "true") if self._peek().kind == "end" else self._level("or", 0, False)
        if self._peek().kind != "end":
            raise self._unexpected("and, or, or the end")

    def _level(self, operator: str, depth: int, negated: bool) -> Made:
        spans: list[tuple[str, int, int]] = []
        parts: list[Made] = []
        while not parts or self._take(operator):
            at = self._peek().at
            part = self._level("and", depth, negated) if operator == "or" else self._part(depth, negated)
            last = self.tokens[self.next - 1]
            spans.append((part[0], at, last.at + len(last.text)))
            parts.append(part)
        if len(parts) > 1:
            glue = " AND " if (operator == "and") != negated else " OR "
            part = (f"({glue.join(sql for sql, _ in parts)})", f"({glue.join(sql for _, sql in parts)})")
        if depth == 0 and (operator == "and" or len(parts) > 1):
            self.parts = spans if operator == "and" else [(part[0], spans[0][1], spans[-1][2])]
        return part

    def _part(self, depth: int, negated: bool) -> Made:
        self.steps += 1
        if depth > MAX_DEPTH:
            raise _wrong("too_deep", f"a filter is at most {MAX_DEPTH} levels deep", self._peek().at)
        if self._take("not"):
            return self._part(depth + 1, not negated)
        if not self._take("("):
            return self._test(negated)
        inner = self._level("or", depth + 1, negated)
        if not self._take(")"):
            raise self._unexpected("and, or, or )")
        return inner

    def _test(self, negated: bool) -> Made:
        token = self._peek()
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            raise self._unexpected("a field")
        self._advance()
        operator, values = self._comparison()
        field = FIELDS.get(token.text.lower())
        if field is None:
            hint = did_you_mean(token.text, list(FIELDS))
            raise _wrong("unknown_field", f"there is no field {token.text[:40]}", token.at, hint)
        self.named.add(field.name)
        _check(field, operator, values, token.at)
        slots = [self._slot(field, value, operator) for value in values if value]
        sql, of_class, bound = _sql(field, operator, slots), "true", _NEGATED.get(operator, "") if negated else operator
        if field.of_class:
            of_class = f"NOT ({sql})" if negated else sql
        elif field.bounded and slots and bound in _NEGATED:  # no value known is no value that fits: null, it is out
            of_class = f"{field.sql}_{'min' if bound[0] == '<' else 'max'} {bound} {slots[0]}"
        return (f"NOT ({sql})" if negated else sql), of_class

    def _comparison(self) -> tuple[str, list[Token | None]]:
        """The operator, "" without one, and the values; None is `null`."""
        negated = self._take("not")
        if self._take("in"):
            return ("not in" if negated else "in"), self._listed()
        token = self._peek()
        operator = _ALIAS.get(token.text, token.text)
        if negated:
            raise self._unexpected("in")
        if token.kind != "sign" or operator not in ("~", *_OPERATORS["whole"]):
            return "", []
        self._advance()
        return operator, [self._value()]

    def _listed(self) -> list[Token | None]:
        close = "]" if self._take("[") else ")" if self._take("(") else ""
        values = [self._value()] if close else []
        while close and self._take(","):
            values.append(self._value())
        if not close or not self._take(close):
            raise self._unexpected(f"a comma or {close}" if close else "[")
        return values

    def _value(self) -> Token | None:
        token = self._peek()
        word = token.kind == "word" and token.text.lower()
        if token.kind not in ("word", "string") or word in _KEYWORDS[:-1]:
            raise self._unexpected("a value")
        self._advance()
        return None if word == "null" else token

    def _slot(self, field: Field, token: Token, operator: str) -> str:
        text = token.text
        if token.kind == "string":
            text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        try:
            value, cast = read(field, text, operator)
        except (ValueError, OverflowError) as error:
            raise _wrong("type", f"{text[:40]} is no value of {field.name}", token.at, str(error)) from error
        self.values.append(value)
        slot = f"($1)[{len(self.values)}]::{cast}"
        return f"marketplace_model_key({slot})" if field.kind == "model" and operator != "~" else slot

    def _peek(self) -> Token:
        return self.tokens[self.next]

    def _advance(self) -> bool:
        self.steps += 1
        self.next += 1
        return True

    def _take(self, wanted: str) -> bool:
        token = self._peek()
        return token.kind in ("word", "sign") and token.text.lower() == wanted and self._advance()

    def _unexpected(self, wanted: str) -> Invalid:
        token = self._peek()
        found = f"{token.text[:40]} stands" if token.kind != "end" else "the filter ends"
        misspelt = token.kind == "word" and token.text.lower() not in _KEYWORDS
        hint = did_you_mean(token.text, _KEYWORDS) if misspelt else ""
        return _wrong("syntax", f"{found} where {wanted} is expected", token.at, hint)


def _check(field: Field, operator: str, values: list[Token | None], at: int) -> None:
    known = _OPERATORS[field.kind]
    if not operator and field.kind != "bool":
        raise _wrong("type", f"{field.name} is not true or false", at, f"compare it: {field.name} = ...")
    if operator not in ("", "in", "not in", *known):
        raise _wrong("type", f"{field.name} cannot be compared with {operator}", at, f"it takes {', '.join(known)}, in")
    if None in values and operator not in ("=", "!="):
        raise _wrong("type", "null is compared with = or != only", at)


def _sql(field: Field, operator: str, slots: list[str]) -> str:
    if not operator:
        return field.sql
    if not slots:
        return f"{field.sql} IS {'NOT ' * (operator == '!=')}NULL"
    if operator == "~":  # of a model the maker's words too
        if field.kind == "model":
            return f"strpos(lower(o.model), lower(translate({slots[0]}, '_', ' '))) > 0"
        return f"strpos({field.sql}, {slots[0]}) > 0"
    no = "NOT " * (operator in ("!=", "not in"))
    if field.kind == "set":
        return f"{no}({field.sql} && ARRAY[{', '.join(slots)}])"
    if operator.endswith("in"):
        return f"{field.sql} {no}IN ({', '.join(slots)})"
    return f"{field.sql} {operator} {slots[0]}"


def _tokens(text: str) -> list[Token]:
    if bad := _UNFIT.search(text):
        raise _wrong("syntax", "this character has no place in a filter", bad.start())
    found: list[Token] = []
    at = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            quote = text[at] in "\"'"
            raise _wrong("syntax", "a quotation has no end" if quote else f"{text[at]} is no part of a filter", at)
        kind, at = str(match.lastgroup), match.end()
        found.append(Token(kind, match[kind], match.start(kind)))
    return found


def _wrong(code: str, message: str, at: int, hint: str = "") -> Invalid:
    """422 with the character where the mistake is (from 0), and what may have been meant."""
    detail = f"{message}, at character {at}" + (f": {hint}" if hint else "")
    errors = [{"loc": ["query", "q"], "msg": detail}]
    return Invalid(f"filter.{code}", detail, errors=errors, position=at, hint=hint or None)
