"""Every bad argument is refused in words: the call, the argument, what came, and what would do."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from jdeconv import Window, bilinear
from jdeconv.lowerings import LOWERINGS


def f32(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


X, KERNEL, Y = f32(2, 4, 7, 6), f32(6, 2, 3, 2), f32(2, 6, 5, 5)
WINDOW = {"big": (7, 6), "small": (5, 5), "kernel": (3, 2)}
WINDOW |= {"stride": (1, 1), "dilation": (1, 1), "low": (0, 0)}
SIZE = {"kernel_size": (3, 2)}

CALLS = {
    "conv": (jdeconv.conv, {"x": X, "kernel": KERNEL, "groups": 2}),
    "deconv": (jdeconv.deconv, {"y": Y, "kernel": KERNEL, "groups": 2, "stride": 2}),
    "kernel_grad": (jdeconv.kernel_grad, {"x": X, "y": Y, "groups": 2, **SIZE}),
    "im2col": (jdeconv.im2col, {"x": X, **SIZE}),
    "col2im": (jdeconv.col2im, {"columns": f32(2, 24, 5, 5), "output_size": (7, 6), **SIZE}),
    "Window": (Window, WINDOW),
    "Window.of_conv": (Window.of_conv, {"big": (7, 6), "kernel": (3, 2)}),
    "Window.of_deconv": (Window.of_deconv, {"small": (5, 5), "kernel": (3, 2), "stride": 2}),
    "Window.of_kernel_grad": (
        Window.of_kernel_grad,
        {"big": (7, 6), "small": (5, 5), "kernel": (3, 2)},
    ),
}
"""Each call with arguments that it takes; a test changes one or two of them for the worse."""

ARRAYS = {
    "conv": ["x", "kernel", "bias"],
    "deconv": ["y", "kernel", "bias"],
    "kernel_grad": ["x", "y"],
    "im2col": ["x"],
    "col2im": ["columns"],
}
TRIO = ["conv", "deconv", "kernel_grad"]
FUNCTIONS = [*TRIO, "im2col", "col2im"]
OF_SIZE = ["kernel_grad", "im2col", "col2im"]
WINDOWS = ["Window.of_conv", "Window.of_deconv", "Window.of_kernel_grad"]
WINDOWED = [*FUNCTIONS, *WINDOWS]
DECONVS = ["deconv", "Window.of_deconv"]

INTS = "expected an int or one int for each of 2 axes"
PADS = (
    "expected an int, a name, one int for each of 2 axes or one (low, high) pair for each of 2 axes"
)
TUPLE = "expected a tuple with one int for each axis"
NUMBERS = "expected an array of integers, floats or complex numbers that JAX has, of 8 bits or more"
TRIPLE = "expected three strings for ({}), as ('NHWC', 'HWIO', 'NHWC')"
FOUR_AXES = "needs 4 axes, 2 of them spatial, or 3 without a batch"
STATIC_SIZE = "each spatial axis needs a static size of at least 1"
LETTERS = "string must hold {} and 2 distinct spatial letters, the same in all three"
MODES = "zeros, reflect, replicate, circular"
PRECISION = "expected None, a jax.lax.Precision or its name, one for all three contractions"


def row(text, **changes):
    """One row: the call that the whole text begins with, and what changes in its arguments."""
    return text.partition("(")[0], changes, text


def rows(calls, argument, values, reason):
    """One row for each call and value."""
    return [
        row(f"{call}({argument}={value!r}): {reason}", **{argument: value})
        for call in calls
        for value in values
    ]


def counted(calls, argument, values, reason):
    """Rows for values of a wrong count, which the text tells."""
    return [row for v in values for row in rows(calls, argument, [v], f"{reason}, got {len(v)}")]


SIZES_AND_VALUES = [
    # Steps.
    *rows(WINDOWED, "stride", [0, -2, (1, 0)], "must be at least 1"),
    *rows(WINDOWED, "dilation", [0, -1, [2, -1]], "must be at least 1"),
    *rows(["conv"], "stride", [np.array([1, 0])], "must be at least 1"),
    *rows(["Window"], "stride", [0, (1, 0)], "must be at least 1"),
    *rows(["Window"], "dilation", [0, (-1, 1)], "must be at least 1"),
    *counted(CALLS, "stride", [(), (1,), (1, 2, 3)], INTS),
    *counted(CALLS, "dilation", [(), (1,), [1, 2, 3]], INTS),
    *counted(["Window"], "low", [(1,), (1, 2, 3)], INTS),
    *rows(WINDOWED, "padding", ["same", "valid", "FULL"], "the names are SAME, SAME_LOWER, VALID"),
    *counted(WINDOWED, "padding", [(), (1,), (1, 2, 3), ((1, 2),), ((0, 1), 1, 2)], PADS),
    *rows(TRIO, "groups", [0, -2], "must be at least 1"),
    *rows(["conv"], "groups", [3, 8], "must divide x's 4 channels"),
    *rows(["conv"], "groups", [4], "must divide kernel's 6 channels"),
    *rows(["deconv"], "groups", [4, 12], "must divide y's 6 channels"),
    *rows(["kernel_grad"], "groups", [3], "must divide x's 4 channels"),
    *rows(["kernel_grad"], "groups", [4], "must divide y's 6 channels"),
    # One axis is not two.
    row(
        "Window.of_conv(dilation=(1, 2)): expected an int or one int for the single axis, got 2",
        big=(7,),
        kernel=(3,),
        dilation=(1, 2),
    ),
    # Sizes of windows and arrays.
    *rows(OF_SIZE, "kernel_size", [(3, 0), [-1, 2]], "must be at least 1"),
    *rows(OF_SIZE, "kernel_size", [()], "needs at least one spatial axis"),
    *rows(["Window", *WINDOWS], "kernel", [(0, 2)], "must be at least 1"),
    *rows(["Window", "Window.of_conv"], "big", [(0, 6), (7, -1)], "must be at least 1"),
    *rows(["Window", "Window.of_deconv"], "small", [(0, 6), (7, -1)], "must be at least 1"),
    *counted(["Window", "Window.of_conv"], "big", [(7,), (7, 6, 5)], INTS),
    *counted(["Window", *WINDOWS[1:]], "small", [(7,), (7, 6, 5)], INTS),
    *[
        row(f"{call}({role}=float32[{shown}]): {STATIC_SIZE}", **{role: f32(*shape)})
        for call, role, shape, shown in (
            ("conv", "x", (2, 4, 0, 6), "2,4,0,6"),
            ("conv", "kernel", (6, 2, 0, 2), "6,2,0,2"),
            ("deconv", "y", (2, 6, 5, 0), "2,6,5,0"),
            ("deconv", "kernel", (6, 2, 3, 0), "6,2,3,0"),
            ("kernel_grad", "x", (2, 4, 0, 0), "2,4,0,0"),
            ("kernel_grad", "y", (2, 6, 5, 0), "2,6,5,0"),
            ("im2col", "x", (2, 4, 0, 6), "2,4,0,6"),
            ("col2im", "columns", (2, 24, 0, 5), "2,24,0,5"),
        )
    ],
    # Windows that do not fit.
    *rows(
        ["conv", "im2col", "Window.of_conv"],
        "padding",
        [-3, ((-3, -3), (0, 0))],
        "the window is larger than the padded input on axis 0: the kernel spans 3, the input has "
        "-3 + 7 + -3; pad more, or use a smaller kernel",
    ),
    *[
        row(
            f"{call}(padding=0): the window is larger than the padded input on axis 1: the kernel "
            "spans 7, the input has 0 + 6 + 0; pad more, or use a smaller kernel",
            dilation=(2, 6),
        )
        for call in ("conv", "im2col", "Window.of_conv")
    ],
    *rows(["deconv"], "padding", [6], "it leaves -1 of input (5, 5) on axis 0; pad less"),
    *rows(["deconv"], "padding", [(0, (4, 6))], "it leaves 0 of input (5, 5) on axis 1; pad less"),
    *rows(["Window.of_deconv"], "padding", [6], "it leaves -1 of small (5, 5) on axis 0; pad less"),
    row(
        "deconv(padding=9): it leaves -6 of input (5, 5) on axis 0; pad less",
        padding=9,
        output_size=(1, 1),
    ),
    # Sizes out of reach.
    *rows(
        ["deconv"],
        "output_size",
        [(10, 11), (13, 10), 13, 0],
        "stride 2 and input (5, 5) reach sizes 11..12 on axis 0",
    ),
    *rows(
        ["deconv"],
        "output_size",
        [(11, 9), (12, 12), np.array([11, 9])],
        "stride 2 and input (5, 5) reach sizes 10..11 on axis 1",
    ),
    *rows(
        ["Window.of_deconv"],
        "output_size",
        [(10, 11)],
        "stride 2 and small (5, 5) reach sizes 11..12 on axis 0",
    ),
    *rows(
        ["col2im"],
        "output_size",
        [(8, 6), (6, 6)],
        "stride 1 and columns (5, 5) reach sizes 7..7 on axis 0",
    ),
    *rows(
        ["Window.of_kernel_grad"],
        "big",
        [(7, 5), (7, 7)],
        "stride 1 and small (5, 5) reach sizes 6..6 on axis 1",
    ),
    row(
        "deconv(output_size=(8, 9)): stride 2 and input (5, 5) reach sizes 9..10 on axis 0",
        padding="SAME",
        output_size=(8, 9),
    ),
    row(
        "kernel_grad(x=(8, 6)): stride 1 and y (5, 5) reach sizes 7..7 on axis 0", x=f32(2, 4, 8, 6)
    ),
    *counted([*DECONVS, "col2im"], "output_size", [(7,), (7, 6, 5)], INTS),
    *counted(DECONVS, "output_padding", [(1,), (0, 1, 0)], INTS),
    *rows(DECONVS, "output_padding", [-1, (0, -1)], "must be at least 0"),
    *rows(
        DECONVS,
        "output_padding",
        [2, (2, 0)],
        "padding 0, stride 2 and dilation 1 allow 0..1 on axis 0",
    ),
    row(
        "deconv(output_padding=(2, 3)): padding 1, stride 2 and dilation 1 allow 0..1 on axis 0",
        output_padding=(2, 3),
        dilation=(1, 3),
        padding=1,
    ),
    row(
        "deconv(output_padding=(0, 3)): padding 'VALID', stride 2 and dilation 3 allow 0..2 on axis 1",
        output_padding=(0, 3),
        dilation=(1, 3),
        padding="VALID",
    ),
    row(
        "deconv(output_padding=1): padding 'SAME', stride 2 and dilation 1 allow 0..0 on axis 0",
        output_padding=1,
        padding="SAME",
    ),
    row(
        "deconv(output_padding=1): output_size=(12, 11) came too and settles the size; "
        "leave one of them out",
        output_padding=1,
        output_size=(12, 11),
    ),
    # Arrays of wrong shapes.
    *[
        row(f"{call}({role}=float32[{shown}]): {FOUR_AXES}", **{role: f32(*shape)})
        for call, role in (("conv", "x"), ("deconv", "y"), ("im2col", "x"), ("col2im", "columns"))
        for shape, shown in (((), ""), ((7,), "7"), ((2, 4, 5, 7, 6), "2,4,5,7,6"))
    ],
    *[
        row(
            f"{call}(kernel=float32[{shown}]): needs two channel axes and at least one spatial axis",
            kernel=f32(*shape),
        )
        for call in ("conv", "deconv")
        for shape, shown in (((), ""), ((7,), "7"), ((6, 2), "6,2"))
    ],
    row(
        "conv(x=float32[2,4,7,6]): needs 3 axes, 1 of them spatial, or 2 without a batch",
        kernel=f32(6, 2, 3),
    ),
    row(
        "conv(kernel=float32[6,4,3,2]): axis I has 4 channels; x's 4 channels in 2 groups need 2",
        kernel=f32(6, 4, 3, 2),
    ),
    row(
        "conv(kernel=float32[6,2,3,2]): axis I has 2 channels; x's 4 channels in 1 group need 4",
        groups=1,
    ),
    row(
        "deconv(kernel=float32[4,2,3,2]): axis O has 4 channels; y's 6 channels in 2 groups need 6",
        kernel=f32(4, 2, 3, 2),
    ),
    *[
        row(
            f"{call}(bias=float32[{shown}]): needs shape ({n},), one number per channel",
            bias=f32(*shape),
        )
        for call, n in (("conv", 6), ("deconv", 4))
        for shape, shown in (((), ""), ((5,), "5"), ((1, n), f"1,{n}"))
    ],
    row("kernel_grad(y=float32[3,6,5,5]): x has batch size 2, y 3", y=f32(3, 6, 5, 5)),
    *[
        row(
            f"kernel_grad(y={shown}): x has {x.ndim} axes; give both a batch axis, or neither",
            x=x,
            y=y,
        )
        for x, y, shown in ((X, Y[0], "float32[6,5,5]"), (X[0], Y, "float32[2,6,5,5]"))
    ],
    row(
        "col2im(columns=float32[2,20,5,5]): "
        "its channel axis must hold a multiple of the kernel's 6 taps",
        columns=f32(2, 20, 5, 5),
    ),
    # Names.
    *rows(
        ["conv"],
        "dimension_numbers",
        [("NHC", "HWIO", "NHC"), ("NCXY", "OIHW", "NCHW"), ("nchw", "OIHW", "NCHW")],
        f"x's {LETTERS.format('N, C')}",
    ),
    *rows(
        ["conv"],
        "dimension_numbers",
        [("NCHW", "HWI", "NCHW"), ("NCHW",) * 3, ("NCHH", "OIHH", "NCHH")],
        f"kernel's {LETTERS.format('O, I')}",
    ),
    *rows(
        ["deconv"],
        "dimension_numbers",
        [("NCHW", "OIHW", "NCHW "), ("NCHW", "OIHW", "CHW")],
        f"x's {LETTERS.format('N, C')}",
    ),
    *rows(
        ["kernel_grad"],
        "dimension_numbers",
        [("NCHW", "NCHX", "OIHW")],
        f"y's {LETTERS.format('N, C')}",
    ),
    *rows(
        ["im2col", "col2im"],
        "dimension_numbers",
        ["nchw", "NCHH", "NCH", "OIHW", "NCDHW", ""],
        "must hold N, C and 2 distinct spatial letters",
    ),
    *rows(TRIO, "padding_mode", ["ZEROS", "edge", ""], f"the names are {MODES}"),
    *rows(TRIO, "lowering", ["magic", "IM2COL"], f"the names are {', '.join(LOWERINGS)}"),
    *rows(TRIO, "precision", ["exact", "HIGHEST"], PRECISION),
]

NO_INT = [1.5, True, "2", None, b"ab", 2 + 0j, np.True_, np.float32(2), {1, 2}, {1: 1, 2: 2}]
NO_INTS = [(1, 1.5), (1, True), ("1", "2"), [1, None], ((1, 2), 3), np.array([1.0, 2.0])]

WIDE = [np.float64, "float64", np.dtype("complex128")]
KINDS = [
    # Settings.
    *rows(WINDOWED, "stride", NO_INT + NO_INTS, INTS),
    *rows(WINDOWED, "dilation", NO_INT + NO_INTS, INTS),
    *rows(WINDOWED, "padding", [v for v in NO_INT if v != "2"], PADS),
    *rows(
        WINDOWED, "padding", [(1, 1.5), ((1, 2), (1,)), ((0, 1), (True, 1)), [(1, "2"), 0]], PADS
    ),
    *rows(DECONVS, "output_padding", NO_INT + NO_INTS, INTS),
    *rows(DECONVS, "output_size", [v for v in NO_INT if v is not None] + NO_INTS, INTS),
    *rows(["col2im"], "output_size", NO_INT + NO_INTS, INTS),
    *rows(["Window"], "stride", NO_INT, INTS),
    *rows(["Window"], "low", NO_INT, INTS),
    *rows(["Window", "Window.of_conv"], "big", NO_INT, INTS),
    *rows(["Window", "Window.of_deconv"], "small", NO_INTS, INTS),
    *rows(TRIO, "groups", [*NO_INT, (1, 1), np.array([2, 2])], "expected an int"),
    *rows(OF_SIZE, "kernel_size", [3, *NO_INT, (3, 2.0)], TUPLE),
    *rows(["Window", *WINDOWS], "kernel", [3, "ab", (3, 2.0), np.array([3, 2])], TUPLE),
    # Arrays.
    *rows(["conv", "deconv"], "kernel", [None], "expected a jax or numpy array"),
    *rows(["im2col", "kernel_grad"], "x", [None], "expected a jax or numpy array"),
    *[
        entry
        for call, roles in ARRAYS.items()
        for role in roles
        for entry in (
            *rows([call], role, [1.5, "text", [1, 2], ((1.0,),)], "expected a jax or numpy array"),
            row(f"{call}({role}=bool[2,3]): {NUMBERS}", **{role: f32(2, 3) > 2}),
            row(f"{call}({role}=object[2,3]): {NUMBERS}", **{role: f32(2, 3).astype(object)}),
            row(f"{call}({role}=<U1[2,3]): {NUMBERS}", **{role: f32(2, 3).astype("U1")}),
            row(f"{call}({role}=|V4[2,3]): {NUMBERS}", **{role: np.zeros((2, 3), "V4")}),
            row(
                f"{call}({role}=float32[2,5]): expected no mask; fill the array first",
                **{role: np.ma.masked_array(f32(2, 5), f32(2, 5) > 7)},
            ),
        )
    ],
    row(
        "conv(kernel=float8_e4m3fn[6,2,3,2]): JAX knows no common dtype for this and x's float32; "
        "cast one",
        kernel=KERNEL.astype(jnp.float8_e4m3fn),
    ),
    # Names.
    *[
        entry
        for call, roles in (
            ("conv", "x, kernel, y"),
            ("deconv", "y, kernel, x"),
            ("kernel_grad", "x, y, kernel"),
        )
        for entry in rows(
            [call],
            "dimension_numbers",
            ["NHWC", ("NHWC", "HWIO"), ("NHWC",) * 4, (1, 2, 3), (b"NCHW", b"OIHW", b"NCHW")],
            TRIPLE.format(roles),
        )
    ],
    *rows(
        ["im2col", "col2im"],
        "dimension_numbers",
        [4, ("NHWC", "HWIO", "NHWC"), b"NHWC"],
        "expected one string, as 'NHWC', for the array and its columns",
    ),
    *rows(TRIO, "padding_mode", [None, 0, ("zeros",)], f"expected one of {MODES}"),
    *rows(TRIO, "lowering", [0, np.float32, b"vendor"], f"expected one of {', '.join(LOWERINGS)}"),
    *rows(TRIO, "precision", [3.5, True, ("high", "high"), ["high"], {}], PRECISION),
    *rows(
        TRIO,
        "preferred_element_type",
        [3.5, "float99", bool, str, object, [], {}, np.array([1.5])],
        "expected a dtype of integers, floats or complex numbers",
    ),
    *rows(
        TRIO,
        "preferred_element_type",
        [np.float16, "bfloat16", jnp.bfloat16, np.int32, "int8", "float8_e4m3fn"],
        "cannot hold a result of float32 operands",
    ),
    *rows(
        TRIO,
        "preferred_element_type",
        WIDE,
        "needs 64-bit types; set jax_enable_x64",
    ),
]


def ids(table):
    return [text[:70] for _, _, text in table]


def text_of(kind, function, arguments):
    wide = any(arguments.get("preferred_element_type") is dtype for dtype in WIDE)
    with jax.enable_x64(jax.config.jax_enable_x64 and not wide), pytest.raises(kind) as caught:
        function(**arguments)
    assert type(caught.value) is kind
    return str(caught.value)


def jitted(function, roles):
    """The function with its arrays traced, but for those that jit itself would refuse."""

    def call(**arguments):
        arrays = {k: v for k, v in arguments.items() if k in roles and is_numeric(v)}
        static = {k: v for k, v in arguments.items() if k not in arrays}
        return jax.jit(lambda arrays: function(**arrays, **static))(arrays)

    return call


def is_numeric(a):
    return type(a) is np.ndarray and a.dtype.kind in "fb"


@pytest.mark.parametrize("call", CALLS)
def test_the_arguments_that_rows_change_pass(call):
    function, arguments = CALLS[call]

    def trace():
        function(**arguments)

    jax.eval_shape(trace)


@pytest.mark.parametrize(("call", "changes", "text"), SIZES_AND_VALUES, ids=ids(SIZES_AND_VALUES))
def test_sizes_and_values(call, changes, text):
    function, arguments = CALLS[call]
    assert text_of(ValueError, function, arguments | changes) == text


@pytest.mark.parametrize(("call", "changes", "text"), KINDS, ids=ids(KINDS))
def test_kinds(call, changes, text):
    function, arguments = CALLS[call]
    assert text_of(TypeError, function, arguments | changes) == text


ALL = [
    *[(ValueError, *entry) for entry in SIZES_AND_VALUES],
    *[(TypeError, *entry) for entry in KINDS],
]


@pytest.mark.parametrize("call", FUNCTIONS)
def test_jit_refuses_in_the_same_words_while_tracing(call):
    function, arguments = CALLS[call]
    function = jitted(function, ARRAYS[call])
    for kind, _, changes, text in [entry for entry in ALL if entry[1] == call]:
        assert text_of(kind, function, arguments | changes) == text


@pytest.mark.parametrize("call", TRIO)
def test_bilinear_refuses_in_the_same_words(call):
    function, (_, arguments) = getattr(bilinear, call), CALLS[call]
    for kind, _, changes, text in [entry for entry in ALL if entry[1] == call]:
        assert text_of(kind, function, arguments | changes) == text


STATIC = {
    "stride": INTS,
    "padding": PADS,
    "dilation": INTS,
    "output_padding": INTS,
    "output_size": INTS,
    "groups": "expected an int",
    "kernel_size": TUPLE,
    "dimension_numbers": "expected ",
    "padding_mode": "expected one of",
    "precision": PRECISION,
    "preferred_element_type": "expected a dtype",
    "lowering": "expected one of",
}


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (call, argument)
        for call in FUNCTIONS
        for argument in inspect.signature(CALLS[call][0]).parameters
        if argument in STATIC
    ],
)
def test_traced_values_where_static_ones_belong(call, argument):
    function, arguments = CALLS[call]
    text = f"{call}({argument}=int32[]): {STATIC[argument]}"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        jax.jit(lambda traced: function(**arguments | {argument: traced}))(np.int32(2))


@pytest.mark.parametrize("call", FUNCTIONS)
@pytest.mark.parametrize("value", [lambda t: (1, t), lambda t: ((0, t), (0, 1)), lambda t: [t, t]])
def test_traced_values_inside_of_static_ones(call, value):
    function, arguments = CALLS[call]
    pattern = rf"^{call}\(padding=.*int32\[\].*\): {re.escape(PADS)}"
    with pytest.raises(TypeError, match=pattern):
        jax.jit(lambda traced: function(**arguments | {"padding": value(traced)}))(np.int32(1))


JUNK = {
    "object": object(),
    "class": int,
    "function": f32,
    "module": np,
    "bytes": b"bytes" * 1000,
    "long text": "x" * 5000,
    "long list": list(range(5000)),
    "long dict": dict.fromkeys(range(5000)),
    "long array": np.arange(5000),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("call", CALLS)
def test_junk_in_any_argument_is_refused_by_its_name_and_briefly(call, junk):
    function, arguments = CALLS[call]
    for argument in inspect.signature(function).parameters.keys() - {"call", "names"}:
        if junk is int and argument == "preferred_element_type":
            continue
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**arguments | {argument: junk})
        assert str(caught.value).startswith(f"{call}({argument}=")
        assert len(str(caught.value)) < 500


def test_strict_promotion_is_refused_by_name():
    text = (
        r"^conv\(kernel=bfloat16\[6,2,3,2\]\): JAX knows no common dtype for this and x's float32"
    )
    with jax.numpy_dtype_promotion("strict"), pytest.raises(TypeError, match=text):
        jdeconv.conv(X, KERNEL.astype(jnp.bfloat16), groups=2)
