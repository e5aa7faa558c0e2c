"""`dl.capture`: a training or inference step that is recorded once and then repeated without its Python.

The first call runs the function as ever and notes what ran: which implementation of which op on which arrays, and what
happened on the host between ops (an optimizer's step, a running mean, the next random key). From these notes a
`Program` is written: a function of one line per op in which every array is a local variable, deleted after its last
use. A replay runs the same implementations in the same order, so that its results have the same bits; layers, checks of
shapes, dispatch and the tape are gone.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np

from dlcore import dispatch, random, recording
from dlcore.autograd import mode
from dlcore.dispatch import Event
from dlcore.errors import ArgumentError, GraphError
from dlcore.tensor import Tensor

Array = Any
MAX_PROGRAMS = 16
PLAIN = (bool, int, float, str, bytes, type(None))
PACKAGE = str(Path(__file__).parent)


class Later:
    """A number that the host finds in the middle of a captured step, which may return it but not compute with it."""

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def _unknown(self, *_: Any) -> NoReturn:
        raise GraphError("capture: this number is known only when the step has run; the step may return it, not use it")

    __bool__ = __float__ = __int__ = __index__ = __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = _unknown
    __rsub__ = __truediv__ = __rtruediv__ = __lt__ = __le__ = __gt__ = __ge__ = __str__ = __format__ = _unknown


class Const(NamedTuple):
    """An operand that is the same in every replay."""

    value: Any


class Slot(NamedTuple):
    """A tensor of the result: a variable of the program."""

    number: int


class Value(NamedTuple):
    """What a slot holds."""

    shape: Any
    dtype: Any


@dataclass
class Line:
    """One line of a program: `results = call(*operands, **attrs)`; operands are slots or constants."""

    name: str
    call: Callable[..., Any]
    operands: list[int | Const]
    results: list[int]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    several: bool = False  # whether `call` returns a tuple
    variant: str = ""  # of an op
    view: bool = False  # whether it moves no numbers


# ---- recording


class Recorder:
    """Writes down what one run of a function does. Other threads do as they please."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.thread = threading.get_ident()
        self.lines: list[Line] = []
        self.values: list[Value] = []  # by slot
        self.slots: dict[int, tuple[Callable[[], Array | None], int]] = {}  # of arrays that may be gone, by id
        self.numbers: dict[int, Any] = {}  # that the host found, by slot
        self.inputs = inputs
        self.backends: set[Any] = set()
        self.loads: list[tuple[Tensor, int]] = []  # tensors from outside
        self.leaves: dict[int, Tensor] = {}  # tensors whose gradients changed, by id
        self.grads: dict[int, int] = {}  # slots of gradients that leaves had before
        self.free: set[int] = set()  # leaves whose gradient before does not matter
        self.outside: set[int] = set()  # slots that may be written in place
        self.seed, self.stream = random.state()
        for x in inputs:
            self.define(x._array)

    def define(self, array: Any) -> int:
        """A new slot, for this array if it is one. It is not kept alive."""
        slot = len(self.values)
        self.values.append(Value(getattr(array, "shape", ()), getattr(array, "dtype", None)))
        self.slots[id(array)] = _reference(array), slot
        return slot

    def find(self, array: Any) -> int | None:
        """The slot of an array, if it has one. An array of old may have had the same id."""
        reference, slot = self.slots.get(id(array), (None, None))
        return slot if reference is not None and reference() is array else None

    def slot(self, x: Tensor) -> int:
        """The slot of a tensor's array; a tensor met for the first time comes from outside."""
        found = self.find(x._array)
        if found is None:
            found = self.define(x._array)
            self.loads.append((x, found))
            self.outside.add(found)
        return found

    def operand(self, x: Any) -> int | Const:
        """A tensor or a constant as a line takes it."""
        return self.slot(x) if isinstance(x, Tensor) else Const(x)

    def record(self, event: Event) -> None:
        """Write down an op; a listener of `dispatch.listening`."""
        if threading.get_ident() != self.thread or recording.now.recorder is not self:
            return
        operands = [self.operand(x) for x in event.operands]
        for i, dtype in event.plan.casts:
            operands[i] = self._cast(event, i, operands[i], dtype)
        results = [self.define(array) for array in event.outputs]
        several = len(event.plan.outputs) > 1
        self.backends.add(event.backend)
        line = Line(event.op.name, event.plan.run, operands, results, event.attrs, several)
        line.variant, line.view = event.plan.variant, event.op.only_views(len(operands))
        self.lines.append(line)

    def _cast(self, event: Event, i: int, operand: int | Const, dtype: Any) -> int | Const:
        if isinstance(operand, Const):
            return Const(event.arrays[i])
        to = self.define(event.arrays[i])
        self.lines.append(Line("cast", event.backend.cast, [operand, Const(dtype)], [to]))
        return to

    # ---- what `dlcore.recording` passes on

    def host(self, f: Callable[..., Any], owner: Any, args: tuple[Any, ...]) -> Any:
        """Run `f(owner, *args)` unrecorded, and write that down."""
        if isinstance(owner, Tensor) and self.slot(owner) not in self.outside:
            self.refuse("assigns to an argument, or to a tensor that it made")
        operands = [self.operand(x) for x in args]
        kinds = [(x._backend, x._find_meta()) if isinstance(x, Tensor) else None for x in args]
        with _RecordedBy(None):
            result = f(owner, *args)
        several = isinstance(result, tuple)
        values = list(result) if several else [] if result is None else [result]
        slots = [self.define(x._array if isinstance(x, Tensor) else x) for x in values]
        self.numbers |= {s: x for x, s in zip(values, slots, strict=True) if not isinstance(x, Tensor)}
        self.lines.append(Line(f.__qualname__, _on_host(f, owner, kinds), operands, slots, several=several))
        shown = [x if isinstance(x, Tensor) else Later(s) for x, s in zip(values, slots, strict=True)]
        return tuple(shown) if several else shown[0] if shown else None

    def made(self, tensor: Tensor) -> None:
        """A tensor of constants, which are not to be written over."""
        if self.find(tensor._array) is None:
            self.outside.discard(self.slot(tensor))

    def key(self, tensor: Tensor, key: tuple[int, int]) -> None:
        """Random keys count from the generator's state at the start."""
        seed, stream = key
        if seed != self.seed:
            self.refuse("sets the seed of the random numbers")
        slot = self.define(tensor._array)
        self.lines.append(Line("key", _key_after(tensor._backend, stream - self.stream), [], [slot]))

    def leaf(self, tensor: Tensor) -> None:
        """A gradient is about to be accumulated in a leaf."""
        if id(tensor) in self.leaves:
            return
        self.leaves[id(tensor)] = tensor
        if tensor.grad is not None and self.find(tensor.grad._array) is None:
            self.grads[id(tensor)] = self.define(tensor.grad._array)

    def cleared(self, tensors: Iterable[Tensor]) -> None:
        """From here on the gradients that these tensors had before do not matter."""
        for x in tensors:
            if id(x) not in self.leaves:
                self.leaves[id(x)] = x
                self.free.add(id(x))

    def data(self, data: Any) -> None:
        """Only plain numbers may become tensors inside; arrays could be others next time."""
        if not isinstance(data, (bool, int, float, np.generic)):
            self.refuse(f"makes a tensor from a {type(data).__name__}; make it before, or pass it as an argument")

    def refuse(self, what: str) -> NoReturn:
        """Raise GraphError that names the line of the user's program."""
        raise GraphError(f"capture: the step {what}{_where()}")


