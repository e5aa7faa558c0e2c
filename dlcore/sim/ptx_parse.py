"""Reads PTX text: tokens, the variables and functions of a module, the instructions of a kernel.

Device functions are expanded where they are called, so a kernel is one list of instructions; their parameters and
results become thread-local variables (PTX ISA 9.0, sections 4, 5, 7 and 10).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dlcore.errors import KernelError
from dlcore.sim.ptx_syntax import Variable
from dlcore.sim.ptx_types import TYPES, Type


class Token(NamedTuple):
    """A word of the text, and its line."""

    text: str
    line: int


@dataclass
class Function:
    """A `.func` or `.entry`: its parameters and results, and the tokens of its body, which is parsed when needed."""

    name: str
    formals: list[Variable]
    results: list[Variable]
    max_threads: int | None = None
    body: list[Token] = field(default_factory=list)


TOKEN = re.compile(
    r'"[^"]*"|0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|-?0[xX][0-9a-fA-F]+U?|-?\d+\.\d+(?:[eE][-+]?\d+)?|-?\d+U?'
    r"|[%$.A-Za-z_][\w.$]*(?:::[\w.]+)*|[^\s\w]"
)
NEWLINE_DIRECTIVES = (".version", ".target", ".address_size")


def tokens(text: str) -> Iterator[Token]:
    """Tokens with their lines; a `.loc` or `.file` directive is one token, comments are none."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split("//", 1)[0].strip() if '"' not in line else line.strip()
        if re.match(r"\.(loc|file)\s", code):
            yield Token(re.sub(r"\s+", " ", code), number)
        elif not code.startswith(NEWLINE_DIRECTIVES):
            yield from (Token(match, number) for match in TOKEN.findall(code))


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
        return self.tokens[self.at].text if self.more else ""

    def next(self) -> str:
        """Consumes the next token."""
        text = self.peek()
        if not text:
            raise KernelError("PTX ends in the middle of a statement")
        self.at += 1
        return text

    def accept(self, text: str) -> bool:
        """Consumes the next token if it is this one."""
        found = self.peek() == text
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

    def block(self) -> list[Token]:
        """The tokens of a `{...}`, without the outer braces."""
        self.expect("{")
        start, depth = self.at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.next(), 0)
        return self.tokens[start : self.at - 1]


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
        reader = Reader(list(tokens(text)))
        while reader.more:
            self._statement(reader)

    def _statement(self, reader: Reader) -> None:
        word = reader.peek()
        if word.startswith((".file ", ".loc ")):
            if match := re.match(r'\.file (\d+) "(.*?)"', reader.next()):
                self.files[int(match[1])] = match[2]
        elif word == ".section":
            reader.until("{")
            reader.block()
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
            function.body = reader.block()
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
