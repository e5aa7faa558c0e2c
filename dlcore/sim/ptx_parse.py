"""Reads PTX text: tokens, the variables and functions of a module, the instructions of a kernel.

Device functions are expanded where they are called, so a kernel is one list of instructions; their parameters and
results become thread-local variables (PTX ISA 9.0, sections 4, 5, 7 and 10).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_syntax import Variable
from dlcore.sim.ptx_types import TYPES, Type


class Token(NamedTuple):
    """A word of the text, and its line."""

    text: str
    line: int


class Body(NamedTuple):
    """What stands between the braces of a function, and the line on which it begins."""

    text: str
    line: int

    def tokens(self) -> list[Token]:
        """Its tokens, with their lines in the whole text."""
        return list(tokens(self.text, self.line))


@dataclass
class Function:
    """A `.func` or `.entry`: its parameters and results, and its body, which is parsed when needed (None: external)."""

    name: str
    formals: list[Variable]
    results: list[Variable]
    max_threads: int | None = None
    body: Body | None = None


TOKEN = re.compile(
    r'"[^"]*"|0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|-?0[xX][0-9a-fA-F]+U?|-?\d+\.\d+(?:[eE][-+]?\d+)?|-?\d+U?'
    r"|[%$.A-Za-z_][\w.$]*(?:::[\w.]+)*|[^\s\w]"
)
NEWLINE_DIRECTIVES = (".version", ".target", ".address_size")


def without_comments(text: str) -> str:
    """The text with comments blanked out; every line keeps its number."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return re.sub(r'("[^"\n]*")|//.*', lambda m: m[1] or "", text)


def tokens(text: str, first: int = 1) -> Iterator[Token]:
    """Tokens with their lines, the first of which is `first`; a `.loc` or `.file` directive is one token."""
    for number, line in enumerate(text.splitlines(), first):
        code = line.strip()
        if re.match(r"\.(loc|file)\s", code):
            yield Token(re.sub(r"\s+", " ", code), number)
        elif not code.startswith(NEWLINE_DIRECTIVES):
            yield from (Token(match, number) for match in TOKEN.findall(code))


def outlined(text: str) -> tuple[str, list[Body]]:
    """The text with the functions' bodies replaced by their numbers (`{0}`), and the bodies."""
    outer, bodies, line = list[str](), list[Body](), 1
    depth = after = opening = 0
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace[0] == "{" else -1
        if depth == 1 and brace[0] == "{":
            opening = brace.start()
        elif depth == 0 and not text[max(opening - 9, 0) : opening].rstrip().endswith("="):  # no initialiser
            between, inside = text[after:opening], text[opening + 1 : brace.start()]
            line += between.count("\n")
            outer += [between, f"{{{len(bodies)}", "\n" * inside.count("\n"), "}"]
            bodies.append(Body(inside, line))
            line, after = line + inside.count("\n"), brace.end()
    return "".join([*outer, text[after:]]), bodies


def number(text: str) -> int | float:
    """A PTX literal; float literals in hexadecimal (`0f3F800000`) stand for the number with these bits."""
    if text[:2] in ("0f", "0F"):
        return float(np.uint32(int(text[2:], 16)).view(np.float32))
    if text[:2] in ("0d", "0D"):
        return float(np.uint64(int(text[2:], 16)).view(np.float64))
    return float(text) if "." in text else int(text.rstrip("U"), 0)


class Reader:
    """A position in a list of tokens."""

    def __init__(self, source: list[Token]) -> None:
        self.tokens = source
        self.texts = [token.text for token in source] + [""]
        self.at = 0

    @property
    def more(self) -> bool:
        """Whether a token is left."""
        return self.at < len(self.tokens)

    @property
    def line(self) -> int:
        """The line of the next token."""
        return self.tokens[min(self.at, len(self.tokens) - 1)].line

    def peek(self) -> str:
        """The next token, "" at the end."""
        return self.texts[self.at]

    def next(self) -> str:
        """Consumes the next token."""
        text = self.peek()
        if not text:
            raise KernelError("PTX ends in the middle of a statement")
        self.at += 1
        return text

    def accept(self, text: str) -> bool:
        """Consumes the next token if it is this one."""
        found = self.texts[self.at] == text
        self.at += found
        return found

    def expect(self, text: str) -> None:
        """Consumes this token; KernelError if another comes."""
        if not self.accept(text):
            raise KernelError(f"PTX line {self.line}: expected {text!r}, found {self.peek()!r}")

    def until(self, *ends: str) -> list[str]:
        """The tokens up to one of `ends`, which is not consumed; directives are split (`.reg.b32`)."""
        words: list[str] = []
        while self.peek() not in ends:
            word = self.next()
            words += [f".{part}" for part in word[1:].split(".")] if word[0] == "." else [word]
        return words

    def body(self) -> int:
        """The number of a body in `outlined` text."""
        self.expect("{")
        found = int(self.next())
        self.expect("}")
        return found


