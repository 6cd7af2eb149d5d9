"""Wrong arguments of every public function: an error that names call and argument, and no other end."""

import inspect
import math
import re
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thinned import thinned

import jdeconv
from jdeconv import bilinear, halo, testing
from jdeconv.compat import caffe, keras, lax, onnx, torch


def ones(*shape):
    return np.ones(shape, np.float32)


# What is wrong with an argument of a kind: values of other kinds, which the error must name it for, and values
# that do not fit the others, where it may name one of those.

THINGS = (
    *(object(), {}, {1, 2}, len, int, 1j, b"ab", np.array("a"), np.array([object()])),
    *(bytearray(b"ab"), np, b"bytes" * 1000, dict.fromkeys(range(5000)), {1: 1, 2: 2}),
)
NOT_INTS = (
    *THINGS,
    1.5,
    math.nan,
    math.inf,
    True,
    "x",
    "",
    *((1.5, 2), ((1,), (2,)), [None], (1, True), ("1", "2"), np.array([1.0, 2.0])),
    *(ones(2, 2), np.True_, np.float32(2), "x" * 5000),
)
HUGE = (2**31, 10**20, -(10**20), (2**31, 1), (10**20, 1), [1, 2**63], list(range(5000)))
NOT_ARRAYS = (
    *THINGS,
    None,
    1,
    1.5,
    "x",
    [1.0],
    np.ones((1, 4, 7, 5), bool),
    np.ma.ones((1, 4, 7, 5)),
    np.ones((1, 4, 7, 5), ">f4"),  # as NIfTI has it
    np.ones((1, 4, 7, 5), np.longdouble),
    np.ones((1, 4, 7, 5), "m8[s]"),
    *(np.ones((1, 4, 7, 5), dtype) for dtype in ("U1", "V4", jnp.int4, jnp.float8_e8m0fnu)),
)
ARRAYS = (ones(), ones(3), ones(2, 2), ones(1, 4, 0, 5), ones(*(1,) * 9))
KINDS = {
    "array": (NOT_ARRAYS, ARRAYS),
    "bias": (NOT_ARRAYS[:9], (ones(), ones(5), ones(1, 6))),
    "oracle array": (
        (*THINGS[:5], None, "x", np.ones((1, 4, 7, 5), bool)),
        (1j, *ARRAYS[:3], ARRAYS[-1], ones(2, 5, 7, 5)),
    ),
    "oracle sizes": ((*NOT_INTS, None, *HUGE), (-1, (), (1,), (1,) * 7, (2**30, 2**30))),
    "steps": ((*NOT_INTS, None, *HUGE), (0, -1, (), (1,), (1,) * 3, (0, 1), np.ones(0, int))),
    "optional steps": ((*NOT_INTS, *HUGE), (0, -1, (1,), (1,) * 3)),
    "sizes": ((*NOT_INTS, None, 3, *HUGE[3:]), ((), (1,), (1,) * 7, (0, 1), (2**30, 2**30))),
    "padding": (
        (*NOT_INTS, None, *HUGE, "same ", ((1, 2, 3), (1, 2, 3)), ((0, 2**31), (0, 0))),
        ((1,), (1,) * 3, ((0, 0),) * 3, (2**30, 2**30)),
    ),
    "taps": ((*NOT_INTS, None, *HUGE), (0, -1, ())),
    "widths": ((*NOT_INTS, None, *HUGE), (-1, (1,) * 3)),
    "pads": ((*NOT_INTS, *HUGE), ((1,), (7,) * 3)),
    "shape": ((*NOT_INTS, None, 3, *HUGE[3:]), ((0, 1), (2**30, 2**30))),
    "lax array": (NOT_ARRAYS, (ones(), ones(3))),
    "lax layout": (
        (*THINGS[:6], 1, 1.5, "x"),
        (("NCHW", "OIHW"), ("NC", "OI", "NC"), ("NCHW",) * 3),
    ),
    "lax sharding": ((*THINGS[:6], 1, "x"), ()),
    "lax precision": ((*THINGS[:6], 1, 1.5), ()),
    "positions": ((*NOT_INTS, None, *HUGE), ((), (1,), (1,) * 3)),
    "extra": ((*NOT_INTS, None, *HUGE), (-1, 9, (1,) * 3)),
    "optional shape": ((*NOT_INTS, *HUGE), (0, 99, (1,), (7,) * 3)),
    "optional size": ((*NOT_INTS, *HUGE), (0, 99, (1,), (7,) * 3)),
    "count": ((*NOT_INTS, None, (1, 1), *HUGE[:3]), (0, -1, 5)),
    "optional count": ((*NOT_INTS, (1, 1), *HUGE[:3]), (-1, 5)),
    "divisor": ((*NOT_INTS, (1, 1), *HUGE[:3]), (-1, 0)),
    "name": ((*THINGS, None, 1, "x", "Zeros", ""), ()),
    "optional name": ((*THINGS, 1, "x", "IM2COL", ""), ()),
    "layout": (
        (*THINGS[:6], 1, 1.5, "x"),
        (("NCHW", "OIHW"), ("NC", "OI", "NC"), ("NCHH", "OIHH", "NCHH")),
    ),
    "one layout": ((*THINGS[:6], 1, 1.5, ("NCHW",)), ("NC", "NCHH", "OIHW")),
    "precision": ((*THINGS[:6], 1, 1.5, "x", ""), ()),
    "dtype": ((object(), 1.5, True, "x", len, "float99", ones(2), bool, str), ("int8",)),
    "any dtype": ((object(), 1.5, True, "x", len, "float99", ones(2), bool, str), ()),
    "number": ((*THINGS[:6], None, "x", True, math.nan, math.inf, -math.inf, ones(2), 10**400), ()),
    "key": ((*THINGS[:6], None, 0, 1.5, "x", ones(2), np.zeros((2, 2), np.uint32)), ()),
    "spec": ((*THINGS[:6], 1, "x", ("d",)), (jax.sharding.PartitionSpec("other"),)),
    "flag": ((*THINGS[:4], None, 1, "x", 0.5), ()),
    "optional flag": ((*THINGS[:4], 1, "x", 0.5), ()),
    "factor": (
        (*THINGS[:6], "x", True, math.nan, math.inf, ones(2), 10**400, (1, "x")),
        (0, -1.5, (1,), (2, 2, 2), (2, 2**40)),
    ),
    "callable": ((object(), None, 1, "x", ones(2)), ()),
}
STATIC = [kind for kind in KINDS if kind not in ("array", "lax array", "bias", "key")]


