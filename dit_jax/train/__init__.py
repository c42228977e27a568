"""Training, from a config to a model directory: `--mode=train`, `eval` and `probe`.

In: a config and a workdir. Out: checkpoints, scores, pictures, the best model. Read `run`, which
makes a run's parts of its config once (`sources`, `model`, `scoring`, `optim`), then `loop`, then
`step`, the arithmetic of one step on a `state` (`abstract`: its shapes), and `objective`, what it
minimises: of points and boxes, `interactive` with `clicks`, which `pointing` scores. `checkpoint`
and `checksums` make it exact on resume, `stop` and `workdir` guard its folder; `trained` reads a
finished one, `probing` asks it. `placement/` says what lies on which device, `logs/` what a run
says of itself.
"""
