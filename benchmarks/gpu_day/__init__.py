"""Everything that is unmeasured on an NVIDIA GPU, by one command: `python -m benchmarks.gpu_day`.

In: a card, and minutes. Out: a line of JSON for each result as it comes, and a page of them.
`__main__.py` is the command, `parts.py` says what is measured and in which order, `runner.py` asks
a part's worker (the other modules, each a process of its own), `page.py` writes the page.
"""