def _where() -> str:
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""


def _reference(array: Any) -> Callable[[], Any]:
    """A function that returns it; a weak reference, where there can be one."""
    try:
        return weakref.ref(array)
    except TypeError:
        return lambda: array


class _RecordedBy:
    """Context: what this thread does is told to a recorder, or to none."""

    def __init__(self, recorder: Recorder | None) -> None:
        self.recorder = recorder

    def __enter__(self) -> None:
        self.before, recording.now.recorder = recording.now.recorder, self.recorder

    def __exit__(self, *_: object) -> None:
        recording.now.recorder = self.before


def _on_host(f: Callable[..., Any], owner: Any, kinds: Sequence[Any]) -> Callable[..., Any]:
    """`f(owner, *args)` as a function of arrays. kinds: backend and shape with dtype of those that are tensors."""

    def call(*operands: Any) -> Any:
        pairs = zip(operands, kinds, strict=True)
        result = f(owner, *[x if kind is None else Tensor._wrap(x, *kind) for x, kind in pairs])
        return tuple(map(_bare, result)) if isinstance(result, tuple) else _bare(result)

    return call


def _bare(x: Any) -> Any:
    return x._array if isinstance(x, Tensor) else x


def _key_after(backend: Any, offset: int) -> Callable[[], Array]:
    def key() -> Array:
        seed, stream = _start.state
        return backend.asarray(np.asarray((seed, stream + offset)))

    return key


class _Start(threading.local):
    state: tuple[int, int]  # of the random numbers, when the replay of this thread began


