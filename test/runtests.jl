# Where `Pkg.test` looks; the tests are in `tests/julia`.
include("../tests/julia/runtests.jl")
