"""One run: build, train, score, write."""