def by_name(names):
    """{argument: kind} of {kind: arguments}."""
    return {name: kind for kind, all_names in names.items() for name in all_names.split()}


KIND_OF = by_name(
    {
        "array": "x y kernel columns input weight inputs images patches X W "
        "depthwise_kernel pointwise_kernel",
        "bias": "bias running_mean running_var B",
        "steps": "big small stride strides dilation dilation_rate image_shape window_strides",
        "optional steps": "dilations lhs_dilation rhs_dilation",
        "sizes": "kernel_size block_shape filter_shape",
        "padding": "padding",
        "pads": "pads",
        "shape": "shape",
        "lax array": "lhs rhs",
        "lax sharding": "out_sharding",
        "positions": "low",
        "extra": "output_padding",
        "optional size": "output_size kernel_shape output_shape",
        "count": "groups group feature_group_count batch_group_count",
        "optional count": "sparse",
        "divisor": "divisor_override",
        "name": "padding_mode variance_norm mode auto_pad",
        "optional name": "lowering data_format",
        "layout": "dimension_numbers",
        "precision": "precision",
        "dtype": "preferred_element_type dtype",
        "number": "value min max mean std momentum eps",
        "key": "key",
        "spec": "spec",
        "flag": "ceil_mode return_indices count_include_pad antialias training transpose_kernel "
        "use_consistent_padding",
        "optional flag": "align_corners recompute_scale_factor",
        "factor": "scale_factor",
        "callable": "function",
    }
)
# What the same names are elsewhere.
ONE = by_name({"one layout": "dimension_numbers"})
SIZES = by_name({"sizes": "kernel"})
TORCH = by_name({"widths": "padding", "taps": "kernel_size"})
FOLD = by_name({"widths": "padding", "steps": "output_size kernel_size"})
POOL = TORCH | by_name({"optional steps": "stride"})
KERAS = by_name({"name": "padding", "pads": "output_padding", "taps": "size"})
PATCHES = KERAS | by_name({"optional steps": "strides"})
ONNX = by_name({"optional steps": "strides", "pads": "output_padding"})
ORACLE = by_name({"oracle array": "x y kernel", "oracle sizes": "big small kernel_size"})
LAX = by_name(
    {
        "lax layout": "dimension_numbers",
        "lax precision": "precision",
        "any dtype": "preferred_element_type",
    }
)


