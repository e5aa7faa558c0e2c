"""Reverse-mode differentiation: a tape of nodes and the engine that walks it.

A node keeps only the arrays that its op's vjp names. Nodes run in reverse order of creation from a heap, so depth is
not limited by recursion. Un-broadcasting and the cast back to an operand's dtype happen here and nowhere else.
"""

from __future__ import annotations

import functools
import heapq
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import dlcore.tensor as tensor_module
from dlcore import dtypes, recording
from dlcore.errors import GraphError
from dlcore.op import OPS, Op, flat_gradients
from dlcore.tensor import Meta, Tensor, clock, overwritten

if TYPE_CHECKING:
    from dlcore.dispatch import Plan
    from dlcore.signature import Shape

Edge = Any  # None, a leaf Tensor, or (Node, output index)
Grads: TypeAlias = "list[Tensor | None]"  # per output of a node
Leaves: TypeAlias = "dict[int, tuple[Tensor, Tensor]]"  # leaves with their gradients, by id
Found: TypeAlias = "dict[Edge, Tensor]"  # gradients of wanted edges
Value: TypeAlias = "Callable[[Node, Any, Grads], Any]"  # what a parameter of a vjp stands for


class _Mode(threading.local):
    enabled = True
    recomputing = False
    nested = 0  # calls of `value_and_grad` that this thread is inside of


mode = _Mode()


@dataclass(slots=True)
class Saves:
    """What a node keeps when a certain set of operands wants gradients."""

    edges: list[int]  # operands to which a gradient flows
    rules: list[
        tuple[int | None, Callable[..., Any], list[tuple[Value, Any]]]
    ]  # operand (None: all), vjp, its arguments
    inputs: list[int]
    outputs: list[int]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Node:
    """One recorded call."""

    plan: Plan
    attrs: Mapping[str, Any]
    saves: Saves
    edges: dict[int, Edge]  # by operand; only those to which a gradient flows
    inputs: dict[int, Any] | None  # saved operands by index; None once the graph is freed
    outputs: dict[int, Any]  # saved results by index
    sequence: int

    def check(self) -> None:
        """Raise GraphError where what the gradients are made of is no longer there."""
        if self.inputs is None:
            raise GraphError(
                f"{self.plan.op.name}: the graph was freed by an earlier backward(); pass retain_graph=True to that one"
            )
        for i, x in self.inputs.items():
            if isinstance(x, Tensor) and x.version > self.sequence:
                operand = self.plan.op.signature.operand(i).name
                raise GraphError(
                    f"{self.plan.op.name}: operand {operand} was overwritten in place after the forward pass; run "
                    "forward again, or overwrite after backward()"
                )

    def _zeros(self, index: int) -> Tensor:
        meta = self.plan.outputs[index]
        return Tensor._wrap(self.plan.backend.full(meta.shape, 0, meta.dtype), self.plan.backend)

    def release(self) -> None:
        """Forget saved arrays and the way back."""
        self.inputs = None
        self.outputs = {}
        self.edges = {}


def _grad(node: Node, index: int, grads: Grads) -> Tensor:
    found = grads[index]
    return node._zeros(index) if found is None else found


def _shape(node: Node, index: int, grads: Grads) -> Shape | None:
    meta = node.plan.operands[index]
    return None if meta is None else meta.shape


def _dtype(node: Node, index: int, grads: Grads) -> Any:
    meta = node.plan.operands[index]
    return None if meta is None else meta.dtype


def _of_each(value: Callable[[Node, int, Grads], Any]) -> Callable[[Node, int, Grads], Any]:
    return lambda node, first, grads: tuple([value(node, i, grads) for i in range(first, len(node.plan.operands))])


def _input(node: Node, index: int, grads: Grads) -> Any:
    return node.inputs[index]  # type: ignore[index]  # it was looked at


def _output(node: Node, index: int, grads: Grads) -> Tensor | None:
    array = node.outputs.get(index)
    return None if array is None else Tensor._wrap(array, node.plan.backend, edge=(node, index))


_VALUES: dict[str, Value] = {
    "grad": _grad,
    "grad or None": lambda node, index, grads: grads[index],
    "grads": lambda node, _, grads: tuple([_grad(node, i, grads) for i in range(len(grads))]),
    "input": _input,
    "output": _output,
    "_shape": _shape,
    "_dtype": _dtype,
    "inputs": _of_each(_input),
    "_shapes": _of_each(_shape),
    "_dtypes": _of_each(_dtype),
    "attr": lambda node, name, grads: node.attrs[name],
    "attrs": lambda node, _, grads: node.attrs,
    "needs": lambda node, _, grads: tuple([i in node.edges for i in range(len(node.plan.operands))]),
}
"""What a vjp's parameter stands for, by `GradientRule.needs`."""


