using PhotoFlux: kernels, outputs, inference

@testset "shapes of $(v.name), $classes classes" for v in variants(), classes in (2, 5)
    model = small_model(v; classes)
    z = model(pixels(v, 3))
    @test size(z) == (classes == 2 ? 1 : 5, 3)
    @test eltype(z) == Float32
    @test all(array -> eltype(array) == Float32, Flux.trainables(model))
    @test all(name -> iszero(model[name].bias), kernels(layers_of(v; classes)))
    dropouts = [model[name].p for name in keys(model) if model[name] isa Flux.Dropout]
    expected = v.architecture == "photo_cnn" ? [get(v.dropout, "pool", 0); get(v.dropout, "hidden", 0)] :
               fill(get(v.dropout, "hidden", 0), length(v.hidden))
    @test dropouts == filter(!iszero, Float32.(expected))
end

@testset "the photo CNN is the document's, $size_" for size_ in ((180, 180), (33, 20))
    w, h = size_
    model = build_model("dropout", (w, h, 3), 2)
    @test keys(model) == (:rescale, :conv1, :pool, :pool_dropout, :conv2, :conv3, :flatten, :dense1, :dense1_dropout, :output)
    features = (w ÷ 2) * (h ÷ 2) * 64
    @test size.(Flux.trainables(model)) == [(3, 3, 3, 16), (16,), (3, 3, 16, 32), (32,), (3, 3, 32, 64), (64,),
        (128, features), (128,), (1, 128), (1,)]
end

# A cross-correlation written out at one place, zero padding at a corner: 28 terms of magnitude ≤ 1, eps each.
@testset "convolution is cross-correlation with zero padding" begin
    model = small_model(variant("baseline"))
    x = rand(Xoshiro(2), Float32, 12, 10, 3, 1)
    y = model[:conv1](x)
    k, b = model[:conv1].weight, model[:conv1].bias
    at(i, j) = max(0, b[7] + sum(x[i + a, j + c, ch, 1] * k[a + 2, c + 2, ch, 7] for a in -1:1, c in -1:1, ch in 1:3
        if 1 <= i + a <= 12 && 1 <= j + c <= 10))
    @test all(((i, j),) -> isapprox(y[i, j, 7, 1], at(i, j); atol=28 * eps(Float32)), [(1, 1), (5, 4), (12, 10), (12, 1)])
end

@testset "Glorot-uniform limits" begin
    model = build_model("baseline", (40, 40, 3), 2; rng=Xoshiro(1))
    for (name, fans) in (:conv1 => 9 * (3 + 16), :conv3 => 9 * (32 + 64), :dense1 => 20 * 20 * 64 + 128)
        limit = sqrt(6 / fans)
        extreme = maximum(abs, model[name].weight)
        @test 0.95 * limit < extreme <= limit * (1 + eps(Float32))
    end
end

@testset "Glorot's numbers are Flux's, $dims" for dims in ((7, 5), (3, 3, 2, 4))
    @test PhotoFlux.glorot(Xoshiro(1))(dims...) == Flux.glorot_uniform(Xoshiro(1), dims...)
end

@testset "one generator fixes the weights" begin
    make(seed) = arrays(build_model("l2", (12, 10, 3), 2; rng=Xoshiro(seed)))
    @test make(1) == make(1)
    @test make(1)[1] != make(2)[1]
end

@testset "inference shares the weights and leaves the model alone" begin
    model = Flux.trainmode!(small_model(variant("dropout")))
    undropped = inference(model)
    @test all(a === b for (a, b) in zip(Flux.trainables(model), Flux.trainables(undropped)))
    @test !any(layer isa Flux.Dropout for layer in undropped.layers)
    @test model[:dense1_dropout].active
end

@test_throws "`input` must be" build_model("l2", (1, 10, 3), 2)
@test_throws "`classes` must be 2 or more; received: 1" build_model("l2", (10, 10, 3), 1)
