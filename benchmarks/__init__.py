"""What is timed, against whom, and how: the rooms behind `python -m jdeconv bench`.

cases     the work: layers, transformed layers, training steps; arrays in, arrays out
models    small networks for the training steps
networks  whole networks, in the sizes in which they are trained
peers     who does the work: jdeconv, jax.lax, equinox, torch
machine   what the machine could do: peak of dot, bandwidth of copy
timing    results compared, then times taken in turn
report    table, JSON, chart, README's tables
suite     a run of all that

Four rooms have commands of their own: `switch`, existing models through `jdeconv.accelerate`; `tpu`, what a
TPU's compiler expects; `gpu`, what an H100 would run, as `h100` compiles it and `hlo` reads it, or, by
`gpu_times`, how long it takes where there is one; and `numerics`, how far results are from exact ones, on the
convolutions of `draws`.
"""
