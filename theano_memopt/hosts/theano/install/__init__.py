"""Before and right after `import theano`: what it needs on this machine, and where the pass hooks in."""
