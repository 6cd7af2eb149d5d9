"""Faults that the quick tests must notice.

As a program it runs the quick tests on a copy of this tree, and then on a copy with each fault:

    python tests/faults.py            all of them, about 25 minutes on two cores
    python tests/faults.py psum tap   those whose names hold one of these words, about 4 minutes
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".?*", "_build", "__pycache__", "*.egg-info", "build", "dist")


@dataclass(frozen=True)
class Fault:
    """One change of one file that makes the library wrong.

    Args:
      name: what is wrong.
      file: the file, from the top of the tree.
      old, new: the text that is replaced, which stands in the file once, and what replaces it.
      likely: the test files that are run before the others.
    """

    name: str
    file: str
    old: str
    new: str
    likely: str

    def plant(self, root: Path) -> None:
        """Change the file below `root`."""
        path = root / self.file
        path.write_text(path.read_text().replace(self.old, self.new))


def parsed(text: str) -> tuple[Fault, ...]:
    """The faults in a text that has a paragraph for each.

    In its first line stands the name, in the second the file and what is likely; then the text that is
    replaced behind "- ", and what replaces it behind "+ ".
    """
    faults = []
    for paragraph in re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip().split("\n\n"):
        name, where, *lines = paragraph.strip().split("\n")
        file, likely = where.split(": ")
        old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
        faults.append(Fault(name, file, old, new, likely))
    return tuple(faults)


FAULTS = parsed(r"""
# Geometry and arguments.
the odd cell of SAME padding on the wrong side
jdeconv/window.py: window lax
- low = total // 2 if pads == "SAME"
+ low = total // 2 if pads != "SAME"

a remainder of the stride is lost
jdeconv/window.py: window identity
- return tuple(full - low - big for
+ return tuple(max(full - low - big, 0) for

an output_padding of a whole stride passes
jdeconv/window.py: window errors
- base, base + max(s, d) - 1
+ base, base + max(s, d)

True passes for an int
jdeconv/checks.py: invalid errors
- if number is None or isinstance(value, bool):
+ if number is None:

arrays that no memory holds pass
jdeconv/checks.py: invalid errors window
- > MOST or math.prod(space) > MAX_CELLS:
+ > MOST:

spatial axes follow x's letters and not the kernel's
jdeconv/form.py: arguments
- for letter in specs["kernel"] if letter not in "OI"
+ for letter in specs[roles[0]] if letter not in "NC"

the batch axis that is taken off is always the first
jdeconv/arguments.py: arguments
- jnp.squeeze(found, batch_axis)
+ jnp.squeeze(found, 0)

preferred_element_type is ignored
jdeconv/arguments.py: arguments
-             return wanted
+             return dtype

half precision adds up in half precision
jdeconv/form.py: arguments nonfinite
- return np.dtype("float32") if narrow else np.dtype(dtype)
+ return np.dtype(dtype)

# Differentiation and vmap.
deconv's kernel gradient is twice what it is
jdeconv/pair.py: transformations
- primitives.kernel_grad(x_bar, y, form
+ primitives.kernel_grad(x_bar, 2 * y, form

the transpose of kernel_grad has the wrong sign in y
jdeconv/pair.py: transformations
- primitives.conv(x, kernel_bar, form
+ primitives.conv(-x, kernel_bar, form

vmap puts the mapped axis outside of the groups
jdeconv/primitives.py: transformations
- INDICES[role][which].index(index) == 1
+ INDICES[role][which].index(index) == 2

# Forms for a vendor.
phases of a dilation go in the array's order, not the window's
jdeconv/lowerings/cudnn.py: lowerings
- for other in space) for axis in space]
+ for other in space) for axis in sorted(space)]

# Meshes.
the psum of a kernel's gradient is dropped
jdeconv/mesh.py: mesh
-             elif summed:
+             elif False:

space on an automatic mesh is gathered
jdeconv/mesh.py: mesh
- f"q{i}" if less(1, size) else None
+ None

what XLA leaves behind the end of an uneven shard is added up
jdeconv/mesh.py: mesh
- if names and size % lax.axis_size(names):
+ if False:

devices send their halos in the order of the names and not of the mesh
jdeconv/exchange.py: halo mesh
- (number[source % count], number[r])
+ (source % count, r)

halos go around the end of the mesh
jdeconv/exchange.py: halo
- for r in range(count) if wraps or 0 <= r + hop < count]
+ for r in range(count)]