_start = _Start()


# ---- programs


class Program:
    """A recorded run. `source` is its text."""

    def __init__(self, recorder: Recorder, result: Any) -> None:
        r = recorder
        self.lines = r.lines
        self._loads = [x for x, _ in r.loads]
        self._flags = [x.requires_grad for x in self._loads]
        self._streams = random.state()[1] - r.stream
        owners = {id(x): i for i, x in enumerate(r.inputs)}
        grads = [(owners.get(key, r.leaves[key]), slot) for key, slot in r.grads.items()]
        self._grads = [leaf for leaf, _ in grads]
        self._none = [owners.get(key, x) for key, x in r.leaves.items() if key not in r.grads and key not in r.free]
        after = [(owners.get(key, x), x.grad, r.find(_bare(x.grad))) for key, x in r.leaves.items()]
        self._dropped = [leaf for leaf, grad, _ in after if grad is None]
        self._set = [(leaf, grad._backend) for leaf, grad, slot in after if grad is not None and slot is not None]
        kept: list[int] = [slot for _, grad, slot in after if grad is not None and slot is not None]
        self._result = _map(lambda x: self._output(r, x, kept), result)
        for backend in r.backends:
            self.lines = backend.fuse(self.lines, r.values, kept)
        given = [*range(len(r.inputs)), *(slot for _, slot in r.loads), *(slot for _, slot in grads)]
        self.source, run = compiled(self.lines, given, kept)
        self._run = _counted(run, self._streams) if self._streams else run

    def _output(self, recorder: Recorder, x: Any, kept: list[int]) -> Any:
        """A leaf of the result: what to make it from. `kept` grows by the slots that are wanted."""
        if isinstance(x, PLAIN):
            return x
        if isinstance(x, Later):
            kept.append(x.slot)
            return Slot(len(kept) - 1), None
        if not isinstance(x, Tensor):
            recorder.refuse(f"returns a {type(x).__name__}; it may return tensors, numbers, tuples, lists and dicts")
        slot = recorder.find(x._array)
        if slot is None:
            return x
        kept.append(slot)
        return Slot(len(kept) - 1), x._backend

    def quick(self, inputs: Sequence[Tensor], outside: _Outside) -> Callable[..., Any] | None:
        """`__call__` as a function of tensors that returns NotImplemented unless they, and all that is outside, are as
        recorded; None without the extension.
        """
        if recording.native is None:
            return None
        replay: Callable[..., Any] = recording.native.replay(
            program=self._run,
            result=self._result,
            slot=Slot,
            inputs=tuple((x._find_meta(), x._backend, x.requires_grad) for x in inputs),
            loads=tuple(zip(self._loads, self._flags, strict=True)),
            without=tuple(self._none),
            accumulated=tuple(self._grads),
            dropped=tuple(self._dropped),
            set=tuple(self._set),
            cells=tuple(outside._cells),
            names=tuple(outside._names),
            globals=outside._globals,
            enabled=mode.enabled,
            changes=recording.changes,
            seen=recording.changes[0],
        )
        return replay

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether flags and gradients of tensors from outside are what they were."""
        for x, flag in zip(self._loads, self._flags, strict=True):
            if x.requires_grad is not flag:
                return False
        return all(_leaf(x, inputs).grad is None for x in self._none) and all(
            _leaf(x, inputs).grad is not None for x in self._grads
        )

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Run it on tensors of the recorded shapes, and set gradients as the step did."""
        grads = (cast(Tensor, _leaf(x, inputs).grad) for x in self._grads)
        found = self._run([x._array for x in (*inputs, *self._loads, *grads)])
        for x in self._dropped:
            _leaf(x, inputs).grad = None
        for (x, backend), array in zip(self._set, found, strict=False):
            _leaf(x, inputs).grad = Tensor._wrap(array, backend)
        return _built(self._result, found)


