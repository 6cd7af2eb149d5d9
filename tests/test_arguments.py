"""Every accepted argument changes the result, as it says: dtypes, precision, layouts, bias, batch, lowering."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from jdeconv import bilinear, checks

MODULES = [jdeconv, bilinear]
X, KERNEL, Y = (2, 4, 6, 5), (6, 2, 3, 2), (2, 6, 4, 4)


def draw(rng, shape, dtype=np.float32):
    return rng.integers(-4, 5, shape).astype(dtype)


def permuted(a, spec, letters):
    return np.transpose(a, [letters.index(letter) for letter in spec])


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("specs", [("NHWC", "HWIO", "NHWC"), ("HCNW", "IWOH", "CWHN")])
def test_dimension_numbers(module, specs, rng):
    x, kernel, y = draw(rng, X), draw(rng, KERNEL), draw(rng, Y)
    x_, kernel_, y_ = (
        permuted(a, spec, letters)
        for a, spec, letters in zip((x, kernel, y), specs, ("NCHW", "OIHW", "NCHW"), strict=True)
    )
    xs, ks, ys = specs
    options = {"groups": 2}
    expected = permuted(np.asarray(module.conv(x, kernel, **options)), ys, "NCHW")
    result = module.conv(x_, kernel_, dimension_numbers=specs, **options)
    np.testing.assert_array_equal(result, expected)
    expected = permuted(np.asarray(module.deconv(y, kernel, **options)), xs, "NCHW")
    result = module.deconv(y_, kernel_, dimension_numbers=(ys, ks, xs), **options)
    np.testing.assert_array_equal(result, expected)
    expected = permuted(np.asarray(module.kernel_grad(x, y, (3, 2), **options)), ks, "OIHW")
    kernel_size = [{"H": 3, "W": 2}[letter] for letter in ks if letter in "HW"]
    result = module.kernel_grad(x_, y_, kernel_size, dimension_numbers=(xs, ys, ks), **options)
    np.testing.assert_array_equal(result, expected)


def test_spatial_axes_follow_the_kernels_letters(rng):
    x, kernel = draw(rng, (2, 4, 5, 6)), draw(rng, (3, 4, 3, 2))
    swapped = jdeconv.conv(x, kernel, stride=(2, 1), dimension_numbers=("NCWH", "OIHW", "NCHW"))
    np.testing.assert_array_equal(swapped, jdeconv.conv(x.swapaxes(2, 3), kernel, stride=(2, 1)))


@pytest.mark.parametrize(
    "numbers", [None, ("NHWC", "HWIO", "NHWC"), ("HCNW", "OIHW", "CWHN")], ids=str
)
def test_unbatched(numbers, rng):
    layout = numbers or ("NCHW", "OIHW", "NCHW")
    big, kernels, small = layout
    x, y = permuted(draw(rng, X)[:1], big, "NCHW"), permuted(draw(rng, Y)[:1], small, "NCHW")
    kernel = permuted(draw(rng, KERNEL), kernels, "OIHW")

    def alone(a, spec):
        return jnp.take(a, 0, spec.index("N"))

    def conv(x):
        return jdeconv.conv(x, kernel, groups=2, dimension_numbers=numbers)

    def deconv(y):
        turned = numbers and numbers[::-1]
        return jdeconv.deconv(y, kernel, groups=2, dimension_numbers=turned)

    def kernel_grad(x, y):
        turned = numbers and (big, small, kernels)
        return jdeconv.kernel_grad(x, y, (3, 2), groups=2, dimension_numbers=turned)

    np.testing.assert_array_equal(conv(alone(x, big)), alone(conv(x), small))
    np.testing.assert_array_equal(deconv(alone(y, small)), alone(deconv(y), big))
    np.testing.assert_array_equal(kernel_grad(alone(x, big), alone(y, small)), kernel_grad(x, y))


@pytest.mark.parametrize("module", MODULES)
def test_bias(module, rng):
    x, kernel, y = draw(rng, X), draw(rng, KERNEL), draw(rng, Y)
    for function, a, size in ((module.conv, x, 6), (module.deconv, y, 4)):
        bias = np.arange(1, size + 1, dtype=np.float32)
        plain = function(a, kernel, groups=2)
        np.testing.assert_array_equal(
            function(a, kernel, bias, groups=2), plain + bias.reshape(1, -1, 1, 1)
        )
        gradient = jax.grad(lambda b, f=function, a=a: f(a, kernel, b, groups=2).sum())(bias)
        np.testing.assert_array_equal(gradient, np.full(size, plain.size // size))


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "float32", "float32"),
        ("float16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "float16", "float16"),
        ("int32", "float32", "float32"),
        ("int8", "int32", "int32"),
        ("int8", "int8", "int8"),
        ("uint8", "uint8", "uint8"),
        ("float32", "complex64", "complex64"),
        ("float8_e4m3fn", "float8_e4m3fn", "float8_e4m3fn"),
    ],
)
@jax.numpy_dtype_promotion("standard")
def test_dtype_promotion(left, right, result, rng):
    x, kernel, y = (rng.integers(0, 2, s).astype(np.float32) for s in (X, KERNEL, Y))
    expected = [
        jdeconv.conv(x, kernel, groups=2),
        jdeconv.deconv(y, kernel, groups=2),
        jdeconv.kernel_grad(x, y, (3, 2), groups=2),
    ]
    x, kernel, y = (jnp.asarray(a, t) for a, t in ((x, left), (kernel, right), (y, left)))
    actual = [
        jdeconv.conv(x, kernel, groups=2),
        jdeconv.deconv(y, kernel, groups=2),
        jdeconv.kernel_grad(x.astype(right), y, (3, 2), groups=2),
    ]
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == result
        np.testing.assert_array_equal(a, b.astype(result))


SCALARS = {value for value in vars(jnp).values() if isinstance(value, type(jnp.float32))}


@pytest.mark.parametrize("dtype", sorted(jnp.dtype(scalar).name for scalar in SCALARS))
def test_every_dtype_of_jax_is_evaluated_or_refused(dtype, rng):
    """Evaluated in full: what XLA cannot do it may say, or die of, when it compiles."""
    calls = {
        "conv: x ": lambda x, k, y: jdeconv.conv(x, k, padding=1),
        "deconv: y ": lambda x, k, y: jdeconv.deconv(y, k, stride=2),
        "kernel_grad: x ": lambda x, k, y: jdeconv.kernel_grad(x, y, (3,), padding=1),
        "im2col: x ": lambda x, k, y: jdeconv.im2col(x, (2,), padding=2),
        "col2im: columns ": lambda x, k, y: jdeconv.col2im(y[:, :, :4], (9,), (2,), stride=2),
    }
    shapes = (1, 16, 5), (16, 16, 3), (1, 16, 5)
    ones = [rng.integers(0, 2, s).astype(np.float32) for s in shapes]
    with jax.enable_x64(True):
        arrays = [np.asarray(a).astype(dtype) for a in ones]
        if jnp.dtype(dtype) in checks.DTYPES:
            all_of = jax.jit(lambda *arrays: [call(*arrays) for call in calls.values()])
            for found, expected in zip(all_of(*arrays), all_of(*ones), strict=True):
                np.testing.assert_array_equal(found, expected.astype(dtype))
        else:
            for beginning, call in calls.items():
                with pytest.raises(
                    TypeError, match=rf"^{beginning}must hold numbers .*, got {dtype}\["
                ):
                    call(*arrays)


@jax.numpy_dtype_promotion("standard")
def test_float64_and_complex128(rng):
    with jax.enable_x64(True):
        x, kernel = draw(rng, X, np.float64) * 2.0**40, draw(rng, KERNEL, np.float64) + 2.0**-40
        result = jdeconv.conv(x, kernel, groups=2)
        assert result.dtype == np.float64
        steps = {"stride": (1, 1), "dilation": (1, 1), "low": (0, 0), "groups": 2}
        loops = jdeconv.testing.conv_loops(x, kernel, (4, 4), **steps)
        np.testing.assert_allclose(result, loops, rtol=1e-12, atol=1e-2)
        result = jdeconv.conv(x + 1j, kernel, groups=2)
        assert result.dtype == np.complex128
        loops = jdeconv.testing.conv_loops(x + 1j, kernel, (4, 4), **steps)
        np.testing.assert_allclose(result, loops, rtol=1e-12, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(dtype):
    """600 ones: exact in float32, while a running sum in bfloat16 sticks at 256; and 4096 of them."""
    x, kernel = jnp.ones((1, 4096, 2), dtype), jnp.ones((1, 4096, 1), dtype)
    for lowering in (None, "vendor"):
        assert jdeconv.conv(x, kernel, lowering=lowering).tolist() == [[[4096, 4096]]]
        y = jnp.ones((1, 4096, 1), dtype)
        assert jdeconv.deconv(y, kernel.swapaxes(0, 1), lowering=lowering).item() == 4096
        long = jnp.ones((1, 1, 4096), dtype)
        assert jdeconv.kernel_grad(long, long, (1,), lowering=lowering).item() == 4096
    many = jnp.ones((1, 1, 600), dtype)
    assert jdeconv.deconv(many, many).max() == 600
    assert jdeconv.col2im(jnp.ones((1, 600, 600), dtype), 1199, (600,)).max() == 600
    one, wide = jnp.ones((1, 1, 1), dtype), jnp.ones((1, 1, 2048), dtype)
    options = {"padding": 1023, "padding_mode": "circular"}
    assert jdeconv.deconv(wide, one, **options).tolist() == [[[1024, 1024]]]
    x = jnp.ones((1, 1, 2), dtype)
    assert jax.grad(lambda x: jdeconv.conv(x, one, **options).sum())(x).tolist() == [[[1024, 1024]]]


@pytest.mark.parametrize("lowering", [None, "taps", "nhwc", "im2col", "vendor"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_same_on_every_call(dtype, lowering):
    """XLA once summed a widened bfloat16 onto memory that nobody had cleared: wrong in every second call."""
    long = jnp.ones((1, 1, 4096), dtype)
    grad = jax.jit(functools.partial(jdeconv.kernel_grad, kernel_size=(1,), lowering=lowering))
    assert {grad(long, long).item() for _ in range(40)} == {4096}


@pytest.mark.parametrize(
    ("dtype", "preferred"), [("bfloat16", "float32"), ("int8", "int32"), ("int8", "float32")]
)
def test_preferred_element_type(dtype, preferred, rng):
    x, kernel, y = (rng.integers(-100, 100, s) for s in (X, KERNEL, Y))
    options = {"groups": 2, "preferred_element_type": preferred}
    wide = [a.astype(np.float32) for a in (x, kernel, y)]
    narrow = [jnp.asarray(a, dtype) for a in (x, kernel, y)]
    for call in (
        lambda x, k, _, **o: jdeconv.conv(x, k, **o),
        lambda _, k, y, **o: jdeconv.deconv(y, k, **o),
        lambda x, _, y, **o: jdeconv.kernel_grad(x, y, (3, 2), **o),
    ):
        result = call(*narrow, **options)
        assert result.dtype == preferred
        np.testing.assert_array_equal(result, call(*wide, groups=2))


def test_gradients_keep_the_operands_dtypes(rng):
    x, kernel = jnp.asarray(draw(rng, X), "bfloat16"), jnp.asarray(draw(rng, KERNEL), "bfloat16")

    def loss(x, kernel):
        return jdeconv.conv(x, kernel, groups=2, preferred_element_type="float32").sum()

    for gradient in jax.grad(loss, (0, 1))(x, kernel):
        assert gradient.dtype == "bfloat16"
        assert gradient.any()


@pytest.mark.parametrize("precision", ["highest", jax.lax.Precision.HIGHEST])
@pytest.mark.parametrize("lowering", ["im2col", "vendor"])
def test_precision_reaches_the_products(precision, lowering, rng):
    x, kernel = draw(rng, X), draw(rng, KERNEL)

    def text(**options):
        f = jax.jit(lambda x, k: jdeconv.conv(x, k, groups=2, lowering=lowering, **options))
        return f.lower(x, kernel).as_text()

    assert "HIGHEST" in text(precision=precision)
    assert "HIGHEST" not in text()
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in text()
    gradients = gradient_text(
        lambda x, k: jdeconv.conv(x, k, groups=2, precision=precision, lowering=lowering), x, kernel
    )
    products = re.findall(r".*stablehlo\.(?:convolution|dot_general).*", gradients)
    assert len(products) == 2
    assert all("HIGHEST" in product for product in products)


def gradient_text(function, *args):
    return jax.jit(jax.grad(lambda *a: function(*a).sum(), (0, 1))).lower(*args).as_text()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowering_by_platform_and_by_name(platform, rng):
    x, kernel = draw(rng, X), draw(rng, KERNEL)

    def uses_convolution(lowering):
        f = jax.jit(lambda x, k: jdeconv.conv(x, k, groups=2, lowering=lowering))
        exported = jax.export.export(f, platforms=[platform])(x, kernel)
        return "stablehlo.convolution" in exported.mlir_module()

    assert uses_convolution("vendor")
    assert not uses_convolution("im2col")
    assert uses_convolution(None) == (platform != "cpu")


@pytest.mark.parametrize("module", MODULES)
def test_a_lowering_that_cannot_serve_says_why(module, rng):
    x, kernel = draw(rng, X), draw(rng, KERNEL)
    with pytest.raises(
        NotImplementedError,
        match="conv: lowering 'fft' cannot serve: fft rounds more than the precision HIGHEST",
    ):
        module.conv(x, kernel, groups=2, precision="highest", lowering="fft")
    with pytest.raises(
        NotImplementedError,
        match=r"lowering 'taps' cannot serve: 144 products of taps and channels are more",
    ):
        module.conv(np.ones((1, 2, 12, 12)), np.ones((2, 1, 12, 12)), groups=2, lowering="taps")


def test_native_deconv_has_the_form_that_vendor_libraries_know(rng):
    """Backward-input: a reversed kernel and a dilated input; backward-filter: a dilated window."""
    y, kernel, x = draw(rng, Y), draw(rng, (6, 2, 4, 4)), draw(rng, (2, 2, 8, 8))
    options = {"stride": 2, "padding": 1, "lowering": "vendor"}
    text = jax.jit(lambda y, k: jdeconv.deconv(y, k, **options)).lower(y, kernel).as_text()
    assert "stablehlo.reverse" in text
    assert "lhs_dilate = [2, 2]" in text
    text = gradient_text(lambda y, k: (jdeconv.deconv(y, k, **options) * x).sum(), y, kernel)
    assert "rhs_dilate = [2, 2]" in text
    assert "lhs_dilate" not in text.replace("lhs_dilate = [1, 1]", "")


def test_the_package_imports_only_jax_and_numpy():
    import subprocess
    import sys

    code = (
        "import sys; import jax, numpy; before = set(sys.modules); import jdeconv;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() in ("['jdeconv']", "['jax', 'jdeconv']")


@pytest.mark.parametrize("module", MODULES)
def test_debug_nans_and_disable_jit(module, rng):
    x, kernel = draw(rng, X), draw(rng, KERNEL)
    expected = module.conv(x, kernel, groups=2)
    with jax.disable_jit():
        np.testing.assert_array_equal(module.conv(x, kernel, groups=2), expected)
    with jax.debug_nans(True):
        np.testing.assert_array_equal(module.conv(x, kernel, groups=2), expected)
        with pytest.raises(FloatingPointError, match="nan"):
            module.conv(np.full_like(x, np.nan), kernel, groups=2)


def test_an_algorithm_as_configured_precision(rng):
    x, kernel = draw(rng, X), draw(rng, KERNEL)
    with jax.default_matmul_precision("F32_F32_F32"):
        text = (
            jax.jit(lambda x, k: jdeconv.conv(x, k, groups=2, lowering="im2col"))
            .lower(x, kernel)
            .as_text()
        )
        assert "algorithm" in text


@pytest.mark.parametrize("function", [jdeconv.conv, bilinear.conv])
def test_what_python_says_of_a_wrong_call_counts_as_the_user_does(function):
    x, kernel = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 2), np.float32)
    with pytest.raises(TypeError, match=r"^conv\(\) missing a required argument: 'kernel'$"):
        function(x)
    with pytest.raises(TypeError, match=r"^conv\(\) too many positional arguments$"):
        function(x, kernel, None, 1)
    with pytest.raises(
        TypeError, match=r"^conv\(\) got an unexpected keyword argument 'contract'$"
    ):
        function(x, kernel, contract=1)