a halo of several shards comes from the nearest
jdeconv/exchange.py: halo
- pairs = [(r + hop, r)
+ pairs = [(r + max(-1, min(hop, 1)), r)

reflect padding of a shard lacks what it mirrors
jdeconv/exchange.py: halo
- before, behind = max(before, behind - size + 1), max(behind, before - size + 1)
+ pass

# Lowerings.
pieces overwrite what others have added
jdeconv/evaluate.py: lowerings
- sums = result.piece(total, step[0]) + contracted(step).astype(p.wide)
+ sums = contracted(step).astype(p.wide)

large images are no longer cut into slabs
jdeconv/evaluate.py: memory
- MAX_BYTES = 32 * MIB
+ MAX_BYTES = MIB * MIB

slabs forget the padding before x
jdeconv/evaluate.py: lowerings
- p.window.stride[index], p.window.low[index]
+ p.window.stride[index], 0

a gap between the phases of a stride
jdeconv/im2col.py: identity
- length * phases - w.low[i] - w.big[i])
+ length * phases - w.big[i])

the dilation of many taps is lost
jdeconv/im2col.py: identity
- r * step + q
+ r + q

groups lie inside of the channels
jdeconv/lowerings/im2col.py: identity
- {"columns": "gc t n q"
+ {"columns": "cg t n q"

the last tap is lost
jdeconv/lowerings/taps.py: lowerings
- yield channel, zip(taps, row, strict=True)
+ yield channel, list(zip(taps, row, strict=True))[: len(taps) - 1 or 1]

the kernel is flipped
jdeconv/lowerings/nhwc.py: lowerings
- lax.optimization_barrier(jnp.flip(kernel, range(w.rank)))
+ lax.optimization_barrier(kernel)

a kernel's gradient of few images is XLA's convolution
jdeconv/lowerings/nhwc.py: lowerings
- images >= (1 if is_middle else MIN_IMAGES)
+ images >= 1

a large matrix is left at the beginning of a product
jdeconv/lowerings/im2col.py: lowerings
- return summed * rows > columns * (summed + rows)
+ return False

XLA moves a transpose into the product
jdeconv/lowerings/im2col.py: lowerings
- else written(b.T)[0]
+ else b.T

the gradient of x is read as a conv
jdeconv/xla.py: accelerate lowerings
- elif steady and self._has_exchanged_channels:
+ elif not dense:

backward-input loses the mark that vendors look for
jdeconv/lowerings/vendor.py: gpu_forms
-         kernel = lax.optimization_barrier(kernel)
+         kernel = kernel * 1

reflected copies begin a cell too late
jdeconv/padding.py: identity
- max(2 * (size - 1), 1)  # and back
+ max(2 * size - 1, 1)  # and back

# Adapters.
accelerate forgets the dilation of a mirrored padding
jdeconv/xla.py: compat_lax
- low = tuple((k - 1) * d - low for
+ low = tuple((k - 1) - low for

torch's groups and dilation are swapped
jdeconv/compat/torch/convolutions.py: compat_torch compat_values
-         groups: int = 1,
-         dilation: Ints = 1,
+         dilation: Ints = 1,
+         groups: int = 1,

diffs of Caffe's weights no longer accumulate
jdeconv/compat/caffe/convolution.py: compat_caffe
- diffs[0] = diffs[0] + self.weight_gemm(bottom, top_diff)
+ diffs[0] = self.weight_gemm(bottom, top_diff)

# Readers of files, and the commands.
a caffemodel's reader trusts the length that the file names
jdeconv/compat/caffe/weights.py: compat_caffe files
- if self.sizes != needed or self.values.size != np.prod(needed, dtype=object):
+ if self.sizes != needed:

Caffe's gradients are clipped after their weight decay
jdeconv/compat/caffe/solver.py: caffe_solver
-     if solver.clip_gradients >= 0:
+     if solver.clip_gradients >= 0 and not solver.weight_decay:

the learning rate lies outside of the momentum
jdeconv/compat/caffe/solver.py: caffe_solver
-     v = rate * g + s.momentum * v
-     return v, v
+     v = g + s.momentum * v
+     return rate * v, v

all blocks of a filler hold the same numbers
jdeconv/fillers.py: fillers
- jax.random.fold_in(key, index)
+ jax.random.fold_in(key, 0 * index)

check hides what it found
jdeconv/cli/check.py: cli
- return min(failures, 1)
+ return 0

# Ten that whoever chose the quick tests did not know.
fft takes every transform for one of even length
jdeconv/lowerings/fft.py: lowerings numerics
- jnp.fft.irfftn(product, lengths, tuple(range(FIRST, product.ndim)))
+ jnp.fft.irfftn(product, axes=tuple(range(FIRST, product.ndim)))

the vendor's convolutions forget the precision that was asked for
jdeconv/lowerings/vendor.py: arguments
-         precision=p.precision,

a reflecting padding that crops in front takes the cells off behind
jdeconv/padding.py: identity arguments
- (max(low, 0), max(high, 0)), max(-low, 0)
+ (max(low, 0), max(high, 0)), 0

channels are divided among devices where their groups do not divide
jdeconv/mesh.py: mesh sharding
- whole.get(letter, array.shape[axis])
+ array.shape[axis]

what halos add up is rounded to half precision before the sum is at its end
jdeconv/halo.py: halo sharding
- wide = accumulator(dtype)
+ wide = dtype

keras's same padding shifts a deconv whose stride is larger than its kernel
jdeconv/compat/keras.py: compat_keras compat_values
- low = max(span - 1 - -(-around // 2), 0)
+ low = span - 1 - -(-around // 2)

a custom backward pass keeps XLA's convolutions
jdeconv/accelerate.py: accelerate
-         params["bwd"] = params["bwd"].wrap(_rule_accelerated, (), None)

a shared blob is looked up by its index in the layer, not by where its owner keeps it
jdeconv/compat/caffe/plan.py: compat_caffe files
- self._owners[shared] = (step.name, len(kept))
+ self._owners[shared] = (step.name, index)

# Layers.
the groups of a reversed kernel stay with its outputs
jdeconv/layers/reading.py: layers_nnx layers_equinox
- regrouped(jnp.flip(kernel, space), groups,
+ regrouped(jnp.flip(kernel, space), 1,

a tied layer of Flax forgets the mask of its conv
jdeconv/layers/nnx.py: layers_nnx
- layer.kernel[...] if layer.mask is None else layer.kernel[...] * layer.mask
+ layer.kernel[...]

output_padding adds to a size by name, where Equinox subtracts it
jdeconv/layers/equinox.py: layers_equinox
- [i * s - less for i, s, less in axes]
+ [i * s for i, s, _ in axes]

assert_adjoint lets NaN pass
jdeconv/testing.py: testing
- if not abs(left.sum() - right.sum()) <= rtol * scale:
+ if abs(left.sum() - right.sum()) > rtol * scale:

the filling behind an odd number of float16 weights is not passed over
docs/examples/ncnn_model.py: examples
- self._take(count + count % 2, "<f2")[:count].astype(np.float32)  # 4-byte aligned
+ self._take(count, "<f2").astype(np.float32)
""")


def copied(folder: Path) -> Path:
    """A copy of the tree in `folder`."""
    return Path(shutil.copytree(ROOT, folder / "tree", ignore=LEFT_OUT))


def pytest(root: Path, *arguments: str) -> tuple[bool, str]:
    """Whether these tests of the tree pass, and the first that does not."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--ignore=tests/test_faults.py"]  # which misses the text that a fault replaces
    environment = os.environ | {"PYTHONPATH": str(root)}
    run = subprocess.run(
        [*command, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    # 5: all tests of these files were skipped. 1 without a failed test: there is no pytest, say.
    if run.returncode not in (0, 1, 5) or (run.returncode == 1 and not failed):
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.returncode != 1, failed[1] if failed else ""


def noticed_by(fault: Fault) -> str:
    """The test that notices the fault; empty if the quick tests pass with it."""
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder))
        fault.plant(root)
        likely = [f"tests/test_{name}.py" for name in fault.likely.split()]
        for arguments in (likely, []):
            passed, test = pytest(root, "-n", "0", *arguments)
            if not passed:
                return test
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Plant the faults; 1 if one goes unnoticed, 2 if the tests fail without any."""
    summary, _, usage = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="*", help="try only the faults whose names contain one of these words"
    )
    words = parser.parse_args(arguments).words
    chosen = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    if not chosen:
        parser.error(f"no fault's name holds {' or '.join(words)}")
    start, unnoticed = time.perf_counter(), 0
    print("the quick tests without a fault, about 3 minutes ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        passed, test = pytest(copied(Path(folder)))
    if not passed:
        print(f"{test} fails without any fault, so it would tell nothing", file=sys.stderr)
        return 2
    print(f"passed; {len(chosen)} with a fault each ...", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for fault, test in zip(chosen, pool.map(noticed_by, chosen), strict=True):
            unnoticed += not test
            print(f"{fault.name}: {f'noticed by {test}' if test else 'NOT NOTICED'}", flush=True)
    minutes = (time.perf_counter() - start) / 60
    print(f"{len(chosen)} faults, {unnoticed} not noticed, in {minutes:.1f} minutes")
    return min(unnoticed, 1)


if __name__ == "__main__":
    sys.exit(main())
