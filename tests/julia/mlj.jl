# The interface that MLJ asks for, by MLJBase, where it is installed.
if !any(module_ -> nameof(module_) === :MLJBase, values(Base.loaded_modules))
    @testset "without MLJ it says what to load" begin
        @test_throws "Load it first: `using MLJ`" PhotoFluxClassifier(variant="l2")
    end
end

if Base.find_package("MLJBase") === nothing
    @info "MLJBase is not installed: the tests of PhotoFluxClassifier did not run."
else
    Base.include(@__MODULE__, joinpath(@__DIR__, "mlj_interface.jl"))
end
