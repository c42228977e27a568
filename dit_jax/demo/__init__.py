"""A local web page for one model: `--mode=demo`, docs/see.md.

page/*.html|css|js ◀─▶ app (routes, behind `guard`) ─▶ sessions (kept open) ─▶ Segmenter, explain
                                                  └─▶ replies (JSON of an answer, of a word map)

In: a browser's requests. Out: JSON, masks, word maps. Read `app`; `server` starts it and `warm`
compiles ahead. Needs Flask and waitress, the extra `demo`. Everything the page loads lies in
`page/`: it works without a network. No request can name a file of this machine.
"""
