"""The same computation in a framework and in jdeconv: a file each, shown and run by the tutorial."""