def record(plan: Plan, operands: tuple[Any, ...], attrs: Mapping[str, Any], result: Any, wanted: int) -> Node | None:
    """The node behind the result of an op; None when no gradient can flow.

    wanted: bit i says that operand i requires a gradient.
    """
    saves = plan.saves.get(wanted) or what_to_save(plan, wanted)
    if not saves.rules:
        return None
    results = result if type(result) is tuple else (result,)
    return Node(
        plan,
        attrs,
        saves,
        edges={i: _edge(operands[i]) for i in saves.edges},
        inputs={i: operands[i] for i in saves.inputs},
        outputs={i: results[i] for i in saves.outputs},
        sequence=next(clock),
    )


def _edge(x: Tensor) -> Edge:
    return x._edge or x


def what_to_save(plan: Plan, wanted: int) -> Saves:
    """What a node of this plan keeps; bit i of `wanted` says that operand i requires a gradient."""
    op, count = plan.op, len(plan.differentiable)
    edges = [i for i, ok in enumerate(plan.differentiable) if ok and wanted >> i & 1]
    rules = [r for r in op.gradient_rules if (edges if r.operand is None else r.operand in edges)]
    inputs = {j for r in rules for i in r.inputs for j in _positions(op, i, count)}
    outputs = sorted({i for r in rules for i in r.outputs} - set(plan.unused))
    calls = [(r.operand, r.fn, [(_VALUES[source], key) for source, key in r.needs]) for r in rules]
    found = plan.saves[wanted] = Saves(edges, calls, sorted(inputs), outputs)
    return found


def _positions(op: Op, index: int, count: int) -> Sequence[int]:
    """Call positions of a signature's operand: one, or all that remain for a variadic one."""
    return range(index, count) if op.signature.variadic and index == op.arity else (index,)


class _Recompute:
    """Stands in a node's place: runs a function again and splices its graph in (see `checkpoint`)."""

    __slots__ = ("__weakref__", "count", "rerun", "sequence")

    def __init__(self, rerun: Callable[[], tuple[Tensor, ...]], count: int) -> None:
        self.rerun: Callable[[], tuple[Tensor, ...]] | None = rerun
        self.count = count
        self.sequence = next(clock)

    def release(self) -> None:
        self.rerun = None


class _Walk:
    """One backward pass."""

    __slots__ = ("found", "heap", "leaves", "pending", "retain", "stop", "wanted")

    def __init__(self, wanted: Mapping[Edge, Tensor], retain: bool, stop: bool) -> None:
        self.wanted, self.retain, self.stop = wanted, retain, stop
        self.heap: list[tuple[int, Any]] = []
        self.pending: dict[Any, Grads] = {}
        self.leaves: Leaves = {}
        self.found: Found = {}

    def send(self, edge: Edge, grad: Tensor) -> None:
        """Add a gradient to a leaf or to an output of a node."""
        if type(edge) is not tuple:
            known = self.leaves.get(id(edge))
            self.leaves[id(edge)] = (edge, grad if known is None else _add(known[1], grad))
            return
        if self.stop and edge in self.wanted:
            self.found[edge] = _add(self.found[edge], grad) if edge in self.found else grad
            return
        node, index = edge
        slots = self.pending.get(node)
        if slots is None:
            self.pending[node] = slots = [None] * (len(node.plan.outputs) if type(node) is Node else node.count)
            heapq.heappush(self.heap, (-node.sequence, node))
        known_grad = slots[index]
        slots[index] = grad if known_grad is None else _add(known_grad, grad)

    def run(self) -> None:
        """Visit nodes, latest first, until no gradient is pending."""
        while self.heap:
            node = heapq.heappop(self.heap)[1]
            grads = self.pending.pop(node)
            if self.wanted:
                found = {(node, i): g for i, g in enumerate(grads) if g is not None and (node, i) in self.wanted}
                self.found.update(found)
            if type(node) is Node:
                self._visit(node, grads)
            else:
                for edge, grad in _spliced(node, grads):
                    self.send(edge, grad)
            if not self.retain:
                node.release()

    def _visit(self, node: Node, grads: Grads) -> None:
        if node.inputs is None or overwritten[0] > node.sequence:
            node.check()
        for operand, fn, needs in node.saves.rules:
            result = fn(*[value(node, key, grads) for value, key in needs])
            if operand is not None:
                self._give(node, operand, result)
            else:
                for i, grad in enumerate(_each(node, result)):
                    self._give(node, i, grad)

    def _give(self, node: Node, operand: int, grad: Tensor | None) -> None:
        """Pass on the gradient of an operand, if it has one and wants it."""
        edge, meta = node.edges.get(operand), node.plan.operands[operand]
        if grad is not None and edge is not None and meta is not None:
            self.send(edge, grad if type(grad) is Tensor and grad._meta is meta else _fit(node, grad, meta))