def call(function, kinds=None, /, **values):
    """A function, and the kind and a right value of each argument that is not given as `...`.

    The right value is the argument's default if none is given here.
    """
    given = {n: values.get(n, p.default) for n, p in inspect.signature(function).parameters.items()}
    kinds = KIND_OF | (kinds or {})
    return function, {name: (kinds[name], v) for name, v in given.items() if v is not ...}


X, Y, KERNEL, COLUMNS = ones(1, 4, 7, 5), ones(1, 6, 5, 4), ones(6, 2, 3, 2), ones(1, 24, 5, 4)
LAST, LAST_KERNEL = ones(1, 7, 5, 4), ones(3, 2, 4, 6)
KEY = jax.random.key(0)
PUBLIC = Path(__file__).parent / "golden" / "public.txt"
CONV = {"x": X, "kernel": KERNEL, "bias": ones(6), "groups": 2}
DECONV = {"y": Y, "kernel": KERNEL, "bias": ones(4), "groups": 2}
GRAD = {"x": X, "y": Y, "kernel_size": (3, 2), "groups": 2}
SPEC = {"spec": jax.sharding.PartitionSpec()}
DRAWN = {"key": KEY, "shape": (2, 3, 3)}
SMALL = {"input": ones(1, 24, 20), "output_size": (7, 5), "kernel_size": (3, 2)}
STEPS = {"stride": (1, 1), "dilation": (1, 1), "low": (0, 0)}
BOTH = {"lhs": X, "rhs": KERNEL, "window_strides": (1, 1), "padding": "VALID"}
UNGROUPED = BOTH | {"rhs": ones(6, 4, 3, 2)}
NORMAL = {"running_mean": ones(4), "running_var": ones(4), "weight": ones(4), "training": True}
CALLS = {
    "conv": call(jdeconv.conv, **CONV),
    "deconv": call(jdeconv.deconv, **DECONV),
    "kernel_grad": call(jdeconv.kernel_grad, **GRAD),
    "bilinear.conv": call(bilinear.conv, **CONV),
    "bilinear.deconv": call(bilinear.deconv, **DECONV),
    "bilinear.kernel_grad": call(bilinear.kernel_grad, **GRAD),
    "halo.conv": call(halo.conv, **CONV, **SPEC),
    "halo.deconv": call(halo.deconv, **DECONV, **SPEC),
    "im2col": call(jdeconv.im2col, ONE, x=X, kernel_size=(3, 2)),
    "col2im": call(jdeconv.col2im, ONE, columns=COLUMNS, output_size=(7, 5), kernel_size=(3, 2)),
    "Window": call(jdeconv.Window, SIZES, big=(7, 5), small=(5, 4), kernel=(3, 2), **STEPS),
    "Window.of_conv": call(jdeconv.Window.of_conv, SIZES, big=(7, 5), kernel=(3, 2)),
    "Window.of_deconv": call(jdeconv.Window.of_deconv, SIZES, small=(5, 4), kernel=(3, 2)),
    "Window.of_kernel_grad": call(
        jdeconv.Window.of_kernel_grad, SIZES, big=(7, 5), small=(5, 4), kernel=(3, 2)
    ),
    "constant": call(jdeconv.constant, by_name({"any dtype": "dtype"}), shape=(2, 3)),
    "uniform": call(jdeconv.uniform, **DRAWN),
    "gaussian": call(jdeconv.gaussian, ONE, **DRAWN),
    "positive_unitball": call(jdeconv.positive_unitball, ONE, **DRAWN),
    "xavier": call(jdeconv.xavier, ONE, **DRAWN),
    "msra": call(jdeconv.msra, ONE, **DRAWN),
    "bilinear_kernel": call(jdeconv.bilinear_kernel, ONE, shape=(2, 3, 3)),
    "accelerate": call(jdeconv.accelerate, function=len),
    "conv2d": call(torch.conv2d, TORCH, input=X, weight=KERNEL, groups=2),
    "conv_transpose2d": call(
        torch.conv_transpose2d,
        TORCH | by_name({"optional shape": "output_size"}),
        input=Y,
        weight=KERNEL,
        groups=2,
    ),
    "unfold": call(torch.unfold, TORCH, input=X, kernel_size=(3, 2)),
    "fold": call(torch.fold, FOLD, **SMALL),
    "max_pool2d": call(torch.max_pool2d, POOL, input=X, kernel_size=(3, 2)),
    "avg_pool2d": call(torch.avg_pool2d, POOL, input=X, kernel_size=(3, 2)),
    "interpolate": call(
        torch.interpolate,
        by_name({"optional steps": "size"}),
        input=X,
        mode="bilinear",
        size=(9, 8),
        scale_factor=...,
        recompute_scale_factor=...,
    ),
    "torch.interpolate": call(
        torch.interpolate,
        input=X,
        mode="bilinear",
        size=...,
        scale_factor=2.5,
        recompute_scale_factor=True,
    ),
    "batch_norm": call(torch.batch_norm, by_name({"bias": "weight"}), input=X, **NORMAL),
    "keras.unfold": call(keras.unfold, TORCH, x=X, kernel_size=(3, 2)),
    "keras.fold": call(keras.fold, FOLD, x=ones(1, 24, 20), output_size=(7, 5), kernel_size=(3, 2)),
    "keras.extract_patches": call(keras.extract_patches, PATCHES, images=LAST, size=(3, 2)),
    "keras.reconstruct_patches": call(
        keras.reconstruct_patches, PATCHES, patches=ones(1, 2, 3, 24), size=(3, 2)
    ),
    "keras.conv": call(keras.conv, KERAS, inputs=LAST, kernel=LAST_KERNEL),
    "keras.conv_transpose": call(keras.conv_transpose, KERAS, inputs=LAST, kernel=ones(3, 2, 6, 4)),
    "keras.depthwise_conv": call(keras.depthwise_conv, KERAS, inputs=LAST, kernel=ones(3, 2, 4, 2)),
    "keras.separable_conv": call(
        keras.separable_conv,
        KERAS,
        inputs=LAST,
        depthwise_kernel=ones(3, 2, 4, 2),
        pointwise_kernel=ones(1, 1, 8, 3),
    ),
    "Conv": call(onnx.Conv, ONNX, X=X, W=KERNEL, group=2),
    "ConvTranspose": call(onnx.ConvTranspose, ONNX, X=Y, W=KERNEL, group=2),
    "Col2Im": call(
        onnx.Col2Im, ONNX, input=ones(1, 24, 20), image_shape=(7, 5), block_shape=(3, 2)
    ),
    "conv_loops": call(
        testing.conv_loops, ORACLE, x=X, kernel=KERNEL, small=(5, 4), groups=2, **STEPS
    ),
    "deconv_loops": call(
        testing.deconv_loops, ORACLE, y=Y, kernel=KERNEL, big=(7, 5), groups=2, **STEPS
    ),
    "kernel_grad_loops": call(testing.kernel_grad_loops, ORACLE, **GRAD, **STEPS),
    "lax.conv_general_dilated": call(lax.conv_general_dilated, LAX, feature_group_count=2, **BOTH),
    "lax.conv": call(lax.conv, LAX, **UNGROUPED),
    "lax.conv_with_general_padding": call(
        lax.conv_with_general_padding, LAX, lhs_dilation=None, rhs_dilation=None, **UNGROUPED
    ),
    "lax.conv_transpose": call(
        lax.conv_transpose, LAX, lhs=LAST, rhs=LAST_KERNEL, strides=(1, 1), padding="VALID"
    ),
    "lax.conv_general_dilated_local": call(
        lax.conv_general_dilated_local,
        LAX,
        **BOTH | {"rhs": ones(6, 24, 5, 4)},
        filter_shape=(3, 2),
    ),
    "lax.conv_general_dilated_patches": call(
        lax.conv_general_dilated_patches,
        LAX,
        lhs=X,
        filter_shape=(3, 2),
        window_strides=(1, 1),
        padding="VALID",
    ),
}


