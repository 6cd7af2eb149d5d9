"""What is timed, against whom, and how: the rooms behind `python -m jdeconv bench`.

cases     the work: layers, transformed layers, training steps; arrays in, arrays out
models    the networks of the training steps
peers     who does the work: jdeconv, jax.lax, equinox, torch
machine   what the machine could do: peak of dot, bandwidth of copy
timing    results compared, then times taken in turn
report    table, JSON, chart, README's tables
suite     a run of all that

Three rooms have commands of their own: `switch`, existing models through `jdeconv.accelerate`; `tpu`, what a
TPU's compiler expects; and `numerics`, how far results are from exact ones, on the convolutions of `draws`.
"""
