"""Real networks on real input, evaluated by jdeconv; each is run as `python -m docs.examples.NAME`."""