def declared(words: list[str], data: bytes = b"") -> Variable:
    """A variable from its declaration, such as `.shared .align 4 .b8 tile [ 4096 ]`."""
    directives = [w[1:] for w in words if w[0] == "."]
    space = next((d for d in directives if d in ("shared", "local", "global", "const", "param")), "param")
    kind = next(TYPES[d] for d in directives if d in TYPES)
    size = max(kind.bits, 8) // 8
    align = int(words[words.index(".align") + 1]) if ".align" in words else size
    scalar: Type | None = kind
    while words[-1] == "]":
        start = len(words) - 1 - words[::-1].index("[")
        count, words = words[start + 1 : -1], words[:start]
        size, scalar = (size * int(count[0]) if count else 0), None
    return Variable(words[-1], space, scalar, align, size, data)


def initial(words: list[str], kind: Type) -> bytes:
    """Bytes of an initialiser `{1, 2, ...}`."""
    values = [number(w) for w in words if w not in "{},"]
    return b"".join(np.asarray([v]).astype(kind.dtype).tobytes() for v in values)


class ModuleText:
    """What a PTX text declares: `functions`, `kernels`, module `variables`, source `files`."""

    def __init__(self, text: str) -> None:
        self.functions: dict[str, Function] = {}
        self.kernels: dict[str, Function] = {}
        self.variables: dict[str, Variable] = {}
        self.files: dict[int, str] = {}
        outer, self.bodies = outlined(without_comments(text))
        reader = Reader(list(tokens(outer)))
        while reader.more:
            self._statement(reader)

    def _statement(self, reader: Reader) -> None:
        word = reader.peek()
        if word.startswith((".file ", ".loc ")):
            if match := re.match(r'\.file (\d+) "(.*?)"', reader.next()):
                self.files[int(match[1])] = match[2]
        elif word == ".section":
            reader.until("{")
            reader.body()
        else:
            words = reader.until(";", "=", "(", "{")
            if ".entry" in words or ".func" in words:
                self._function(words, reader)
            else:
                self._variable(words, reader)

    def _variable(self, words: list[str], reader: Reader) -> None:
        data = b""
        if reader.accept("="):
            kind = next(TYPES[w[1:]] for w in words if w[1:] in TYPES)
            data = initial(reader.until(";"), kind)
        reader.expect(";")
        if any(f".{space}" in words for space in ("shared", "global", "const")):
            variable = declared(words, data)
            self.variables[variable.name] = variable

    def _function(self, words: list[str], reader: Reader) -> None:
        entry = ".entry" in words
        results: list[Variable] = []
        if words[-1] == ".func":  # results in parentheses come before the name
            results = self._formals(reader)
            words = reader.until("(", "{", ";", ".noreturn")
        function = Function(words[-1], self._formals(reader) if reader.peek() == "(" else [], results)
        directives = reader.until("{", ";")
        if ".maxntid" in directives:
            sizes = re.findall(r"\d+", " ".join(directives).split(".maxntid")[1].split(".")[0])
            function.max_threads = int(np.prod([int(n) for n in sizes]))
        if reader.peek() == "{":
            function.body = self.bodies[reader.body()]
        else:
            reader.expect(";")
        table = self.kernels if entry else self.functions
        if function.body or function.name not in table:
            table[function.name] = function

    @staticmethod
    def _formals(reader: Reader) -> list[Variable]:
        found: list[Variable] = []
        reader.expect("(")
        while not reader.accept(")"):
            found.append(declared(reader.until(",", ")")))
            reader.accept(",")
        return found
