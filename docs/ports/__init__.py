"""The same computation in a framework and in jdeconv: two functions a file, shown and run by the tutorial."""
