# Run by pytest (tests/python/test_julia.py) and by `Pkg.test`. With names as arguments, only those files.
using Test

const FILES = ["random", "penalties", "variants", "layers", "kernels", "threads", "pooling", "conv", "models", "networks", "adam", "step", "datasets", "observations", "augment", "batches", "losses", "devices",
    "weights", "hostile", "evaluation", "training", "checkpoints", "callbacks", "seen", "runs", "backbone", "transfer", "tail", "finetuning", "trace", "quality", "types", "structure", "precompile", "mlj", "invalidation"]

# Each file in a module of its own, so that no file lives on what another defined.
function run_file(name)
    scope = Module(Symbol("test_", name))
    Core.eval(scope, quote
        using PhotoFlux, Test
        using PhotoFlux: Flux, Optimisers
        using Random: Xoshiro
    end)
    Base.include(scope, joinpath(@__DIR__, "fixtures.jl"))
    Base.include(scope, joinpath(@__DIR__, "$name.jl"))
end

@testset verbose = true "PhotoFlux" begin
    @testset "$name" for name in (isempty(ARGS) ? FILES : ARGS)
        run_file(name)
    end
end
