"""One server for one model: a JSON API and a page that asks it: `--mode=serve`, docs/serve.md.

page/*.html|css|js ◀─▶ app (routes, behind `door` and its `guard`) ─▶ desk (who works on what)
schema (questions, answers) ─┘   sessions (open pictures) ◀─┤  └─▶ batcher (rows together)
                                        masks (JSON of answers) ◀─┘       └─▶ Segmenter

In: requests of programs and browsers. Out: JSON, masks, word maps. Read `app`; `server` starts it
and `warm` compiles ahead. Needs FastAPI and uvicorn, the extra `demo`. What the pages load lies in
`page/` and in the package `fastapi_offline`: they work without a network. No request can name a
file of this machine, but where `--allow_swap` lets one name a model.
"""
