"""Wrong arguments of every public function: an error that names call and argument, and no other end."""

import math
import re
import tempfile
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

X, Y, KERNEL, COLUMNS = ones(1, 4, 7, 5), ones(1, 6, 5, 4), ones(6, 2, 3, 2), ones(1, 24, 5, 4)
LAST, LAST_KERNEL = ones(1, 7, 5, 4), ones(3, 2, 4, 6)
KEY = jax.random.key(0)
PUBLIC = Path(__file__).parent / "golden" / "public.txt"
STEPS = {"stride": ("steps", 1), "padding": ("padding", 0), "dilation": ("steps", 1)}
REST = {
    "groups": ("count", 2),
    "dimension_numbers": ("layout", None),
    "precision": ("precision", None),
    "preferred_element_type": ("dtype", None),
    "lowering": ("optional name", None),
}
MODE = {"padding_mode": ("name", "zeros")}
CONV = {"x": ("array", X), "kernel": ("array", KERNEL), "bias": ("bias", ones(6)), **STEPS, **REST}
DECONV = {
    "y": ("array", Y),
    "kernel": ("array", KERNEL),
    "bias": ("bias", ones(4)),
    **STEPS,
    **REST,
}
DECONV |= {"output_padding": ("extra", 0), "output_size": ("optional size", None)}
GRAD = {
    "x": ("array", X),
    "y": ("array", Y),
    "kernel_size": ("sizes", (3, 2)),
    **STEPS,
    **REST,
    **MODE,
}
SPEC = {"spec": ("spec", jax.sharding.PartitionSpec())}
SHAPED = {"shape": ("shape", (2, 3, 3)), "dtype": ("dtype", float)}
ORDER = {"dimension_numbers": ("one layout", None)}
DRAWN = {"key": ("key", KEY), **SHAPED}
TORCH = {
    "input": ("array", X),
    "weight": ("array", KERNEL),
    "bias": ("bias", None),
    "stride": ("steps", 1),
    "padding": ("widths", 0),
    "dilation": ("steps", 1),
    "groups": ("count", 2),
}
POOL = {
    "input": ("array", X),
    "kernel_size": ("taps", (3, 2)),
    "stride": ("optional steps", None),
    "padding": ("widths", 0),
    "ceil_mode": ("flag", False),
}
RESIZED = {
    "input": ("array", X),
    "mode": ("name", "bilinear"),
    "align_corners": ("optional flag", None),
    "antialias": ("flag", False),
}
KERAS = {
    "strides": ("steps", 1),
    "padding": ("name", "valid"),
    "data_format": ("optional name", None),
    "dilation_rate": ("steps", 1),
}
ONNX = {
    "X": ("array", X),
    "W": ("array", KERNEL),
    "B": ("bias", None),
    "auto_pad": ("name", "NOTSET"),
    "dilations": ("optional steps", None),
    "group": ("count", 2),
    "kernel_shape": ("optional size", None),
    "pads": ("pads", None),
    "strides": ("optional steps", None),
}
LOOPS = {
    "stride": ("steps", (1, 1)),
    "dilation": ("steps", (1, 1)),
    "low": ("positions", (0, 0)),
    "groups": ("count", 2),
}
LAX = {
    "lhs": ("lax array", X),
    "rhs": ("lax array", KERNEL),
    "window_strides": ("steps", (1, 1)),
    "padding": ("padding", "VALID"),
}
LAX_KINDS = {"precision": ("lax precision", None), "preferred_element_type": ("any dtype", None)}
LAX_LAYOUT = {"dimension_numbers": ("lax layout", None)}
DILATIONS = {"lhs_dilation": ("optional steps", None), "rhs_dilation": ("optional steps", None)}
CALLS = {
    "conv": (jdeconv.conv, CONV | MODE),
    "deconv": (jdeconv.deconv, DECONV | MODE),
    "kernel_grad": (jdeconv.kernel_grad, GRAD),
    "bilinear.conv": (bilinear.conv, CONV | MODE),
    "bilinear.deconv": (bilinear.deconv, DECONV | MODE),
    "bilinear.kernel_grad": (bilinear.kernel_grad, GRAD),
    "halo.conv": (halo.conv, CONV | MODE | SPEC),
    "halo.deconv": (halo.deconv, DECONV | MODE | SPEC),
    "im2col": (
        jdeconv.im2col,
        {"x": ("array", X), "kernel_size": ("sizes", (3, 2)), **STEPS, **ORDER},
    ),
    "col2im": (
        jdeconv.col2im,
        {"columns": ("array", COLUMNS), "output_size": ("optional size", (7, 5))}
        | {"kernel_size": ("sizes", (3, 2)), **STEPS, **ORDER},
    ),
    "Window": (
        jdeconv.Window,
        {"big": ("steps", (7, 5)), "small": ("steps", (5, 4)), "kernel": ("sizes", (3, 2))}
        | {
            "stride": ("steps", (1, 1)),
            "dilation": ("steps", (1, 1)),
            "low": ("positions", (0, 0)),
        },
    ),
    "Window.of_conv": (
        jdeconv.Window.of_conv,
        {"big": ("steps", (7, 5)), "kernel": ("sizes", (3, 2)), **STEPS},
    ),
    "Window.of_deconv": (
        jdeconv.Window.of_deconv,
        {"small": ("steps", (5, 4)), "kernel": ("sizes", (3, 2)), **STEPS}
        | {"output_padding": ("extra", 0), "output_size": ("optional size", None)},
    ),
    "Window.of_kernel_grad": (
        jdeconv.Window.of_kernel_grad,
        {
            "big": ("steps", (7, 5)),
            "small": ("steps", (5, 4)),
            "kernel": ("sizes", (3, 2)),
            **STEPS,
        },
    ),
    "constant": (
        jdeconv.constant,
        {"shape": ("shape", (2, 3)), "dtype": ("any dtype", float), "value": ("number", 0.0)},
    ),
    "uniform": (jdeconv.uniform, DRAWN | {"min": ("number", 0.0), "max": ("number", 1.0)}),
    "gaussian": (
        jdeconv.gaussian,
        DRAWN
        | ORDER
        | {"mean": ("number", 0.0), "std": ("number", 1.0), "sparse": ("optional count", None)},
    ),
    "positive_unitball": (jdeconv.positive_unitball, DRAWN | ORDER),
    "xavier": (jdeconv.xavier, DRAWN | ORDER | {"variance_norm": ("name", "fan_in")}),
    "msra": (jdeconv.msra, DRAWN | ORDER | {"variance_norm": ("name", "fan_in")}),
    "bilinear_kernel": (jdeconv.bilinear_kernel, SHAPED | ORDER),
    "accelerate": (jdeconv.accelerate, {"function": ("callable", len)}),
    "conv2d": (torch.conv2d, TORCH),
    "conv_transpose2d": (
        torch.conv_transpose2d,
        TORCH
        | {"input": ("array", Y), "output_padding": ("extra", 0)}
        | {"output_size": ("optional shape", None)},
    ),
    "unfold": (
        torch.unfold,
        {"input": ("array", X), "kernel_size": ("taps", (3, 2)), "dilation": ("steps", 1)}
        | {"padding": ("widths", 0), "stride": ("steps", 1)},
    ),
    "fold": (
        torch.fold,
        {"input": ("array", ones(1, 24, 20)), "output_size": ("steps", (7, 5))}
        | {"kernel_size": ("steps", (3, 2)), "dilation": ("steps", 1)}
        | {"padding": ("widths", 0), "stride": ("steps", 1)},
    ),
    "max_pool2d": (
        torch.max_pool2d,
        POOL | {"dilation": ("steps", 1), "return_indices": ("flag", False)},
    ),
    "avg_pool2d": (
        torch.avg_pool2d,
        POOL | {"count_include_pad": ("flag", True), "divisor_override": ("divisor", None)},
    ),
    "interpolate": (
        torch.interpolate,
        RESIZED | {"size": ("optional steps", (9, 8))},
    ),
    "torch.interpolate": (
        torch.interpolate,
        RESIZED
        | {"scale_factor": ("factor", 2.5), "recompute_scale_factor": ("optional flag", True)},
    ),
    "batch_norm": (
        torch.batch_norm,
        {"input": ("array", X), "running_mean": ("bias", ones(4)), "running_var": ("bias", ones(4))}
        | {"weight": ("bias", ones(4)), "bias": ("bias", None), "training": ("flag", True)}
        | {"momentum": ("number", 0.1), "eps": ("number", 1e-5)},
    ),
    "keras.unfold": (
        keras.unfold,
        {"x": ("array", X), "kernel_size": ("taps", (3, 2)), "dilation": ("steps", 1)}
        | {"padding": ("widths", 0), "stride": ("steps", 1)},
    ),
    "keras.fold": (
        keras.fold,
        {"x": ("array", ones(1, 24, 20)), "output_size": ("steps", (7, 5))}
        | {"kernel_size": ("steps", (3, 2)), "dilation": ("steps", 1)}
        | {"padding": ("widths", 0), "stride": ("steps", 1)},
    ),
    "keras.extract_patches": (
        keras.extract_patches,
        KERAS
        | {"images": ("array", LAST), "size": ("taps", (3, 2))}
        | {"strides": ("optional steps", None)},
    ),
    "keras.reconstruct_patches": (
        keras.reconstruct_patches,
        {"patches": ("array", ones(1, 2, 3, 24)), "size": ("taps", (3, 2))}
        | {"output_size": ("optional size", None), "strides": ("optional steps", None)}
        | {"padding": ("name", "valid"), "data_format": ("optional name", None)},
    ),
    "keras.conv": (
        keras.conv,
        {"inputs": ("array", LAST), "kernel": ("array", LAST_KERNEL), **KERAS},
    ),
    "keras.conv_transpose": (
        keras.conv_transpose,
        {"inputs": ("array", LAST), "kernel": ("array", ones(3, 2, 6, 4)), **KERAS}
        | {"output_padding": ("pads", None)},
    ),
    "keras.depthwise_conv": (
        keras.depthwise_conv,
        {"inputs": ("array", LAST), "kernel": ("array", ones(3, 2, 4, 2)), **KERAS},
    ),
    "keras.separable_conv": (
        keras.separable_conv,
        {"inputs": ("array", LAST), "depthwise_kernel": ("array", ones(3, 2, 4, 2))}
        | {"pointwise_kernel": ("array", ones(1, 1, 8, 3)), **KERAS},
    ),
    "Conv": (onnx.Conv, ONNX),
    "ConvTranspose": (
        onnx.ConvTranspose,
        ONNX
        | {"X": ("array", Y), "output_padding": ("pads", None)}
        | {"output_shape": ("optional size", None)},
    ),
    "Col2Im": (
        onnx.Col2Im,
        {"input": ("array", ones(1, 24, 20)), "image_shape": ("steps", (7, 5))}
        | {"block_shape": ("sizes", (3, 2)), "dilations": ("optional steps", None)}
        | {"pads": ("pads", None), "strides": ("optional steps", None)},
    ),
    "conv_loops": (
        testing.conv_loops,
        {"x": ("oracle array", X), "kernel": ("oracle array", KERNEL), **LOOPS}
        | {"small": ("oracle sizes", (5, 4))},
    ),
    "deconv_loops": (
        testing.deconv_loops,
        {"y": ("oracle array", Y), "kernel": ("oracle array", KERNEL), **LOOPS}
        | {"big": ("oracle sizes", (7, 5))},
    ),
    "kernel_grad_loops": (
        testing.kernel_grad_loops,
        {"x": ("oracle array", X), "y": ("oracle array", Y), **LOOPS}
        | {"kernel_size": ("oracle sizes", (3, 2))},
    ),
    "lax.conv_general_dilated": (
        lax.conv_general_dilated,
        LAX
        | LAX_KINDS
        | DILATIONS
        | LAX_LAYOUT
        | {"out_sharding": ("lax sharding", None)}
        | {"feature_group_count": ("count", 2), "batch_group_count": ("count", 1)},
    ),
    "lax.conv": (lax.conv, LAX | LAX_KINDS | {"rhs": ("lax array", ones(6, 4, 3, 2))}),
    "lax.conv_with_general_padding": (
        lax.conv_with_general_padding,
        LAX | LAX_KINDS | DILATIONS | {"rhs": ("lax array", ones(6, 4, 3, 2))},
    ),
    "lax.conv_transpose": (
        lax.conv_transpose,
        {
            "lhs": ("lax array", LAST),
            "rhs": ("lax array", LAST_KERNEL),
            "strides": ("steps", (1, 1)),
        }
        | {"padding": ("padding", "VALID"), "rhs_dilation": ("optional steps", None), **LAX_KINDS}
        | LAX_LAYOUT
        | {"transpose_kernel": ("flag", False), "use_consistent_padding": ("flag", False)},
    ),
    "lax.conv_general_dilated_local": (
        lax.conv_general_dilated_local,
        LAX
        | DILATIONS
        | LAX_LAYOUT
        | {"rhs": ("lax array", ones(6, 24, 5, 4)), "filter_shape": ("sizes", (3, 2))}
        | {"precision": ("lax precision", None)},
    ),
    "lax.conv_general_dilated_patches": (
        lax.conv_general_dilated_patches,
        {
            "lhs": ("lax array", X),
            "filter_shape": ("sizes", (3, 2)),
            "window_strides": ("steps", (1, 1)),
        }
        | {
            "padding": ("padding", "VALID"),
            **DILATIONS,
            **LAX_KINDS,
            **LAX_LAYOUT,
        },
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
    x, y = (
        'input: "x" input_shape { dim: 1 dim: 2 }',
        '{ name: "y" type: "Scale" bottom: "x" top: "y" }',
    )
    return caffe.load(f"{x} layer {y}")


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


def back(**arguments):
    given = {"blobs": BLOBS, "bottoms": [BOTTOM], "top_diffs": [TOP]} | arguments
    return LAYER.backward(**given)


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
FIELDS = {
    f"{kind.__name__}: {name} ": [
        lambda kind=kind, name=name, value=value: used(kind, **{name: value}) for value in values
    ]
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
FIELDS |= {
    f"Solver: {name} ": [
        lambda name=name, value=value: caffe.Solver(**{name: value}) for value in values
    ]
    for name, values in SOLVED.items()
}


def passes(layer, weight, diff):
    """Each pass by itself, of either layer: {argument: calls}."""
    name = type(layer).__name__
    return {
        f"{name}: bottom ": [
            lambda: layer.forward_gemm("x", weight),
            lambda: layer.init(KEY, "abcd"),
            lambda: layer.weight_gemm(None, diff),
            *(lambda value=v: layer.blob_shapes(value) for v in (None, "ab", (1, 2.5, 3, 4))),
        ],
        f"{name}: axis ": [lambda: layer.forward_gemm(ones(3), weight)],
        f"{name}: key ": [lambda: layer.init(None, BOTTOM.shape)],
        f"{name}: blobs ": [
            *(lambda value=v: layer.forward(value, BOTTOM) for v in (None, "ab", [weight])),
            lambda: layer.backward(None, [BOTTOM], [diff]),
        ],
        f"{name}: bottoms ": [lambda: layer.backward([weight, ones(2)], BOTTOM, [diff])],
        **{
            f"{name}: {argument} ": [
                lambda value=v, argument=argument: layer.backward(
                    **{"blobs": [weight, ones(2)], "bottoms": [BOTTOM], "top_diffs": [diff]}
                    | {argument: value}
                )
                for v in (5, [], "a", [1, 2, 3])
            ]
            for argument in ("top_diffs", "propagate_down", "param_propagate_down", "param_diffs")
        },
        f"{name}: weight ": [
            *(lambda value=v: layer.forward_gemm(BOTTOM, value) for v in ("x", ones(9, 9, 3, 3))),
            lambda: layer.backward_gemm(diff, None, BOTTOM.shape[2:]),
        ],
        f"{name}: top_diff ": [
            lambda: layer.backward_gemm("x", weight, BOTTOM.shape[2:]),
            lambda: layer.weight_gemm(BOTTOM, object()),
            lambda: layer.backward_bias("x", 4),
        ],
        f"{name}: space ": [
            lambda value=v: layer.backward_gemm(diff, weight, value) for v in (None, "ab", (99, 5))
        ],
        f"{name}: top ": [lambda: layer.forward_bias("x", ones(2))],
        f"{name}: bias ": [lambda value=v: layer.forward_bias(diff, value) for v in ("x", ones(9))],
        f"{name}: ndim ": [lambda value=v: layer.backward_bias(diff, value) for v in (None, -1, 3)],
        f"{name}: rank ": [lambda value=v: layer.steps(value) for v in (None, -1, 1.5)],
    }


IM2COL, UP = caffe.Im2col(kernel_size=3), caffe.Deconvolution(num_output=2, kernel_size=3)
MORE = passes(LAYER, BLOBS[0], TOP) | passes(UP, ones(4, 2, 3, 3), ones(1, 2, 9, 7))
MORE |= {
    "load: caffemodel ": [lambda value=v: loaded(caffemodel=value) for v in (5, "no/such", "a\0b")],
    "Im2col: bottom ": [lambda: IM2COL.forward("x"), lambda: IM2COL.forward(ones(1, 2))],
    "Im2col: rank ": [lambda: IM2COL.steps(-1)],
    "assert_adjoint: rtol ": [
        lambda: testing.assert_adjoint(abs, abs, (2,), (2,), rtol=-1.0),
    ],
    "assert_adjoint: forward ": [
        lambda: testing.assert_adjoint(lambda x: None, abs, (2,), (2,)),
    ],
    "assert_adjoint: y_shape ": [lambda: testing.assert_adjoint(abs, abs, (2,), "a")],
    "assert_adjoint: dtype ": [lambda: testing.assert_adjoint(abs, abs, (2,), (2,), dtype=str)],
}
REFUSED = {
    "Convolution: key ": [lambda: LAYER.init(None, BOTTOM.shape)],
    "Convolution: bottom ": [
        *(lambda value=v: LAYER.init(KEY, value) for v in (None, 5, (1, 3, 5.0, 5), "abcd")),
        lambda: LAYER.forward(BLOBS, "x"),
    ],
    "Convolution: blobs ": [
        *(
            lambda value=v: LAYER.forward(value, BOTTOM)
            for v in (None, ["a", "b"], BLOBS[:1], "ab")
        ),
        lambda: back(blobs=None),
    ],
    "Convolution: bottoms ": [lambda: back(bottoms=BOTTOM)],
    "Convolution: top_diffs ": [lambda: back(top_diffs=[]), lambda: back(top_diffs=["a"])],
    "Convolution: propagate_down ": [lambda: back(propagate_down=5)],
    "Convolution: param_diffs ": [lambda: back(param_diffs=[1])],
    "Filler: type ": [lambda: filled(type="xaver"), lambda: filled(type=None)],
    "Filler: variance_norm ": [
        lambda value=value: filled(type="xavier", variance_norm=value) for value in (3, "fan_in")
    ],
    "Filler: value ": [lambda value=v: filled(value=value) for v in (math.nan, "1", None)],
    "constant: value ": [
        lambda: jdeconv.constant((2,), np.float32, value=1e300),
        lambda: jdeconv.constant((2,), np.int32, value=2**40),
    ],
    "uniform: max ": [lambda: jdeconv.uniform(KEY, (2,), np.float32, min=-3e38, max=3e38)],
    "constant: shape ": [lambda: jdeconv.constant((2**31 - 1, 2**8))],
    "bilinear_kernel: shape ": [lambda: jdeconv.bilinear_kernel((2**20, 2**19, 2))],
    "im2col: kernel_size ": [
        lambda: jax.eval_shape(
            lambda x: jdeconv.im2col(x, (2**19, 2**19)),
            jax.ShapeDtypeStruct((1, 1, 2**20, 2**20), np.float32),
        )
    ],
    "kernel_grad: y ": [
        lambda: jax.eval_shape(
            lambda x, y: jdeconv.kernel_grad(x, y, (3,)),
            *(jax.ShapeDtypeStruct((1, 2**n, q), np.float32) for n, q in ((21, 5), (20, 3))),
        )
    ],
    "load: prototxt ": [lambda value=v: caffe.load(value) for v in (None, 5, "a\0b", "no/such")],
    "load: key ": [lambda: caffe.load("no/such", key=7)],
    "load: phase ": [
        lambda value=v: caffe.load("no/such", phase=value) for v in (None, "train", 1)
    ],
    "load: layers ": [lambda value=v: loaded(layers=value) for v in (5, {"X": 5}, {"X": abs})],
    "load: until ": [lambda value=v: loaded(until=value) for v in (5, "no such")],
    "load: shapes ": [
        lambda value=v: loaded(shapes=value) for v in (5, {"y": (1,)}, {"x": 3}, {"x": (0, 2)})
    ],
    "load: align ": [lambda: loaded(align=1)],
    "Net: params ": [
        *(lambda value=v: scaled()(value, {"x": ones(1, 2)}) for v in (None, 5, {}, {"y": []})),
        *(lambda value=v: saved(params=value) for v in (None, {}, {"y": [ones(2)]}, [ones(2, 2)])),
    ],
    "Net: inputs ": [
        lambda value=v: scaled()({}, value) for v in (None, ones(1, 2), {}, {"x": None}, {"z": 1})
    ],
    "Net: tops ": [lambda value=v: scaled()({}, {"x": ones(1, 2)}, value) for v in (5, "y", ["z"])],
    "Net: key ": [lambda: scaled()({}, {"x": ones(1, 2)}, key=7), lambda: scaled().init(None)],
    "Net: shapes ": [lambda value=v: scaled().summary(value) for v in (5, {"z": (1,)}, {"x": 3})],
    "load_solver: prototxt ": [
        lambda value=v: caffe.load_solver(value) for v in (None, 5, "a\0b", "no/such", "x: 1")
    ],
    "Net: path ": [
        lambda value=v: saved(path=value) for v in (None, 5, "no/such/net.h5", "no/such/net")
    ],
    "Solver: iteration ": [lambda: caffe.Solver().rate("x"), lambda: caffe.Solver().rate(None)],
    **{
        f"Optimizer: {name} ": [
            lambda name=name, value=v: updated(**{name: value}) for v in (5, {"w": 1})
        ]
        for name in ("lr_mult", "decay_mult")
    },
    **{
        f"Halo: {name} ": [
            lambda name=name, value=value: halo.Halo(**HALO | {name: value})
            for value in (None, "x", 1.5, 2**31, *((-1,) if name == "axis" else ()))
        ]
        for name in ("axis", "low", "high", "step")
    },
    "Halo: name ": [lambda: halo.Halo(**HALO | {"name": None})],
    "Halo: mode ": [lambda value=v: halo.Halo(**HALO, mode=value) for v in (None, 1, "Zeros")],
    "exchange: halo ": [lambda: halo.exchange(ones(3), 5)],
    "exchange: x ": [lambda: halo.exchange(ones(), halo.Halo(**HALO))],
    "add: halo ": [lambda: halo.add(ones(3), None)],
    "add: seen ": [lambda: halo.add(ones(2), halo.Halo(**HALO))],
    "as_matrix: linear ": [lambda: testing.as_matrix(None, (2,))],
    "as_matrix: shape ": [
        lambda value=v: testing.as_matrix(abs, value) for v in (None, 2, (2.5,), (-1,), (2**22,))
    ],
    "as_matrix: dtype ": [lambda: testing.as_matrix(abs, (2,), "float99")],
    "assert_adjoint: adjoint ": [lambda: testing.assert_adjoint(abs, 5, (2,), (2,))],
    "assert_adjoint: x_shape ": [lambda: testing.assert_adjoint(abs, abs, 2, (2,))],
    "assert_adjoint: seed ": [lambda: testing.assert_adjoint(abs, abs, (2,), (2,), seed=-1)],
}


@pytest.mark.parametrize("beginning", sorted({*REFUSED, *FIELDS, *MORE}))
def test_layers_halos_and_oracles_name_what_is_wrong(beginning):
    if beginning.startswith(("load", "Net")):
        pytest.importorskip("google.protobuf")
    for calls in (REFUSED, FIELDS, MORE):
        for call in calls.get(beginning, ()):
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
    tried |= {tuple(beginning[:-1].split(": ")) for beginning in (*REFUSED, *FIELDS, *MORE)}
    missing = []
    for line in PUBLIC.read_text().splitlines():
        name, _, parameters = line.removeprefix("jdeconv.").partition("(")
        names = {name, name.removeprefix("compat."), *name.split("."), *OTHERWISE.get(name, ())}
        for argument in re.findall(r"(?:^|, )\*{0,2}(\w+)(?=[=,)])", parameters):
            known = argument == "self" or name.startswith(UNTRIED)
            if not known and not {(each, argument) for each in names} & tried:
                missing.append((name, argument))
    assert not missing