def walk(
    heads: Sequence[tuple[Edge, Tensor]], wanted: Mapping[Edge, Tensor], retain: bool, stop: bool
) -> tuple[Leaves, Found]:
    """Carry gradients from the heads to the leaves: those of leaves by id, and those of the wanted edges.

    retain: keep the graph. stop: do not go past wanted edges.
    """
    pass_ = _Walk(wanted, retain, stop)
    for edge, grad in heads:
        pass_.send(edge, grad)
    pass_.run()
    return pass_.leaves, pass_.found


engine = walk
"""What backward passes run: `walk`, or the extension's, which does the same."""


def _spliced(node: _Recompute, grads: Grads) -> list[tuple[Edge, Tensor]]:
    """Where the gradients of a checkpoint's outputs go: its function runs again for that."""
    if node.rerun is None:
        raise GraphError("checkpoint: the graph was freed by an earlier backward(); pass retain_graph=True")
    pairs = zip(node.rerun(), grads, strict=True)
    return [(_edge(x), grad) for x, grad in pairs if grad is not None and x.requires_grad]


def _each(node: Node, result: Any) -> tuple[Tensor | None, ...]:
    """A joint vjp's result as one gradient per operand."""
    count = len(node.plan.operands)
    grads = flat_gradients(result, count)
    if len(grads) > count:
        raise GraphError(f"{node.plan.op.name}: its vjp returned {len(grads)} gradients for {count} operands")
    return grads


def _add(a: Tensor, b: Tensor) -> Tensor:
    total: Tensor = OPS["add"](a, b)
    return total


def _fit(node: Node, grad: Any, meta: Meta) -> Tensor:
    """Sum a gradient over broadcast axes and cast it to the operand's dtype."""
    if not isinstance(grad, Tensor):
        raise GraphError(f"{node.plan.op.name}: its vjp returned a {type(grad).__name__} where a tensor was due")
    fit: Tensor = grad if grad.shape == meta.shape else OPS["sum_to"](grad, shape=meta.shape)
    return fit if fit.dtype == meta.dtype else OPS["astype"](fit, dtype=meta.dtype)


def _run(
    heads: list[tuple[Edge, Tensor]], wanted: Mapping[Edge, Tensor], retain_graph: bool, create_graph: bool, stop: bool
) -> tuple[Leaves, Found]:
    before, mode.enabled = mode.enabled, create_graph  # `with grad_mode` would take a microsecond
    try:
        return engine(heads, wanted, retain_graph or create_graph, stop)
    finally:
        mode.enabled = before


def _head(output: Tensor, grad: Tensor | None) -> tuple[Edge, Tensor]:
    return _edge(output), _seed(output, grad)


def _seed(output: Tensor, grad: Tensor | None) -> Tensor:
    if not output.requires_grad:
        raise GraphError("backward: the tensor was not computed from any tensor that requires a gradient")
    if grad is not None and not isinstance(grad, Tensor):
        raise GraphError(f"backward: the gradient must be a tensor; got {type(grad).__name__}")
    if grad is None:
        if output._array.size != 1:
            raise GraphError(f"backward: only a scalar has an implicit gradient; got shape {output.shape}, pass one")
        meta = output._meta or output._find_meta()
        return Tensor._wrap(output._backend.full(meta.shape, 1, meta.dtype), output._backend, meta)
    if grad.shape != output.shape:
        raise GraphError(f"backward: gradient of shape {grad.shape} for an output of shape {output.shape}")
    return grad


