"""Real networks on real input, evaluated by jdeconv; each is a script, run as `python -m examples.NAME`."""
