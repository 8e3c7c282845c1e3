using PhotoFlux: Proximal, proximal_steps!

# keras/src/optimizers/adam.py in Float64, written out.
function keras_adam(w, gradients; η=0.001, β₁=0.9, β₂=0.999, ϵ=1e-7)
    m, v, w = zero(w), zero(w), copy(w)
    for (t, g) in enumerate(gradients)
        @. m += (g - m) * (1 - β₁)
        @. v += (g^2 - v) * (1 - β₂)
        α = η * sqrt(1 - β₂^t) / (1 - β₁^t)
        @. w -= m * α / (sqrt(v) + ϵ)
    end
    return w
end

function steps(rule, w, gradients)
    state, w = Optimisers.setup(rule, w), copy(w)
    for g in gradients
        state, w = Optimisers.update!(state, w, copy(g))
    end
    return w
end

const W = randn(Xoshiro(1), Float32, 20)
# From far below ϵ to far above it, where the place of ϵ shows.
const G = [randn(Xoshiro(10 + t), Float32, 20) .* exp10.(range(-9, 1, 20)) for t in 1:30]

@testset "is Keras' formula" begin
    # A step is at most about η; 1 − β₂ᵗ loses eps/(1 − β₂) ≈ 6e-5 of itself in Float32, its root half of that.
    w = keras_adam(Float64.(W), G)
    @test maximum(abs, steps(KerasAdam(0.001), Float32.(W), map(g -> Float32.(g), G)) .- w) <= 30 * (0.001 * 6e-5 + 2 * eps(Float32))
    # In Float64 the two differ by rounding only.
    @test steps(KerasAdam(0.001), Float64.(W), G) ≈ w rtol = 1e-12
end

@testset "is not Optimisers' form, whatever the ϵ" begin
    w = steps(KerasAdam(0.001), Float64.(W), G)
    @test all(ϵ -> !isapprox(steps(Optimisers.Adam(0.001, (0.9, 0.999), ϵ), Float64.(W), G), w; rtol=1e-6), (1e-7, 1e-8, 1e-6))
end

@testset "works as a rule of Optimisers" begin
    model = small_model(variant("baseline"))
    state = Optimisers.setup(KerasAdam(0.1), model)
    x = pixels(variant("baseline"), 2)
    gradient = only(Flux.gradient(m -> sum(m(x)), model))
    before = arrays(model)
    Optimisers.adjust!(state, 0.0)
    Optimisers.update!(state, model, gradient)
    @test arrays(model) == before
    Optimisers.adjust!(state, 0.1)
    Optimisers.update!(state, model, gradient)
    @test arrays(model) != before
    @test all(array -> eltype(array) == Float32, Flux.trainables(model))
    @test state.layers.conv1.weight.state[3] == 2
end

# The pass over weight, gradient and moments at once, against the rule and the penalty's own functions, bit for bit:
# whole and in blocks, at lengths that are no multiple of anything.
@testset "the fused pass is the rule, $p, $n weights" for p in (NoPenalty(), L1(0.3), L2(0.3), ElasticNet(0.1, 0.2), Proximal(L1(0.3)),
        Proximal(ElasticNet(0.1, 0.2))), n in (1, 17, 20_001)
    random(seed) = randn(Xoshiro(seed), Float32, n)
    w = random(1)
    fused, leaf = copy(w), Optimisers.setup(KerasAdam(0.01), w)
    state, ruled = Optimisers.setup(KerasAdam(0.01), w), copy(w)
    for t in 1:3
        g, before = random(10 + t), copy(fused)
        value = PhotoFlux.apply_gradient!(PhotoFlux.AdamStep(leaf, p), fused, g)
        @test value isa Float32
        # Blocks of 8192 terms, each in a few lanes.
        @test value ≈ p(before) rtol = 20 * eps(Float32)
        state, ruled = Optimisers.update!(state, ruled, PhotoFlux.add_gradient!(copy(g), p, ruled))
        proximal_steps!((; layers=(; layer=(; weight=ruled))), (; layers=(; layer=(; weight=state))), [:layer => p])
        @test fused == ruled
        @test n < 1000 || any(iszero, fused) == (p isa Proximal)
    end
    @test leaf.state[1] == state.state[1] && leaf.state[2] == state.state[2] && leaf.state[3] == 3
end

# ProxGen in Float64, written out: the proximal point of λ₁·|w| in the metric of Adam's step.
@testset "a proximal step is that of the metric, $λ₁" for λ₁ in (0.01, 0.3)
    w, g = randn(Xoshiro(1), 50), randn(Xoshiro(2), 50) .* exp10.(range(-6, 0, 50))
    fused = Float32.(w)
    leaf = Optimisers.setup(KerasAdam(0.01), fused)
    PhotoFlux.apply_gradient!(PhotoFlux.AdamStep(leaf, Proximal(L1(λ₁))), fused, Float32.(g))
    α, root = 0.01 * sqrt(0.001) / 0.1, sqrt(0.001) .* abs.(g) .+ 1e-7
    after = @. w - α * 0.1 * g / root
    # The point that makes |z − after|²·root/2α + λ₁|z| least: against its neighbours, and 0.
    objective(z, i) = (z - after[i])^2 * root[i] / 2α + λ₁ * abs(z)
    for i in eachindex(w)
        z = Float64(fused[i])
        @test all(objective(z, i) <= objective(other, i) + 1e-6 for other in (0.0, z + 1e-2, z - 1e-2, after[i]))
    end
    @test count(iszero, fused) > 5
end