def backward(
    output: Tensor, grad: Tensor | None = None, *, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add d(output)/d(leaf) to the `.grad` of every leaf that requires it.

    grad: gradient of the output, of its shape; may be left out for a scalar.
    retain_graph: keep the graph for another pass. create_graph: record the pass itself (for higher derivatives).
    Raises GraphError when there is no graph, it was freed, or a saved operand was overwritten.
    """
    leaves, _ = _run([_head(output, grad)], {}, retain_graph, create_graph, False)
    for leaf, found in leaves.values():
        if recording.now.recorder is not None:
            recording.now.recorder.leaf(leaf)
        if leaf.grad is not None:
            with grad_mode(create_graph):
                found = _add(leaf.grad, found)
        leaf.grad = found


tensor_module.differentiate = backward


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
    stop: bool = False,
) -> list[Tensor | None]:
    """Gradients of `outputs` with respect to `inputs`, leaves or not; None where there is no path. No `.grad` changes.

    stop: do not go past the inputs, even where one was computed from another.

    >>> x = dl.tensor([1.0, 2.0], requires_grad=True)
    >>> gradients((x * x).sum(), [x])
    [tensor([2., 4.])]
    """
    ends = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    heads = [_head(x, grad) for x, grad in zip(ends, grads or [None] * len(ends), strict=True)]
    wanted = {x._edge: x for x in inputs if x._edge is not None}
    leaves, found = _run(heads, wanted, retain_graph, create_graph, stop)
    return [leaves.get(id(x), (x, None))[1] if x._edge is None else found.get(x._edge) for x in inputs]


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """Function that returns `f(...)` and its gradient with respect to the positional arguments `argnums`.

    Raises GraphError where `f` does not return a scalar. Nested use gives higher derivatives: inside another such
    function, or for arguments that require a gradient, the result can be differentiated again.
    """
    picks = [argnums] if isinstance(argnums, int) else list(argnums)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        again = mode.enabled and (mode.nested > 0 or any(isinstance(a, Tensor) and a.requires_grad for a in args))
        inputs = {i: _variable(args, i, again) for i in picks}
        mode.nested += 1
        try:
            with grad_mode(True):
                value = f(*[inputs.get(i, a) for i, a in enumerate(args)], **kwargs)
        finally:
            mode.nested -= 1
        variables = list(inputs.values())
        found = gradients(value, variables, create_graph=again) if value.requires_grad else [None] * len(variables)
        filled = [_zeros_like(x) if g is None else g for x, g in zip(variables, found, strict=True)]
        return value if again else value.detach(), filled[0] if isinstance(argnums, int) else tuple(filled)

    return wrapped


def _variable(args: Sequence[Any], index: int, again: bool) -> Tensor:
    """An argument as a variable of its own: uses of the same tensor elsewhere in the function do not count."""
    x = args[index] if -len(args) <= index < len(args) else None
    if not isinstance(x, Tensor):
        raise GraphError(f"grad: argument {index} must be a tensor; got {type(x).__name__}")
    if not (again and x.requires_grad):
        return x.detach(requires_grad=True)
    with grad_mode(True):
        alias: Tensor = OPS["reshape"](x, shape=x.shape)
    return alias


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Function that returns the gradient of a scalar function.

    >>> grad(lambda x: (x ** 3).sum())(dl.tensor([2.0]))
    tensor([12.])
    """
    both = value_and_grad(f, argnums)
    return functools.wraps(f)(lambda *args, **kwargs: both(*args, **kwargs)[1])


def _zeros_like(x: Tensor) -> Tensor:
    return Tensor._wrap(x._backend.full(x.shape, 0, x.dtype), x._backend)


class grad_mode(ContextDecorator):  # noqa: N801  # called like a function
    """Switch recording on or off in this thread inside a `with` block or a decorated function."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def _recreate_cm(self) -> Self:
        return type(self)(self.enabled)  # of each call, which may call itself

    def __enter__(self) -> None:
        self.before, mode.enabled = mode.enabled, self.enabled

    def __exit__(self, *_: object) -> None:
        mode.enabled = self.before


def no_grad() -> Any:
    """Context manager (and decorator) inside which nothing is recorded.

    >>> with no_grad():
    ...     y = model(x)
    """
    return grad_mode(False)


def is_recomputing() -> bool:
    """Whether a `checkpoint` is running its function a second time (running statistics must not move then)."""
    return mode.recomputing


def checkpoint(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run `f` without keeping its intermediate results; backward runs it again. Trades time for memory.

    `f` returns a Tensor or a tuple of them. Random ops draw the same numbers both times. Backward raises GraphError
    where an argument, or a parameter of `f` if it is a module, was overwritten in between.

    >>> y = checkpoint(block, x)
    """
    from dlcore.random import preserved_state, state

    if not mode.enabled:
        return f(*args, **kwargs)
    before = state()
    with no_grad():
        result = f(*args, **kwargs)
    outputs = result if isinstance(result, tuple) else (result,)

    versions = [(x, x.version) for x in _tensors_of(f, args, kwargs)]

    def rerun() -> tuple[Tensor, ...]:
        if any(x.version != version for x, version in versions):
            raise GraphError("checkpoint: an argument or parameter was overwritten in place after the forward pass")
        was, mode.recomputing = mode.recomputing, True
        try:
            with preserved_state(before), grad_mode(True):
                again = f(*args, **kwargs)
        finally:
            mode.recomputing = was
        return again if isinstance(again, tuple) else (again,)

    node = _Recompute(rerun, len(outputs))
    wrapped = tuple(
        Tensor._wrap(o._array, o._backend, o._meta, (node, i) if dtypes.kind(o.dtype) == "float" else None)
        for i, o in enumerate(outputs)
    )
    return wrapped if isinstance(result, tuple) else wrapped[0]


def _tensors_of(f: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    parameters = f.parameters() if hasattr(f, "parameters") else ()
    return [x for x in (*args, *kwargs.values(), *parameters) if isinstance(x, Tensor)]
