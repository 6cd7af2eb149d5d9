"""What is timed, against whom, and how: the files behind `python -m benchmarks`.

cases     the work: layers, transformed layers, training steps; arrays in, arrays out
models    small networks for the training steps
peers     who does the work: jdeconv, jax.lax, equinox, torch
machine   what the machine could do: peak of dot, bandwidth of copy
timing    results compared, then times taken in turn
report    table, JSON, chart, README's tables
suite     a run of all that
chart     README's chart of the committed run, a command too

Each of these is a command, such as `python -m benchmarks.gpu`:

networks  times the networks of architectures through `jdeconv.accelerate`, in jax.lax and in torch, and through
          the package of an earlier commit, by earlier; ratios makes the table
switch    existing models through `jdeconv.accelerate`
tpu       what a TPU's compiler expects
gpu       what an H100 would run of tasks: h100 compiles it, hlo reads it; gpu_times times it on a GPU
gpu_meshes  what eight H100s would send one another
lines     how many lines of code there are
"""