def label(name):
    """With which the texts of its errors begin."""
    return name if name.startswith("Window") else name.rpartition(".")[2]


@pytest.fixture(autouse=True, scope="module")
def mesh():
    with jax.set_mesh(jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))):
        yield


def run(name, **wrong):
    """The call with one argument spoilt; its arrays are traced where they can be."""
    function, arguments = CALLS[name]
    given = {argument: value for argument, (_, value) in arguments.items()} | wrong
    if name.startswith("Window") or name == "accelerate":
        return function(**given)
    kinds = ("array", "lax array", "bias")
    arrays = {k: v for k, v in given.items() if arguments[k][0] in kinds and is_plain(v)}
    rest = {k: v for k, v in given.items() if k not in arrays}
    return jax.eval_shape(lambda arrays: function(**arrays, **rest), arrays)


def is_plain(value):
    return type(value) is np.ndarray and value.dtype == np.float32


def wrongs(name, part):
    """A third of the values of another kind and of the misfits, for every argument of a call.

    It is another third for the next argument and for the next call, so that a part holds every value.
    """
    first = part + list(CALLS).index(name)
    for i, (argument, (kind, _)) in enumerate(CALLS[name][1].items()):
        for is_kind, values in zip((True, False), KINDS[kind], strict=True):
            yield from ((argument, value, is_kind) for value in values[(first + i) % 3 :: 3])


