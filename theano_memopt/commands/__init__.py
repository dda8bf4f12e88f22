"""The command line: `menu` lists the verbs and parses, `base` is what the verbs share, and each verb has a file of its own."""
