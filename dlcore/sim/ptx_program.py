"""Turns the tokens of one kernel into a `Program`: scopes, registers, variables, labels, calls expanded in place."""

from __future__ import annotations

import re

from dlcore.errors import KernelError
from dlcore.sim.ptx_parse import Body, Function, ModuleText, Reader, Token, declared, number
from dlcore.sim.ptx_syntax import (
    CONDITION_CODE,
    SINK,
    Address,
    Instruction,
    Inverse,
    Label,
    Literal,
    Operand,
    Parameter,
    Program,
    Register,
    Source,
    Special,
    Symbol,
    Variable,
    Vector,
)
from dlcore.sim.ptx_types import TYPES, Type

SPECIALS = re.compile(
    r"%(n?tid|n?ctaid)\.[xyz]|%(laneid|n?warpid|n?smid|gridid|clock(_hi|64)?|globaltimer(_lo|_hi)?"
    r"|lanemask_(eq|le|lt|ge|gt)|(dynamic|total)_smem_size)"
)
IGNORED_MODS = ("L1", "L2")  # cache hints, such as L2::128B


def align(offset: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-offset // alignment) * alignment


class Scope:
    """Names between two braces; a function's outermost scope has no parent."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.registers: dict[str, Register] = {}
        self.families: dict[str, tuple[Type, int]] = {}  # `%r<9>` declares %r0 to %r8
        self.symbols: dict[str, Symbol] = {}
        self.labels: dict[str, int] = {}
        self.tables: dict[str, Vector] = {}


class Builder:
    """Parses one kernel's body, and those of the functions that it calls."""

    def __init__(self, module: ModuleText, kernel: Function) -> None:
        self.module = module
        self.program = Program(kernel.name, [], kernel.max_threads, module.files)
        self.scope = Scope()
        self.calls: list[str] = []
        self.end: Label | None = None  # where `ret` goes in a called function
        self.source: Source | None = None
        self.frames: dict[tuple[int, ...], Source] = {}  # of every location seen, for the chain of inlined calls
        self.references: list[tuple[Scope, Label]] = []
        self.carry = self._new_register(CONDITION_CODE, TYPES["pred"])
        for formal in kernel.formals:
            self._parameter(formal)

    def build(self, body: list[Token]) -> Program:
        """The program, with every label resolved."""
        self._body(body)
        for scope, label in self.references:
            label.target = self._target(scope, label.name)
        return self.program

    @staticmethod
    def _target(scope: Scope | None, name: str) -> int:
        while scope is not None:
            if name in scope.labels:
                return scope.labels[name]
            scope = scope.parent
        raise KernelError(f"PTX has no register, variable or label {name!r}")

    # ---- declarations

    def _new_register(self, name: str, kind: Type) -> Register:
        self.program.registers.append(kind)
        return Register(len(self.program.registers) - 1, kind, name)

    def _parameter(self, formal: Variable) -> None:
        program = self.program
        offset = align(program.parameter_size, formal.align)
        program.parameter_size = offset + formal.size
        program.parameters.append(Parameter(formal.name, formal.type, offset, formal.size))
        self.scope.symbols[formal.name] = Symbol("param", formal.name, offset)

    def _variable(self, variable: Variable) -> Symbol:
        """Places a variable: parameters of calls are thread-local."""
        program = self.program
        if variable.space in ("global", "const"):
            return Symbol("global", variable.name, 0)
        if variable.space == "shared" and not variable.size:
            return Symbol("dynamic", variable.name, 0)
        if variable.space == "shared":
            offset = align(program.shared_size, variable.align)
            program.shared_size = offset + variable.size
            return Symbol("shared", variable.name, offset)
        offset = align(program.local_size, variable.align)
        program.local_size = offset + variable.size
        return Symbol("local", variable.name, offset)

    def _declare_registers(self, words: list[str]) -> None:
        kind = TYPES[words[1][1:]]
        for family, count, name in re.findall(r"(\S+) < (\d+) >|(\S+)", " ".join(words[2:]).replace(",", " ")):
            if family:
                self.scope.families[family] = kind, int(count)
            else:
                self.scope.registers[name] = self._new_register(name, kind)

    def _directive(self, words: list[str]) -> None:
        if words[0] == ".reg":
            self._declare_registers(words)
        elif words[0] in (".shared", ".local", ".param"):
            variable = declared(words)
            self.scope.symbols[variable.name] = self._variable(variable)

    def _location(self, text: str) -> None:
        places = [tuple(int(n) for n in place) for place in re.findall(r"(?:loc|inlined_at) (\d+) (\d+) (\d+)", text)]
        if not places or not places[0][1]:  # line 0: the compiler's own code
            return
        (file, line, _), *caller = places
        outer = self.frames.get(caller[0], Source((caller[0][:2],))).frames if caller else ()  # type: ignore[arg-type]
        self.source = Source(((file, line), *outer))
        self.frames[places[0]] = self.source

    # ---- names

    def _register(self, name: str) -> Register | None:
        scope: Scope | None = self.scope
        family, digits = re.match(r"(.*?)(\d*)$", name).groups()  # type: ignore[union-attr]
        while scope is not None:
            if name in scope.registers:
                return scope.registers[name]
            kind, count = scope.families.get(family, (None, 0))
            if kind and digits and int(digits) < count:
                return scope.registers.setdefault(name, self._new_register(name, kind))
            scope = scope.parent
        return None

    def _symbol(self, name: str) -> Symbol | None:
        scope: Scope | None = self.scope
        root = self.scope
        while scope is not None:
            if name in scope.symbols:
                return scope.symbols[name]
            root, scope = scope, scope.parent
        if name in self.module.variables:
            symbol = self._variable(self.module.variables[name])
            return root.symbols.setdefault(name, symbol)
        return None

    def _name(self, name: str) -> Operand:
        if name == "_":
            return SINK
        found = self._register(name) or self._symbol(name)
        if found is not None:
            return found
        if name[0] == "%" and SPECIALS.fullmatch(name):
            return Special(name)
        return self._label(name)

    def _label(self, name: str) -> Operand:
        if name in self.scope.tables:
            return self.scope.tables[name]
        label = Label(name)
        self.references.append((self.scope, label))
        return label

    # ---- statements

    def _body(self, body: list[Token]) -> None:
        reader = Reader(body)
        while reader.more:
            word = reader.peek()
            if word.startswith(".loc "):
                self._location(reader.next())
            elif reader.accept("{"):
                self.scope = Scope(self.scope)
            elif reader.accept("}"):
                self.scope = self.scope.parent or self.scope
            elif word[0] == ".":
                self._directive(reader.until(";"))
                reader.expect(";")
            elif word != ";":
                self._instruction_or_label(reader)
            else:
                reader.next()

    def _instruction_or_label(self, reader: Reader) -> None:
        guard, negated = None, False
        line = reader.line
        if reader.accept("@"):
            negated = reader.accept("!")
            guard = self._register(reader.next())
        word = reader.next()
        if guard is None and reader.accept(":"):
            self._place(word, reader)
        elif word.split(".")[0] == "call":
            self._call(reader, guard, negated, line)
        else:
            operands = tuple(self._operands(reader, ";"))
            self._emit(word, operands, guard, negated, line)

    def _place(self, name: str, reader: Reader) -> None:
        if reader.accept(".branchtargets"):
            self.scope.tables[name] = Vector(tuple(self._operands(reader, ";")))
        else:
            self.scope.labels[name] = len(self.program.code)

    def _emit(self, name: str, operands: tuple[Operand, ...], guard: Register | None, negated: bool, line: int) -> None:
        opcode, *mods = (part.split("::")[0] for part in name.split("."))
        mods = [m for m in mods if m not in IGNORED_MODS]
        if opcode == "ret" and self.end:
            opcode, operands = "bra", (self.end,)
        addresses = [o.base for o in operands if isinstance(o, Address)]
        if "param" in mods and isinstance(addresses[0], Symbol) and addresses[0].space == "local":
            mods[mods.index("param")] = "local"
        self.program.code.append(Instruction(opcode, tuple(mods), operands, guard, negated, line, self.source))

    def _operands(self, reader: Reader, end: str) -> list[Operand]:
        found: list[Operand] = []
        while not reader.accept(end):
            found.append(self._operand(reader))
            reader.accept(",")
        return found

    def _operand(self, reader: Reader) -> Operand:
        if reader.accept("{"):
            return Vector(tuple(self._operands(reader, "}")))
        if reader.accept("["):
            return self._address(reader)
        if reader.accept("!"):
            return Inverse(self._operand(reader))
        word = reader.next()
        if word[0].isdigit() or word[0] == "-":
            return Literal(number(word))
        operand = self._name(word)
        if reader.accept("|"):
            return Vector((operand, self._operand(reader)))
        if isinstance(operand, Symbol) and reader.accept("+"):
            return operand._replace(offset=operand.offset + int(number(reader.next())))
        return operand

    def _address(self, reader: Reader) -> Address:
        base = self._operand(reader)
        offset = 0
        while not reader.accept("]"):
            reader.accept("+")
            offset += int(number(reader.next()))
        return Address(base, offset)

    # ---- calls

    def _call(self, reader: Reader, guard: Register | None, negated: bool, line: int) -> None:
        """`call (results), function, (arguments);`: the function's instructions, with its own names."""
        results = self._arguments(reader)
        name = reader.next()
        reader.accept(",")
        arguments = self._arguments(reader)
        reader.until(";")
        reader.expect(";")
        function = self.module.functions.get(name)
        if function is None or function.body is None:
            self._emit(f"call.{name}", (), guard, negated, line)
        elif name in self.calls:
            raise KernelError(f"PTX line {line}: {name} calls itself, which is not supported")
        else:
            end = Label(f"end of {name}")
            if guard:
                self._emit("bra", (end,), guard, not negated, line)
            self._expand(function, function.body, [*results, *arguments], end)

    def _arguments(self, reader: Reader) -> list[Operand]:
        if not reader.accept("("):
            return []
        found = self._operands(reader, ")")
        reader.accept(",")
        return found

    def _expand(self, function: Function, body: Body, actual: list[Operand], end: Label) -> None:
        """The function's instructions; its parameters and results are the caller's variables."""
        outer = self.scope, self.end
        self.scope, self.end = Scope(), end
        for formal, symbol in zip([*function.results, *function.formals], actual, strict=True):
            if not isinstance(symbol, Symbol):
                raise KernelError(f"argument {formal.name} of {function.name} is no variable")
            self.scope.symbols[formal.name] = symbol
        self.calls.append(function.name)
        self._body(body.tokens())
        self.calls.pop()
        end.target = len(self.program.code)
        self.scope, self.end = outer


def build(module: ModuleText, name: str) -> Program:
    """The program of the kernel `name` (KernelError if the module has none, or its text is not understood)."""
    kernel = module.kernels.get(name)
    if kernel is None or kernel.body is None:
        raise KernelError(f"no kernel {name!r} in this PTX; it has {', '.join(sorted(module.kernels))}")
    return Builder(module, kernel).build(kernel.body.tokens())
