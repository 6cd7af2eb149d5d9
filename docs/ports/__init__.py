"""The same computation in another library and in jdeconv, one file each, shown and run by a tutorial."""