def _leaf(x: Tensor | int, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[x] if isinstance(x, int) else x


def _counted(run: Callable[[list[Array]], Any], streams: int) -> Callable[[list[Array]], Any]:
    """A program that draws this many random keys."""

    def counted(given: list[Array]) -> Any:
        _start.state = seed, stream = random.state()
        found = run(given)
        random.set_state((seed, stream + streams))
        return found

    return counted


def _built(tree: Any, found: tuple[Any, ...]) -> Any:
    """A result from what a program kept."""
    if type(tree) is tuple and tree and isinstance(tree[0], Slot):
        (slot,), backend = tree
        return found[slot] if backend is None else Tensor._wrap(found[slot], backend)
    if type(tree) in (tuple, list):
        return type(tree)([_built(x, found) for x in tree])
    if type(tree) is dict:
        return {name: _built(x, found) for name, x in tree.items()}
    return tree


def _map(f: Callable[[Any], Any], tree: Any) -> Any:
    """`f` of every leaf of nested tuples, lists and dicts."""
    if type(tree) is tuple and not (tree and isinstance(tree[0], Slot)):
        return tuple([_map(f, x) for x in tree])
    if type(tree) is list:
        return [_map(f, x) for x in tree]
    if type(tree) is dict:
        return {name: _map(f, x) for name, x in tree.items()}
    return f(tree)


def compiled(
    lines: Sequence[Line], given: Sequence[int], kept: Sequence[int]
) -> tuple[str, Callable[[list[Any]], tuple[Any, ...]]]:
    """The text of a program `replay(given) -> kept` and the function: of that text, or in one call of the extension."""
    names: dict[str, Any] = {}
    dead = _dead(lines, kept)
    text = ["def replay(given):", f"    [{_variables(given)}] = given", "    del given"]
    for i, line in enumerate(lines):
        text.append(f"    {_text(line, i, names)}")
        if dead[i]:
            text.append(f"    del {_variables(dead[i])}")
    text.append(f"    return ({_variables(kept)}{',' * (len(kept) == 1)})")
    source = "\n".join(text)
    if recording.native is not None:
        return source, recording.native.program([*map(_packed, lines, dead)], given, kept)
    exec(compile(source, "<captured>", "exec"), names)
    return source, names["replay"]


def _dead(lines: Sequence[Line], kept: Sequence[int]) -> list[list[int]]:
    """For each line, the slots that nothing uses after it."""
    last = {slot: i for i, line in enumerate(lines) for slot in (*line.results, *used(line))}
    wanted = set(kept)
    dead: list[list[int]] = [[] for _ in lines]
    for slot, i in last.items():
        if slot not in wanted:
            dead[i].append(slot)
    return dead


def _packed(line: Line, dead: list[int]) -> tuple[Any, ...]:
    """A line as the extension takes it."""
    operands = (*line.operands, *map(Const, line.attrs.values()))
    return line.call, operands, tuple(line.attrs) or None, line.results, line.several, dead


def used(line: Line) -> Iterator[int]:
    """The slots that a line reads."""
    return (x for x in line.operands if isinstance(x, int))


def _variables(slots: Iterable[int]) -> str:
    return ", ".join(f"v{slot}" for slot in slots)


def _text(line: Line, at: int, names: dict[str, Any]) -> str:
    """One line; `names` gets its function and its constants."""

    def constant(value: Any) -> str:
        name = f"c{len(names)}"
        names[name] = value
        return name

    call = f"{''.join(c if c.isalnum() else '_' for c in line.name)}_{at}"
    names[call] = line.call
    given = [f"v{x}" if isinstance(x, int) else constant(x.value) for x in line.operands]
    given += [f"{name}={constant(value)}" for name, value in line.attrs.items()]
    results = _variables(line.results) + "," * (line.several and len(line.results) == 1)
    return f"{results} = {call}({', '.join(given)})" if results else f"{call}({', '.join(given)})"


# ---- capture


class _Recorded(NamedTuple):
    """quick: the short way into the program; None where arguments are not all tensors, each another one."""

    outside: _Outside
    program: Program
    quick: Callable[..., Any] | None


class Captured:
    """A function that replays what it recorded; see `capture`. `programs` are those of all kinds of arguments met."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self._programs: dict[Any, list[_Recorded]] = {}
        self._quick: Callable[..., Any] | None = None
        functools.update_wrapper(self, f)

    def __repr__(self) -> str:
        return f"<captured {getattr(self.f, '__qualname__', type(self.f).__name__)}, {len(self.programs)} programs>"

    @property
    def programs(self) -> list[Program]:
        """What was recorded, oldest first."""
        return [recorded.program for group in self._programs.values() for recorded in group]

    def clear(self) -> None:
        """Forget all programs and their memory."""
        self._quick = None
        self._programs.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, cut off from the graph. Raises GraphError for what cannot be repeated."""
        if self._quick is not None and not kwargs:
            found = self._quick(*args)
            if found is not NotImplemented:
                return found
        if recording.now.recorder is not None or dispatch._listeners:
            return self.f(*args, **kwargs)
        inputs: list[Tensor] = []
        key = (_kind(args, inputs), _kind(kwargs, inputs), mode.enabled, recording.changes[0])
        for recorded in self._programs.get(key, ()):
            if recorded.outside.same() and recorded.program.fits(inputs):
                self._quick = recorded.quick
                return recorded.program(inputs)
        return self._record(key, inputs, args, kwargs)

    def _record(self, key: Any, inputs: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        twins = [_twin(x) for x in inputs]
        twin_of = {id(x): twin for x, twin in zip(inputs, twins, strict=True)}
        args, kwargs = (_map(lambda x: twin_of.get(id(x), x), tree) for tree in (args, kwargs))
        recorder = Recorder(twins)
        with dispatch.listening(recorder.record), _RecordedBy(recorder):
            result = self.f(*args, **kwargs)
        program = Program(recorder, result)
        for x, twin in zip(inputs, twins, strict=True):
            if id(twin) in recorder.leaves:
                x.grad = twin.grad
        if len(self.programs) >= MAX_PROGRAMS:
            self.clear()
        key = (*key[:-1], recording.changes[0])
        outside = _Outside(self.f)
        plain = not kwargs and len(inputs) == len(args)
        self._quick = program.quick(inputs, outside) if plain else None
        self._programs.setdefault(key, []).insert(0, _Recorded(outside, program, self._quick))
        return _map(
            lambda x: x.detach() if isinstance(x, Tensor) and x._edge is not None else _now(x, recorder), result
        )


def _now(x: Any, recorder: Recorder) -> Any:
    """A number of the host, which is known now."""
    return recorder.numbers[x.slot] if isinstance(x, Later) else x


def _twin(x: Tensor) -> Tensor:
    """The same values as another tensor and another array, so that the argument is told from the tensor outside."""
    twin = Tensor._wrap(x._array.view(), x._backend)
    twin._share_version(x)
    twin.requires_grad, twin.grad = x.requires_grad, x.grad
    return twin


def _kind(tree: Any, inputs: list[Tensor]) -> Any:
    """What of an argument decides which program runs; its tensors are appended to `inputs`, each once."""
    if isinstance(tree, Tensor):
        if tree._edge is not None and mode.enabled:
            raise GraphError("capture: an argument was computed by a recorded op; pass x.detach()")
        known = next((i for i, x in enumerate(inputs) if x is tree), None)
        if known is not None:
            return known
        inputs.append(tree)
        return tree._meta or tree._find_meta(), tree._backend, tree.requires_grad
    if isinstance(tree, (tuple, list)):
        return type(tree), *[_kind(x, inputs) for x in tree]
    if isinstance(tree, dict):
        return dict, *[(name, _kind(x, inputs)) for name, x in tree.items()]
    if isinstance(tree, np.ndarray):
        raise ArgumentError("capture: an argument is a NumPy array; pass dl.tensor(array)")
    return type(tree), tree


class _Outside:
    """The variables from outside that a function names: its own cells and the globals that it reads."""

    def __init__(self, f: Callable[..., Any]) -> None:
        code, self._globals = getattr(f, "__code__", None), getattr(f, "__globals__", {})
        self._cells = [(c, c.cell_contents) for c in getattr(f, "__closure__", None) or () if _filled(c)]
        names = [n for n in code.co_names if n in self._globals] if code else []
        self._names = [(n, self._globals[n]) for n in names]

    def same(self) -> bool:
        """Whether they still have their values."""
        get = self._globals.get
        return all(_same(c.cell_contents, value) for c, value in self._cells) and all(
            _same(get(name), value) for name, value in self._names
        )


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _same(now: Any, then: Any) -> bool:
    return now is then or (type(now) is type(then) and isinstance(now, PLAIN) and bool(now == then))


def capture(f: Callable[..., Any]) -> Captured:
    """Decorator: record a training or inference step at its first call and repeat it, with the same bits, from then on.

    The step's Python runs once for each kind of arguments: shapes, dtypes and devices of tensors, values of everything
    else. Arguments of a new kind, a module switched to evaluation or changed, other gradients left from before and
    other values of the variables that the function itself names are recorded anew. In between, tensors from outside
    are read where they are; optimizers, schedules, running statistics and random numbers go on as they do eagerly.
    Prints, counters and other effects of plain Python happen only while it is recorded. What it returns (tensors,
    numbers, nested) is cut off from the graph.

    Raises GraphError for what cannot be repeated, with the line: values read on the host (`float(loss)`), tensors made
    from arrays inside, memory written in place.

    >>> @capture
    ... def step(x, y):
    ...     loss = nn.cross_entropy(model(x), y)
    ...     loss.backward(); opt.step(); opt.zero_grad()
    ...     return loss
    """
    return Captured(f)
