using PhotoFlux: logits

const v = variant("dropout")
const data = data_of(v)
const model = small_model(v)

@testset "dropout is off in whatever mode the model was left" begin
    quiet = logits(Flux.testmode!(model), data.images)
    Flux.trainmode!(model)
    @test logits(model, data.images) == quiet
    @test predict(model, data.images) == predict(Flux.testmode!(model), data.images)
    Flux.trainmode!(model)
    @test model(Float32.(data.images)) != model(Float32.(data.images))  # it is on, were it asked for
    @test model[:dense1_dropout].active
end

# The same sums in other blocks of a matrix product: features × eps relative to the terms.
@testset "batches of any size agree" begin
    whole = logits(model, data.images; batch_size=48)
    @test size(whole) == (1, 48)
    @test all(n -> isapprox(logits(model, data.images; batch_size=n), whole; atol=1e-5), (1, 7, 100))
    @test size(logits(model, data.images[:, :, :, 1:0])) == (1, 0)
    @test_throws "`batch_size` must be 1 or more; received: 0" logits(model, data.images; batch_size=0)
end

@testset "probabilities, $classes classes" for classes in (2, 3)
    p = predict(small_model(v; classes), data.images)
    @test size(p) == (classes, 48)
    @test all(≈(1), sum(p; dims=1))
    classes == 2 && @test p[2, :] ≈ 1 ./ (1 .+ exp.(-vec(logits(model, data.images))))
end

@testset "evaluate, counted by hand, $classes classes" for classes in (2, 3)
    w = variant("l2")
    data, model = data_of(w; classes), small_model(w; classes)
    result = evaluate(model, data, w; part=:validation, batch_size=3)
    chosen = indices(data, :validation)
    p = predict(model, data.images[:, :, :, chosen])
    truth, taken = data.labels[chosen] .+ 1, [argmax(column) for column in eachcol(p)]
    @test result.accuracy == sum(truth .== taken) / length(chosen)
    @test result.confusion == [count((truth .== i) .& (taken .== j)) for i in 1:classes, j in 1:classes]
    @test isequal(result.recall, [count((truth .== k) .& (taken .== k)) / count(truth .== k) for k in 1:classes])
    @test isequal(result.precision, [count((truth .== k) .& (taken .== k)) / count(taken .== k) for k in 1:classes])
    @test result.loss ≈ -sum(log(p[t, n]) for (n, t) in enumerate(truth)) / length(truth) rtol = 1e-5
    @test result.total == result.loss + result.penalty
    @test result.penalty ≈ 0.01 * sum(sum(abs2, model[k].weight) for k in (:conv1, :conv2, :conv3, :dense1)) rtol = 1e-5
end

@testset "what does not fit" begin
    empty = PreparedDataset(data.images, data.labels, zeros(UInt8, 48), data.classes, "empty", "")
    @test_throws "The part :test of empty has no images" evaluate(model, empty, v)
    @test_throws DimensionMismatch evaluate(model, data_of(v; classes=3), v)
end
