using PhotoFlux: data_loss, data_loss_gradient, decisions, loss_of, probabilities, targets

σ(z) = 1 / (1 + exp(-z))
const one_z, one_y = Float32[-2 0.5 3], Float32[0 1 0]
const many_z, many_y = randn(Xoshiro(1), Float32, 4, 3), targets(Int32[0, 3, 2], 4)
softmax_of(z) = exp.(Float64.(z)) ./ sum(exp.(Float64.(z)); dims=1)
const flat = ones(Float32, 1, 3)

# A dozen operations on numbers of order 1.
const rtol = 12 * eps(Float32)

@testset "formulas" begin
    p = σ.(Float64.(one_z))
    @test data_loss(loss_of("cross_entropy", 2), one_z, one_y, flat) ≈ -sum(one_y .* log.(p) .+ (1 .- one_y) .* log.(1 .- p)) / 3 rtol = rtol
    @test data_loss(loss_of("squared_error", 2), one_z, one_y, flat) ≈ 0.5 * sum((p .- one_y) .^ 2) / 3 rtol = rtol
    q = softmax_of(many_z)
    @test data_loss(loss_of("cross_entropy", 4), many_z, many_y, flat) ≈ -sum(many_y .* log.(q)) / 3 rtol = rtol
    @test data_loss(loss_of("squared_error", 4), many_z, many_y, flat) ≈ 0.5 * sum((q .- many_y) .^ 2) / 12 rtol = rtol
    weights = Float32[1 2 3]
    @test data_loss(loss_of("cross_entropy", 4), many_z, many_y, weights) ≈ -sum(weights .* many_y .* log.(q)) / 3 rtol = rtol
    @test data_loss(loss_of("cross_entropy", 4), many_z, many_y, flat) isa Float32
end

@testset "the written-out gradient is Zygote's, $name, $(size(z, 1)) outputs" for name in ("cross_entropy", "squared_error"),
    (z, y, classes) in ((one_z, one_y, 2), (many_z, many_y, 4))

    loss, weights = loss_of(name, classes), Float32[1 2 3]
    expected = only(PhotoFlux.Zygote.gradient(z -> data_loss(loss, z, y, weights), z))
    @test data_loss_gradient(loss, z, y, weights) ≈ expected rtol = 4 * rtol
    @test data_loss_gradient(loss, z, y, weights) isa Matrix{Float32}
end

@testset "large logits stay finite" begin
    @test data_loss(loss_of("cross_entropy", 2), Float32[500 -500], Float32[0 1], Float32[1 1]) ≈ 500
    @test data_loss(loss_of("cross_entropy", 3), Float32[500 0; 0 500], Float32[0 1; 1 0], Float32[1 1]) ≈ 500
end

@testset "probabilities and decisions" begin
    @test probabilities(many_z) ≈ softmax_of(many_z) rtol = rtol
    @test probabilities(one_z) ≈ σ.(one_z) rtol = rtol
    @test decisions(one_z) == [0, 1, 1]
    @test decisions(Float32[0 5; 9 1; 1 2]) == [1, 0]
    @test decisions(Float32[0;;]) == [0]  # as Keras' threshold: above, not at
end
