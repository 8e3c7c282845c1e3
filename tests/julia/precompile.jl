# PrecompileTools of Julia 1.10 and 1.11 evaluates a package's workload among the package's globals: what it assigned to would be
# one of these, or of Base, which is an error. Here as there, and with each name of Base that it could mean taken by Base.
@testset "the workload makes no globals" begin
    scope = Module(:Workload)
    Core.eval(scope, quote
        using PhotoFlux, Random
        using PhotoFlux: BACKBONE_FORMAT, CHECKPOINTS, JSON, LANES, NPY_CODES, NullLogger, as_dict, engine_activations, engine_backbone, engine_features!, engine_fit,
            engine_load, engine_logits!, outputs, takes_features, with_logger, write_arrays
        macro setup_workload(code)
            esc(code)
        end
        macro compile_workload(code)
            esc(code)
        end
    end)
    foreach(name -> isdefined(scope, name) && Core.eval(scope, name), filter(Base.isidentifier, names(Base)))
    before = names(scope; all=true)
    Base.include(scope, joinpath(pkgdir(PhotoFlux), "julia", "precompile.jl"))
    made = filter(name -> !startswith(string(name), '#'), setdiff(names(scope; all=true), before))
    @test made == [:write_prepared, :write_small_backbone]
end
