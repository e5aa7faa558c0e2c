"""Signature strings: their grammar, what they bind, and how they explain a mismatch."""

import pytest

import dlcore as dl
from dlcore.errors import ArgumentError, ShapeError
from dlcore.op import OPS, define, op
from dlcore.signature import Operand, Signature, broadcast_shapes

CONV = Signature.parse("x[N,C,H,W] w[O,C,KH,KW] b[O]? -> y[N,O,P,Q]")
LSTM = Signature.parse("x[N,I] w[4*H,I] b[4*H]? -> y[N,4*H]")


@pytest.mark.parametrize(
    "text",
    [
        "x[N,C,H,W] w[O,C,KH,KW] b[O]? -> y[N,O,P,Q]",
        "x[S...]:any *ids[...]:int -> y[R...]",
        "a[...,M,K] b[...,K,N] -> y[...,M,N]",
        "x[3,4*H]:float mask[]:bool -> y[N] h[N]:int",
    ],
)
def test_text_survives_parsing(text):
    assert str(Signature.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x[N]", "names no output"),
        ("x[N] ->", "names no output"),
        ("x[N-1] -> y[N]", "bad dimension 'N-1'"),
        ("x[N,] -> y[N]", "bad dimension ''"),
        ("x[N]:complex -> y[N]", "bad operand"),
        ("x[N]?? -> y[N]", "bad operand"),
        ("x[N] junk -> y[N]", "bad operand 'junk'"),
        ("*a[N] b[N] -> y[N]", "only the last operand"),
        ("x[N] -> *y[N] z[N]", "or the only output"),
        ("x[S...,T...] -> y[N]", "more than one"),
        ("x[N] x[N] -> y[N]", "a name twice"),
    ],
)
def test_what_breaks_the_grammar_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Signature.parse(text)


def test_names_bind_sizes_and_agree():
    dims = CONV.bind([(2, 3, 7, 5), (4, 3, 1, 2), None])
    assert (dims.N, dims.C, dims.H, dims.O, dims.KW) == (2, 3, 7, 4, 2)


def test_a_multiple_binds_its_quotient():
    assert LSTM.bind([(2, 3), (20, 3), (20,)]).H == 5
    assert LSTM.outputs[0].shape(LSTM.bind([(2, 3), (20, 3), None])) == (2, 20)


def test_bare_dots_broadcast():
    dims = Signature.parse("a[...,K] b[...,K] -> y[...]").bind([(2, 1, 4), (3, 4)])
    assert (dims.ELL, dims.K) == ((2, 3), 4)


def test_named_dots_agree_exactly():
    signature = Signature.parse("x[S...,N] y[S...] -> z[S...]")
    assert signature.bind([(2, 3, 4), (2, 3)]).S == (2, 3)
    assert signature.bind([(4,), ()]).S == ()
    with pytest.raises(ShapeError, match=r"S: \(2, 3\) vs \(2, 1\)"):
        signature.bind([(2, 3, 4), (2, 1)])


def test_a_variadic_operand_takes_the_rest():
    signature = Signature.parse("x[N] *rest[...] -> y[N]")
    assert signature.bind([(2,), (3, 4), ()]).rest == ((3, 4), ())
    assert signature.bind([(2,)]).rest == ()


@pytest.mark.parametrize(
    ("signature", "shapes", "message"),
    [
        (
            CONV,
            [(2, 3, 7, 5), (4, 2, 3, 3), None],
            "expected x[N,C,H,W] w[O,C,KH,KW] b[O]?; got x[2,3,7,5] w[4,2,3,3] b=None (C: 3 vs 2)",
        ),
        (
            CONV,
            [(3, 7, 5), (4, 3, 3, 3), (4,)],
            "expected x[N,C,H,W] w[O,C,KH,KW] b[O]?; got x[3,7,5] w[4,3,3,3] b[4] (x has 3 dimensions, expected 4)",
        ),
        (CONV, [(2, 3, 7, 5), None, None], "(w is None)"),
        (LSTM, [(2, 3), (21, 3), None], "(4*H: 21 is not a multiple of 4)"),
        (LSTM, [(2, 3), (20, 3), (16,)], "(H: 5 vs 4)"),
        (Signature.parse("x[N,3] -> y[N]"), [(2, 4)], "(3 vs 4)"),
        (Signature.parse("x[...,N] -> y[N]"), [()], "(x has 0 dimensions, expected at least 1)"),
        (Signature.parse("a[...] b[...] -> y[...]"), [(2, 3), (4,)], "([2, 3] and [4] do not broadcast)"),
    ],
)
def test_a_mismatch_is_explained_in_one_line(signature, shapes, message):
    with pytest.raises(ShapeError) as caught:
        signature.bind(shapes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_call_names_the_op():
    with pytest.raises(
        ShapeError,
        match=r"^conv2d: expected x\[N,C,H,W\] w\[O,C.*; got x\[2,3,7,5\] w\[4,2,3,3\] .*\(C: 3 vs 2\)$",
    ):
        dl.conv2d(dl.ones((2, 3, 7, 5)), dl.ones((4, 2, 3, 3)))


@pytest.mark.parametrize(("count", "got"), [(1, "got x1[2] x2=None (x2 is None)"), (3, "got 3 operands")])
def test_a_wrong_number_of_operands_is_explained(count, got):
    with pytest.raises(ShapeError) as caught:
        dl.add(*[dl.ones(2)] * count)
    assert str(caught.value) == f"add: expected x1[...] x2[...]; {got}"


def test_a_missing_attribute_is_named():
    @op("x[N] -> y[N]", name="scaled_for_test")
    def scaled(xp, x, *, factor):
        return x * factor

    try:
        with pytest.raises(ArgumentError, match=r"^scaled_for_test: attribute 'factor' is missing$"):
            scaled(dl.ones(2))
        assert scaled(dl.ones(2), factor=3).tolist() == [3, 3]
    finally:
        del OPS["scaled_for_test"]


def test_a_vjp_that_asks_for_an_unknown_value_is_refused():
    with pytest.raises(ValueError, match="vjp of bad asks for 'z', which is no operand, output or attribute"):
        op("x[N] -> y[N]", name="bad", vjp={"x": lambda g, z: g})(lambda xp, x: x)


def test_a_vjp_for_an_unknown_operand_is_refused():
    with pytest.raises(ValueError, match="vjp of bad is for 'w', which is no operand"):
        op("x[N] -> y[N]", name="bad", vjp={"w": lambda g: g})(lambda xp, x: x)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="op 'add' is already defined"):
        define("add", "x[N] -> y[N]", lambda xp, x: x)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((2, 1), (3,), (2, 3)), ((), (2,), (2,)), ((0,), (1,), (0,)), ((2,), (3,), None), ((0,), (2,), None)],
)
def test_broadcast_shapes(a, b, expected):
    assert broadcast_shapes(a, b) == expected
    assert broadcast_shapes(b, a) == expected


def test_an_operand_prints_as_it_was_written():
    assert str(Operand.parse("w[4*H,I]:float?")) == "w[4*H,I]:float?"
