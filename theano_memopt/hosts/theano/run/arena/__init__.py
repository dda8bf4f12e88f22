"""One block for all intermediates of a function (call.py has the words and the picture)."""