@pytest.mark.parametrize("name", CALLS)
def test_the_arguments_that_the_others_spoil_are_right(name):
    run(name)


def check(error, call, *arguments):
    """The error names the call, one of the arguments, what is wrong with it and what came, once and briefly."""
    assert error.argument in arguments
    first, second = str(error).split("\n")
    assert first.startswith(f"{call}: {error.argument} {error.reason}")
    assert second.startswith(f"{call} got ")
    assert str(error).count(call + ": ") == 1
    assert len(str(error)) < 1000


@pytest.mark.parametrize("part", thinned(range(3), 3))
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named(name, part):
    for argument, value, is_kind in wrongs(name, part):
        with pytest.raises((TypeError, ValueError, NotImplementedError)) as caught:
            run(name, **{argument: value})
        if name.startswith("lax.") and not hasattr(caught.value, "argument"):
            continue  # jax.lax's own words
        check(caught.value, label(name), argument, *(() if is_kind else CALLS[name][1]))


@pytest.mark.parametrize("name", CALLS)
def test_a_tracer_is_no_static_argument(name):
    function, arguments = CALLS[name]
    given = {argument: value for argument, (_, value) in arguments.items()}
    for argument, (kind, _) in arguments.items():
        if kind in STATIC and kind != "callable":
            nested = [lambda t: (1, t), lambda t: ((0, t), (0, 1))] * ("array" not in kind)
            for traced in (lambda t: t, *nested):
                with pytest.raises((TypeError, ValueError)) as caught:
                    jax.eval_shape(
                        lambda t, argument=argument, traced=traced: function(
                            **given | {argument: traced(t)}
                        ),
                        jnp.ones((), jnp.int32),
                    )
                if not name.startswith("lax.") or hasattr(caught.value, "argument"):
                    check(caught.value, label(name), argument)


# Objects and functions whose arguments are no arrays of numbers.

LAYER = caffe.Convolution(num_output=2, kernel_size=3)
BLOBS, BOTTOM, TOP = [ones(2, 4, 3, 3), ones(2)], ones(1, 4, 7, 5), ones(1, 2, 5, 3)
HALO = {"axis": 0, "name": "d", "low": 1, "high": 1}


def used(kind, **fields):
    """A layer of these fields meets a bottom."""
    if kind is caffe.Im2col:
        return kind(**{"kernel_size": 3} | fields).forward(BOTTOM)
    return kind(**{"kernel_size": 3, "num_output": 2} | fields).init(KEY, BOTTOM.shape)


