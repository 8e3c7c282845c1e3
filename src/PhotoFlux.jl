# Julia 1.10 looks for a package's entry here and knows no `entryfile`; the source is in `julia/`.
include("../julia/PhotoFlux.jl")
