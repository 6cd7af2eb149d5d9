"""The commands behind `python -m jdeconv`, one file each."""