def loaded(**files):
    """A net of one input, from a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.prototxt")
        path.write_text('layer { type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }')
        return caffe.load(path, **files)


def scaled():
    """A net with a layer that has a blob."""
    x = 'input: "x" input_shape { dim: 1 dim: 2 }'
    return caffe.load(x + 'layer { name: "y" type: "Scale" bottom: "x" top: "y" }')


def saved(**arguments):
    """A net of one layer, saved."""
    net = caffe.load(
        'layer { type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
        'layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
    )
    with tempfile.TemporaryDirectory() as folder:
        net.save(**{"params": net.params, "path": Path(folder, "net")} | arguments)


def updated(**mults):
    """One update, where the multipliers meet a tree of another structure."""
    optimizer = caffe.Solver().optimizer(**mults)
    return optimizer.update([ones(2)], optimizer.init([ones(2)]))


def filled(**fields):
    return caffe.Filler(**fields)(KEY, (2, 3))


def adjoint(**arguments):
    given = {"forward": abs, "adjoint": abs, "x_shape": (2,), "y_shape": (2,)} | arguments
    return testing.assert_adjoint(**given)


def each(function, *values, name=None):
    """Calls with each of the values, by name or as the next argument."""
    if name is None:
        return [partial(function, value) for value in values]
    return [partial(function, **{name: value}) for value in values]


WINDOWED = {
    "kernel_size": (None, "3", 1.5, (1.5,), 0, (3, 3, 3), math.nan, True),
    "pad": (-1, "x", 1.5, (0, 0, 0)),
    "stride": (math.nan, 0, [0, 1]),
    "dilation": (0, "x", (1, 1, 1)),
    **dict.fromkeys(("kernel_h", "kernel_w", "pad_h", "pad_w", "stride_h", "stride_w"), ("3", 1.5)),
    "axis": (9, -9, 1.5, None),
    "force_nd_im2col": ("maybe", None),
}
LEARNED = WINDOWED | {
    "num_output": (0, 2.0, None, 2**31),
    "group": (0, 3, "1"),
    "bias_term": ("no", None),
    "weight_filler": ("xavier", None),
    "bias_filler": (0, None),
}
KINDS_OF_LAYER = {caffe.Convolution: LEARNED, caffe.Deconvolution: LEARNED, caffe.Im2col: WINDOWED}
REFUSED = {
    f"{kind.__name__}: {name} ": each(partial(used, kind), *values, name=name)
    for kind, fields in KINDS_OF_LAYER.items()
    for name, values in fields.items()
}


SOLVED = {
    "type": (None, "sgd", "LARS"),
    "lr_policy": (None, "Fixed", 5),
    "regularization_type": ("L3", None),
    **dict.fromkeys(("base_lr", "power", "weight_decay", "clip_gradients"), ("1", math.nan, None)),
    **dict.fromkeys(("gamma", "momentum", "momentum2", "rms_decay", "delta"), ("1", -1, math.inf)),
    **dict.fromkeys(
        ("stepsize", "max_iter", "display", "average_loss", "snapshot"), (1.5, -1, "1")
    ),
    "test_interval": (-1, None),
    "random_seed": (-2, 1.5),
    "iter_size": (0, True),
    **dict.fromkeys(("stepvalue", "test_iter"), (5, "12", (-1,), (1.5,))),
    **dict.fromkeys(("snapshot_prefix", "net"), (None, 5)),
}
REFUSED |= {
    f"Solver: {name} ": each(caffe.Solver, *values, name=name) for name, values in SOLVED.items()
}


def passes(layer, weight, diff):
    """Each pass by itself, of either layer: {argument: calls}."""
    name, blobs = type(layer).__name__, [weight, ones(2)]
    back = partial(layer.backward, blobs=blobs, bottoms=[BOTTOM], top_diffs=[diff])
    more = {"top_diffs": [["a"]], "param_diffs": [[1]]}
    return {
        f"{name}: bottom ": [
            *each(partial(layer.init, KEY), None, 5, (1, 3, 5.0, 5), "abcd"),
            *each(layer.blob_shapes, None, "ab", (1, 2.5, 3, 4)),
            partial(layer.forward, blobs, "x"),
            partial(layer.forward_gemm, "x", weight),
            partial(layer.weight_gemm, None, diff),
        ],
        f"{name}: axis ": [
            *REFUSED[f"{name}: axis "],
            partial(layer.forward_gemm, ones(3), weight),
        ],
        f"{name}: key ": [partial(layer.init, None, BOTTOM.shape)],
        f"{name}: blobs ": [
            *(partial(layer.forward, v, BOTTOM) for v in (None, ["a", "b"], [weight], "ab")),
            partial(back, blobs=None),
        ],
        f"{name}: bottoms ": [partial(back, bottoms=BOTTOM)],
        **{
            f"{name}: {argument} ": each(
                back, 5, [], "a", [1, 2, 3], *more.get(argument, ()), name=argument
            )
            for argument in ("top_diffs", "propagate_down", "param_propagate_down", "param_diffs")
        },
        f"{name}: weight ": [
            *each(partial(layer.forward_gemm, BOTTOM), "x", ones(9, 9, 3, 3)),
            partial(layer.backward_gemm, diff, None, BOTTOM.shape[2:]),
        ],
        f"{name}: top_diff ": [
            partial(layer.backward_gemm, "x", weight, BOTTOM.shape[2:]),
            partial(layer.weight_gemm, BOTTOM, object()),
            partial(layer.backward_bias, "x", 4),
        ],
        f"{name}: space ": each(partial(layer.backward_gemm, diff, weight), None, "ab", (99, 5)),
        f"{name}: top ": [partial(layer.forward_bias, "x", ones(2))],
        f"{name}: bias ": each(partial(layer.forward_bias, diff), "x", ones(9)),
        f"{name}: ndim ": each(partial(layer.backward_bias, diff), None, -1, 3),
        f"{name}: rank ": each(layer.steps, None, -1, 1.5),
    }


def shaped(function, *shapes):
    return jax.eval_shape(function, *(jax.ShapeDtypeStruct(s, np.float32) for s in shapes))


ABSENT = "no/such"
IM2COL, UP = caffe.Im2col(kernel_size=3), caffe.Deconvolution(num_output=2, kernel_size=3)
XY = {"x": ones(1, 2)}
REFUSED |= passes(LAYER, BLOBS[0], TOP) | passes(UP, ones(4, 2, 3, 3), ones(1, 2, 9, 7))
REFUSED |= {
    "Im2col: bottom ": each(IM2COL.forward, "x", ones(1, 2)),
    "Im2col: rank ": each(IM2COL.steps, -1),
    "Filler: type ": each(filled, "xaver", None, name="type"),
    "Filler: variance_norm ": each(
        partial(filled, type="xavier"), 3, "fan_in", name="variance_norm"
    ),
    "Filler: value ": each(filled, math.nan, "1", None, name="value"),
    "constant: value ": [
        partial(jdeconv.constant, (2,), np.float32, value=1e300),
        partial(jdeconv.constant, (2,), np.int32, value=2**40),
    ],
    "uniform: max ": [partial(jdeconv.uniform, KEY, (2,), np.float32, min=-3e38, max=3e38)],
    "constant: shape ": each(jdeconv.constant, (2**31 - 1, 2**8)),
    "bilinear_kernel: shape ": each(jdeconv.bilinear_kernel, (2**20, 2**19, 2)),
    "im2col: kernel_size ": [
        lambda: shaped(lambda x: jdeconv.im2col(x, (2**19, 2**19)), (1, 1, 2**20, 2**20))
    ],
    "kernel_grad: y ": [
        lambda: shaped(lambda x, y: jdeconv.kernel_grad(x, y, (3,)), (1, 2**21, 5), (1, 2**20, 3))
    ],
    "load: prototxt ": each(caffe.load, None, 5, "a\0b", ABSENT),
    "load: caffemodel ": each(loaded, 5, ABSENT, "a\0b", name="caffemodel"),
    "load: key ": each(partial(caffe.load, ABSENT), 7, name="key"),
    "load: phase ": each(partial(caffe.load, ABSENT), None, "train", 1, name="phase"),
    "load: layers ": each(loaded, 5, {"X": 5}, {"X": abs}, name="layers"),
    "load: until ": each(loaded, 5, "no such", name="until"),
    "load: shapes ": each(loaded, 5, {"y": (1,)}, {"x": 3}, {"x": (0, 2)}, name="shapes"),
    "load: align ": each(loaded, 1, name="align"),
    "load_solver: prototxt ": each(caffe.load_solver, None, 5, "a\0b", ABSENT, "x: 1"),
    "Net: params ": [
        *(lambda value=v: scaled()(value, XY) for v in (None, 5, {}, {"y": []})),
        *each(saved, None, {}, {"y": [ones(2)]}, [ones(2, 2)], name="params"),
    ],
    "Net: inputs ": [
        lambda value=v: scaled()({}, value) for v in (None, ones(1, 2), {}, {"x": None}, {"z": 1})
    ],
    "Net: tops ": [lambda value=v: scaled()({}, XY, value) for v in (5, "y", ["z"])],
    "Net: key ": [lambda: scaled()({}, XY, key=7), lambda: scaled().init(None)],
    "Net: shapes ": [lambda value=v: scaled().summary(value) for v in (5, {"z": (1,)}, {"x": 3})],
    "Net: path ": each(saved, None, 5, "no/such/net.h5", "no/such/net", name="path"),
    "Solver: iteration ": each(caffe.Solver().rate, "x", None),
    "Optimizer: lr_mult ": each(updated, 5, {"w": 1}, name="lr_mult"),
    "Optimizer: decay_mult ": each(updated, 5, {"w": 1}, name="decay_mult"),
    **{
        f"Halo: {name} ": each(partial(halo.Halo, **HALO), None, "x", 1.5, 2**31, name=name)
        for name in ("axis", "low", "high", "step")
    },
    "Halo: name ": each(partial(halo.Halo, **HALO), None, name="name"),
    "Halo: mode ": each(partial(halo.Halo, **HALO), None, 1, "Zeros", name="mode"),
    "exchange: halo ": [partial(halo.exchange, ones(3), 5)],
    "exchange: x ": [partial(halo.exchange, ones(), halo.Halo(**HALO))],
    "add: halo ": [partial(halo.add, ones(3), None)],
    "add: seen ": [partial(halo.add, ones(2), halo.Halo(**HALO))],
    "as_matrix: linear ": [partial(testing.as_matrix, None, (2,))],
    "as_matrix: shape ": each(partial(testing.as_matrix, abs), None, 2, (2.5,), (-1,), (2**22,)),
    "as_matrix: dtype ": [partial(testing.as_matrix, abs, (2,), "float99")],
    "assert_adjoint: forward ": each(adjoint, lambda x: None, name="forward"),
    "assert_adjoint: adjoint ": each(adjoint, 5, name="adjoint"),
    "assert_adjoint: x_shape ": each(adjoint, 2, name="x_shape"),
    "assert_adjoint: y_shape ": each(adjoint, "a", name="y_shape"),
    "assert_adjoint: dtype ": each(adjoint, str, name="dtype"),
    "assert_adjoint: seed ": each(adjoint, -1, name="seed"),
    "assert_adjoint: rtol ": each(adjoint, -1.0, name="rtol"),
}
REFUSED["Halo: axis "] += each(partial(halo.Halo, **HALO), -1, name="axis")


@pytest.mark.parametrize("beginning", sorted(REFUSED))
def test_layers_halos_and_oracles_name_what_is_wrong(beginning):
    if beginning.startswith(("load", "Net")):
        pytest.importorskip("google.protobuf")
    for call in REFUSED[beginning]:
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        check(caught.value, *beginning[:-1].split(": "))


def test_one_value_serves_every_axis_of_a_layer():
    assert LAYER.init(KEY, BOTTOM.shape)[0].shape == (2, 4, 3, 3)
    layer = caffe.Convolution(num_output=2, kernel_size=3, pad=(1,), stride=2)
    assert layer.forward(BLOBS, BOTTOM)[0].shape == (1, 2, 4, 3)


OTHERWISE = {  # the names under which these are tried
    "compat.caffe.Solver.optimizer": ("Optimizer",),  # by the functions that it returns
    "compat.caffe.Filler": ("constant", "uniform", "gaussian", "Filler"),
    **{f"compat.torch.conv{rank}d": ("conv2d",) for rank in (1, 3)},
    **{f"compat.torch.conv_transpose{rank}d": ("conv_transpose2d",) for rank in (1, 3)},
    **{
        f"compat.torch.{kind}_pool{rank}d": (f"{kind}_pool2d",)
        for kind in ("max", "avg")
        for rank in (1, 3)
    },
}
# `load` and `load_solver` make the first three. The frameworks check most arguments of the layers, and
# tests/test_layers_nnx.py and tests/test_layers_equinox.py the others.
UNTRIED = ("compat.caffe.Net", "compat.caffe.Layer", "compat.caffe.SolverState", "layers.")


def test_every_argument_of_every_public_function_is_among_these():
    """By the record of public names and their parameters."""
    tried = {(name, argument) for name, (_, given) in CALLS.items() for argument in given}
    tried |= {tuple(beginning[:-1].split(": ")) for beginning in REFUSED}
    missing = []
    for line in PUBLIC.read_text().splitlines():
        name, _, parameters = line.removeprefix("jdeconv.").partition("(")
        names = {name, name.removeprefix("compat."), *name.split("."), *OTHERWISE.get(name, ())}
        for argument in re.findall(r"(?:^|, )\*{0,2}(\w+)(?=[=,)])", parameters):
            known = argument == "self" or name.startswith(UNTRIED)
            if not known and not {(each, argument) for each in names} & tried:
                missing.append((name, argument))
    assert not missing
