"""What XLA is told where tests ask for behaviour, not for speed."""

# A CPU's fusion emitters and LLVM's optimiser are most of the time that compiling takes.
COMPILES_FASTER = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
