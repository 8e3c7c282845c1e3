# Last, because it slows down what comes after it. MLDatasets and others define such methods, which throw away compiled
# code; on Julia 1.12 the halves of a pullback that was compiled in part before and in part after did not fit each other.
struct Foreign end
Base.getproperty(::Type{Foreign}, name::Symbol) = getfield(Foreign, name)

@testset "training after another package's methods, $name" for name in ("mlp", "dense_dropout", "l2")
    v = variant(name)
    run = train(v, data_of(v; classes=3); epochs=4, batch_size=8, learning_rate=0.003)
    @test run.history[end].train_total < run.history[1].train_total
end
